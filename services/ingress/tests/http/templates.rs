//! Templates: drafts, versions, previews, and the notifications that use them.

use std::time::{Duration, Instant};

use domain::{Message, Notification, Status};
use serde_json::{Value, json};

use crate::api::{ACME, Answer, Api, GLOBEX, OPERATOR, notification};

const PATH: &str = "/v1/templates/shipped";

fn template(body: &str) -> Value {
    json!({
        "description": "Sent when an order leaves", "default_locale": "en",
        "variables": {"order": {}, "items": {"default": []}},
        "contents": {
            "en": {"default": {"title": "Order {{ order }}", "body": body},
                   "email": {"subject": "Order {{ order }}", "html": "<b>{{ order }}</b>"}},
            "de": {"default": {"title": "Bestellung {{ order }}", "body": "Unterwegs."}}
        }
    })
}

async fn call(api: &Api, method: &str, path: &str, body: &Value) -> Answer {
    api.call(method, path, ACME, body.to_string()).await
}

async fn publish(api: &Api) -> Value {
    api.call("POST", &format!("{PATH}/publish"), ACME, "").await.ok(200)
}

fn request(changes: &Value) -> Value {
    let mut body = notification();
    body["content"] = Value::Null;
    body["template"] = json!("shipped");
    body["data"] = json!({"order": "17"});
    for (name, value) in changes.as_object().expect("object") {
        body[name] = value.clone();
    }
    body
}

#[tokio::test]
async fn a_template_goes_from_draft_to_version() {
    let api = Api::start().await;
    api.get(PATH, ACME).await.refused(404, "PUT /v1/templates/shipped");
    let draft = call(&api, "PUT", PATH, &template("one")).await.ok(200);
    assert_eq!((&draft["published"], &draft["latest"], &draft["template"]), (&json!(null), &json!(0), &json!(null)));
    assert_eq!((&draft["draft"], &draft["updated_by"]), (&template("one"), &json!("main")));
    assert_eq!(api.get(PATH, ACME).await.ok(200), draft);

    let one = publish(&api).await;
    assert_eq!(
        (&one["version"], &one["template"], &one["published_by"]),
        (&json!(1), &template("one"), &json!("main"))
    );
    assert_eq!(publish(&api).await, one, "to publish what is published changes nothing");
    call(&api, "PUT", PATH, &template("one")).await.ok(200);
    assert_eq!(publish(&api).await, one, "nor does an unchanged draft");
    let head = api.get(PATH, ACME).await.ok(200);
    assert_eq!((&head["published"], &head["draft"], &head["template"]), (&json!(1), &json!(null), &template("one")));

    let drafted = call(&api, "PUT", PATH, &template("two")).await.ok(200);
    assert_eq!((&drafted["published"], &drafted["template"]), (&json!(1), &template("one")), "a draft changes nothing");
    let two = publish(&api).await;
    assert_eq!((&two["version"], &two["template"]), (&json!(2), &template("two")));
    let path = format!("{PATH}/versions/");
    assert_eq!(api.get(&format!("{path}1"), ACME).await.ok(200), one, "a version never changes");
    assert_eq!(api.get(&format!("{path}2"), ACME).await.ok(200), two);
    for bad in ["0", "3", "01", "x", "-1"] {
        api.get(&format!("{path}{bad}"), ACME).await.refused(404, "no such version");
    }
    let answer = call(&api, "POST", &format!("{PATH}/publish"), &json!({"version": 1})).await;
    assert_eq!(answer.problem(400)[0].0, "/version");
    call(&api, "POST", &format!("{PATH}/publish"), &json!({})).await.ok(200);

    assert_eq!(api.call("DELETE", PATH, ACME, "").await.status, 204);
    api.call("DELETE", PATH, ACME, "").await.problem(404);
    api.call("POST", &format!("{PATH}/publish"), ACME, "").await.problem(404);
    api.get(&format!("{path}1"), ACME).await.problem(404);
    assert!(api.config.snapshot().entries.keys().all(|at| !at.name.starts_with("shipped")));
}

#[tokio::test]
async fn what_a_death_left_behind_is_taken_up() {
    let api = Api::start().await;
    let entry = |name: &str| domain::config::EntryKey {
        tenant: domain::TenantId::parse("acme").unwrap(),
        kind: domain::config::Kind::Templates,
        name: name.to_owned(),
    };
    let version =
        |body: &str| json!({"template": template(body), "published_at": "2026-11-21T09:00:00Z", "published_by": "old"});
    // it died after the version and before the head; the same draft finds it
    call(&api, "PUT", PATH, &template("one")).await.ok(200);
    api.config.put(&entry("shipped@1"), Some(&version("one"))).await.unwrap();
    let one = publish(&api).await;
    assert_eq!((&one["version"], &one["published_by"]), (&json!(1), &json!("old")));
    // another draft leaves it as it is
    api.config.put(&entry("shipped@2"), Some(&version("two"))).await.unwrap();
    call(&api, "PUT", PATH, &template("three")).await.ok(200);
    assert_eq!(publish(&api).await["version"], 3);
    assert_eq!(api.get(&format!("{PATH}/versions/2"), ACME).await.ok(200)["template"], template("two"));
    // it died after the head and before the versions: nothing is accepted any more, and the rest can be removed
    api.config.put(&entry("shipped"), None).await.unwrap();
    let answer = call(&api, "POST", "/v1/notifications", &request(&json!({}))).await;
    assert_eq!(answer.problem(400)[0].0, "/template");
    let fresh = call(&api, "PUT", PATH, &template("four")).await.ok(200);
    assert_eq!((&fresh["latest"], &fresh["published"]), (&json!(3), &json!(null)));
    assert_eq!(publish(&api).await["version"], 4, "no version is written twice");
    api.config.put(&entry("shipped"), None).await.unwrap();
    assert_eq!(api.call("DELETE", PATH, ACME, "").await.status, 204);
    assert!(api.config.snapshot().entries.keys().all(|at| !at.name.starts_with("shipped")));
}

#[tokio::test]
async fn templates_are_listed_in_pages_and_apart() {
    let api = Api::start().await;
    for key in ["a", "b", "b-2", "b.1", "c"] {
        let path = format!("/v1/templates/{key}");
        call(&api, "PUT", &path, &template("text")).await.ok(200);
        call(&api, "POST", &format!("{path}/publish"), &json!({})).await.ok(200);
    }
    call(&api, "PUT", "/v1/templates/b", &template("changed")).await.ok(200);
    let mut found = Vec::new();
    let mut path = "/v1/templates?limit=2".to_owned();
    loop {
        let page = api.get(&path, ACME).await.ok(200);
        found.extend(page["items"].as_array().unwrap().clone());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/templates?limit=2&cursor={cursor}");
    }
    let keys: Vec<_> = found.iter().map(|t| t["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["a", "b", "b-2", "b.1", "c"], "each once, and no versions");
    assert_eq!((&found[1]["has_draft"], &found[0]["has_draft"]), (&json!(true), &json!(false)));
    assert_eq!(found[0]["description"], "Sent when an order leaves");

    assert_eq!(api.get("/v1/templates", GLOBEX).await.ok(200), json!({"items": [], "next_cursor": null}));
    for path in
        ["/v1/templates/a", "/v1/templates/a/versions/1", "/v1/templates/a?tenant=acme", "/v1/templates?tenant=acme"]
    {
        api.get(path, GLOBEX).await.problem(404);
    }
    for (method, path) in [("DELETE", "/v1/templates/a"), ("POST", "/v1/templates/a/publish")] {
        api.call(method, path, GLOBEX, "").await.problem(404);
    }
    let preview = json!({"channel": "email", "data": {"order": "17"}}).to_string();
    api.call("POST", "/v1/templates/a/preview", GLOBEX, preview).await.problem(404);
    let body = request(&json!({"template": "a"}));
    api.put("/v1/config/categories/orders", GLOBEX, &json!({"channels": ["webhook"]})).await.ok(200);
    let answer = api.call("POST", "/v1/notifications", GLOBEX, body.to_string()).await;
    assert_eq!(answer.problem(400)[0].0, "/template");

    api.get("/v1/templates/a", OPERATOR).await.refused(400, "?tenant=");
    assert_eq!(api.get("/v1/templates/a?tenant=acme", OPERATOR).await.ok(200)["published"], 1);
    api.put("/v1/templates/a?tenant=nobody", OPERATOR, &template("x")).await.refused(404, "no tenant `nobody`");
    // by way of the configuration they can be read, and nothing else
    assert_eq!(api.get("/v1/config/templates/b", ACME).await.ok(200)["draft"], template("changed"));
    assert_eq!(api.get("/v1/config/templates/b@1", ACME).await.ok(200)["template"], template("text"));
    for name in ["b", "b@1", "b@2"] {
        let path = format!("/v1/config/templates/{name}");
        api.put(&path, ACME, &template("x")).await.refused(400, "PUT /v1/templates/{key}");
        api.call("DELETE", &path, ACME, "").await.refused(400, "DELETE /v1/templates/{key}");
    }
}

#[tokio::test]
async fn bad_templates_and_bombs_are_refused() {
    let api = Api::start().await;
    let leaf = |text: &str| json!({"default_locale": "en", "variables": {"x": {}}, "contents": {"en": {"default": {"body": text}}}});
    let body = "/contents/en/default/body";
    let deep = (0..40).fold(json!("leaf"), |inner, _| json!([inner]));
    let many: serde_json::Map<_, _> = (0..300).map(|i| (format!("k{i}"), json!("{{ x }}"))).collect();
    for (template, pointer, says) in [
        (json!({"contents": {}}), "", "default_locale"),
        (json!({"default_locale": "german", "contents": {}}), "/default_locale", "like de, de-CH"),
        (json!({"default_locale": "en", "contents": {}}), "/default_locale", "none for the default locale"),
        (json!({"default_locale": "en", "content": {}, "contents": {}}), "/content", "unknown field"),
        (leaf("{{ y }}"), body, "y"),
        (leaf("{% if x %}"), body, "line 1"),
        (leaf("{% include 'x' %}"), body, "include"),
        (leaf("{{ x.__class__ }}{% macro a() %}{% endmacro %}"), body, "macro"),
        (leaf(&"x".repeat(70_000)), body, "65536 at most"),
        (leaf(&format!("{}x{}", "{% if x %}".repeat(2_500), "{% endif %}".repeat(2_500))), body, "recursion"),
        (leaf(&format!("{{{{ {}x{} }}}}", "(".repeat(20_000), ")".repeat(20_000))), body, "more than 256 words"),
        (
            json!({"default_locale": "en", "contents": {"en": {"webhook": {"a": deep}}}}),
            "/contents/en/webhook/a",
            "nested deeper than 32",
        ),
        (
            json!({"default_locale": "en", "variables": {"x": {}}, "contents": {"en": {"webhook": many}}}),
            "/contents/en",
            "more than 256 texts",
        ),
        (
            json!({"default_locale": "en", "contents": {"en": {"default": {"body": "a"}}, "de-CH": {"default": {"body": "b"}},
                "de_ch": {"default": {"body": "c"}}}}),
            "/contents",
            "the same one",
        ),
        (
            json!({"default_locale": "en", "contents": {"en": {"sms": {"text": "x"}}}}),
            "/contents/en/sms",
            "not yet built",
        ),
        (
            json!({"default_locale": "en", "contents": {"en": {"email": {"text": "x", "subject": "a\r\nBcc: b@c.de"}}}}),
            "/contents/en/email/subject",
            "control character",
        ),
    ] {
        let started = Instant::now();
        let answer = call(&api, "PUT", PATH, &template).await;
        let errors = answer.problem(400);
        let short: String = answer.body.to_string().chars().take(600).collect();
        assert!(
            errors.iter().any(|(at, detail)| at.starts_with(pointer) && detail.contains(says)),
            "{pointer} {says}: {short}"
        );
        assert!(started.elapsed() < Duration::from_secs(5), "{pointer}: {:?}", started.elapsed());
    }
    let bomb = format!(r#"{{"default_locale": "en", "contents": {}"#, r#"{"en":"#.repeat(100_000));
    api.call("PUT", PATH, ACME, bomb).await.refused(400, "recursion limit");
    let huge: serde_json::Map<_, _> =
        (0..6).map(|i| (format!("v{i}"), json!({"description": "x".repeat(60_000)}))).collect();
    let huge = json!({"default_locale": "en", "variables": huge, "contents": {"en": {"default": {"body": "b"}}}});
    call(&api, "PUT", PATH, &huge).await.refused(400, "262144 at most");
    api.put("/v1/templates/Bad", ACME, &template("x")).await.refused(400, "a template key has 1 to 63");
    api.put("/v1/templates/a@1", ACME, &template("x")).await.refused(400, "a template key has 1 to 63");
    api.get(PATH, ACME).await.problem(404);
}

#[tokio::test]
async fn a_preview_says_what_would_be_said_or_where_it_fails() {
    let api = Api::start().await;
    let path = format!("{PATH}/preview");
    let preview = async |body: Value| call(&api, "POST", &path, &body).await;
    preview(json!({"channel": "email"})).await.problem(404);
    call(&api, "PUT", PATH, &template("{% for i in items %}{{ i }};{% endfor %}")).await.ok(200);
    let data = json!({"order": "<17>", "items": [1, 2]});
    let said = preview(json!({"channel": "webhook", "data": data})).await.ok(200);
    assert_eq!(said, json!({"content": {"default": {"title": "Order <17>", "body": "1;2;"}}, "locale": "en"}));
    let mail = preview(json!({"channel": "email", "data": data})).await.ok(200);
    assert_eq!(mail["content"], json!({"email": {"subject": "Order <17>", "html": "<b>&lt;17&gt;</b>"}}));
    let german = preview(json!({"channel": "apns", "data": data, "locale": "de-AT"})).await.ok(200);
    assert_eq!((&german["locale"], &german["content"]["default"]["title"]), (&json!("de"), &json!("Bestellung <17>")));

    publish(&api).await;
    call(&api, "PUT", PATH, &template("new")).await.ok(200);
    let one = preview(json!({"channel": "webhook", "data": data, "version": 1})).await.ok(200);
    assert_eq!(
        (
            &one,
            preview(json!({"channel": "webhook", "data": data})).await.ok(200)["content"]["default"]["body"].as_str()
        ),
        (&said, Some("new")),
        "a version, and the draft unless one is said"
    );
    let inline = json!({"default_locale": "en", "contents": {"en": {"default": {"body": "inline"}}}});
    let answer = preview(json!({"channel": "webhook", "template": inline})).await.ok(200);
    assert_eq!(answer["content"]["default"]["body"], "inline");

    let of = |text: &str| {
        let variables =
            json!({"list": {"default": vec![7; 100]}, "long": {"default": "x".repeat(20_000)}, "x": {"default": 1}});
        json!({"default_locale": "en", "variables": variables, "contents": {"en": {"email": {"text": text}}}})
    };
    let text = "/template/contents/en/email/text";
    let nested = "{% for a in list %}{% for b in list %}{% for c in list %}{% endfor %}{% endfor %}{% endfor %}";
    let doubling = format!("{{% set a = 'xxxxxxxxxx' %}}{}{{{{ a }}}}", "{% set a = a ~ a %}".repeat(40));
    for (body, pointer, says) in [
        (json!({"data": data}), "/channel", "is missing"),
        (json!({"channel": "sms"}), "/channel", "not yet built"),
        (json!({"channel": "email", "locale": "x"}), "/locale", "like de"),
        (json!({"channel": "email", "version": 9, "data": data}), "/version", "the latest is 1"),
        (json!({"channel": "email", "version": 1, "template": inline}), "/version", "one of"),
        (json!({"channel": "email", "dta": {}}), "/dta", "did you mean `data`"),
        (json!({"channel": "email"}), "/data/order", "missing"),
        (json!({"channel": "email", "data": {"order": "1", "ordr": "2"}}), "/data/ordr", "not declared"),
        (json!({"channel": "webhook", "template": of("a")}), "/template/contents", "no content for webhook"),
        (json!({"channel": "email", "template": of("{{ y }}")}), text, "y"),
        (json!({"channel": "email", "template": of("{{ x.y.z }}")}), text, "line 1"),
        (json!({"channel": "email", "template": of("{% for i in range(9999) %}.{% endfor %}")}), text, "no functions"),
        (json!({"channel": "email", "template": of(nested)}), text, "more steps than a text may"),
        (json!({"channel": "email", "template": of(&doubling)}), text, "handles more than a rendering may"),
        (json!({"channel": "email", "template": of("{{ list|join(long) }}")}), text, "handles more"),
        (
            json!({"channel": "email", "template": of("{% for i in list %}{{ long }}{% endfor %}")}),
            text,
            "262144 bytes",
        ),
    ] {
        let started = Instant::now();
        let answer = preview(body).await;
        let errors = answer.problem(400);
        assert!(errors[0].0 == pointer && errors[0].1.contains(says), "{pointer}: {}", answer.body);
        assert!(started.elapsed() < Duration::from_secs(10), "{pointer}: {:?}", started.elapsed());
    }
    // what is written by data is checked as what would be sent
    let subject = json!({"default_locale": "en", "variables": {"x": {}}, "contents": {"en": {"email": {"text": "t", "subject": "{{ x }}"}}}});
    let answer = preview(json!({"channel": "email", "template": subject, "data": {"x": "a\r\nBcc: b@c.de"}})).await;
    assert_eq!(answer.problem(400)[0].0, "/template/contents/en/email/subject", "{}", answer.body);
    assert_eq!(api.published().await, 0);
}

#[tokio::test]
async fn a_notification_keeps_the_version_that_was_published() {
    let api = Api::start().await;
    let send = async |changes: Value| call(&api, "POST", "/v1/notifications", &request(&changes)).await;
    let refused = async |changes: Value, pointer: &str, says: &str| {
        let answer = send(changes).await;
        let errors = answer.problem(400);
        assert!(errors[0].0 == pointer && errors[0].1.contains(says), "{}", answer.body);
    };
    refused(json!({}), "/template", "PUT /v1/templates/shipped").await;
    call(&api, "PUT", PATH, &template("one")).await.ok(200);
    refused(json!({}), "/template", "POST /v1/templates/shipped/publish").await;
    publish(&api).await;
    send(json!({"locale": "de_ch"})).await.ok(202);
    call(&api, "PUT", PATH, &template("two")).await.ok(200);
    send(json!({})).await.ok(202);
    publish(&api).await;
    send(json!({"data": {"order": 18, "items": ["x"]}})).await.ok(202);
    let notifications = api.records("t.notifications.chat.normal").await;
    let mut sent: Vec<Notification> = notifications.iter().map(|r| wire::decode(r.value.as_ref()).unwrap()).collect();
    sent.sort_by_key(|n| n.id);
    let versions: Vec<_> = sent.iter().filter_map(|n| Some(n.message.template()?.to_string())).collect();
    assert_eq!(versions, ["shipped@1", "shipped@1", "shipped@2"], "the one that was published at acceptance");
    assert_eq!(sent[0].locale.as_ref().map(domain::Locale::as_str), Some("de-CH"));
    let Message::Template { data, .. } = &sent[2].message else { panic!("a template") };
    assert_eq!(Value::Object(data.clone()), json!({"order": 18, "items": ["x"]}));
    for record in api.records("t.status").await {
        let Status::Notification(said) = wire::decode(record.value.as_ref()).unwrap() else { panic!("a notification") };
        assert!(said.template.is_some_and(|t| t.starts_with("shipped@")));
    }

    let before = api.published().await;
    refused(json!({"content": {"default": {"body": "B"}}}), "/content", "not both").await;
    refused(json!({"data": {}}), "/data/order", "missing").await;
    refused(json!({"data": null}), "/data/order", "missing").await;
    refused(json!({"data": {"order": 1, "ordr/x": 2}}), "/data/ordr~1x", "it declares items, order").await;
    refused(json!({"data": {"order": "x".repeat(65_536)}}), "/data", "65536 at most").await;
    refused(
        json!({"data": {"order": (0..40).fold(json!(1), |inner, _| json!([inner]))}}),
        "/data/order",
        "deeper than 32",
    )
    .await;
    let mail =
        json!({"default_locale": "en", "contents": {"en": {"email": {"text": "T"}}, "de": {"default": {"body": "B"}}}});
    call(&api, "PUT", "/v1/templates/mail", &mail).await.ok(200);
    call(&api, "POST", "/v1/templates/mail/publish", &json!({})).await.ok(200);
    refused(json!({"template": "mail", "data": null}), "/template", "says nothing on webhook").await;
    assert_eq!(api.published().await, before);
    send(json!({"template": "mail", "data": null, "locale": "de-CH"})).await.ok(202);

    let batch = json!({"notifications": [request(&json!({})), request(&json!({"template": "nope"}))]});
    let results = call(&api, "POST", "/v1/notifications/batch", &batch).await.ok(202)["results"].clone();
    assert_eq!(results[1]["error"]["errors"][0]["pointer"], "/notifications/1/template");
    assert!(results[0]["id"].is_string());
}
