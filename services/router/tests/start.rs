//! A start on a cluster that is not set up.

use service_kit::{Kit, Problems, Settings, Unreachable};

/// Where an engine is; without it a test fails, it is not skipped.
fn engine(name: &str) -> String {
    let name = format!("CARILLON_TEST_{name}");
    std::env::var_os(&name)
        .and_then(|address| address.into_string().ok())
        .unwrap_or_else(|| panic!("{name} is not set; run `make test`, or eval \"$(deploy/dev/engines env)\""))
}

/// All engines, with a schema, and names of topics that nobody has made.
fn settings() -> Settings {
    let mut settings = Settings::load(&[router::SETTINGS], None, []).expect("the defaults are valid");
    settings.set("kafka.brokers", vec![engine("KAFKA")]);
    settings.set("topics.prefix", "nobody-has-made-these.");
    settings.set("redis.url", engine("REDIS"));
    settings.set("cassandra.nodes", vec![engine("CASSANDRA")]);
    settings.set("cassandra.keyspace", "carillon_contract");
    settings.set("elasticsearch.url", engine("ELASTICSEARCH"));
    settings.set("elasticsearch.index_prefix", "contract-");
    settings
}

/// Row 14 of the catalogue (reliability.md, section 7): refused before anything is read, with the remedy.
#[tokio::test]
async fn without_topics_there_is_no_service() {
    let settings = settings();
    Kit::migrate(&settings).await.expect("migrate");
    let error = Kit::cluster(settings).await.map(drop).expect_err("there are none");
    let said = format!("{error:#}");
    assert!(said.contains("nobody-has-made-these.notifications.") && said.contains("`carillon topics`"), "{said}");
    // exit code 1: neither a wrong setting (64) nor somebody who is away (69)
    assert!(!error.is::<Problems>() && !error.is::<Unreachable>());
}
