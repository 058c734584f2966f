//! A start on a cluster that is not set up.

use service_kit::{Kit, Problems, Settings, Unreachable};

/// Row 14 of the catalogue (reliability.md, section 7): refused before anything is read, with the remedy.
#[tokio::test]
async fn without_topics_there_is_no_service() {
    let Some(brokers) = std::env::var_os("CARILLON_TEST_KAFKA").and_then(|b| b.into_string().ok()) else {
        println!("skipped: CARILLON_TEST_KAFKA is not set, see deploy/dev/engines");
        return;
    };
    let mut settings = Settings::load(&[router::SETTINGS], None, []).expect("the defaults are valid");
    settings.set("kafka.brokers", vec![brokers]);
    settings.set("topics.prefix", "nobody-has-made-these.");
    let error = Kit::cluster(settings).await.map(drop).expect_err("there are none");
    let said = format!("{error:#}");
    assert!(said.contains("nobody-has-made-these.notifications.") && said.contains("`carillon topics`"), "{said}");
    // exit code 1: neither a wrong setting (64) nor somebody who is away (69)
    assert!(!error.is::<Problems>() && !error.is::<Unreachable>());
}
