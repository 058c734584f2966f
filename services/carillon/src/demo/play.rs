//! The play: what is handed over, what must come of it, and the proof.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, bail, ensure};
use domain::Timestamp;
use serde_json::{Value, json};

use super::{
    KEY,
    hand_over::{Way, Ways},
    try_these,
};
use crate::{cli::DemoOptions, client::Client, output};

/// One notification: how it comes in, for whom, and how its deliveries must end.
struct Scene {
    way: Way,
    user: &'static str,
    category: &'static str,
    what: &'static str,
    /// Channel, state and reason, in the order of the channels' names.
    ends: &'static [(&'static str, &'static str, Option<&'static str>)],
}

const PLAY: [Scene; 8] = [
    Scene {
        way: Way::Http,
        user: "ana",
        category: "shipping",
        what: "reaches ana on her phone, by mail and by webhook, in German",
        ends: &[("apns", "sent", None), ("email", "sent", None), ("webhook", "sent", None)],
    },
    Scene { way: Way::Grpc, user: "ana", category: "orders", what: "by gRPC", ends: &[("webhook", "sent", None)] },
    Scene {
        way: Way::Event,
        user: "cleo",
        category: "orders",
        what: "a CloudEvent on carillon.events, from any Kafka client",
        ends: &[("webhook", "sent", None)],
    },
    Scene {
        way: Way::Grpc,
        user: "ben",
        category: "marketing",
        what: "ben has opted out of marketing",
        ends: &[("email", "suppressed", Some("opted_out_category"))],
    },
    Scene {
        way: Way::Http,
        user: "dev",
        category: "orders",
        what: "dev's endpoint fails twice, then takes it",
        ends: &[("webhook", "sent", None)],
    },
    Scene {
        way: Way::Http,
        user: "eve",
        category: "push",
        what: "eve's app was removed: Apple says that the token is dead (410)",
        ends: &[("apns", "failed", Some("address_gone"))],
    },
    Scene {
        way: Way::Http,
        user: "eve",
        category: "push",
        what: "so her device went at the verdict, and Apple is not asked again",
        ends: &[("apns", "suppressed", Some("no_address"))],
    },
    Scene {
        way: Way::Http,
        user: "fay",
        category: "orders",
        what: "fay's endpoint is down (503): tried a few times, then a dead letter",
        ends: &[("webhook", "failed", Some("retries_exhausted"))],
    },
];

/// Plays the demo against a running standalone; fails if anything comes out otherwise than it says.
pub(crate) async fn play(options: &DemoOptions) -> anyhow::Result<ExitCode> {
    let mut server = options.server.clone();
    if server.key.is_empty() {
        KEY.clone_into(&mut server.key);
    }
    let client = Client::new(&server)?;
    let ways = Ways::open(&client, options, &server).await?;
    let since = Timestamp::now();
    println!("1. Handing over {} notifications, and what became of each, with its timeline:", PLAY.len());
    for (i, scene) in PLAY.iter().enumerate() {
        println!("\n   {}. {:<5} {:<5} {}", i + 1, scene.way.name(), scene.user, scene.what);
        let id = ways.hand_over(scene.way, &request(scene), i).await?;
        let n = client.notification(&id, true).await?;
        print!("{}", indent(&output::trace(&n)));
        check(&n, scene).with_context(|| format!("notification {id} came out otherwise"))?;
    }
    println!("\n2. The sandbox's own record of what arrived (GET {}/received):", options.sandbox);
    prove(&options.sandbox, since).await?;
    println!(
        "\n3. What a person should look at (carillon dead list; carillon dead redrive ID sends it on its way again):"
    );
    dead_letters(&client).await?;
    println!();
    println!("Everything came out as it had to. To go on, put `carillon` on your PATH and start it:");
    if let Some(folder) = std::env::current_exe()?.parent() {
        println!("  export PATH={}:$PATH", folder.display());
    }
    println!("  carillon standalone --sandbox --demo --kafka-listen 9092");
    println!("and, in another terminal:");
    try_these("http://127.0.0.1:8080", "http://127.0.0.1:8082");
    Ok(ExitCode::SUCCESS)
}

fn request(scene: &Scene) -> Value {
    let to = json!([{"user": scene.user}]);
    match scene.category {
        "shipping" => json!({"to": to, "category": "shipping", "template": "shipped", "data": {"order": 17}}),
        "push" => {
            json!({"to": to, "channels": ["push"], "content": {"default": {"title": "Hello", "body": "Are you there?"}}})
        }
        category => {
            let title = format!("News for {}", scene.user);
            json!({"to": to, "category": category, "content": {"default": {"title": title, "body": "Order 17 has left the house."}}})
        }
    }
}

fn check(n: &Value, scene: &Scene) -> anyhow::Result<()> {
    let deliveries = n["deliveries"].as_array().context("no deliveries")?;
    let mut ends: Vec<_> = deliveries
        .iter()
        .map(|d| {
            (d["channel"].as_str().unwrap_or_default(), d["state"].as_str().unwrap_or_default(), d["reason"].as_str())
        })
        .collect();
    ends.sort_unstable();
    ensure!(ends == scene.ends, "it should have ended as {:?}", scene.ends);
    Ok(())
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("   {line}\n")).collect()
}

/// Shows the sandbox's record and compares it with what had to arrive.
async fn prove(sandbox: &str, since: Timestamp) -> anyhow::Result<()> {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
    let url = format!("{}/received?since={since}", sandbox.trim_end_matches('/'));
    let answer = http.get(&url).send().await.with_context(|| format!("cannot call {url}"))?;
    let record: Value = answer.error_for_status()?.json().await?;
    let received = record["items"].as_array().context("the sandbox's answer has no items")?;
    let mut rows = vec![["AT", "CHANNEL", "TO", "CHECKED", "ANSWERED"].map(str::to_owned).to_vec()];
    for r in received {
        let text = |name: &str| r[name].as_str().unwrap_or_default().to_owned();
        let checked = if r["verified"] == true { "right" } else { "REFUSED" };
        rows.push(vec![text("time"), text("channel"), text("path"), checked.to_owned(), r["answered"].to_string()]);
    }
    print!("{}", indent(&output::table(&rows)));
    for (path, times) in [
        ("/3/device/0200a11a", 1..=1),
        ("ana@example.com", 1..=1),
        ("/hook/ok/ana", 2..=2),
        ("/hook/ok/cleo", 1..=1),
        ("ben@example.com", 0..=0),
        ("/hook/flaky/2/dev", 3..=3),
        ("/3/device/0410e11e", 1..=1),
        // as often as gateway.retry.attempts says
        ("/hook/status/503/fay", 1..=20),
    ] {
        let seen = received.iter().filter(|r| r["path"] == path && r["verified"] == true).count();
        if !times.contains(&seen) {
            bail!("{path} should have received {times:?}, not {seen}");
        }
    }
    Ok(())
}

async fn dead_letters(client: &Client) -> anyhow::Result<()> {
    let page = client.get("/v1/dead-letters").await?;
    let letters = page["items"].as_array().context("no items")?;
    let mut rows = vec![["ID", "REASON", "ERROR", "STATE"].map(str::to_owned).to_vec()];
    let text = |letter: &Value, name: &str| letter[name].as_str().unwrap_or_default().to_owned();
    rows.extend(letters.iter().map(|l| ["id", "reason", "error", "state"].map(|name| text(l, name)).to_vec()));
    print!("{}", indent(&output::table(&rows)));
    ensure!(letters.iter().any(|l| l["reason"] == "retries_exhausted"), "fay's is not among them");
    Ok(())
}
