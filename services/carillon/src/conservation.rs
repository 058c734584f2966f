//! `carillon conservation`: whether everything that was accepted is accounted for.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use crate::{
    cli::{Output, Server, moment},
    client::{Client, items, with_query},
    output::{table, text},
};

#[derive(Debug, Args)]
pub(crate) struct Conservation {
    /// Counts what was accepted before: a time (RFC 3339), or how long ago, such as `2h`; a minute ago
    /// if left out, since what is younger may still be on its way.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<String>,
    /// With the installation's operator key: only this tenant.
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    server: Server,
}

/// Shows the balance; fails unless it is even.
pub(crate) async fn run(options: Conservation, output: Output) -> anyhow::Result<ExitCode> {
    let path = with_query("/v1/conservation", [("until", options.until), ("tenant", options.tenant)]);
    let balance = Client::new(&options.server)?.get(&path).await?;
    match output {
        Output::Json => println!("{balance}"),
        Output::Text => print!("{}", shown(&balance)),
    }
    Ok(if is_even(&balance) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// An answer that does not say so is not even.
pub(crate) fn is_even(balance: &Value) -> bool {
    balance["missing"].as_u64() == Some(0) && balance["surplus"].as_u64() == Some(0)
}

fn shown(balance: &Value) -> String {
    let until = text(&balance["until"]);
    if items(balance).is_empty() {
        return format!("nothing was accepted before {until}\n");
    }
    let mut rows =
        vec![["TENANT", "RECIPIENTS", "DECIDED", "MISSING", "IN FLIGHT", "DELIVERIES"].map(str::to_owned).to_vec()];
    for item in items(balance) {
        let number = |name: &str| item[name].to_string();
        let mut row = vec![text(&item["tenant"]).to_owned()];
        row.extend(["recipients", "decided", "missing", "in_flight"].map(number));
        let mut channels = item["channels"].as_object().into_iter().flatten().map(|(channel, states)| {
            let states = states.as_object().into_iter().flatten().map(|(state, count)| format!("{state} {count}"));
            format!("{channel}: {}", states.collect::<Vec<_>>().join(", "))
        });
        row.push(channels.next().unwrap_or_default());
        rows.push(row);
        for more in channels {
            rows.push([vec![String::new(); 5], vec![more]].concat());
        }
    }
    let said = match (balance["missing"].as_u64(), balance["surplus"].as_u64()) {
        (Some(0), Some(0)) => "nothing is missing".to_owned(),
        (Some(0), surplus) => {
            format!(
                "{} decisions have no request: did the indexer give a record up? `carillon dead list --stage indexer`",
                surplus.unwrap_or(0)
            )
        }
        (missing, _) => format!(
            "{} recipients are missing: nobody decided over them. Is the router running and not behind (`carillon doctor`)? \
             Did it give records up (`carillon dead list`)?",
            missing.unwrap_or(0)
        ),
    };
    format!("{}accepted before {until}: {said}\n", table(&rows))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_balance_is_even_or_says_what_is_not() {
        let balance = |missing: u64, surplus: u64| {
            json!({"until": "T", "missing": missing, "surplus": surplus, "items": [{"tenant": "acme", "recipients": 3, "decided": 3 - missing,
                "missing": missing, "in_flight": 1, "channels": {"email": {"queued": 1, "sent": 1}, "webhook": {"failed": 1}}}]})
        };
        assert!(
            is_even(&balance(0, 0)) && !is_even(&balance(1, 0)) && !is_even(&balance(0, 1)) && !is_even(&json!({}))
        );
        assert_eq!(
            shown(&balance(0, 0)),
            "TENANT  RECIPIENTS  DECIDED  MISSING  IN FLIGHT  DELIVERIES\n\
             acme    3           3        0        1          email: queued 1, sent 1\n\
             \u{20}                                                webhook: failed 1\n\
             accepted before T: nothing is missing\n"
        );
        assert!(shown(&balance(2, 0)).contains("2 recipients are missing"));
        assert!(shown(&balance(0, 1)).contains("1 decisions have no request"));
    }
}
