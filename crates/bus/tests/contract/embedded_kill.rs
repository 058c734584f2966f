//! The embedded log under SIGKILL: what was answered is there afterwards.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
};

use bus::Log;
use tempfile::TempDir;

use crate::{
    embedded::{open, reopen},
    member::{Member, outgoing, publish, spec},
};

/// The directory, for the process that is going to be killed.
const DIR: &str = "CARILLON_TEST_KILL_DIR";

/// The child's part; without its directory it has none.
#[tokio::test]
async fn child() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let log = open(&dir).expect("a log");
    let topic: Arc<str> = "t".into();
    log.ensure_topics(&[spec(&topic, 3)]).await.expect("created");
    let mut member = Member::join(&log, "g", &topic).await;
    for i in 0.. {
        let at = publish(&log, &topic, i * 7..(i + 1) * 7).await;
        member.until("what was written", |m| m.records.len() == (i + 1) * 7).await;
        member.commit_seen().await;
        let mut out = std::io::stdout().lock();
        for at in at {
            writeln!(out, "wrote {} {}", at.partition.index, at.offset).expect("a parent");
        }
        writeln!(out, "committed {}", (i + 1) * 7).expect("a parent");
    }
}

#[tokio::test]
async fn what_was_answered_survives_a_kill() {
    let dir = TempDir::new().unwrap();
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["embedded_kill::child", "--exact", "--nocapture"])
            .env(DIR, dir.path().join(round.to_string()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut seen: Vec<String> = lines.by_ref().take(300 * round).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        // what it had said before it died counts too
        seen.extend(lines);
        check(&dir.path().join(round.to_string()), &seen).await;
    }
}

async fn check(dir: &std::path::Path, seen: &[String]) {
    let log = reopen(dir).await;
    let topic: Arc<str> = "t".into();
    let mut everything = Member::join(&log, "another", &topic).await;
    let wrote: Vec<&str> = seen.iter().filter_map(|line| line.strip_prefix("wrote ")).collect();
    let committed =
        seen.iter().filter_map(|line| line.strip_prefix("committed ")?.parse::<usize>().ok()).max().unwrap();
    assert!(wrote.len() > 200 && committed > 200);
    everything.until("what was answered", |m| m.records.len() >= wrote.len()).await;
    everything.assert_each_once();
    for line in wrote {
        let there = |r: &&bus::Record| line == format!("{} {}", r.at.partition.index, r.at.offset);
        assert!(everything.records.iter().any(|r| there(&r)), "{line} was lost");
    }
    let total = everything.records.len();
    let mut rest = Member::join(&log, "g", &topic).await;
    assert!(log.publish(vec![outgoing(&topic, "last", "x")]).await[0].is_ok());
    rest.until("the rest", |m| m.records.iter().any(|r| r.key.as_deref() == Some(b"last"))).await;
    assert!(rest.records.len() <= total + 1 - committed, "what was committed is not read again");
}
