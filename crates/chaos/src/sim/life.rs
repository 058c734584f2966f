//! The world that outlives every process, and the life of one process in it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bus::{Subscription, sim::Sim};
use domain::{Address, Channel, DeliveryId, NotificationId, Status, TenantId, Timestamp, User};
use store::{Decided, StoreError, UserKey};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    evidence::Reception,
    people::{Contact, Person},
};

/// How a delivery stands in the ledger.
pub(super) enum Held {
    Open { owner: u128, since: Instant },
    Settled(store::Settled),
}

/// What the stores and the provider hold.
#[derive(Default)]
pub(super) struct State {
    pub(super) users: BTreeMap<UserKey, User>,
    pub(super) decisions: HashMap<(NotificationId, String), Decided>,
    pub(super) claims: HashMap<DeliveryId, Held>,
    pub(super) gone: HashMap<(TenantId, Channel, Address), Timestamp>,
    pub(super) index: BTreeMap<String, (u64, Status)>,
    pub(super) receptions: Vec<Reception>,
    /// Requests so far, by delivery.
    pub(super) seen: HashMap<DeliveryId, u32>,
}

/// Everything but the processes.
pub(super) struct World {
    pub(super) sim: Sim,
    pub(super) people: Vec<Person>,
    chance: Mutex<fastrand::Rng>,
    begun: Instant,
    /// The longest that a store takes.
    longest: Duration,
    /// How often a call fails, or takes its time.
    trouble: f64,
    healed: AtomicBool,
    state: Mutex<State>,
}

impl World {
    pub(super) fn new(sim: Sim, people: Vec<Person>, mut chance: fastrand::Rng) -> Self {
        let trouble = [0.0, 0.02, 0.1][chance.usize(0..3)];
        let longest = Duration::from_millis(chance.u64(1..250));
        let (healed, state) = (AtomicBool::new(false), Mutex::default());
        Self { sim, people, chance: Mutex::new(chance), begun: Instant::now(), longest, trouble, healed, state }
    }

    /// Simulated time as a time of day.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + Duration::from_secs(1_700_000_000) + self.begun.elapsed()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn chance(&self) -> MutexGuard<'_, fastrand::Rng> {
        self.chance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn heal(&self) {
        self.healed.store(true, Relaxed);
        self.sim.heal();
    }

    fn fails(&self) -> bool {
        !self.healed.load(Relaxed) && self.chance().f64() < self.trouble
    }

    /// Whose address it is.
    pub(super) fn contact(&self, address: &str) -> Option<&Contact> {
        self.people.iter().flat_map(|p| &p.contacts).find(|c| address.ends_with(c.path.as_str()))
    }
}

/// A membership in a group, for as long as its owner lives and keeps it.
pub(super) type Chair = tokio::sync::Mutex<Option<Box<dyn Subscription>>>;

/// A process. When it has died it never hears of anything again, and nothing that it still wants is done.
pub(super) struct Life {
    pub(super) world: Arc<World>,
    pub(super) dead: CancellationToken,
    seats: Mutex<Vec<Weak<Chair>>>,
}

impl Life {
    pub(super) fn begin(world: &Arc<World>) -> Arc<Self> {
        Arc::new(Self { world: world.clone(), dead: CancellationToken::new(), seats: Mutex::default() })
    }

    /// SIGKILL.
    pub(super) async fn kill(&self) {
        self.dead.cancel();
        let seats = std::mem::take(&mut *self.seats.lock().unwrap_or_else(PoisonError::into_inner));
        for seat in seats.iter().filter_map(Weak::upgrade) {
            // its groups find out
            drop(seat.lock().await.take());
        }
    }

    pub(super) fn seat(&self, subscription: Box<dyn Subscription>) -> Arc<Chair> {
        let seat = Arc::new(tokio::sync::Mutex::new(Some(subscription)));
        self.seats.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&seat));
        seat
    }

    /// A moment at which it can die; it may take a while.
    pub(super) async fn moment(&self) {
        let pause = {
            let mut chance = self.world.chance();
            (chance.u8(0..3) == 0).then(|| self.world.longest.mul_f64(chance.f64()))
        };
        // even what takes no time lets others go first
        sleep(pause.unwrap_or(Duration::from_micros(1))).await;
        self.live().await;
    }

    /// Goes on only for the living.
    pub(super) async fn live(&self) {
        if self.dead.is_cancelled() {
            std::future::pending::<()>().await;
        }
    }

    /// A call of a store: it may fail, before or after its effect, and the caller may die before or after it.
    pub(super) async fn act<T>(&self, effect: impl FnOnce(&mut State) -> T) -> Result<T, StoreError> {
        self.moment().await;
        if self.world.fails() {
            return Err(StoreError::unavailable("sim", "a simulated fault, nothing was done"));
        }
        let result = effect(&mut self.world.state());
        self.moment().await;
        if self.world.fails() {
            return Err(StoreError::unavailable("sim", "a simulated fault, the outcome is open"));
        }
        Ok(result)
    }
}
