//! The configuration, for operators.

use serde_json::{Value, json};

use crate::api::{ACME, Api, GLOBEX, OPERATOR, SECRET, notification};

fn names(page: &Value) -> Vec<&str> {
    page["items"].as_array().expect("items").iter().map(|e| e["name"].as_str().expect("name")).collect()
}

#[tokio::test]
async fn a_key_is_never_kept_nor_answered() {
    let api = Api::start().await;
    let key = "a-new-key-0123456789";
    let body = json!({"key": key, "scopes": ["notifications:write"]});
    let written = api.put("/v1/config/keys/new", ACME, &body).await.ok(200);
    assert_eq!(written["sha256"], ingress::auth::fingerprint(key));
    let read = api.get("/v1/config/keys/new", ACME).await.ok(200);
    assert_eq!((&read, &read["revoked"]), (&written, &json!(false)));
    api.call("POST", "/v1/notifications", key, notification().to_string()).await.ok(202);
    for record in api.records("t.config").await {
        let value = record.value.map(|v| String::from_utf8_lossy(&v).into_owned()).unwrap_or_default();
        assert!(!value.contains(key) && !value.contains(ACME), "{value}");
    }
    // the same by its hash, and removed again
    api.put("/v1/config/keys/new", ACME, &read).await.ok(200);
    api.put("/v1/config/keys/thief", GLOBEX, &read).await.refused(409, "in use already");
    api.put("/v1/config/keys/copy", ACME, &body).await.refused(409, "in use already");
    assert_eq!(api.call("DELETE", "/v1/config/keys/new", ACME, "").await.status, 204);
    api.call("POST", "/v1/notifications", key, notification().to_string()).await.problem(401);
    api.call("DELETE", "/v1/config/keys/new", ACME, "").await.problem(404);
}

#[tokio::test]
async fn an_account_hides_its_secret() {
    let api = Api::start().await;
    let body = json!({"channel": "webhook", "secret": SECRET});
    let hidden = json!({"channel": "webhook", "secret": "(hidden)"});
    assert_eq!(api.put("/v1/config/accounts/webhook", ACME, &body).await.ok(200), hidden);
    assert_eq!(api.get("/v1/config/accounts/webhook", ACME).await.ok(200), hidden);
    assert_eq!(api.get("/v1/config/accounts", ACME).await.ok(200)["items"][0]["value"], hidden);
    let answer = api.put("/v1/config/accounts/webhook", ACME, &hidden).await;
    assert_eq!(answer.problem(400)[0].0, "/secret", "what is shown is no secret");
    api.put("/v1/config/accounts/main", ACME, &body).await.refused(400, "named like its channel");
    let acme = domain::TenantId::parse("acme").unwrap();
    let kept = api.config.snapshot().account(&acme, domain::Channel::Webhook).cloned();
    assert!(matches!(kept, Some(domain::config::Account::Webhook(account)) if account.secret.expose() == SECRET));
}

#[tokio::test]
async fn tenants_are_the_installation_s_and_apart() {
    let api = Api::start().await;
    api.put("/v1/config/tenants/initech", ACME, &json!({})).await.problem(404);
    api.put("/v1/config/tenants/acme", ACME, &json!({})).await.refused(403, "ingress.operator_key");
    assert_eq!(names(&api.get("/v1/config/tenants", OPERATOR).await.ok(200)), ["acme", "globex"]);
    assert_eq!(names(&api.get("/v1/config/tenants", ACME).await.ok(200)), ["acme"]);
    for path in ["/v1/config/tenants/globex", "/v1/config/keys/main?tenant=globex", "/v1/config/keys?tenant=globex"] {
        api.get(path, ACME).await.problem(404);
        api.get(&path.replace("globex", "nobody"), ACME).await.problem(404);
    }
    api.get("/v1/config/categories/orders", GLOBEX).await.problem(404);
    api.get("/v1/config/categories/orders?tenant=acme", ACME).await.ok(200);
    let answer = api.get("/v1/config/keys/main", OPERATOR).await;
    answer.refused(400, "?tenant=");
    assert_eq!(answer.problem(400)[0].0, "/tenant");

    let category = json!({"channels": ["chat"], "opt_in": true});
    api.put("/v1/config/categories/news?tenant=initech", OPERATOR, &category).await.refused(404, "no tenant `initech`");
    api.put("/v1/config/tenants/initech?tenant=initech", OPERATOR, &json!({"title": "Initech"})).await.ok(200);
    assert_eq!(api.put("/v1/config/categories/news?tenant=initech", OPERATOR, &category).await.ok(200), category);
    let answer = api.call("DELETE", "/v1/config/tenants/initech", OPERATOR, "").await;
    answer.refused(409, "categories/news");
    assert_eq!(api.call("DELETE", "/v1/config/categories/news?tenant=initech", OPERATOR, "").await.status, 204);
    assert_eq!(api.call("DELETE", "/v1/config/tenants/initech", OPERATOR, "").await.status, 204);
    api.get("/v1/config/tenants/initech", OPERATOR).await.problem(404);
}

#[tokio::test]
async fn bad_entries_and_places_are_named() {
    let api = Api::start().await;
    for (path, body, status, pointer, says) in [
        ("/v1/config/categories/Bad", json!({}), 400, "", "a-z 0-9"),
        ("/v1/config/categories/a%20b", json!({}), 400, "", "a name has"),
        ("/v1/config/categories/news", json!({"channels": ["sms"]}), 400, "/channels/0", "not yet built"),
        ("/v1/config/categories/news", json!({"channel": []}), 400, "/channel", "unknown field"),
        ("/v1/config/categories/news?tenat=acme", json!({}), 400, "/tenat", "did you mean `tenant`"),
        ("/v1/config/keys/k", json!({"key": "short", "scopes": []}), 400, "/key", "20 to 200"),
        ("/v1/config/keys/k", json!([]), 400, "", "invalid"),
    ] {
        let answer = api.put(path, ACME, &body).await;
        let errors = answer.problem(status);
        assert!(errors[0].0 == pointer && errors[0].1.contains(says), "{path}: {}", answer.body);
    }
    api.put("/v1/config/things/x", ACME, &json!({})).await.refused(404, "tenants, keys, categories, accounts");
    api.get("/v1/config/switches", ACME).await.refused(501, "not yet built");
}

#[tokio::test]
async fn lists_come_in_pages() {
    let api = Api::start().await;
    for name in ["a", "b", "c"] {
        api.put(&format!("/v1/config/categories/{name}"), ACME, &json!({})).await.ok(200);
    }
    let first = api.get("/v1/config/categories?limit=3", ACME).await.ok(200);
    assert_eq!((names(&first), &first["next_cursor"]), (vec!["a", "b", "c"], &json!("c")));
    let second = api.get("/v1/config/categories?limit=3&cursor=c", ACME).await.ok(200);
    assert_eq!((names(&second), &second["next_cursor"]), (vec!["orders"], &json!(null)));
}
