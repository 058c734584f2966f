//! From settings to the log and the stores.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use bus::{Topics, embedded::EmbeddedSettings, kafka::KafkaSettings, topic::TopicSettings};
use store::{cluster::ClusterSettings, embedded::Options};

use crate::{Reader, health, settings::socket_addr};

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const YEAR: u64 = 365 * 24 * 60 * MINUTE;
const INDEX_RETENTION: RangeInclusive<u64> = MINUTE..=100 * YEAR;
const EMBEDDED_PARTITIONS: RangeInclusive<i64> = 1..=100;

/// Notes the problems of everything below, and of what the kit itself reads.
pub(crate) fn check(r: &mut Reader<'_>) {
    topics(r);
    cluster_topics(r);
    kafka(r);
    stores(r);
    number::<i32>(r, "embedded.partitions", EMBEDDED_PARTITIONS);
    embedded_log(r);
    r.duration("drain");
    r.optional("admin.listen", socket_addr);
    health::silence(r);
}

pub(crate) fn topics(r: &mut Reader<'_>) -> Topics {
    let prefix = r.parsed("topics.prefix", |text| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if text.bytes().all(allowed) && text.len() <= 100 {
            Ok(text.to_owned())
        } else {
            Err("must be at most 100 letters, digits, `.`, `_` or `-`".into())
        }
    });
    Topics::new(&prefix.unwrap_or_default())
}

/// Topics on a cluster.
pub(crate) fn cluster_topics(r: &mut Reader<'_>) -> TopicSettings {
    TopicSettings {
        partitions: number(r, "topics.partitions", 1..=10_000),
        replication: number(r, "topics.replication", 1..=9),
        retention_ms: retention_ms(r),
    }
}

/// Topics on one machine.
pub(crate) fn embedded_topics(r: &mut Reader<'_>) -> TopicSettings {
    TopicSettings {
        partitions: number(r, "embedded.partitions", EMBEDDED_PARTITIONS),
        replication: 1,
        retention_ms: retention_ms(r),
    }
}

pub(crate) fn kafka(r: &mut Reader<'_>) -> KafkaSettings {
    KafkaSettings {
        session_timeout_ms: short_ms(r, "kafka.session_timeout", SECOND..=5 * MINUTE),
        linger_ms: short_ms(r, "kafka.linger", 0..=SECOND),
        publish_timeout_ms: short_ms(r, "kafka.publish_timeout", SECOND..=5 * MINUTE),
        extra: extra(r),
        ..KafkaSettings::new(hosts(r, "kafka.brokers").join(","), r.string("kafka.client_id"))
    }
}

pub(crate) fn stores(r: &mut Reader<'_>) -> ClusterSettings {
    ClusterSettings {
        redis_url: url(r, "redis.url", &["redis://"]),
        cassandra: hosts(r, "cassandra.nodes"),
        keyspace: r.string("cassandra.keyspace"),
        replication: number(r, "cassandra.replication", 1..=9),
        elasticsearch_url: url(r, "elasticsearch.url", &["http://", "https://"]),
        redis_prefix: r.string("redis.prefix"),
        index_prefix: r.string("elasticsearch.index_prefix"),
        claim_window: within(r, "store.claim_window", MINUTE..=YEAR),
        index_retention: within(r, "store.index_retention", INDEX_RETENTION),
        timeout: within(r, "store.timeout", 100..=MINUTE),
    }
}

pub(crate) fn embedded_log(r: &mut Reader<'_>) -> EmbeddedSettings {
    let max_bytes: u64 = number(r, "embedded.max_bytes", 0..=i64::MAX);
    EmbeddedSettings { max_bytes: (max_bytes > 0).then_some(max_bytes), ..EmbeddedSettings::default() }
}

pub(crate) fn embedded_stores(r: &mut Reader<'_>) -> Options {
    Options {
        claim_window: within(r, "store.claim_window", MINUTE..=YEAR),
        index_retention: within(r, "store.index_retention", INDEX_RETENTION),
    }
}

fn retention_ms(r: &mut Reader<'_>) -> i64 {
    i64::try_from(within(r, "topics.retention", MINUTE..=100 * YEAR).as_millis()).unwrap_or(i64::MAX)
}

fn number<T: TryFrom<i64> + Default>(r: &mut Reader<'_>, key: &str, limits: RangeInclusive<i64>) -> T {
    // every range above fits its type
    T::try_from(r.integer(key, limits)).unwrap_or_default()
}

fn short_ms(r: &mut Reader<'_>, key: &str, limits: RangeInclusive<u64>) -> u32 {
    u32::try_from(within(r, key, limits).as_millis()).unwrap_or(u32::MAX)
}

/// A time span within limits in milliseconds.
fn within(r: &mut Reader<'_>, key: &str, limits: RangeInclusive<u64>) -> Duration {
    let (least, most) = (Duration::from_millis(*limits.start()), Duration::from_millis(*limits.end()));
    r.duration_within(key, least..=most)
}

/// At least one `host:port`.
fn hosts(r: &mut Reader<'_>, key: &str) -> Vec<String> {
    let hosts = r.list(key);
    let is_host = |host: &String| {
        host.rsplit_once(':').is_some_and(|(name, port)| !name.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
    };
    if hosts.is_empty() || !hosts.iter().all(is_host) {
        r.problem(key, "must name at least one host:port");
    }
    hosts
}

/// The error never shows the URL: it may hold a password.
fn url(r: &mut Reader<'_>, key: &str, schemes: &[&str]) -> String {
    let parsed = r.parsed(key, |text| {
        let rest = schemes.iter().find_map(|scheme| text.strip_prefix(scheme));
        if rest.is_some_and(|rest| !rest.is_empty()) {
            Ok(text.to_owned())
        } else {
            Err(format!("must be a URL that begins with {}", schemes.join(" or ")))
        }
    });
    parsed.unwrap_or_default()
}

fn extra(r: &mut Reader<'_>) -> BTreeMap<String, String> {
    let key = "kafka.extra";
    let mut extra = BTreeMap::new();
    for item in r.list(key) {
        match item.split_once('=') {
            Some((name, value)) => drop(extra.insert(name.trim().to_owned(), value.trim().to_owned())),
            None => r.problem(key, "must hold items like name=value"),
        }
    }
    extra
}
