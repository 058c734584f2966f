//! The services in this process, over either engine set: for tests that put records on the log themselves.

use std::time::{Duration, Instant};

use bus::{FollowEvent, Record};
use domain::{
    Address, Channel, Contact, Contacts, Message, Notification, NotificationId, Priority, Recipient, Secret, Selector,
    Strategy, TenantId, Timestamp, User, UserId,
    config::{EntryKey, Kind},
};
use sandbox::{Running, Sandbox, SandboxSettings};
use serde_json::json;
use service_kit::{Kit, Section, Settings};
use tempfile::TempDir;

use crate::world::{self, Engines, SECRET};

const SECTIONS: [Section; 5] =
    [ingress::SETTINGS, router::SETTINGS, gateway::SETTINGS, indexer::SETTINGS, sandbox::SETTINGS];

pub(crate) struct Inside {
    pub(crate) kit: Kit,
    pub(crate) sandbox: Running,
    _dir: TempDir,
}

impl Inside {
    /// Log, stores, sandbox and a tenant; no service runs yet.
    pub(crate) async fn start(engines: Engines) -> Self {
        Self::start_with(engines, &[]).await
    }

    /// The same with some settings of the test's own.
    pub(crate) async fn start_with(engines: Engines, own: &[(&str, String)]) -> Self {
        let mut all = world::settings(engines);
        all.extend(own.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
        let env = all.into_iter().map(|(k, v)| (format!("CARILLON__{}", k.to_uppercase().replace('.', "__")), v));
        let settings = Settings::load(&SECTIONS, None, env).unwrap();
        let dir = TempDir::new().unwrap();
        let kit = match engines {
            Engines::Embedded => Kit::embedded(settings, dir.path()).await.unwrap(),
            Engines::Cluster => {
                Kit::migrate(&settings).await.unwrap();
                Kit::ensure_topics(&settings).await.unwrap();
                Kit::cluster(settings).await.unwrap()
            }
        };
        kit.spawn_config();
        kit.config.ready().await;
        let sandbox = Sandbox::start(SandboxSettings::local(Secret::new(SECRET))).await.unwrap();
        let inside = Self { kit, sandbox, _dir: dir };
        for (kind, name, value) in [
            (Kind::Tenants, "acme", json!({})),
            (Kind::Accounts, "webhook", json!({"channel": "webhook", "secret": SECRET})),
        ] {
            let at = EntryKey { tenant: tenant(), kind, name: name.to_owned() };
            inside.kit.config.put(&at, Some(&value)).await.unwrap();
        }
        inside
    }

    pub(crate) fn run_all(&self) {
        router::run(&self.kit).unwrap();
        gateway::run(&self.kit, Channel::Webhook).unwrap();
        indexer::run(&self.kit).unwrap();
    }

    pub(crate) async fn stop(self) {
        self.kit.shutdown.cancel();
        assert!(self.kit.finish().await, "it drains in time");
    }

    /// A user who is reached at a path of the sandbox.
    pub(crate) async fn user(&self, id: &str, behaviour: &str) {
        let mut contacts = Contacts::default();
        let now = Timestamp::now();
        let address = Address::parse(Channel::Webhook, &self.sandbox.hook(behaviour)).unwrap();
        contacts.add(Channel::Webhook, Contact { address, since: now });
        let user = User {
            tenant: tenant(),
            id: UserId::parse(id).unwrap(),
            locale: None,
            time_zone: None,
            contacts,
            devices: vec![],
            preferences: domain::Preferences::default(),
            updated_at: now,
        };
        let change = store::Change { by: "tests".into(), from: "here".into(), at: now };
        self.kit.stores.users.put(&user, &change).await.unwrap();
    }

    /// Everything that a topic holds now.
    pub(crate) async fn records(&self, topic: &str) -> Vec<Record> {
        let mut follow = self.kit.log.follow(topic).await.unwrap();
        let mut all = Vec::new();
        loop {
            match follow.next().await.unwrap() {
                FollowEvent::Records(records) => all.extend(records),
                FollowEvent::CaughtUp => return all,
            }
        }
    }

    /// The deliveries of a notification, once there are some and all have ended and are indexed.
    pub(crate) async fn ended(&self, id: NotificationId) -> Vec<domain::DeliveryStatus> {
        let query = store::DeliveryQuery { notification: Some(id), ..store::DeliveryQuery::default() };
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            // an index that comes back, or is new, has shards that do not answer yet
            let found = match self.kit.stores.deliveries.search(&tenant(), &query, None, 100).await {
                Ok(page) => Ok(page.unwrap().items),
                Err(away @ store::StoreError::Unavailable { .. }) => Err(away),
                Err(error) => panic!("{error}"),
            };
            match found {
                Ok(items) if !items.is_empty() && items.iter().all(|d| d.state.is_settled()) => return items,
                found => assert!(Instant::now() < deadline, "{id} does not end: {found:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

pub(crate) fn tenant() -> TenantId {
    TenantId::parse("acme").unwrap()
}

/// A notification for a user.
pub(crate) fn notification(user: &str) -> Notification {
    let now = Timestamp::from_microsecond(Timestamp::now().as_microsecond()).unwrap();
    Notification {
        id: NotificationId::new(now),
        tenant: tenant(),
        recipient: Recipient::User(UserId::parse(user).unwrap()),
        category: None,
        priority: Priority::default(),
        channels: vec![Selector::Channel(Channel::Webhook)],
        strategy: Strategy::All,
        message: Message::Content(serde_json::from_value(json!({"default": {"body": "B"}})).unwrap()),
        locale: None,
        expires_at: None,
        collapse_key: None,
        metadata: [].into(),
        accepted_at: now,
    }
}
