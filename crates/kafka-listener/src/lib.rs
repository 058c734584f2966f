#![doc = include_str!("../README.md")]

mod api;
mod batch;
mod connection;
mod fetch;
mod groups;
mod inflate;
mod metadata;
mod offsets;
mod produce;
mod shape;
mod unpack;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use bus::{LogError, Partition, Topics, embedded::Embedded};
use kafka_protocol::{error::ResponseError, protocol::StrBytes};
use service_kit::{Kit, Problems, Reader, Section};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// The settings of `[kafka_listener]`.
pub const SETTINGS: Section = Section { defaults: include_str!("../settings.default.toml"), check: |r| drop(read(r)) };

/// What an operator may set.
#[derive(Debug, Clone)]
pub struct Options {
    /// Connections at the same time; one more is closed at once.
    pub max_connections: usize,
    /// Bytes of the largest request, and of the largest batch when it is unpacked.
    pub max_frame: usize,
    /// A client that is silent for so long is disconnected.
    pub idle_timeout: Duration,
    /// Bytes of large requests that may be on their way in at the same time, of all connections together.
    pub max_in_flight: usize,
    /// Host and port that clients are told to connect to; `None` for the address at which they arrive.
    pub advertised: Option<(String, u16)>,
    /// The topics that clients may see and read.
    pub readable: Vec<Arc<str>>,
    /// Those of them that clients may write.
    pub writable: Vec<Arc<str>>,
}

/// Produce requests at work at the same time: each may unpack and decode as much as a frame holds.
const PRODUCING: usize = 8;
/// What requests that are running get to end in, after `shutdown`.
const GRACE: Duration = Duration::from_secs(5);
/// After a failed accept, which mostly means that no more files may be opened.
const PAUSE: Duration = Duration::from_millis(100);

/// What the connections work with.
struct Broker {
    log: Arc<Embedded>,
    options: Options,
    producing: Semaphore,
    /// Bytes that large requests may still take.
    room: Semaphore,
}

const CLOSED: Refused = Refused(
    ResponseError::TopicAuthorizationFailed,
    "the topic is this installation's own; kafka_listener.topics opens more than events and status",
);

impl Broker {
    fn is_readable(&self, topic: &str) -> bool {
        self.options.readable.iter().any(|t| **t == *topic)
    }

    /// Where a partition ends, if clients may read it.
    fn latest(&self, partition: &Partition) -> Result<i64, Refused> {
        let latest = self.log.latest(partition)?;
        if self.is_readable(&partition.topic) { Ok(latest) } else { Err(CLOSED) }
    }
}

/// Why a part of a request is refused: the code that clients act on, and words where the protocol has room for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refused(ResponseError, &'static str);

impl Refused {
    fn words(self) -> Option<StrBytes> {
        Some(StrBytes::from_static_str(self.1))
    }
}

impl From<LogError> for Refused {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Topic { .. } => Self(ResponseError::UnknownTopicOrPartition, "there is no such partition"),
            LogError::TooLarge(_) => Self(ResponseError::MessageTooLarge, "a record is larger than the topic takes"),
            LogError::Full(_) => Self(ResponseError::KafkaStorageError, "the log is full"),
            LogError::Unavailable(_) | LogError::NotAssigned => {
                Self(ResponseError::KafkaStorageError, "the log is unavailable")
            }
        }
    }
}

/// The address that `--kafka-listen` names: a port alone, with or without a colon, is one of loopback.
///
/// # Errors
/// It is neither a port nor an address and a port.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix(':').unwrap_or(text).parse::<u16>();
    let address = port.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let address = address.or_else(|_| text.parse());
    address.map_err(|_| "must be a port of this machine, or an address and a port, like 127.0.0.1:9092".into())
}

/// Listens until the kit's shutdown for Kafka clients of its embedded log; says where, once the port is open.
///
/// # Errors
/// Settings that are wrong, the kit has no embedded log, or the port cannot be had.
pub async fn run(kit: &Kit, listen: SocketAddr) -> anyhow::Result<SocketAddr> {
    let options = kit.settings.read(read)?;
    let log = kit.embedded.clone().context("a cluster has Kafka brokers of its own: clients connect to those")?;
    let topics = log.topics();
    if let Some(missing) = options.readable.iter().find(|open| !topics.iter().any(|(topic, _)| topic == *open)) {
        return Err(Problems(vec![format!("kafka_listener.topics: there is no topic {missing}")]).into());
    }
    let listener = service_kit::serve::bind(listen, "--kafka-listen").await?;
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "whoever reaches this port may write events and read what became of them: it asks for no password");
    }
    tracing::info!(%address, "listening for Kafka clients");
    kit.spawn("kafka-listener", serve(listener, log, options, kit.shutdown.clone()));
    Ok(address)
}

/// Serves Kafka clients until `shutdown`; ends when the requests that are running have been answered, or 5 s later.
pub async fn serve(listener: TcpListener, log: Arc<Embedded>, options: Options, shutdown: CancellationToken) {
    let seats = Arc::new(Semaphore::new(options.max_connections));
    let (producing, room) = (Semaphore::new(PRODUCING), Semaphore::new(options.max_in_flight));
    let broker = Arc::new(Broker { log, options, producing, room });
    let mut connections = JoinSet::new();
    let mut full = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = connections.join_next() => {
                note(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match (accepted, Arc::clone(&seats).try_acquire_owned()) {
            (Ok((stream, _)), Ok(permit)) => {
                full = false;
                connections.spawn(connect(Arc::clone(&broker), stream, permit, shutdown.clone()));
            }
            (Ok(_), Err(_)) => {
                // said once, not for each
                if !std::mem::replace(&mut full, true) {
                    tracing::warn!("no more Kafka clients are let in: kafka_listener.max_connections are here");
                }
            }
            (Err(error), _) => {
                tracing::warn!(%error, "cannot accept a Kafka client");
                shutdown.run_until_cancelled(sleep(PAUSE)).await;
            }
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.map(note).is_some() {} };
    if timeout(GRACE, all).await.is_err() {
        tracing::warn!("closed connections of Kafka clients whose requests did not end in time");
    }
}

async fn connect(broker: Arc<Broker>, stream: TcpStream, _permit: OwnedSemaphorePermit, shutdown: CancellationToken) {
    // without it small answers wait 40 ms for the peer's delayed ACK
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    if let Err(error) = connection::serve(&broker, stream, &shutdown).await {
        tracing::debug!(error = %format_args!("{error:#}"), "closed the connection of a Kafka client");
    }
}

/// A request that made the codec panic ends its own connection only.
fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a request of a Kafka client broke its connection");
    }
}

fn read(r: &mut Reader<'_>) -> Options {
    let max_connections = usize::try_from(r.integer("kafka_listener.max_connections", 1..=10_000)).unwrap_or(1);
    let max_frame = usize::try_from(r.integer("kafka_listener.max_frame", 65_536..=67_108_864)).unwrap_or(65_536);
    let limits = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
    let idle_timeout = r.duration_within("kafka_listener.idle_timeout", limits);
    let max_in_flight = usize::try_from(r.integer("kafka_listener.max_in_flight", 65_536..=1_073_741_824));
    let max_in_flight = max_in_flight.unwrap_or(65_536);
    if max_in_flight < max_frame {
        r.problem("kafka_listener.max_in_flight", "must be at least kafka_listener.max_frame");
    }
    let advertised = r.optional("kafka_listener.advertised", host_and_port);
    let topics = Topics::new(&r.string("topics.prefix"));
    let more: Vec<Arc<str>> = r.list("kafka_listener.topics").into_iter().map(Into::into).collect();
    if more.contains(&topics.config()) {
        r.problem("kafka_listener.topics", "must not name the configuration: it holds the secrets of accounts");
    }
    let open = |first: &[Arc<str>]| [first, &more].concat();
    Options {
        max_connections,
        max_frame,
        idle_timeout,
        max_in_flight,
        advertised,
        readable: open(&[topics.events(), topics.status()]),
        writable: open(&[topics.events()]),
    }
}

fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let parsed = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match parsed {
        Some((host, port)) if !host.is_empty() && port > 0 => {
            Ok((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port))
        }
        _ => Err("must be a host and a port, like kafka.example.com:9092".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(name: &str, value: &str) -> Result<Options, String> {
        let env = [(format!("CARILLON__{name}"), value.to_owned())];
        let settings = service_kit::Settings::load(&[SETTINGS], None, env).map_err(|e| e.to_string())?;
        settings.read(read).map_err(|e| e.to_string())
    }

    #[test]
    fn settings_are_read_and_what_is_wrong_is_named() {
        let advertised = |text| load("KAFKA_LISTENER__ADVERTISED", text);
        assert_eq!(advertised("").expect("defaults").max_frame, 8 * 1024 * 1024);
        assert_eq!(advertised("[::1]:9092").expect("an address").advertised, Some(("::1".into(), 9092)));
        assert!(advertised("kafka").expect_err("no port").contains("kafka_listener.advertised"));
        let little = load("KAFKA_LISTENER__MAX_IN_FLIGHT", "65536").expect_err("less than one frame");
        assert!(little.contains("kafka_listener.max_in_flight"), "{little}");
    }

    #[test]
    fn events_and_status_are_open_under_any_prefix_more_on_request_and_the_configuration_never() {
        let open = |options: Options| (options.readable.join(" "), options.writable.join(" "));
        let (read, write) = open(load("TOPICS__PREFIX", "ours.").expect("defaults"));
        assert_eq!((&*read, &*write), ("ours.events ours.status", "ours.events"));
        let (read, write) = open(load("KAFKA_LISTENER__TOPICS", "carillon.dead.router").expect("a topic"));
        let more = ("carillon.events carillon.status carillon.dead.router", "carillon.events carillon.dead.router");
        assert_eq!((&*read, &*write), more);
        let refused = load("KAFKA_LISTENER__TOPICS", "carillon.dead.router,carillon.config").expect_err("secrets");
        assert!(refused.contains("must not name the configuration"), "{refused}");
    }

    #[test]
    fn a_port_alone_is_on_loopback() {
        for (text, expected) in [
            ("9092", "127.0.0.1:9092"),
            (":9092", "127.0.0.1:9092"),
            ("0.0.0.0:9092", "0.0.0.0:9092"),
            ("[::1]:0", "[::1]:0"),
        ] {
            assert_eq!(address(text).expect(text).to_string(), expected);
        }
        for bad in ["", ":", "99999", "localhost", "127.0.0.1", "::1"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
