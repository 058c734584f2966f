//! The connections to one host with one credential: few and full. Another is opened only when those that there are have no room.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt as _;
use hyper::{Request, http::uri::Authority};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_rustls::rustls::ClientConfig;

use super::{
    super::verdict::Answer,
    DialError, Options,
    connection::{self, Connection, Lost, Target},
};
use crate::guard::{CONNECT, ConnectError, Connector};

/// Between two connections that failed; the wait doubles from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

pub(super) struct Pool {
    target: Target,
    /// As in `:authority`.
    pub(super) authority: Authority,
    tls: Arc<ClientConfig>,
    connector: Connector,
    options: Options,
    /// Whether a connection has to earn more than one stream: with a token it does.
    by_token: bool,
    state: Mutex<State>,
    /// There may be room.
    freed: Arc<Notify>,
}

#[derive(Default)]
struct State {
    open: Vec<Arc<Connection>>,
    dialling: bool,
    ids: u64,
    /// Connections in a row that came to nothing.
    failures: u32,
    /// How many dials have failed, and why the last did: those who wait for one have to know.
    failed: u64,
    error: Option<DialError>,
}

/// A place on a connection, given back when it is dropped.
pub(super) struct Slot {
    connection: Arc<Connection>,
    pub(super) pool: Arc<Pool>,
}

enum Take {
    Slot(Slot),
    Wait,
    Failed(DialError),
}

impl Pool {
    pub(super) fn new(
        (target, authority): (Target, Authority),
        tls: Arc<ClientConfig>,
        connector: Connector,
        options: Options,
        by_token: bool,
    ) -> Arc<Self> {
        let (state, freed) = (Mutex::default(), Arc::default());
        Arc::new(Self { target, authority, tls, connector, options, by_token, state, freed })
    }

    /// A place on the connection with the most room, but rather not on `avoid`. Errors: there is no connection, or the deadline.
    pub(super) async fn slot(self: &Arc<Self>, avoid: Option<u64>, deadline: Instant) -> Result<Slot, DialError> {
        let mut seen = None;
        // the ordinary case waits for nothing
        match self.take(avoid, &mut seen) {
            Take::Slot(slot) => return Ok(slot),
            Take::Failed(error) => return Err(error),
            Take::Wait => {}
        }
        let waiting = async {
            loop {
                let mut freed = std::pin::pin!(self.freed.notified());
                freed.as_mut().enable();
                match self.take(avoid, &mut seen) {
                    Take::Slot(slot) => {
                        // one wake-up is passed on for as long as there is room
                        self.freed.notify_one();
                        return Ok(slot);
                    }
                    Take::Failed(error) => return Err(error),
                    Take::Wait => freed.await,
                }
            }
        };
        // where there is no connection at all it is not our own requests that are waited for
        let in_vain = || Err(if self.connections() > 0 { DialError::NoRoom } else { DialError::NoConnection });
        timeout_at(deadline, waiting).await.unwrap_or_else(|_| in_vain())
    }

    fn take(self: &Arc<Self>, avoid: Option<u64>, seen: &mut Option<u64>) -> Take {
        let mut state = self.state();
        let best = |avoid: Option<u64>| {
            let with_room = state.open.iter().filter(|c| c.has_room() && Some(c.id) != avoid);
            with_room.min_by_key(|c| c.in_flight.load(Relaxed)).cloned()
        };
        let failed = state.failed;
        let in_vain = seen.replace(failed).is_some_and(|seen| seen < failed);
        // what one connection refused it may take later, if there is to be no other
        let no_other = in_vain || state.open.len() >= self.options.connections;
        if let Some(connection) = best(avoid).or_else(|| if no_other { best(None) } else { None }) {
            connection.in_flight.fetch_add(1, Relaxed);
            return Take::Slot(Slot { connection, pool: self.clone() });
        }
        if in_vain
            && state.open.is_empty()
            && let Some(error) = state.error
        {
            return Take::Failed(error);
        }
        if self.may_grow(&state) {
            state.dialling = true;
            state.ids += 1;
            tokio::spawn(self.clone().dial(state.ids, backoff(state.failures)));
        }
        Take::Wait
    }

    /// Another connection is for when the existing ones are full, not for when one is about to have room.
    fn may_grow(&self, state: &State) -> bool {
        let starting = state.open.iter().any(|c| !c.is_trusted() && !c.is_suspect());
        !state.dialling && !starting && state.open.len() < self.options.connections
    }

    async fn dial(self: Arc<Self>, id: u64, wait: Duration) {
        let mut dialling = Dialling { pool: &self, result: Err(DialError::Connect(ConnectError::Failed)) };
        sleep(wait).await;
        let dialled = connection::dial(&self.target, &self.tls, self.connector.clone(), id, !self.by_token);
        let timed_out = Err(DialError::Connect(ConnectError::TimedOut));
        let driver = match timeout(CONNECT, dialled).await.unwrap_or(timed_out) {
            Ok((connection, driver)) => {
                dialling.result = Ok(Arc::new(connection));
                driver
            }
            Err(error) => {
                dialling.result = Err(error);
                return;
            }
        };
        drop(dialling);
        let (freed, options) = (self.freed.clone(), self.options.clone());
        let pool = Arc::downgrade(&self);
        // the pool lives as long as somebody sends with it, not as long as it has connections
        drop(self);
        driver.run(pool, &freed, &options).await;
    }

    /// Gives the connection to no further request; it closes after the last that it has.
    pub(super) fn retire(&self, id: u64) {
        self.state().open.retain(|c| c.id != id);
        self.freed.notify_one();
    }

    /// The connection is no more.
    pub(super) fn ended(&self, id: u64) {
        let mut state = self.state();
        // one that closes before it was of any use is like one that never came about
        if state.open.iter().any(|c| c.id == id && !c.is_trusted()) {
            state.failures = state.failures.saturating_add(1);
        }
        drop(state);
        self.retire(id);
    }

    /// How many connections are open.
    pub(super) fn connections(&self) -> usize {
        self.state().open.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells those who wait what became of a dial, even if that was a panic.
struct Dialling<'a> {
    pool: &'a Pool,
    result: Result<Arc<Connection>, DialError>,
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        state.dialling = false;
        match &self.result {
            Ok(connection) => state.open.push(connection.clone()),
            Err(error) => {
                state.failures = state.failures.saturating_add(1);
                state.failed += 1;
                state.error = Some(*error);
            }
        }
        drop(state);
        if self.result.is_ok() { self.pool.freed.notify_one() } else { self.pool.freed.notify_waiters() }
    }
}

impl Slot {
    /// Which connection it is on.
    pub(super) fn connection(&self) -> u64 {
        self.connection.id
    }

    /// Sends a request, and waits for its answer until `deadline`.
    pub(super) fn exchange(
        &self,
        request: Request<()>,
        body: Bytes,
        deadline: Instant,
    ) -> impl Future<Output = Result<Answer, Lost>> {
        self.connection.exchange(request, body, deadline).inspect(|result| match result {
            Ok(answer) if answer.shows_trust() && self.connection.trust() => self.pool.state().failures = 0,
            Err(Lost::Unprocessed { retire: true, .. }) => self.retire(),
            _ => {}
        })
    }

    /// Gives the connection to no further request.
    pub(super) fn retire(&self) {
        self.pool.retire(self.connection.id);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connection.in_flight.fetch_sub(1, Relaxed);
        self.pool.freed.notify_one();
    }
}

/// How long to wait before the next dial.
fn backoff(failures: u32) -> Duration {
    let (first, last) = BACKOFF;
    match failures.checked_sub(1) {
        None => Duration::ZERO,
        Some(n) => first.saturating_mul(1 << n.min(16)).min(last).mul_f64(0.5 + 0.5 * fastrand::f64()),
    }
}
