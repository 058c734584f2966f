//! The demo: a tenant with five people, and a play that shows what becomes of a few notifications, and proves it.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail, ensure};
use domain::{
    Address, Channel, Contacts, Preferences, TenantId, Timestamp, User, UserId,
    config::{EntryKey, Kind, Scope},
};
use serde_json::{Value, json};
use service_kit::Kit;
use store::Change;

use crate::{cli::Server, client::Client, output};

/// The demo tenant's key. It is public: `--demo` listens on loopback and is for trying things out.
const KEY: &str = "demo-key-for-trying-out";
const TENANT: &str = "demo";

/// Five people: where they can be reached (in the sandbox) and what they want.
const PEOPLE: [(&str, Option<&str>, &str); 5] = [
    ("ana", Some("/hook/ok/ana"), "{}"),
    ("ben", Some("/hook/ok/ben"), r#"{"categories": {"marketing": {"all": false}}}"#),
    ("cleo", None, "{}"),
    ("dev", Some("/hook/flaky/2/dev"), "{}"),
    ("eve", Some("/hook/gone"), "{}"),
];

/// What the play hands over, and what must come of it.
const PLAY: [(&str, &str, &str, &str, Option<&str>); 6] = [
    ("ana", "orders", "reaches ana at once", "sent", None),
    ("ben", "orders", "ben takes orders", "sent", None),
    ("ben", "marketing", "but has opted out of marketing", "suppressed", Some("opted_out_category")),
    ("cleo", "orders", "cleo has no address", "suppressed", Some("no_address")),
    ("dev", "orders", "dev's endpoint fails twice, then takes it", "sent", None),
    ("eve", "orders", "eve's endpoint is gone for good (410)", "failed", Some("address_gone")),
];

/// Puts tenant, key, categories, account and people in place. Repeating it changes nothing.
pub(crate) async fn seed(kit: &Kit, receiver: SocketAddr) -> anyhow::Result<()> {
    let tenant = TenantId::parse(TENANT).map_err(anyhow::Error::msg)?;
    let secret = kit.settings.read(|r| r.secret("sandbox.webhook_secret"))?;
    let scopes =
        [Scope::NotificationsWrite, Scope::NotificationsRead, Scope::UsersWrite, Scope::UsersRead, Scope::Operator];
    let entries = [
        (Kind::Tenants, TENANT, json!({"title": "The demo's tenant"})),
        (Kind::Keys, "demo", json!({"sha256": ingress::auth::fingerprint(KEY), "scopes": scopes})),
        (Kind::Categories, "orders", json!({"channels": ["webhook"]})),
        (Kind::Categories, "marketing", json!({"channels": ["webhook"]})),
        (Kind::Accounts, "webhook", json!({"channel": "webhook", "secret": secret.expose()})),
    ];
    for (kind, name, value) in entries {
        let at = EntryKey { tenant: tenant.clone(), kind, name: name.to_owned() };
        kit.config.put(&at, Some(&value)).await?;
    }
    let change = Change { by: "demo".into(), from: "standalone --demo".into(), at: Timestamp::now() };
    for (name, path, preferences) in PEOPLE {
        let mut contacts = Contacts::default();
        if let Some(path) = path {
            let url = format!("http://{receiver}{path}");
            contacts.add(Channel::Webhook, Address::parse(Channel::Webhook, &url).map_err(anyhow::Error::msg)?);
        }
        let preferences: Preferences = serde_json::from_str(preferences)?;
        let id = UserId::parse(name).map_err(anyhow::Error::msg)?;
        let user = User {
            tenant: tenant.clone(),
            id,
            locale: None,
            time_zone: None,
            contacts,
            preferences,
            updated_at: change.at,
        };
        kit.stores.users.put(&user, &change).await?;
    }
    Ok(())
}

/// Says where everything is.
pub(crate) fn welcome(api: SocketAddr, sandbox: &sandbox::Running) {
    println!("Carillon is up, with a demo tenant.");
    println!("  API      http://{api}/v1  (key: {KEY})");
    println!("  sandbox  http://{}/received", sandbox.control);
    println!("Try, in another terminal:");
    try_these(&format!("http://{api}"), &format!("http://{}", sandbox.control));
    println!("Stop it with Ctrl-C; everything is kept.");
}

fn try_these(url: &str, sandbox: &str) {
    println!("  export CARILLON_URL={url} CARILLON_KEY={KEY}");
    println!("  carillon send --to ana --category orders --title Hello --body 'Your order is on its way.' --wait");
    println!("  curl -s -H 'Authorization: Bearer {KEY}' '{url}/v1/deliveries?user=ben'");
    println!("  curl -s {sandbox}/received");
}

/// Plays the demo against a running standalone; fails if anything comes out otherwise than it says.
pub(crate) async fn play(server: &Server, sandbox: &str) -> anyhow::Result<ExitCode> {
    let mut server = server.clone();
    if server.key.is_empty() {
        KEY.clone_into(&mut server.key);
    }
    let client = Client::new(&server)?;
    let since = Timestamp::now();
    println!("1. Handing over {} notifications by HTTP (POST {}/v1/notifications):", PLAY.len(), client.url());
    let mut ids = Vec::new();
    for (user, category, what, ..) in PLAY {
        let title = format!("News for {user}");
        let request = json!({
            "to": [{"user": user}], "category": category,
            "content": {"default": {"title": title, "body": "Order 17 has left the house."}},
        });
        let accepted = client.post("/v1/notifications", &request).await?;
        let id = accepted["id"].as_str().context("no id")?.to_owned();
        println!("   202 {id}  {user:<5} {category:<10} {what}");
        ids.push(id);
    }
    println!("\n2. What became of each, with its timeline:");
    for (id, (user, _, _, state, reason)) in ids.iter().zip(PLAY) {
        let n = client.notification(id, true).await?;
        print!("{}", indent(&output::trace(&n)));
        let d = &n["deliveries"][0];
        ensure!(
            n["state"] == state && d["state"] == state && d["reason"].as_str() == reason && d["user"] == user,
            "notification {id} should be {state} {reason:?}"
        );
    }
    println!("\n3. The sandbox's own record of what arrived (GET {sandbox}/received):");
    prove(sandbox, since).await?;
    println!("\nEverything came out as it had to. To go on, put `carillon` on your PATH and start it:");
    if let Some(folder) = std::env::current_exe()?.parent() {
        println!("  export PATH={}:$PATH", folder.display());
    }
    println!("  carillon standalone --sandbox --demo");
    println!("and, in another terminal:");
    try_these("http://127.0.0.1:8080", "http://127.0.0.1:8082");
    Ok(ExitCode::SUCCESS)
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("   {line}\n")).collect()
}

/// Shows the sandbox's record and compares it with what had to arrive: ana 1, ben 1, dev 3 (two failed), eve 1.
async fn prove(sandbox: &str, since: Timestamp) -> anyhow::Result<()> {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
    let url = format!("{}/received?channel=webhook&since={since}", sandbox.trim_end_matches('/'));
    let answer = http.get(&url).send().await.with_context(|| format!("cannot call {url}"))?;
    let record: Value = answer.error_for_status()?.json().await?;
    let mut rows = vec![["AT", "PATH", "SIGNATURE", "ANSWERED", "BODY"].map(str::to_owned).to_vec()];
    let received = record["items"].as_array().context("the sandbox's answer has no items")?;
    for r in received {
        let text = |name: &str| r[name].as_str().unwrap_or_default().to_owned();
        let body: Value = serde_json::from_str(&text("body")).unwrap_or_default();
        let verified = if r["verified"] == true { "verified" } else { "REFUSED" };
        let says = body["data"]["title"].as_str().unwrap_or_default();
        rows.push(vec![text("time"), text("path"), verified.to_owned(), r["answered"].to_string(), says.to_owned()]);
    }
    print!("{}", indent(&output::table(&rows)));
    for (path, times) in [("/hook/ok/ana", 1), ("/hook/ok/ben", 1), ("/hook/flaky/2/dev", 3), ("/hook/gone", 1)] {
        let seen = received.iter().filter(|r| r["path"] == path && r["verified"] == true).count();
        if seen != times {
            bail!("{path} should have received {times}, not {seen}");
        }
    }
    Ok(())
}
