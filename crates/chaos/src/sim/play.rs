//! One seed: people, a flow, processes that die and are replaced, and what came of it.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use bus::{
    Headers, Log as _, Outgoing, Topics,
    sim::{Faults, Sim},
    topic::{self, Stage, TopicSettings},
};
use domain::{
    Address, Channel, Contact, Contacts, Content, Message, Notification, NotificationId, NotificationStatus,
    Preferences, Priority, Recipient, Selector, Status, Strategy, TenantId, Timestamp, User, UserId, content::Text,
};
use service_kit::{Kit, Settings};
use store::UserKey;
use tokio::time::{Instant, sleep};
use wire::Record as _;

use super::{
    Told,
    life::{Life, World},
    log::Mortal,
    provider::Receiver,
    stores::stores,
};
use crate::{
    check::{self, Violation},
    evidence::Evidence,
    flow::{Accepted, OptOut, Way},
    installation::TENANT,
    people::{self, Person},
};

const NOTIFICATIONS: usize = 30;
const PEOPLE: usize = 8;
/// Simulated: within it everything has to come to its end after all is mended.
const PATIENCE: Duration = Duration::from_secs(900);
const SPECS: TopicSettings = TopicSettings { partitions: 3, replication: 1, retention_ms: 1 };

static SETTINGS: LazyLock<Result<Settings, service_kit::Problems>> = LazyLock::new(|| {
    let own = [("CARILLON__ADMIN__LISTEN", ""), ("CARILLON__GATEWAY__WEBHOOK__TIMEOUT", "2s")];
    let own = own.map(|(key, value)| (key.to_owned(), value.to_owned()));
    Settings::load(&[router::SETTINGS, gateway::SETTINGS, indexer::SETTINGS], None, own)
});

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Router,
    Gateway,
    Indexer,
}

struct Process {
    service: Service,
    life: Arc<Life>,
    kit: Kit,
}

struct Play {
    world: Arc<World>,
    topics: Topics,
    tenant: TenantId,
    chance: fastrand::Rng,
    processes: Vec<Process>,
    evidence: Evidence,
    deaths: u64,
}

/// Plays a seed; whatever goes wrong with the play itself is a violation as well.
pub(super) fn run(seed: u64) -> Told {
    // what the code on top draws, as far as it draws from there
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let played = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(Box::pin(play(seed))));
    let failed = |error: anyhow::Error| {
        let violations = vec![Violation { claim: 1, what: format!("{error:#}") }];
        Told { seeds: 1, red: vec![(seed, violations)], ..Told::default() }
    };
    played.unwrap_or_else(failed)
}

async fn play(seed: u64) -> anyhow::Result<Told> {
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut faults = Faults::all([0.0, 0.01, 0.05][chance.usize(0..3)]);
    faults.longest = Duration::from_millis(chance.u64(1..400));
    // a partition that is lost without a word is in two hands: the claims have to tell, the order does not hold
    faults.rebalance_lost = 0.0;
    let sim = Sim::new(seed, faults);
    let topics = Topics::new("");
    sim.ensure_topics(&topics.specs(SPECS)).await?;
    let world = Arc::new(World::new(sim, webhook_people(seed), chance.fork()));
    let tenant = TenantId::parse(TENANT).map_err(anyhow::Error::msg)?;
    let (processes, evidence) = (Vec::new(), Evidence::default());
    let mut play = Play { world, topics, tenant, chance, processes, evidence, deaths: 0 };
    play.settle_people()?;
    for service in [Service::Router, Service::Gateway, Service::Indexer] {
        play.start(service).await?;
    }
    for n in 0..NOTIFICATIONS {
        play.hand_over(seed, n).await?;
        play.disturb().await?;
    }
    play.world.heal();
    play.come_to_rest().await;
    play.tell(seed)
}

/// Those who are reached by webhook, and only by it.
fn webhook_people(seed: u64) -> Vec<Person> {
    let mut all = people::people(seed, 4 * PEOPLE);
    all.iter_mut().for_each(|p| p.contacts.retain(|c| c.channel == Channel::Webhook));
    all.retain(|p| !p.contacts.is_empty());
    all.truncate(PEOPLE);
    all
}

impl Play {
    fn key(&self, user: &str) -> anyhow::Result<UserKey> {
        let user = UserId::parse(user).map_err(anyhow::Error::msg)?;
        Ok(UserKey { tenant: self.tenant.clone(), user })
    }

    fn settle_people(&self) -> anyhow::Result<()> {
        for person in &self.world.people {
            let key = self.key(&person.id)?;
            let mut contacts = Contacts::default();
            for contact in &person.contacts {
                let url = format!("https://sim.example{}", contact.address);
                let address = Address::parse(Channel::Webhook, &url).map_err(anyhow::Error::msg)?;
                contacts.add(Channel::Webhook, Contact { address, since: Timestamp::UNIX_EPOCH });
            }
            let user = User {
                tenant: key.tenant.clone(),
                id: key.user.clone(),
                locale: None,
                time_zone: None,
                contacts,
                devices: Vec::new(),
                preferences: Preferences::default(),
                updated_at: Timestamp::UNIX_EPOCH,
            };
            self.world.state().users.insert(key, user);
        }
        Ok(())
    }

    async fn start(&mut self, service: Service) -> anyhow::Result<()> {
        let life = Life::begin(&self.world);
        let log = Arc::new(Mortal { life: life.clone(), log: self.world.sim.clone() });
        let settings = SETTINGS.as_ref().map_err(|e| anyhow::anyhow!("{e}"))?.clone();
        let mut kit = Kit::new(settings, log, stores(&life), false)?;
        kit.topics = self.topics.clone();
        kit.owner = u128::from(self.chance.u64(..));
        match service {
            Service::Router => router::run(&kit)?,
            Service::Gateway => gateway::run_with(&kit, Channel::Webhook, Arc::new(Receiver(life.clone())))?,
            Service::Indexer => indexer::run(&kit)?,
        }
        self.processes.push(Process { service, life, kit });
        Ok(())
    }

    /// Publishes until the log says yes, as a client does that asks again.
    async fn hand_over(&mut self, seed: u64, n: usize) -> anyhow::Result<()> {
        let (mut id, at) = ([0; 16], Timestamp::now());
        id[..8].copy_from_slice(&seed.to_be_bytes());
        id[8..].copy_from_slice(&(n as u64 + 1).to_be_bytes());
        let id = NotificationId(uuid::Uuid::from_bytes(id));
        let user = self.chance.usize(0..self.world.people.len());
        let user = self.world.people[user].id.clone();
        let recipient = Recipient::User(self.key(&user)?.user);
        let priority = Priority::parse(self.chance.i64(1..=10)).map_err(anyhow::Error::msg)?;
        let text = Text { title: String::new(), body: format!("number {n}") };
        let notification = Notification {
            id,
            tenant: self.tenant.clone(),
            recipient: recipient.clone(),
            category: None,
            priority,
            channels: vec![Selector::Channel(Channel::Webhook)],
            strategy: Strategy::All,
            message: Message::Content(Content { default: Some(text), ..Content::default() }),
            locale: None,
            expires_at: None,
            collapse_key: None,
            metadata: [].into(),
            accepted_at: at,
        };
        let announced = Status::Notification(NotificationStatus {
            id,
            tenant: self.tenant.clone(),
            recipients: 1,
            category: None,
            priority,
            channels: notification.channels.clone(),
            template: None,
            accepted_at: at,
            expires_at: None,
            metadata: [].into(),
        });
        let to = self.topics.notifications(notification.leading_type(), priority.lane());
        self.publish(self.topics.status(), format!("{TENANT}/notification:{id}").into(), announced.encode()).await;
        self.publish(to, topic::recipient_key(&self.tenant, &recipient), notification.encode()).await;
        let accepted =
            Accepted { id: id.to_string(), way: Way::Http, event: None, to: vec![user], at: self.world.now() };
        self.evidence.told.accepted.push(accepted);
        Ok(())
    }

    async fn publish(&self, topic: Arc<str>, key: bytes::Bytes, value: bytes::Bytes) {
        loop {
            let (topic, key, value) = (topic.clone(), Some(key.clone()), Some(value.clone()));
            let record = Outgoing { topic, key, headers: Headers::default(), value };
            if self.world.sim.publish(vec![record]).await.iter().all(Result::is_ok) {
                return;
            }
        }
    }

    /// Lets time pass; now and then somebody dies, joins, leaves or opts out.
    async fn disturb(&mut self) -> anyhow::Result<()> {
        sleep(Duration::from_millis(self.chance.u64(0..800))).await;
        match self.chance.usize(0..20) {
            0..5 => {
                self.deaths += 1;
                let i = self.chance.usize(0..self.processes.len());
                let dead = self.processes.swap_remove(i);
                dead.life.kill().await;
                self.start(dead.service).await?;
            }
            5 => {
                let service = if self.chance.bool() { Service::Router } else { Service::Gateway };
                if self.processes.len() < 5 {
                    self.start(service).await?;
                }
            }
            6 => {
                let i = self.chance.usize(0..self.processes.len());
                let service = self.processes[i].service;
                if self.processes.iter().filter(|p| p.service == service).count() > 1 {
                    let leaving = self.processes.swap_remove(i);
                    leaving.kit.shutdown.cancel();
                    anyhow::ensure!(leaving.kit.finish().await, "a {service:?} that was asked to end does not drain");
                }
            }
            7 => self.opt_out()?,
            _ => {}
        }
        Ok(())
    }

    fn opt_out(&mut self) -> anyhow::Result<()> {
        let i = self.chance.usize(0..self.world.people.len());
        let user = self.world.people[i].id.clone();
        let key = self.key(&user)?;
        if let Some(record) = self.world.state().users.get_mut(&key) {
            record.preferences.all = Some(false);
        }
        // the steps of traces have the times of another clock
        let (asked, confirmed) = (Timestamp::MIN, self.world.now());
        self.evidence.told.opt_outs.push(OptOut { user, category: None, asked, confirmed });
        Ok(())
    }

    /// Waits until the log has been still for longer than any lease or retry lasts.
    async fn come_to_rest(&self) {
        let deadline = Instant::now() + PATIENCE;
        let (mut still, mut last) = (0, 0);
        while Instant::now() < deadline && still < 8 {
            sleep(Duration::from_secs(5)).await;
            let written = self.world.sim.trace().len();
            still = if written == last { still + 1 } else { 0 };
            last = written;
        }
    }

    fn tell(mut self, seed: u64) -> anyhow::Result<Told> {
        self.evidence.receptions = std::mem::take(&mut self.world.state().receptions);
        for (_, document) in std::mem::take(&mut self.world.state().index).into_values() {
            if let Status::Delivery(d) = document {
                self.evidence.index.push((&d).into());
            }
        }
        for spec in self.topics.specs(SPECS) {
            let stage = Stage::ALL.into_iter().find(|stage| self.topics.dead(*stage) == spec.name);
            self.evidence.take(stage, spec.name == self.topics.status(), self.world.sim.records(&spec.name))?;
        }
        let violations = check::check(&self.evidence, &self.world.people);
        let unknown = self.evidence.index.iter().filter(|d| d.unknowns() > 0).count() as u64;
        let accepted = self.evidence.told.accepted.len() as u64;
        let red = if violations.is_empty() { Vec::new() } else { vec![(seed, violations)] };
        Ok(Told { seeds: 1, deaths: self.deaths, accepted, unknown, red })
    }
}
