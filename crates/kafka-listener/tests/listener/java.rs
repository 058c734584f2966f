//! What Java's own client writes and reads: another implementation of the protocol than librdkafka's.

use std::{path::PathBuf, process::Stdio};

use tokio::{process::Command, time::timeout};

use crate::harness::{Listener, PATIENCE};

/// Where `deploy/dev/engines` unpacks Kafka, whose jars hold the client.
fn jars() -> PathBuf {
    let own = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.engines"));
    let home = std::env::var_os("CARILLON_ENGINES_HOME").map_or(own, PathBuf::from);
    let jars = home.join("kafka/package");
    assert!(jars.is_dir(), "the test needs Java's Kafka client: `deploy/dev/engines up kafka` unpacks it");
    jars
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_java_client_writes_every_compression_reads_it_and_sees_no_secret() {
    let listener = Listener::start().await;
    let client = Command::new("java")
        .arg("-cp")
        .arg(jars().join("*"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/listener/Client.java"))
        .arg(listener.address.to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ended = timeout(PATIENCE * 4, client).await.expect("an end in time");
    let ended = ended.expect("the test needs a JDK, whose `java` compiles what it runs: `apt-get install default-jdk`");
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success() && out.contains("sent and read 300"), "{out}{err}");
    assert_eq!(listener.written(), 300);
}
