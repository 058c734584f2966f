//! A log that fails: never a 202 for what is not durable.

use std::{collections::HashSet, sync::Arc};

use bus::{
    Log,
    sim::{Faults, Sim},
};
use domain::Notification;
use ingress::Ingress;
use serde_json::json;

use crate::api::{Api, TOPICS, notification, options};

/// The API over a simulated log; keys and categories are still the real ones.
async fn over(api: Api, seed: u64, faults: Faults) -> (Api, Sim) {
    let sim = Sim::new(seed, faults);
    sim.ensure_topics(&api.topics.specs(TOPICS)).await.expect("topics");
    let log = Arc::new(sim.clone());
    let ingress = Ingress::new(log, api.topics.clone(), api.config.clone(), &api.stores, &options());
    (Api { router: ingress::router(ingress), ..api }, sim)
}

#[tokio::test]
async fn a_log_that_refuses_is_a_503_that_says_what_is_open() {
    let refusing = Faults { publish_refused: 1.0, ..Faults::default() };
    let (api, _) = over(Api::start().await, 1, refusing).await;
    let answer = api.post("/v1/notifications", &notification()).await;
    answer.refused(503, "may be sent again");
    assert_eq!(answer.headers["retry-after"], "1");
    let batch = json!({"notifications": [notification(), {"to": []}, notification()]});
    let answer = api.post("/v1/notifications/batch", &batch).await;
    answer.refused(503, "may be sent again");
    assert_eq!(answer.headers["retry-after"], "1");
}

#[tokio::test]
async fn whatever_fails_an_accepted_one_is_whole_on_the_log() {
    let mut api = Api::start().await;
    let mut body = notification();
    body["to"] = json!([{"user": "a"}, {"user": "b"}, {"user": "c"}]);
    let batch = json!({"notifications": [body, {"to": []}, body, body]});
    let (mut whole, mut mixed, mut refused) = (0, 0, 0);
    for seed in 0..60 {
        let faults = Faults { publish_refused: 0.08, publish_doubtful: 0.08, ..Faults::default() };
        let (over, sim) = over(api, seed, faults).await;
        let records = |topic: &str, id: &str| {
            let ids = sim.records(topic).into_iter().filter(|r| match topic {
                "t.status" => String::from_utf8_lossy(r.key.as_ref().unwrap()).ends_with(id),
                _ => wire::decode::<Notification>(r.value.as_ref()).unwrap().id.to_string() == id,
            });
            ids.map(|r| r.key).collect::<HashSet<_>>().len()
        };
        let is_whole = |id: &str| records("t.notifications.chat.normal", id) == 3 && records("t.status", id) == 1;
        let answer = over.post("/v1/notifications/batch", &batch).await;
        if answer.status == 503 {
            refused += 1;
        } else {
            let results = answer.ok(202)["results"].as_array().unwrap().clone();
            assert_eq!(results[1]["error"]["status"], 400);
            let accepted: Vec<_> = results.iter().filter_map(|r| r["id"].as_str()).collect();
            assert!(accepted.iter().all(|id| is_whole(id)), "seed {seed}");
            for result in results.iter().filter(|r| r["error"]["status"] == 503) {
                assert!(result["error"]["detail"].as_str().unwrap().contains("sent again"), "{result}");
            }
            if accepted.len() == 3 { whole += 1 } else { mixed += 1 }
        }
        api = over;
    }
    assert!(whole > 0 && mixed > 0 && refused > 0, "all came up: {whole} whole, {mixed} mixed, {refused} refused");
}
