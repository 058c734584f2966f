//! A steady flow by all three ways in, and people who opt out of it; what was confirmed is noted with its time.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context as _;
use bus::{
    Headers, Log as _, Outgoing,
    kafka::{Kafka, KafkaSettings},
};
use domain::{Channel, NotificationId, TenantId, Timestamp};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::{
    installation::{Api, KEY, TENANT},
    people::Person,
};

/// The source of the events, which is bound to the tenant.
pub const SOURCE: &str = "https://chaos.example/shop";
/// One that is bound to nobody: its events have to become dead letters.
const STRANGER: &str = "https://chaos.example/stranger";
const CATEGORIES: [&str; 2] = ["orders", "news"];
/// How long an answer is waited for; afterwards the outcome is open.
const PATIENCE: Duration = Duration::from_secs(5);
/// Workers for each way: so many requests can hang before the flow stands still.
const WORKERS: usize = 4;

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `POST /v1/notifications`.
    Http,
    /// `NotificationService.Send`.
    Grpc,
    /// A `CloudEvent` on `carillon.events`.
    Event,
}

/// A notification that was confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// As it was answered, or as an event's own id makes it.
    pub id: String,
    /// By which way.
    pub way: Way,
    /// The event's own id, if it was one.
    pub event: Option<String>,
    /// The users.
    pub to: Vec<String>,
    /// When the answer was there.
    pub at: Timestamp,
}

/// A person's word that was confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptOut {
    /// Whose.
    pub user: String,
    /// Of everything if `None`.
    pub category: Option<&'static str>,
    /// When it was first asked for: it may hold from then on.
    pub asked: Timestamp,
    /// When it was confirmed: it has to hold soon after.
    pub confirmed: Timestamp,
}

/// What the flow knows in the end.
#[derive(Debug, Default)]
pub struct Told {
    /// In the order of the answers.
    pub accepted: Vec<Accepted>,
    /// Requests whose outcome is open: they may or may not have been taken over.
    pub doubtful: usize,
    /// Ids of the events that nobody may take, as far as the log has confirmed them.
    pub strange: Vec<String>,
    /// Who opted out.
    pub opt_outs: Vec<OptOut>,
}

/// One notification that is to be handed over, as it follows from the seed.
struct Item {
    n: usize,
    to: Vec<String>,
    channels: Vec<Channel>,
    category: &'static str,
    priority: i64,
    expires_in: Option<Duration>,
    strange: bool,
}

impl Item {
    fn new(seed: u64, n: usize, people: &[Person]) -> Self {
        let mut chance = fastrand::Rng::with_seed(seed ^ (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let first = draw(people, &mut chance);
        let mut to = vec![first];
        if chance.u8(0..5) == 0 {
            let other = draw(people, &mut chance);
            if other.id != first.id {
                to.push(other);
            }
        }
        let mut channels: Vec<Channel> =
            Channel::ALL.iter().copied().filter(|c| first.on(*c).is_some() || chance.u8(0..8) == 0).collect();
        chance.shuffle(&mut channels);
        channels.truncate(chance.usize(1..=channels.len()));
        Self {
            n,
            to: to.into_iter().map(|p| p.id.clone()).collect(),
            channels,
            category: CATEGORIES[chance.usize(0..CATEGORIES.len())],
            priority: chance.i64(1..=10),
            expires_in: (chance.u8(0..10) == 0).then(|| Duration::from_millis(chance.u64(500..4000))),
            strange: chance.u8(0..25) == 0,
        }
    }

    fn event(&self) -> String {
        format!("e-{}", self.n)
    }

    /// The request; an expiry counts from now.
    fn json(&self) -> Value {
        let mut metadata = json!({"n": self.n.to_string()});
        let mut request = json!({
            "to": self.to.iter().map(|user| json!({"user": user})).collect::<Vec<_>>(),
            "channels": self.channels.iter().map(|c| c.as_str()).collect::<Vec<_>>(),
            "category": self.category,
            "priority": self.priority,
            "content": {"default": {"title": "Number", "body": format!("number {}", self.n)}},
        });
        if let Some(expires_in) = self.expires_in {
            let at = json!((Timestamp::now() + expires_in).to_string());
            metadata["expires_at"] = at.clone();
            request["expires_at"] = at;
        }
        request["metadata"] = metadata;
        request
    }
}

/// Somebody, by their share.
fn draw<'a>(people: &'a [Person], chance: &mut fastrand::Rng) -> &'a Person {
    let mut at = chance.u32(0..people.iter().map(|p| p.share).sum());
    for person in people {
        if at < person.share {
            return person;
        }
        at -= person.share;
    }
    &people[0]
}

/// What all workers share.
pub struct Flow {
    seed: u64,
    people: Vec<Person>,
    api: Api,
    events: Kafka,
    topic: Arc<str>,
    /// Per second, over all ways.
    rate: f64,
    window: Duration,
    begun: Instant,
    next: AtomicUsize,
    told: Mutex<Told>,
}

impl Flow {
    /// A flow of `rate` notifications per second over a `window`. `brokers` is where Kafka clients connect to.
    ///
    /// # Errors
    /// The Kafka client refuses its settings.
    pub fn new(
        seed: u64,
        people: Vec<Person>,
        api: Api,
        (brokers, topic): (&str, Arc<str>),
        (rate, window): (f64, Duration),
    ) -> anyhow::Result<Arc<Self>> {
        let settings = KafkaSettings { publish_timeout_ms: 5_000, ..KafkaSettings::new(brokers, "a shop") };
        let events = Kafka::new(settings).context("a Kafka client")?;
        let begun = Instant::now();
        let (next, told) = (AtomicUsize::new(0), Mutex::default());
        Ok(Arc::new(Self { seed, people, api, events, topic, rate, window, begun, next, told }))
    }

    /// Runs to its end, some seconds after the window at most, and tells.
    pub async fn run(self: Arc<Self>) -> Told {
        let mut tasks = tokio::task::JoinSet::new();
        for way in [Way::Http, Way::Grpc, Way::Event] {
            for _ in 0..WORKERS {
                tasks.spawn(self.clone().work(way));
            }
        }
        for (i, person) in self.people.iter().enumerate() {
            let mut chance = fastrand::Rng::with_seed(self.seed ^ 0x6f_70_74 ^ ((i as u64) << 32));
            if chance.u8(0..8) == 0 {
                let at = self.window.mul_f64(chance.f64().mul_add(0.5, 0.2));
                let category = chance.bool().then_some(CATEGORIES[0]);
                tasks.spawn(self.clone().opt_out(person.id.clone(), category, at));
            }
        }
        while tasks.join_next().await.is_some() {}
        std::mem::take(&mut *self.told())
    }

    /// So many were confirmed by now.
    pub fn accepted(&self) -> usize {
        self.told().accepted.len()
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Items in their turn, each until it is confirmed or the flow is over.
    async fn work(self: Arc<Self>, way: Way) {
        let mut grpc = None;
        loop {
            let n = self.next.fetch_add(1, Relaxed);
            let due = Duration::from_secs_f64(n as f64 / self.rate);
            if due > self.window {
                return;
            }
            sleep_until(self.begun + due).await;
            let item = Item::new(self.seed, n, &self.people);
            let first = item.json();
            // those who had no luck have some more time, so that what was broken last is mended meanwhile
            while self.begun.elapsed() < self.window + Duration::from_secs(10) {
                // an event keeps its id, so it has to keep its words; a request is a new one each time
                let body = if way == Way::Event { first.clone() } else { item.json() };
                match self.hand_over(way, &item, &body, &mut grpc).await {
                    Some(id) if way == Way::Event && item.strange => self.told().strange.push(id),
                    Some(id) => {
                        let event = (way == Way::Event).then(|| item.event());
                        let accepted = Accepted { id, way, event, to: item.to, at: Timestamp::now() };
                        self.told().accepted.push(accepted);
                    }
                    None => {
                        self.told().doubtful += 1;
                        sleep(Duration::from_millis(200)).await;
                        continue;
                    }
                }
                break;
            }
        }
    }

    async fn hand_over(&self, way: Way, item: &Item, body: &Value, grpc: &mut Option<grpc::Client>) -> Option<String> {
        let asked = async {
            match way {
                Way::Http => self.api.post("/v1/notifications", body).await.ok().and_then(|a| id_of(&a)),
                Way::Grpc => {
                    if grpc.is_none() {
                        *grpc = grpc::connect(&self.api.grpc, KEY).await.ok();
                    }
                    let request = grpc::v1::SendRequest::from_json(body.to_string().as_bytes()).ok()?;
                    grpc.as_mut()?.send(request).await.ok().map(|answer| answer.into_inner().id)
                }
                Way::Event => self.publish(item, body).await,
            }
        };
        timeout(PATIENCE, asked).await.ok().flatten()
    }

    /// An event keeps its id however often it is published, so it is one notification.
    async fn publish(&self, item: &Item, body: &Value) -> Option<String> {
        let event = item.event();
        let source = if item.strange { STRANGER } else { SOURCE };
        let headers = [
            ("content-type", "application/json"),
            ("ce_specversion", "1.0"),
            ("ce_id", &event),
            ("ce_source", source),
            ("ce_type", "carillon.notification.requested"),
        ];
        let headers = headers.into_iter().fold(Headers::default(), |h, (name, value)| h.with(name, value.to_owned()));
        let (key, value) = (Some(event.clone().into()), Some(body.to_string().into()));
        let record = Outgoing { topic: self.topic.clone(), key, headers, value };
        let published = self.events.publish(vec![record]).await.into_iter().next()?;
        published.ok()?;
        if item.strange {
            return Some(event);
        }
        let tenant = TenantId::parse(TENANT).ok()?;
        Some(NotificationId::of_event(&tenant, SOURCE, &event).to_string())
    }

    /// Says no at that time, and again until it is confirmed.
    async fn opt_out(self: Arc<Self>, user: String, category: Option<&'static str>, at: Duration) {
        sleep_until(self.begun + at).await;
        let preferences = match category {
            Some(category) => json!({"categories": {category: {"all": false}}}),
            None => json!({"all": false}),
        };
        let path = format!("/v1/users/{user}/preferences");
        let asked = Timestamp::now();
        while self.begun.elapsed() < self.window + Duration::from_secs(10) {
            let put = self.api.put(&path, &preferences);
            if timeout(PATIENCE, put).await.is_ok_and(|answer| answer.is_ok()) {
                let opt_out = OptOut { user, category, asked, confirmed: Timestamp::now() };
                self.told().opt_outs.push(opt_out);
                return;
            }
            sleep(Duration::from_millis(200)).await;
        }
        // whether it holds is open: whatever comes of it is right
        let confirmed = Timestamp::MAX;
        self.told().opt_outs.push(OptOut { user, category, asked, confirmed });
    }
}

fn id_of(answer: &Value) -> Option<String> {
    answer["id"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::people::people;

    #[test]
    fn items_follow_from_the_seed() {
        let people = people(5, 40);
        let of = |seed| {
            let item = |n| {
                let item = Item::new(seed, n, &people);
                (item.to, item.channels, item.priority, item.category, item.expires_in, item.strange)
            };
            (0..200).map(item).collect::<Vec<_>>()
        };
        assert_eq!(of(5), of(5));
        assert_ne!(of(5), of(6));
        let (some, all) = (of(5).iter().filter(|i| i.4.is_some()).count(), 200);
        assert!(some > 5 && some < all / 2, "{some} of {all} expire");
    }
}
