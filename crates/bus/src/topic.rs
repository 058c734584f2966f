//! Every topic, key and header name, in one place.

use std::sync::Arc;

use domain::{Channel, ChannelType, Lane, Recipient, TenantId};

/// Header: why a record is a dead letter (a code).
pub const DEAD_REASON: &str = "dead-reason";
/// Header: the error in words.
pub const DEAD_ERROR: &str = "dead-error";
/// Header: the topic that the record lay on.
pub const DEAD_TOPIC: &str = "dead-topic";
/// Header: the partition that it lay on.
pub const DEAD_PARTITION: &str = "dead-partition";
/// Header: its offset there.
pub const DEAD_OFFSET: &str = "dead-offset";
/// Header: when it was given up, RFC 3339.
pub const DEAD_AT: &str = "dead-at";
/// Header: when an operator asked to send a dead letter on its way again, RFC 3339.
pub const REDRIVEN_AT: &str = "redriven-at";

/// The names of an installation's topics: they share a prefix.
#[derive(Debug, Clone)]
pub struct Topics {
    prefix: Arc<str>,
    /// By type, then by lane. These three are needed for every record, so they are put together once.
    notifications: Arc<[Lanes]>,
    /// By channel, then by lane.
    deliveries: Arc<[Lanes]>,
    status: Arc<str>,
}

type Lanes = [Arc<str>; Lane::ALL.len()];

/// A service that gives records up; each has a dead-letter topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reads `events`.
    Ingress,
    /// Reads `notifications.*`.
    Router,
    /// Reads `deliveries.*`.
    Gateway,
    /// Reads `status`.
    Indexer,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 4] = [Self::Ingress, Self::Router, Self::Gateway, Self::Indexer];

    /// The name in topics, groups and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Router => "router",
            Self::Gateway => "gateway",
            Self::Indexer => "indexer",
        }
    }
}

/// What happens to old records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleanup {
    /// Deleted after the retention time.
    Delete,
    /// The latest record of each key stays for ever.
    Compact,
}

/// A topic as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// The full name.
    pub name: Arc<str>,
    /// How many partitions.
    pub partitions: i32,
    /// How many copies; ignored by logs of one machine.
    pub replication: i32,
    /// What happens to old records.
    pub cleanup: Cleanup,
    /// How long records stay, in milliseconds; for compacted topics how long a tombstone stays.
    pub retention_ms: i64,
    /// The largest record, in bytes.
    pub max_message_bytes: i32,
}

/// What an operator may set for all topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicSettings {
    /// For every topic but `config`, which has one.
    pub partitions: i32,
    /// How many copies.
    pub replication: i32,
    /// How long records stay, in milliseconds.
    pub retention_ms: i64,
}

fn name(prefix: &str, rest: &[&str]) -> Arc<str> {
    [&[prefix], rest].concat().concat().into()
}

impl Topics {
    /// Names under a prefix such as `carillon.`.
    pub fn new(prefix: &str) -> Self {
        let name = |rest: &[&str]| name(prefix, rest);
        let lanes = |kind, of| Lane::ALL.map(|lane| name(&[kind, of, ".", lane.as_str()]));
        Self {
            prefix: prefix.into(),
            notifications: ChannelType::ALL.iter().map(|of| lanes("notifications.", of.as_str())).collect(),
            deliveries: Channel::ALL.iter().map(|channel| lanes("deliveries.", channel.as_str())).collect(),
            status: name(&["status"]),
        }
    }

    fn name(&self, rest: &[&str]) -> Arc<str> {
        name(&self.prefix, rest)
    }

    /// CloudEvents of upstream services; public.
    pub fn events(&self) -> Arc<str> {
        self.name(&["events"])
    }

    /// One notification for one recipient, to be decided.
    pub fn notifications(&self, of: ChannelType, lane: Lane) -> Arc<str> {
        self.notifications[of as usize][lane as usize].clone()
    }

    /// The lane's notifications of every type.
    pub fn notifications_of_lane(&self, lane: Lane) -> Vec<Arc<str>> {
        ChannelType::built().map(|t| self.notifications(t, lane)).collect()
    }

    /// One delivery to make.
    pub fn deliveries(&self, channel: Channel, lane: Lane) -> Arc<str> {
        self.deliveries[channel as usize][lane as usize].clone()
    }

    /// Every step of everything; public.
    pub fn status(&self) -> Arc<str> {
        self.status.clone()
    }

    /// Tenants, keys and so on; compacted.
    pub fn config(&self) -> Arc<str> {
        self.name(&["config"])
    }

    /// What a stage gave up, with the original bytes.
    pub fn dead(&self, stage: Stage) -> Arc<str> {
        self.name(&["dead.", stage.as_str()])
    }

    /// The consumer group of a stage: one per lane (and channel), so that lanes never wait for each other.
    pub fn group(&self, of: std::fmt::Arguments<'_>) -> String {
        format!("{}{of}", self.prefix)
    }

    /// Every topic as it should be.
    pub fn specs(&self, settings: TopicSettings) -> Vec<TopicSpec> {
        const DAY_MS: i64 = 24 * 3600 * 1000;
        let delete = |name: Arc<str>, retention_ms| TopicSpec {
            name,
            partitions: settings.partitions,
            replication: settings.replication,
            cleanup: Cleanup::Delete,
            retention_ms,
            max_message_bytes: 1024 * 1024,
        };
        let mut specs = Vec::new();
        for lane in Lane::ALL {
            specs.extend(self.notifications_of_lane(lane).into_iter().map(|n| delete(n, settings.retention_ms)));
            specs.extend(Channel::ALL.iter().map(|&c| delete(self.deliveries(c, lane), settings.retention_ms)));
        }
        specs.push(delete(self.events(), settings.retention_ms));
        specs.push(delete(self.status(), settings.retention_ms));
        // a dead letter waits for a person
        specs.extend(Stage::ALL.map(|s| TopicSpec {
            // the largest record there is has to fit together with the headers that say why it is dead
            max_message_bytes: 2 * 1024 * 1024,
            ..delete(self.dead(s), settings.retention_ms.max(14 * DAY_MS))
        }));
        specs.push(TopicSpec { partitions: 1, cleanup: Cleanup::Compact, ..delete(self.config(), DAY_MS) });
        specs
    }
}

/// The record key of everything that concerns a recipient: tenant and recipient, so that order holds per recipient.
pub fn recipient_key(tenant: &TenantId, recipient: &Recipient) -> bytes::Bytes {
    status_key(tenant, &recipient.key())
}

/// The same, for a recipient that is known by its key only.
pub fn status_key(tenant: &TenantId, recipient_key: &str) -> bytes::Bytes {
    [tenant.as_str(), "/", recipient_key].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They are looked up by the places of the values in their enums.
    #[test]
    fn a_name_is_that_of_its_values() {
        let topics = Topics::new("x.");
        for lane in Lane::ALL {
            for of in ChannelType::ALL {
                assert_eq!(
                    *topics.notifications(of, lane),
                    *format!("x.notifications.{}.{}", of.as_str(), lane.as_str())
                );
            }
            for channel in Channel::ALL {
                assert_eq!(*topics.deliveries(*channel, lane), *format!("x.deliveries.{channel}.{}", lane.as_str()));
            }
        }
    }

    #[test]
    fn every_topic_is_named_once() {
        let settings = TopicSettings { partitions: 12, replication: 3, retention_ms: 1000 };
        let specs = Topics::new("carillon.").specs(settings);
        let names: std::collections::BTreeSet<_> = specs.iter().map(|s| s.name.as_ref()).collect();
        assert_eq!(names.len(), specs.len());
        for name in [
            "carillon.notifications.chat.high",
            "carillon.deliveries.webhook.low",
            "carillon.status",
            "carillon.dead.gateway",
        ] {
            assert!(names.contains(name), "{name}");
        }
        let config = specs.iter().find(|s| s.name.as_ref() == "carillon.config").expect("config");
        assert_eq!((config.partitions, config.cleanup), (1, Cleanup::Compact));
    }
}
