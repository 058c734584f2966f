//! `carillon doctor`: everything that can be checked from here, and what to do about what is wrong.

use std::{process::ExitCode, time::Instant};

use bus::LogError;
use clap::Args;
use domain::config::Kind;
use serde_json::{Value, json};
use service_kit::{Kit, Problems, Settings, Unreachable};

use crate::{
    cli::{Output, Server},
    client::{Client, items, with_query},
    conservation, output,
    output::text,
};

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// The admin address of one more service (the setting `admin.listen`); may be given several times.
    #[arg(long, value_name = "URL")]
    admin: Vec<String>,
    /// Also connects to Kafka, Redis, Cassandra and Elasticsearch from here, with the settings of `--config`.
    #[arg(long)]
    direct: bool,
    #[command(flatten)]
    server: Server,
}

/// How one check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    /// Worth a look; nothing is broken.
    Look,
    /// Has to be mended.
    Wrong,
    /// A dependency cannot be reached.
    Away,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Look => "look",
            Self::Wrong => "WRONG",
            Self::Away => "AWAY",
        }
    }
}

/// What was checked so far.
#[derive(Default)]
struct Findings(Vec<Finding>);

struct Finding {
    verdict: Verdict,
    what: String,
    found: String,
    /// Empty if there is nothing to do.
    remedy: String,
}

impl Findings {
    fn note(&mut self, verdict: Verdict, what: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Finding { verdict, what: what.into(), found: found.into(), remedy: remedy.into() });
    }

    fn ok(&mut self, what: impl Into<String>, found: impl Into<String>) {
        self.note(Verdict::Ok, what, found, "");
    }

    fn code(&self) -> u8 {
        let has = |verdict| self.0.iter().any(|f| f.verdict == verdict);
        match (has(Verdict::Away), has(Verdict::Wrong)) {
            (true, _) => 69,
            (false, true) => 1,
            (false, false) => 0,
        }
    }

    fn print(&self, output: Output) {
        if output == Output::Json {
            let checks = self.0.iter().map(|f| {
                json!({"verdict": f.verdict.as_str().to_lowercase(), "check": f.what, "found": f.found, "remedy": f.remedy})
            });
            println!("{}", json!({"checks": checks.collect::<Vec<_>>()}));
            return;
        }
        let mut rows = Vec::new();
        for f in &self.0 {
            rows.push(vec![f.verdict.as_str().to_owned(), f.what.clone(), f.found.clone()]);
            if !f.remedy.is_empty() {
                rows.push(vec![String::new(), String::new(), format!("-> {}", f.remedy)]);
            }
        }
        print!("{}", output::table(&rows));
        let count = |verdict| self.0.iter().filter(|f| f.verdict == verdict).count();
        let (bad, look) = (count(Verdict::Wrong) + count(Verdict::Away), count(Verdict::Look));
        println!("{} checks: {bad} to mend, {look} to look at", self.0.len());
    }
}

/// One line per check; 69 if a dependency is away, 1 if something else is wrong.
pub(crate) async fn run(
    settings: Result<Settings, Problems>,
    options: Doctor,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let settings = settings?;
    let mut findings = Findings::default();
    findings.ok("settings", "every value is valid (`carillon settings` shows them)");
    if options.direct {
        engines(settings, &mut findings).await;
    }
    let there = service(&options.server.url, &mut findings).await?;
    for admin in &options.admin {
        service(admin, &mut findings).await?;
    }
    if !there {
        findings.note(Verdict::Look, "configuration", "not checked: the API is away", "first the service above");
    } else if options.server.key.is_empty() {
        findings.note(
            Verdict::Look,
            "configuration",
            "not checked: there is no key",
            "give an operator's key with --key or CARILLON_KEY",
        );
    } else {
        let client = Client::new(&options.server)?;
        if let Err(error) = configuration(&client, &mut findings).await {
            findings.note(
                Verdict::Wrong,
                "configuration",
                format!("{error:#}"),
                "is the key an operator's, and this server's?",
            );
        }
    }
    findings.print(output);
    Ok(findings.code().into())
}

/// The engines of a cluster, from here.
async fn engines(settings: Settings, findings: &mut Findings) {
    let begun = Instant::now();
    let kit = match Kit::cluster(settings).await {
        Ok(kit) => kit,
        Err(error) if error.is::<Unreachable>() => {
            let remedy = "is it running, and is its address in the settings right?";
            return findings.note(Verdict::Away, "engines", format!("{error:#}"), remedy);
        }
        Err(error) => {
            let remedy = "`carillon schema` and `carillon topics` make what is missing";
            return findings.note(Verdict::Wrong, "engines", format!("{error:#}"), remedy);
        }
    };
    findings.ok("engines", format!("connected in {} ms, schemas are there", begun.elapsed().as_millis()));
    ping("log", kit.log.ping(), findings).await;
    ping("users", kit.stores.users.ping(), findings).await;
    ping("ledger", kit.stores.ledger.ping(), findings).await;
    ping("deliveries", kit.stores.deliveries.ping(), findings).await;
    topics(&kit, findings).await;
}

async fn ping<E: std::fmt::Display>(what: &str, answer: impl Future<Output = Result<(), E>>, findings: &mut Findings) {
    let begun = Instant::now();
    match answer.await {
        Ok(()) => findings.ok(what, format!("answers in {} ms", begun.elapsed().as_millis())),
        Err(error) => findings.note(Verdict::Away, what, error.to_string(), "is it running and not overloaded?"),
    }
}

/// Only the names count here, so the numbers do not matter.
const ANY: bus::topic::TopicSettings = bus::topic::TopicSettings { partitions: 1, replication: 1, retention_ms: 0 };

async fn topics(kit: &Kit, findings: &mut Findings) {
    let specs = kit.topics.specs(ANY);
    let mut missing = Vec::new();
    for spec in &specs {
        match kit.log.follow(&spec.name).await {
            Ok(_) => {}
            Err(LogError::Topic { topic, .. }) => missing.push(topic),
            Err(error) => return findings.note(Verdict::Away, "topics", error.to_string(), "is Kafka running?"),
        }
    }
    match missing.as_slice() {
        [] => findings.ok("topics", format!("all {} are there", specs.len())),
        some => findings.note(
            Verdict::Wrong,
            "topics",
            format!("missing: {}", some.join(", ")),
            "`carillon topics` makes them",
        ),
    }
}

/// One process, by what it says of itself; `false` if it says nothing.
async fn service(url: &str, findings: &mut Findings) -> anyhow::Result<bool> {
    let client = Client::new(&Server { url: url.to_owned(), key: String::new() })?;
    let what = format!("service {}", client.url());
    match client.get("/health").await {
        Ok(health) => {
            judge(&what, &health, findings);
            Ok(true)
        }
        Err(error) => {
            let found = format!("does not answer: {}", error.root_cause());
            findings.note(Verdict::Away, what, found, "is it running? --url or CARILLON_URL says where the API is");
            Ok(false)
        }
    }
}

/// What a process says about itself, its dependencies and its loops.
fn judge(what: &str, health: &Value, findings: &mut Findings) {
    let missing: Vec<_> = health["missing"].as_array().into_iter().flatten().map(text).collect();
    match health["alive"] == true && missing.is_empty() {
        true => findings.ok(what, "alive and ready"),
        false => findings.note(
            Verdict::Wrong,
            what,
            format!("not ready: {}", missing.join("; ")),
            "what is named below has to come back; a loop that hangs needs a restart",
        ),
    }
    for dependency in health["dependencies"].as_array().into_iter().flatten() {
        let name = format!("  {}", text(&dependency["name"]));
        match text(&dependency["state"]) {
            "up" => findings.ok(name, format!("answers in {} ms", dependency["latency_ms"])),
            "down" => {
                let verdict = if dependency["required"] == true { Verdict::Away } else { Verdict::Wrong };
                findings.note(
                    verdict,
                    name,
                    text(&dependency["error"]),
                    "is it running, and is its address in the settings right?",
                );
            }
            _ => findings.note(Verdict::Look, name, "not checked yet", "ask again in a few seconds"),
        }
    }
    for one in health["loops"].as_array().into_iter().flatten() {
        let name = format!("  loop {}", text(&one["name"]));
        let behind = one["oldest_ms"].as_u64().unwrap_or(0);
        if one["joined"] != true {
            findings.note(Verdict::Wrong, name, "is not in its group", "is Kafka up? a group takes seconds to form");
        } else if one["troubled"] == true {
            let found = format!("{} records wait for something that is down", one["waiting"]);
            findings.note(Verdict::Wrong, name, found, "they go on by themselves once it is back");
        } else if behind > 60_000 {
            let found = format!("its oldest record waits for {} s", behind / 1000);
            findings.note(Verdict::Look, name, found, "more instances of this service, or a slow provider");
        }
    }
}

/// Whether what was configured makes sense as a whole.
async fn configuration(client: &Client, findings: &mut Findings) -> anyhow::Result<()> {
    let tenants = list(client, "/v1/config/tenants", None).await?;
    if tenants.is_empty() {
        let remedy = "`carillon apply -f FILE` with [[tenants]] and [[keys]] makes one (see the README)";
        findings.note(Verdict::Look, "configuration", "there is no tenant yet", remedy);
    }
    for tenant in &tenants {
        let tenant = text(&tenant["name"]);
        let mut of = Vec::new();
        for kind in [Kind::Keys, Kind::Categories, Kind::Accounts, Kind::Sources] {
            of.push(list(client, &format!("/v1/config/{kind}"), Some(tenant)).await?);
        }
        let [keys, categories, accounts, sources] = of.as_slice() else { continue };
        judge_tenant(tenant, keys, categories, accounts, sources, findings);
    }
    if let [only] = tenants.as_slice() {
        traffic(client, text(&only["name"]), findings).await?;
    }
    what_waits(client, findings).await
}

/// All entries, page by page.
async fn list(client: &Client, path: &str, tenant: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let given = [("tenant", tenant.map(str::to_owned)), ("limit", Some("1000".to_owned())), ("cursor", cursor)];
        let page = client.get(&with_query(path, given)).await?;
        all.extend(items(&page).iter().cloned());
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            return Ok(all);
        }
    }
}

fn judge_tenant(
    tenant: &str,
    keys: &[Value],
    categories: &[Value],
    accounts: &[Value],
    sources: &[Value],
    findings: &mut Findings,
) {
    let what = format!("tenant {tenant}");
    let live = keys.iter().filter(|k| k["value"]["revoked"] != true).count();
    if live == 0 {
        findings.note(
            Verdict::Look,
            &what,
            "has no key: nobody can send for it",
            "[[keys]] in a file for `carillon apply`",
        );
    }
    let channels: Vec<_> = accounts.iter().map(|a| text(&a["name"])).collect();
    if channels.is_empty() {
        let remedy = "[[accounts]] in a file for `carillon apply`: without one every delivery fails as misconfigured";
        findings.note(Verdict::Look, &what, "has no account on any channel", remedy);
    }
    for category in categories {
        let selectors = category["value"]["channels"].as_array().into_iter().flatten().map(text);
        for selector in selectors.filter_map(|s| domain::Selector::parse(s).ok()) {
            if !selector.channels().any(|c| channels.contains(&c.as_str())) {
                let found = format!(
                    "category {} goes to {}, where it has no account",
                    text(&category["name"]),
                    selector.as_str()
                );
                findings.note(Verdict::Wrong, &what, found, "add the account, or take the channel out of the category");
            }
        }
    }
    let found = format!(
        "{live} keys, {} categories, accounts on {}, {} sources",
        categories.len(),
        if channels.is_empty() { "nothing".to_owned() } else { channels.join(", ") },
        sources.len()
    );
    findings.ok(what, found);
}

/// Accounts that nothing ever went through, for a tenant's own key: most likely nobody has an address there.
async fn traffic(client: &Client, tenant: &str, findings: &mut Findings) -> anyhow::Result<()> {
    for account in list(client, "/v1/config/accounts", Some(tenant)).await? {
        let channel = text(&account["name"]);
        let search = |state: Option<&str>| {
            let given = [
                ("channel", Some(channel.to_owned())),
                ("state", state.map(str::to_owned)),
                ("limit", Some("1".to_owned())),
            ];
            with_query("/v1/deliveries", given)
        };
        // the installation's operator key has no tenant to search in
        let Ok(any) = client.get(&search(None)).await else { return Ok(()) };
        let what = format!("  account {channel}");
        if items(&any).is_empty() {
            let remedy = "does anybody have an address there? `carillon users show USER`, `carillon devices USER`";
            findings.note(Verdict::Look, what, "nothing was ever to be sent there", remedy);
        } else if text(&items(&any)[0]["reason"]) == "misconfigured" {
            let remedy =
                "`carillon why USER` has the provider's words; then `carillon apply`, and `carillon dead redrive`";
            findings.note(Verdict::Wrong, what, "the latest delivery failed: the provider refuses the account", remedy);
        } else {
            findings.ok(what, format!("latest delivery: {}", text(&items(&any)[0]["state"])));
        }
    }
    Ok(())
}

/// What waits for a person.
async fn what_waits(client: &Client, findings: &mut Findings) -> anyhow::Result<()> {
    let letters = client.get("/v1/dead-letters?limit=1000").await?;
    let open = items(&letters)
        .iter()
        .filter(|l| !matches!(l["state"].as_str(), Some("sent" | "delivered" | "read" | "clicked")));
    match open.count() {
        0 => findings.ok("dead letters", "none is open"),
        n => {
            let more = if letters["next_cursor"].is_null() { "" } else { " or more" };
            let remedy = "`carillon dead list` says why; `carillon dead redrive` sends them on their way again";
            findings.note(Verdict::Look, "dead letters", format!("{n}{more} are open"), remedy);
        }
    }
    let balance = client.get("/v1/conservation").await?;
    match conservation::is_even(&balance) {
        true => findings.ok("conservation", "nothing is missing"),
        false => {
            let found = format!("missing {}, surplus {}", balance["missing"], balance["surplus"]);
            findings.note(Verdict::Wrong, "conservation", found, "`carillon conservation` says whose");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(findings: &Findings) -> Vec<String> {
        findings.0.iter().map(|f| format!("{} {}: {}", f.verdict.as_str(), f.what.trim(), f.found)).collect()
    }

    #[test]
    fn a_service_is_judged_by_what_it_says() {
        let mut findings = Findings::default();
        let health = json!({
            "alive": true, "missing": ["log: no answer"],
            "dependencies": [
                {"name": "log", "state": "down", "required": true, "error": "no answer"},
                {"name": "deliveries", "state": "down", "required": false, "error": "refused"},
                {"name": "users", "state": "up", "latency_ms": 3},
                {"name": "ledger", "state": "unknown"},
            ],
            "loops": [
                {"name": "router.high", "joined": true, "troubled": true, "waiting": 4, "oldest_ms": 5},
                {"name": "router.low", "joined": true, "troubled": false, "oldest_ms": 90_000},
                {"name": "indexer", "joined": false}, {"name": "fine", "joined": true, "oldest_ms": null},
            ],
        });
        judge("service x", &health, &mut findings);
        let expected = [
            "WRONG service x: not ready: log: no answer",
            "AWAY log: no answer",
            "WRONG deliveries: refused",
            "ok users: answers in 3 ms",
            "look ledger: not checked yet",
            "WRONG loop router.high: 4 records wait for something that is down",
            "look loop router.low: its oldest record waits for 90 s",
            "WRONG loop indexer: is not in its group",
        ];
        assert_eq!(lines(&findings), expected);
        assert_eq!(findings.code(), 69, "a dependency that is away comes first");
        assert!(
            findings.0.iter().all(|f| f.verdict == Verdict::Ok || !f.remedy.is_empty()),
            "every fault has a remedy"
        );
    }

    #[test]
    fn a_tenant_s_configuration_is_judged_as_a_whole() {
        let entry = |name: &str, value: Value| json!({"name": name, "value": value});
        let mut findings = Findings::default();
        let keys = [entry("old", json!({"revoked": true}))];
        let categories = [entry("orders", json!({"channels": ["push", "webhook"]}))];
        judge_tenant("acme", &keys, &categories, &[entry("webhook", json!({}))], &[], &mut findings);
        let expected = [
            "look tenant acme: has no key: nobody can send for it",
            "WRONG tenant acme: category orders goes to push, where it has no account",
            "ok tenant acme: 0 keys, 1 categories, accounts on webhook, 0 sources",
        ];
        assert_eq!((lines(&findings), findings.code()), (expected.map(str::to_owned).to_vec(), 1));
        let mut findings = Findings::default();
        judge_tenant(
            "acme",
            &[entry("k", json!({}))],
            &categories,
            &[entry("webhook", json!({})), entry("apns", json!({}))],
            &[],
            &mut findings,
        );
        assert_eq!((findings.0.len(), findings.code()), (1, 0));
    }
}
