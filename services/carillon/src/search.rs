//! `carillon search` and `carillon why`: what became of deliveries, and the reason in words.

use domain::{NotificationId, Reason, State};
use serde_json::Value;

use crate::{
    cli::{Output, Search},
    client::{Client, items, with_query},
    output,
};

/// One page of a search.
pub(crate) async fn run(options: Search, output: Output) -> anyhow::Result<()> {
    let limit = options.limit.to_string();
    let given = [
        ("user", options.user),
        ("notification", options.notification),
        ("channel", options.channel),
        ("provider", options.provider),
        ("template", options.template),
        ("q", options.text),
        ("state", options.state),
        ("reason", options.reason),
        ("category", options.category),
        ("since", options.since),
        ("until", options.until),
        ("limit", Some(limit)),
        ("cursor", options.cursor),
    ];
    let page = Client::new(&options.server)?.get(&with_query("/v1/deliveries", given)).await?;
    if output == Output::Json {
        println!("{page}");
        return Ok(());
    }
    let mut rows = vec![["ACCEPTED", "NOTIFICATION", "USER", "CHANNEL", "STATE", "REASON"].map(str::to_owned).to_vec()];
    for d in items(&page) {
        let cell = |name: &str| d[name].as_str().unwrap_or("-").to_owned();
        rows.push(["accepted_at", "notification", "user", "channel", "state", "reason"].map(cell).to_vec());
    }
    if rows.len() == 1 {
        println!("no delivery matches");
    } else {
        print!("{}", output::table(&rows));
    }
    if let Some(cursor) = page["next_cursor"].as_str() {
        println!("there are more: --cursor {cursor}");
    }
    Ok(())
}

/// The latest deliveries of a user or a notification, each explained.
pub(crate) async fn why(
    client: &Client,
    who: &str,
    category: Option<String>,
    since: Option<String>,
    limit: u16,
    output: Output,
) -> anyhow::Result<()> {
    let of = if who.parse::<NotificationId>().is_ok() { "notification" } else { "user" };
    let limit = limit.to_string();
    let given = [(of, Some(who.to_owned())), ("category", category), ("since", since), ("limit", Some(limit))];
    let page = client.get(&with_query("/v1/deliveries", given)).await?;
    if output == Output::Json {
        println!("{page}");
        return Ok(());
    }
    if items(&page).is_empty() {
        println!("{of} {who}: nothing was ever decided; was it sent to this tenant, and under this name?");
    }
    for d in items(&page) {
        let text = |name: &str| d[name].as_str().unwrap_or_default();
        let category = d["category"].as_str().map(|c| format!(", category {c}")).unwrap_or_default();
        println!("{}  {}{category}: {}", text("accepted_at"), text("channel"), text("state"));
        println!("    {}", explained(text("state"), d["reason"].as_str()));
        if let Some(answer) = last_answer(d) {
            println!("    the last attempt: {answer}");
        }
        println!("    carillon trace {}", text("notification"));
    }
    Ok(())
}

/// The reason in words; without one, the state.
fn explained(state: &str, reason: Option<&str>) -> String {
    let of_state = State::parse(state).map(State::explain).unwrap_or_default();
    let Some(reason) = reason else { return of_state.to_owned() };
    let words = Reason::parse(reason).map(Reason::explain).unwrap_or_default();
    format!("{reason}: {words}")
}

fn last_answer(delivery: &Value) -> Option<String> {
    let steps = delivery["trace"].as_array()?;
    let attempt = steps.iter().rev().map(|s| &s["attempt"]).find(|a| a.is_object())?;
    Some(format!("{} {}", attempt["outcome"].as_str()?, attempt["answer"].as_str()?))
}
