//! Documents as Elasticsearch takes and finds them, and how long it keeps them.

use super::*;

/// Row 36 of the catalogue (reliability.md, section 7), a document that the mapping refuses.
#[tokio::test]
async fn a_refused_document_spoils_no_other() {
    let settings = ready().await;
    let stores = cluster::connect(&settings).await.expect("connect");
    let (good, last) = (delivery(), delivery());
    // earlier than the index can tell times apart
    let bad = DeliveryStatus { updated_at: "1900-01-01T00:00:00Z".parse().expect("a time"), ..delivery() };
    let documents = [&good, &bad, &last].map(|d| Status::Delivery(d.clone()));
    let results = stores.deliveries.index(&documents).await.expect("index");
    assert_eq!((&results[0], &results[2]), (&Ok(()), &Ok(())));
    assert!(matches!(&results[1], Err(IndexError::Rejected(kind)) if kind.ends_with("_exception")), "{results:?}");
    for d in [good, last] {
        let search = || async {
            let page = stores.deliveries.search(&d.tenant, &DeliveryQuery::default(), None, 10).await.expect("search");
            (page.expect("a page").items == std::slice::from_ref(&d)).then_some(())
        };
        eventually("it is indexed", search).await;
    }
}

#[tokio::test]
async fn a_query_for_a_time_that_no_document_can_have_finds_none() {
    let settings = ready().await;
    let stores = cluster::connect(&settings).await.expect("connect");
    for (since, until) in [(Some(Timestamp::MAX), None), (None, Some(Timestamp::MIN))] {
        let query = DeliveryQuery { since, until, ..DeliveryQuery::default() };
        let page = stores.deliveries.search(&tenant(), &query, None, 10).await.expect("search").expect("a page");
        assert_eq!(page.items, []);
    }
}

#[tokio::test]
async fn days_go_when_they_have_been_over_for_the_retention() {
    let settings = settings();
    let day = Duration::from_secs(24 * 3600);
    let settings = ClusterSettings { index_retention: 10 * day, ..fresh(&settings) };
    cluster::migrate(&settings).await.expect("migrate");
    let stores = cluster::connect(&settings).await.expect("connect");
    assert_eq!(stores.deliveries.prune(at(0)).await.expect("prune"), Vec::<String>::new(), "there is nothing");
    let noon: Timestamp = "2026-06-15T12:00:00Z".parse().expect("a time");
    let accepted = |days: u32| DeliveryStatus { accepted_at: noon - days * day, ..delivery() };
    let documents = [0, 9, 10, 11, 40].map(|days| Status::Delivery(accepted(days)));
    assert_eq!(stores.deliveries.index(&documents).await.expect("index"), vec![Ok(()); 5]);
    // what only looks like a day, or like ours
    let other = format!("{}deliveries-2026.01.01-kept", settings.index_prefix);
    elastic(&settings, Method::Put, &other, "").await;

    let mut dropped = stores.deliveries.prune(noon).await.expect("prune");
    dropped.sort();
    let name = |day: &str| format!("elasticsearch: index {}deliveries-{day}", settings.index_prefix);
    assert_eq!(dropped, [name("2026.05.06"), name("2026.06.04")], "the 5th has not been over for ten days");
    assert_eq!(stores.deliveries.prune(noon).await.expect("prune"), Vec::<String>::new());
    let left = elastic(&settings, Method::Get, &format!("{}deliveries-*/_alias", settings.index_prefix), "").await;
    for kept in ["2026.06.15", "2026.06.06", "2026.06.05", "2026.01.01-kept"] {
        assert!(left.contains(kept), "{left}");
    }
    let (one, two) = join(stores.deliveries.prune(noon + day), stores.deliveries.prune(noon + day)).await;
    // Elasticsearch may say so to both
    let dropped = one.expect("prune").into_iter().chain(two.expect("prune")).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(dropped.into_iter().collect::<Vec<_>>(), [name("2026.06.05")]);
    clean_up(&settings).await;
}

/// Row 36, items with 429. What the indexer makes of them is in `services/indexer`.
#[tokio::test]
async fn what_is_not_taken_now_is_taken_later_and_spoils_no_other() {
    let settings = settings();
    let settings = fresh(&settings);
    cluster::migrate(&settings).await.expect("migrate");
    let stores = cluster::connect(&settings).await.expect("connect");
    let yesterday = DeliveryStatus { accepted_at: at(0) - Duration::from_secs(24 * 3600), ..delivery() };
    let block = |on: bool| {
        let index = format!("{}deliveries-{}", settings.index_prefix, yesterday.accepted_at.strftime("%Y.%m.%d"));
        let body = format!(r#"{{"index.blocks.read_only_allow_delete": {}}}"#, if on { "true" } else { "null" });
        let settings = &settings;
        async move { elastic(settings, Method::Put, &format!("{index}/_settings"), &body).await }
    };
    assert_eq!(stores.deliveries.index(&[Status::Delivery(yesterday.clone())]).await.expect("index"), [Ok(())]);
    // as when a disk is full
    block(true).await;
    let mut history = yesterday.history.clone();
    history.reached(at(1), State::Sent, None);
    let blocked = DeliveryStatus { state: State::Sent, history, ..yesterday };
    let bad = DeliveryStatus { updated_at: "1900-01-01T00:00:00Z".parse().expect("a time"), ..delivery() };
    let documents = [delivery(), blocked.clone(), bad, delivery()].map(Status::Delivery);
    let results = stores.deliveries.index(&documents).await.expect("index");
    assert_eq!((&results[0], &results[3]), (&Ok(()), &Ok(())));
    assert!(matches!(&results[1], Err(IndexError::Transient(detail)) if detail.contains("429")), "{results:?}");
    assert!(matches!(&results[2], Err(IndexError::Rejected(_))), "{results:?}");
    block(false).await;
    assert_eq!(stores.deliveries.index(&[Status::Delivery(blocked)]).await.expect("index"), [Ok(())]);
    clean_up(&settings).await;
}
