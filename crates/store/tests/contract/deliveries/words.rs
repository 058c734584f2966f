//! The words that find a delivery.

use super::*;

pub async fn words_find_what_people_may_know_and_nothing_else(store: &dyn Deliveries) {
    let tenant = tenant();
    let mut told = delivery(&tenant, stranger(), 0, &[State::Queued]);
    let answer =
        Attempt::new(1, &Outcome::Rejected(Reason::ProviderRejected), "550 5.1.1 Überlastet: no_such-mailbox", 7);
    told.history.attempted(at(1), State::Failed, Some(Reason::ProviderRejected), answer);
    let metadata =
        [("order", "A-4711/x"), ("ключ", "Größe ЖЁЛТЫЙ 注文"), ("long", &"Ab".repeat(300)), ("keyword", "v")];
    let told = DeliveryStatus {
        user: Some(UserId::parse("Ana.Maria+test@example.com").expect("an id")),
        template: Some("order.shipped@3".into()),
        category: Some(CategoryKey::parse("order_news").expect("a name")),
        address: Some("https://masked.example/…".into()),
        metadata: metadata.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..told
    };
    let other = delivery(&tenant, stranger(), 1, &[State::Queued]);
    index(store, &[Status::Delivery(told.clone()), Status::Delivery(other.clone())]).await;
    settle(store, &tenant, 2).await;
    let find = |q: String| {
        let query = DeliveryQuery { q: Some(q), ..DeliveryQuery::default() };
        let tenant = &tenant;
        async move { found(store, tenant, &query).await }
    };
    let (id, notification) = (told.id.to_string(), told.notification.to_string().to_uppercase());
    let long = "aB".repeat(300);
    for q in [
        "4711",
        "a-4711",
        "A 4711 X",
        "größe",
        "GRÖSSE".replace("SS", "ß").as_str(),
        "жёлтый",
        "注文",
        "überlastet",
        "550 no such mailbox",
        "maria",
        "ana.maria+test@example.com",
        "shipped 3",
        "order.shipped@3",
        "order_news news",
        id.as_str(),
        notification.as_str(),
        long.as_str(),
        "mailbox \" größe",
    ] {
        assert_eq!(find(q.to_owned()).await, [told.id], "{q}");
    }
    for q in [
        "471",
        "4711 nothing",
        "gross",
        "masked",
        "masked.example",
        "keyword",
        "failed",
        "webhook",
        "",
        " ",
        "…!\"",
        "*",
        "größ*",
        "words : größe",
        "NOT",
        "\u{0}",
    ] {
        assert_eq!(find(q.to_owned()).await, [], "{q:?}");
    }
    assert_eq!(find("ana".into()).await, [other.id, told.id], "also a page of several, newest first");
    let query = DeliveryQuery { q: Some("ana".into()), ..DeliveryQuery::default() };
    let first = page(store, &tenant, &query, None, 1).await;
    let second = page(store, &tenant, &query, first.next_cursor.as_deref(), 1).await;
    assert_eq!([&first.items[0], &second.items[0]], [&other, &told], "page by page, and whole");
    assert_eq!(second.next_cursor, None);
}

pub async fn words_follow_what_happens(store: &dyn Deliveries) {
    let tenant = tenant();
    let request = notification(&tenant);
    let mut now = delivery(&tenant, request.id, 0, &[State::Queued]);
    let query = |q: &str| DeliveryQuery { q: Some(q.into()), ..DeliveryQuery::default() };
    index(store, &[Status::Notification(request), Status::Delivery(now.clone())]).await;
    for (step, answer) in [(1, "503 busy"), (2, "421 tomorrow"), (3, "250 accepted")] {
        let attempt = Attempt::new(1, &Outcome::Transient { retry_after: None }, answer, 1);
        now.history.attempted(at(step), State::Deferred, None, attempt);
        now = DeliveryStatus { state: State::Deferred, updated_at: at(step), ..now };
        index(store, &[Status::Delivery(now.clone())]).await;
        let told = || async { (found(store, &tenant, &query(answer)).await == [now.id]).then_some(()) };
        eventually("the answer is found", told).await;
    }
    assert_eq!(found(store, &tenant, &query("503 421 250")).await, [now.id], "with the answers before");
}
