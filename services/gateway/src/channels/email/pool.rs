//! Connections by account: at most so many are open, and those that rest are used again without asking whether they live.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use domain::channel::email::Account;
use ring::digest::{SHA256, digest};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout_at},
};

use super::{
    Options,
    client::{Connection, Failed},
    connect::connect,
    payload::Mail,
    reply::{Phase, Reply},
};
use crate::{
    channels::NoRoom,
    guard::{ConnectError, Network},
};

/// For a goodbye.
const QUIT: Duration = Duration::from_secs(1);

pub(super) struct Pool {
    options: Options,
    network: Arc<dyn Network>,
    /// By the hash of everything that the account says: nobody gets a connection that another's password opened.
    sites: Mutex<HashMap<[u8; 32], Arc<Site>>>,
    is_swept: AtomicBool,
}

/// One account's server.
struct Site {
    tls: Arc<ClientConfig>,
    /// One for each connection that is at work. A new one is opened only when none rests, so that no more are open than this
    /// had at first.
    slots: Arc<Semaphore>,
    /// The one that rests longest is the first.
    resting: Mutex<VecDeque<(Instant, Connection)>>,
}

/// Room for a transaction.
pub(super) struct Place {
    begun: Instant,
    site: Arc<Site>,
    slot: OwnedSemaphorePermit,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    pub(super) fn new(options: Options, network: Arc<dyn Network>) -> Arc<Self> {
        Arc::new(Self { options, network, sites: Mutex::default(), is_swept: AtomicBool::new(false) })
    }

    /// A place for a transaction, once a connection is not in use or may be opened. The attempt's time begins here, and half
    /// of it is for that, for a connection and the envelope: the message leaves only if its answer can be waited for.
    pub(super) async fn place(self: &Arc<Self>, account: &Account) -> Result<Result<Place, NoRoom>, Failed> {
        let begun = Instant::now();
        let site = self.site(account)?;
        let slot = match timeout_at(begun + self.options.timeout / 2, site.slots.clone().acquire_owned()).await {
            Ok(Ok(slot)) => slot,
            _ => return Ok(Err(NoRoom)),
        };
        Ok(Ok(Place { begun, site, slot }))
    }

    /// One transaction.
    pub(super) async fn send(&self, place: Place, account: &Account, mail: &Mail) -> Result<Reply, Failed> {
        let Place { begun, site, slot } = place;
        let (half, whole) = (begun + self.options.timeout / 2, begun + self.options.timeout);
        let rested = locked(&site.resting).pop_back();
        let is_rested = rested.is_some();
        let mut connection = match rested {
            // one that died without a word must leave time for another
            Some((_, connection)) => connection.until(begun + self.options.timeout / 4),
            None => self.open(&site, account, half).await?,
        };
        let mut envelope = connection.envelope(mail).await;
        if is_rested && envelope.as_ref().is_err_and(is_stale) {
            // it ended at rest, and nothing of the message has left
            drop(connection);
            connection = self.open(&site, account, half).await?;
            envelope = connection.envelope(mail).await;
        }
        connection = connection.until(whole);
        let answer = match envelope {
            Ok(()) => connection.message(mail).await,
            Err(error) => Err(error),
        };
        self.rest(&site, connection, slot);
        answer
    }

    async fn open(&self, site: &Site, account: &Account, deadline: Instant) -> Result<Connection, Failed> {
        let connecting = connect(&*self.network, &self.options.open_networks, &account.host, account.port);
        match timeout_at(deadline, connecting).await {
            Ok(Ok(tcp)) => Connection::open(tcp, &site.tls, account, deadline).await,
            Ok(Err(error)) => Err(Failed::NotConnected(error)),
            Err(_) => Err(Failed::NotConnected(ConnectError::TimedOut)),
        }
    }

    fn site(self: &Arc<Self>, account: &Account) -> Result<Arc<Site>, Failed> {
        const WRONG: Failed = Failed::Misconfigured("the account cannot be read");
        let written = serde_json::to_vec(account).map_err(|_| WRONG)?;
        let key: [u8; 32] = digest(&SHA256, &written).as_ref().try_into().map_err(|_| WRONG)?;
        let mut sites = locked(&self.sites);
        if let Some(site) = sites.get(&key) {
            return Ok(site.clone());
        }
        let site = Arc::new(Site {
            tls: tls(account.ca.as_deref())?,
            slots: Arc::new(Semaphore::new(self.options.connections)),
            resting: Mutex::default(),
        });
        sites.insert(key, site.clone());
        if !self.is_swept.swap(true, Ordering::Relaxed) {
            tokio::spawn(sweep(Arc::downgrade(self), self.options.idle_timeout));
        }
        Ok(site)
    }

    /// Keeps a connection for the next message, or closes it; only then the slot is free.
    fn rest(&self, site: &Site, connection: Connection, slot: OwnedSemaphorePermit) {
        if !connection.is_usable() {
            return;
        }
        if connection.transactions >= self.options.messages_per_connection {
            close(connection, slot);
            return;
        }
        locked(&site.resting).push_back((Instant::now(), connection));
        drop(slot);
    }

    /// Closes what has rested for too long, and forgets accounts that nobody uses.
    fn close_rested(&self) {
        let mut sites = locked(&self.sites);
        for site in sites.values() {
            let mut resting = locked(&site.resting);
            while resting.front().is_some_and(|(since, _)| since.elapsed() >= self.options.idle_timeout) {
                // all slots taken: somebody will use it soon
                let Ok(slot) = site.slots.clone().try_acquire_owned() else { break };
                let Some((_, connection)) = resting.pop_front() else { break };
                close(connection, slot);
            }
        }
        sites.retain(|_, site| Arc::strong_count(site) > 1 || !locked(&site.resting).is_empty());
    }
}

async fn sweep(pool: Weak<Pool>, idle_timeout: Duration) {
    loop {
        sleep(idle_timeout / 4).await;
        let Some(pool) = pool.upgrade() else { return };
        pool.close_rested();
    }
}

/// Closes a connection in the background, and its slot with it.
fn close(connection: Connection, slot: OwnedSemaphorePermit) {
    tokio::spawn(async move {
        connection.quit(Instant::now() + QUIT).await;
        drop(slot);
    });
}

/// Whether a connection turned out to have ended before this transaction began.
const fn is_stale(error: &Failed) -> bool {
    match error {
        Failed::Broken(_) => true,
        Failed::Answered(Phase::Reset, _) => true,
        Failed::Answered(Phase::Mail, reply) => reply.code == 421,
        _ => false,
    }
}

/// The account's own roots, or the public ones.
fn tls(ca: Option<&str>) -> Result<Arc<ClientConfig>, Failed> {
    const WRONG: Failed = Failed::Misconfigured("`ca` is no certificate in PEM");
    let mut roots = RootCertStore::empty();
    match ca {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                roots.add(certificate.map_err(|_| WRONG)?).map_err(|_| WRONG)?;
            }
            if roots.is_empty() {
                return Err(WRONG);
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|_| Failed::Misconfigured("no TLS here"))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
