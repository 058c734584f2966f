//! The other sides of what is measured: providers that take everything at once, and clients that ask as much as they can. Each
//! runs in a process of its own until its stdin ends; for each line there it tells what it has counted.

mod apns;
mod call;
mod http;
pub(crate) mod post;
mod smtp;

use std::{
    io::{BufRead as _, Write as _},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use futures::{FutureExt as _, future::BoxFuture};
use tokio::net::{TcpListener, TcpStream};

use crate::{harness::one_thread, report::percentile};

/// Latencies that are kept between two questions.
const KEPT: usize = 10_000_000;

/// The kinds.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Kind {
    /// HTTP/2 over TLS, 200 to everything.
    Apns {
        /// On one connection at a time.
        #[arg(long, default_value_t = 1000)]
        streams: u32,
        /// From a request to its answer.
        #[arg(long, default_value_t = 0)]
        delay_ms: u64,
    },
    /// HTTP/1.1 without TLS, 200 to everything.
    Http,
    /// SMTP without TLS, takes everything.
    Smtp,
    /// A client of the HTTP API: one notification a request, the next one after the answer.
    Post {
        /// Of the server, on 127.0.0.1.
        #[arg(long)]
        port: u16,
        /// How many.
        #[arg(long, default_value_t = 256)]
        connections: usize,
    },
    /// A client of the gRPC API, the same.
    Call {
        /// Of the server, on 127.0.0.1.
        #[arg(long)]
        port: u16,
        /// On a few connections.
        #[arg(long, default_value_t = 256)]
        streams: usize,
    },
}

/// Where a sink is.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Ready {
    /// On 127.0.0.1.
    pub port: u16,
    /// What to trust, in PEM; empty without TLS.
    pub ca: String,
}

/// What was counted since the last question.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub struct Received {
    /// Requests, or mails; of a client those that were answered.
    pub count: u64,
    /// Of all bodies.
    pub bytes: u64,
    /// When the last one came, in microseconds since the epoch.
    pub last_us: u64,
    /// From the intended time of sending, in microseconds, of those that say it.
    pub p50_us: u64,
    /// The same.
    pub p99_us: u64,
    /// The same.
    pub max_us: u64,
}

/// Counted as it comes.
#[derive(Debug, Default)]
struct Tally {
    count: AtomicU64,
    bytes: AtomicU64,
    last_us: AtomicU64,
    latencies: Mutex<Vec<u64>>,
}

impl Tally {
    /// One more; `intended` is when it should have been sent.
    fn add(&self, bytes: usize, intended: Option<u64>) {
        self.count.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
        let now = now_us();
        self.last_us.store(now, Relaxed);
        if let Some(intended) = intended {
            let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
            if latencies.len() < KEPT {
                latencies.push(now.saturating_sub(intended));
            }
        }
    }

    fn take(&self) -> Received {
        let mut sorted = std::mem::take(&mut *self.latencies.lock().unwrap_or_else(PoisonError::into_inner));
        sorted.sort_unstable();
        Received {
            count: self.count.swap(0, Relaxed),
            bytes: self.bytes.swap(0, Relaxed),
            last_us: self.last_us.load(Relaxed),
            p50_us: percentile(&sorted, 0.5),
            p99_us: percentile(&sorted, 0.99),
            max_us: sorted.last().copied().unwrap_or_default(),
        }
    }
}

/// Microseconds since the epoch.
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Runs until stdin ends. Errors: a client was refused, among others.
pub fn run(kind: &Kind) -> anyhow::Result<()> {
    let runtime = one_thread()?;
    let tally = Arc::new(Tally::default());
    runtime.block_on(async {
        let (work, ready) = start(kind, tally.clone()).await?;
        say(&ready)?;
        // stdin blocks, so it has a thread of its own
        let (end, ended) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let told = answer(&tally);
            // whoever waits is this very program
            let _waits = end.send(told);
        });
        tokio::select! { done = work => done, told = ended => told? }
    })
}

async fn start(kind: &Kind, tally: Arc<Tally>) -> anyhow::Result<(BoxFuture<'static, anyhow::Result<()>>, Ready)> {
    let listen = async || {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no port on 127.0.0.1")?;
        let ready = Ready { port: listener.local_addr()?.port(), ca: String::new() };
        anyhow::Ok((listener, ready))
    };
    Ok(match kind {
        Kind::Apns { streams, delay_ms } => {
            let (listener, ready) = listen().await?;
            let settings = apns::Settings { streams: *streams, delay: Duration::from_millis(*delay_ms) };
            let identity = apns::Identity::new()?;
            let ready = Ready { ca: identity.ca.clone(), ..ready };
            (apns::serve(listener, identity, settings, tally).boxed(), ready)
        }
        Kind::Http => {
            let (listener, ready) = listen().await?;
            (http::serve(listener, tally).boxed(), ready)
        }
        Kind::Smtp => {
            let (listener, ready) = listen().await?;
            (smtp::serve(listener, tally).boxed(), ready)
        }
        Kind::Post { port, connections } => {
            (post::run(*port, *connections, tally).boxed(), Ready { port: *port, ca: String::new() })
        }
        Kind::Call { port, streams } => {
            (call::run(*port, *streams, tally).boxed(), Ready { port: *port, ca: String::new() })
        }
    })
}

/// Until stdin ends, or nobody reads the answers any more.
fn answer(tally: &Tally) -> anyhow::Result<()> {
    for line in std::io::stdin().lock().lines() {
        line?;
        say(&tally.take())?;
    }
    Ok(())
}

fn say(what: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(what)?)?;
    Ok(out.flush()?)
}

/// The next connection, with small answers sent at once.
async fn accept(listener: &TcpListener) -> Option<TcpStream> {
    let (stream, _) = listener.accept().await.ok()?;
    stream.set_nodelay(true).ok()?;
    Some(stream)
}
