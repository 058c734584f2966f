//! `carillon dead`: what services gave up, and the way back.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    cli::{Output, Server, moment},
    client::{Client, items, segment, with_query},
    output::{fields, table, text},
};

/// Most ids of one request.
const MOST: usize = 1000;

#[derive(Debug, Subcommand)]
pub(crate) enum Dead {
    /// Lists dead letters, the newest first, each with how its delivery stands now: `sent` needs nothing more.
    #[command(after_help = "Example: carillon dead list --stage gateway --since 24h")]
    List(List),
    /// Shows one dead letter: why, from where, and its headers; with `--output json` also its bytes, in base64.
    #[command(after_help = "Example: carillon dead show gateway-3-42")]
    Show {
        /// As `dead list` prints it.
        id: String,
        #[command(flatten)]
        server: Server,
    },
    /// Sends records on their way again, byte by byte as they were. Repeat it freely: what was sent meanwhile stays as it is.
    ///
    /// First mend what made them fail: an account's credentials, an endpoint, a template.
    #[command(after_help = "Examples:\n  carillon dead redrive gateway-3-42\n  \
        carillon dead redrive --reason misconfigured --since 2h --dry-run")]
    Redrive(Redrive),
}

/// Which letters; everything that is given must hold.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Which {
    /// Given up by this service: ingress, router, gateway or indexer.
    #[arg(long)]
    stage: Option<String>,
    /// For this reason, for instance `retries_exhausted`.
    #[arg(long)]
    reason: Option<String>,
    /// Given up then or later: a time (RFC 3339), or how long ago, such as `2h`.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<String>,
    /// Given up before.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    which: Which,
    /// Letters of a page.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Where to go on, as the page before has printed it.
    #[arg(long)]
    cursor: Option<String>,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Args)]
pub(crate) struct Redrive {
    /// As `dead list` prints them; instead, one of the options below.
    #[arg(value_name = "ID", required_unless_present_any = ["stage", "reason", "since", "until"],
        conflicts_with_all = ["stage", "reason", "since", "until"])]
    ids: Vec<String>,
    #[command(flatten)]
    which: Which,
    /// Only says what would be done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    server: Server,
}

pub(crate) async fn run(command: Dead, output: Output) -> anyhow::Result<ExitCode> {
    match command {
        Dead::List(options) => list(options, output).await?,
        Dead::Show { id, server } => {
            let letter = Client::new(&server)?.get(&format!("/v1/dead-letters/{}", segment(&id))).await?;
            match output {
                Output::Json => println!("{letter}"),
                Output::Text => print!("{}", shown(&letter)),
            }
        }
        Dead::Redrive(options) => return redrive(options, output).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(options: List, output: Output) -> anyhow::Result<()> {
    let Which { stage, reason, since, until } = options.which;
    let given = [
        ("stage", stage),
        ("reason", reason),
        ("since", since),
        ("until", until),
        ("limit", Some(options.limit.to_string())),
        ("cursor", options.cursor),
    ];
    let page = Client::new(&options.server)?.get(&with_query("/v1/dead-letters", given)).await?;
    match output {
        Output::Json => println!("{page}"),
        Output::Text => print!("{}", listed(&page)),
    }
    Ok(())
}

fn listed(page: &Value) -> String {
    if items(page).is_empty() {
        return "no dead letter: nothing waits for a person\n".to_owned();
    }
    let mut rows = vec![["ID", "GIVEN UP", "REASON", "TENANT", "USER", "CHANNEL", "NOW"].map(str::to_owned).to_vec()];
    for letter in items(page) {
        let cell = |name: &str| letter[name].as_str().unwrap_or("-").to_owned();
        rows.push(["id", "at", "reason", "tenant", "user", "channel", "state"].map(cell).to_vec());
    }
    let mut out = table(&rows);
    if let Some(cursor) = page["next_cursor"].as_str() {
        out.push_str(&format!("there are more: --cursor {cursor}\n"));
    }
    out.push_str("  carillon dead show ID      says more\n  carillon dead redrive ID   sends it on its way again\n");
    out
}

fn shown(letter: &Value) -> String {
    let origin = &letter["origin"];
    let origin = match origin["topic"].as_str() {
        Some(topic) => format!("{topic}, partition {}, offset {}", origin["partition"], origin["offset"]),
        None => "-".to_owned(),
    };
    let names = [
        ("id", "id"),
        ("given up", "at"),
        ("by", "stage"),
        ("reason", "reason"),
        ("error", "error"),
        ("re-driven", "redriven_at"),
        ("tenant", "tenant"),
        ("user", "user"),
        ("channel", "channel"),
        ("notification", "notification"),
        ("delivery", "delivery"),
        ("stands now", "state"),
        ("because", "state_reason"),
    ];
    let mut rows: Vec<_> = names.map(|(label, name)| (label, text(&letter[name]).to_owned())).into();
    rows.push(("came from", origin));
    rows.push(("value", format!("{} bytes (--output json has them in base64)", letter["bytes"])));
    for header in letter["headers"].as_array().into_iter().flatten() {
        let value = header["value"].as_str().unwrap_or("(not text)");
        rows.push(("header", format!("{}: {value}", text(&header["name"]))));
    }
    let mut out = fields(rows.into_iter().filter(|(_, value)| !value.is_empty()));
    if let Some(notification) = letter["notification"].as_str() {
        out.push_str(&format!("  carillon trace {notification}\n"));
    }
    out.push_str(&format!("  carillon dead redrive {}\n", text(&letter["id"])));
    out
}

async fn redrive(options: Redrive, output: Output) -> anyhow::Result<ExitCode> {
    let client = Client::new(&options.server)?;
    let mut results = Vec::new();
    let mut take = |answer: &mut Value| {
        if let Value::Array(more) = answer["results"].take() {
            results.extend(more);
        }
    };
    if options.ids.is_empty() {
        let mut cursor = None;
        loop {
            let body = asked(&options.which, cursor.take(), options.dry_run);
            let mut answer = client.post("/v1/dead-letters/redrive", &body).await?;
            take(&mut answer);
            cursor = answer["next_cursor"].as_str().map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
    }
    for ids in options.ids.chunks(MOST) {
        let body = json!({"ids": ids, "dry_run": options.dry_run});
        take(&mut client.post("/v1/dead-letters/redrive", &body).await?);
    }
    match output {
        Output::Json => println!("{}", json!({"dry_run": options.dry_run, "results": results})),
        Output::Text => print!("{}", redriven(&results)),
    }
    let ok = |r: &Value| matches!(r["outcome"].as_str(), Some("redriven" | "would_be_redriven"));
    Ok(if results.iter().all(ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The request's body; what is not given is not in it.
fn asked(which: &Which, cursor: Option<String>, dry_run: bool) -> Value {
    let Which { stage, reason, since, until } = which.clone();
    let mut body = json!({"dry_run": dry_run});
    for (name, value) in [("stage", stage), ("reason", reason), ("since", since), ("until", until), ("cursor", cursor)]
    {
        if let Some(value) = value {
            body[name] = value.into();
        }
    }
    body
}

fn redriven(results: &[Value]) -> String {
    if results.is_empty() {
        return "no dead letter matches\n".to_owned();
    }
    let mut rows = vec![["ID", "OUTCOME", ""].map(str::to_owned).to_vec()];
    rows.extend(results.iter().map(|r| ["id", "outcome", "detail"].map(|name| text(&r[name]).to_owned()).to_vec()));
    let mut out = table(&rows);
    let count = |outcome: &str| results.iter().filter(|r| r["outcome"] == outcome).count();
    match count("would_be_redriven") {
        0 => out.push_str(&format!(
            "{} of {} re-driven; `carillon dead list` shows how they stand\n",
            count("redriven"),
            results.len()
        )),
        n => out.push_str(&format!("(dry run: nothing was done; {n} of {} would be re-driven)\n", results.len())),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_letters_reads_like_a_table() {
        let page = json!({"items": [{"id": "gateway-0-7", "at": "2026-11-21T09:00:00Z", "reason": "misconfigured", "tenant": "acme",
            "user": null, "channel": "email", "state": "failed"}], "next_cursor": "5.gateway-0-7"});
        assert_eq!(
            listed(&page),
            "ID           GIVEN UP              REASON         TENANT  USER  CHANNEL  NOW\n\
             gateway-0-7  2026-11-21T09:00:00Z  misconfigured  acme    -     email    failed\n\
             there are more: --cursor 5.gateway-0-7\n  \
             carillon dead show ID      says more\n  carillon dead redrive ID   sends it on its way again\n"
        );
        assert!(listed(&json!({"items": []})).starts_with("no dead letter"));
    }

    #[test]
    fn a_request_holds_what_is_given_and_nothing_else() {
        let which = Which { reason: Some("misconfigured".into()), ..Which::default() };
        assert_eq!(asked(&which, None, true), json!({"dry_run": true, "reason": "misconfigured"}));
        assert_eq!(
            asked(&which, Some("c".into()), false),
            json!({"dry_run": false, "reason": "misconfigured", "cursor": "c"})
        );
        let results =
            [json!({"id": "a", "outcome": "redriven"}), json!({"id": "b", "outcome": "not_found", "detail": "gone"})];
        assert!(redriven(&results).ends_with("1 of 2 re-driven; `carillon dead list` shows how they stand\n"));
        assert!(redriven(&[json!({"id": "a", "outcome": "would_be_redriven"})]).contains("nothing was done; 1 of 1"));
    }

    #[test]
    fn a_letter_shows_what_it_has() {
        let letter = json!({"id": "router-1-2", "at": "t", "reason": "stuck", "error": "e", "bytes": 9, "user": null,
            "notification": "n", "origin": {"topic": "c.notifications.chat.low", "partition": 1, "offset": 5},
            "headers": [{"name": "h", "value": "v"}, {"name": "b", "value": null}]});
        let shown = shown(&letter);
        for line in [
            "came from     c.notifications.chat.low, partition 1, offset 5\n",
            "header        h: v\n",
            "b: (not text)\n",
            "carillon trace n\n",
        ] {
            assert!(shown.contains(line), "{line}: {shown}");
        }
        assert!(!shown.contains("user"), "{shown}");
    }
}
