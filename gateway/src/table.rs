//! The table in use: one immutable snapshot, swapped whole, and what outlives a swap.
//!
//! Counts and health belong to an address or to an agent's name; they are found again through
//! weak references, so that what still has a request under way is never counted anew.

mod agent;
mod found;
mod gap;
mod known;
mod registry;
mod shares;
mod view;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use self::registry::Registry;
use crate::admission::tenants::Tenants;
use crate::forward::headers::TrustedProxies;
use crate::metrics::Metrics;
use crate::router::{BadRename, Routes};

pub use self::agent::{Agent, AgentState, Split};
pub use self::found::{Found, Replicas, Standing, version_key};
pub use self::shares::{Other, Running, Shares};
pub use self::view::{AgentRef, Current, Permit, View};

/// Everything that a request needs to know. Never changed, only replaced.
pub struct Snapshot {
    /// Tables taken since the start.
    pub generation: u64,
    /// The table that it was made from.
    pub table: Arc<config::Table>,
    /// Types to agents.
    pub routes: Routes,
    /// Agents in alphabetical order.
    pub agents: Vec<Agent>,
    /// Whose forwarded headers are believed.
    pub trusted: TrustedProxies,
    /// Those agents whose places time alone may change.
    clocked: Vec<usize>,
    /// The ids of all endpoints.
    endpoints: HashSet<u64, foldhash::fast::RandomState>,
}

impl Snapshot {
    /// Whether this endpoint is one of an agent's.
    #[must_use]
    pub fn has_endpoint(&self, id: u64) -> bool {
        self.endpoints.contains(&id)
    }

    /// Has admission notice what nobody tells it: that an ejection is over, or a wait.
    pub fn refresh_capacity(&self) {
        self.clocked.iter().for_each(|index| self.agents[*index].refresh_capacity());
    }
}

/// The last edit that was not taken.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Every problem, one line each.
    pub problems: Vec<String>,
    /// SHA-256 of the bytes; empty where the file could not be read.
    pub hash: String,
}

/// The snapshot in force, and what the next one is made from.
pub struct Tables {
    current: ArcSwap<Snapshot>,
    /// Counts swaps, so that workers see with one load that there is a new one.
    version: AtomicU64,
    /// Tells of each swap those who wait for one.
    swaps: watch::Sender<()>,
    refused: ArcSwap<Option<Refused>>,
    registry: Registry,
    /// Who asked lately, where callers are told apart.
    pub tenants: Tenants,
    metrics: Arc<Metrics>,
    /// Snapshots that were in force, until no worker and no request holds them.
    replaced: Mutex<Vec<Arc<Snapshot>>>,
    /// This gateway's share of the places; locked while a snapshot is swapped or shared out.
    shares: Mutex<Shares>,
}

impl Tables {
    /// The first table.
    ///
    /// # Errors
    /// As [`Tables::replace`].
    pub fn new(
        table: Arc<config::Table>,
        found: &Found,
        metrics: Arc<Metrics>,
    ) -> Result<Self, BadRename> {
        let registry = Registry::default();
        let first = registry.snapshot(1, table, found, &metrics)?;
        let shares = Shares::default();
        first.agents.iter().for_each(|agent| agent.take_share(&shares));
        first.agents.iter().for_each(Agent::note_leaving);
        first.agents.iter().for_each(Agent::note_coming);
        first.agents.iter().for_each(Agent::set_rules);
        first.agents.iter().for_each(Agent::refresh_capacity);
        metrics.took(1, &first.table.hash);
        Ok(Self {
            current: ArcSwap::from_pointee(first),
            version: AtomicU64::new(1),
            swaps: watch::Sender::new(()),
            refused: ArcSwap::from_pointee(None),
            registry,
            tenants: Tenants::default(),
            metrics,
            replaced: Mutex::default(),
            shares: Mutex::new(shares),
        })
    }

    /// The snapshot in force.
    #[must_use]
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Takes a new table: the next generation.
    ///
    /// # Errors
    /// When a rename of the table can't stand in a request; nothing has changed then.
    pub fn replace(&self, table: Arc<config::Table>, found: &Found) -> Result<u64, BadRename> {
        let shares = lock(&self.shares);
        let generation = self.current.load().generation + 1;
        let next = self.registry.snapshot(generation, table, found, &self.metrics)?;
        self.metrics.took(generation, &next.table.hash);
        self.metrics.reloads_ok.increment(1);
        self.forget_refused();
        self.swap(next, &shares);
        Ok(generation)
    }

    /// Takes newly found addresses for the table in force.
    pub fn rediscover(&self, found: &Found) {
        let shares = lock(&self.shares);
        let now = self.current.load_full();
        let table = Arc::clone(&now.table);
        let next = self.registry.snapshot(now.generation, table, found, &self.metrics);
        self.swap(next.expect("the table in force was taken before"), &shares);
    }

    /// Notes an edit that was not taken.
    pub fn refuse(&self, refused: Refused) {
        self.metrics.reloads_refused.increment(1);
        self.metrics.table_refused.set(1.0);
        self.refused.store(Arc::new(Some(refused)));
    }

    /// The file holds the table in force again.
    pub fn forget_refused(&self) {
        self.metrics.table_refused.set(0.0);
        self.refused.store(Arc::new(None));
    }

    /// The last edit that was not taken, if none was taken since.
    #[must_use]
    pub fn refused(&self) -> Arc<Option<Refused>> {
        self.refused.load_full()
    }

    /// Changes with every swap, of a table or of addresses.
    #[must_use]
    pub fn swaps(&self) -> watch::Receiver<()> {
        self.swaps.subscribe()
    }

    /// Counts of an agent, also of one that has left the table and not yet finished.
    #[must_use]
    pub fn state(&self, agent: &str) -> Option<Arc<AgentState>> {
        self.registry.known(agent)
    }

    /// Shares the places out anew. Returns when it is in force for whoever picks from now on.
    pub fn share(&self, shares: Shares) {
        let mut now = lock(&self.shares);
        if *now == shares {
            return;
        }
        let snapshot = self.current();
        self.tenants.set_part(shares.part());
        let shared = |agent: &&Agent| {
            agent.settings.max_in_flight.is_some() || agent.settings.memory.is_some()
        };
        for agent in snapshot.agents.iter().filter(shared) {
            agent.take_share(&shares);
            agent.refresh_capacity();
        }
        *now = shares;
    }

    /// Counts of every agent, also of those that have left the table and not yet finished.
    #[must_use]
    pub fn states(&self) -> Vec<(String, Arc<AgentState>)> {
        self.registry.states()
    }

    /// Requests begun and not ended at every replica that is in use, the held ones too.
    #[must_use]
    pub fn running(&self) -> BTreeMap<config::Endpoint, u64> {
        self.registry.running()
    }

    /// Places that go are taken away before the swap, and new ones given out after it: whoever is
    /// let in finds a place in the snapshot in force.
    fn swap(&self, snapshot: Snapshot, shares: &Shares) {
        let snapshot = Arc::new(snapshot);
        for agent in &snapshot.agents {
            agent.take_share(shares);
            agent.state.retire_others(&agent.places().map(Arc::as_ptr).collect());
            agent.note_leaving();
            agent.lower_capacity();
        }
        let replaced = self.current.swap(Arc::clone(&snapshot));
        self.version.fetch_add(1, Ordering::Release);
        snapshot.agents.iter().for_each(Agent::note_coming);
        snapshot.agents.iter().for_each(Agent::set_rules);
        snapshot.agents.iter().for_each(Agent::refresh_capacity);
        lock(&self.replaced).push(replaced);
        self.forget();
        self.swaps.send_replace(());
    }

    /// Forgets callers that have nothing under way and nothing counted.
    pub fn forget_callers(&self) {
        self.tenants.forget();
        for (_, state) in self.states() {
            if let Some(callers) = state.callers_seen() {
                callers.forget();
            }
        }
    }

    /// Forgets what nobody holds any more. A large snapshot takes a while to drop: that is done here,
    /// so that it is not a worker which lets it go last, while requests wait.
    pub fn forget(&self) {
        let unused = |replaced: &mut Arc<Snapshot>| Arc::strong_count(replaced) == 1;
        let dropped: Vec<_> = lock(&self.replaced).extract_if(.., unused).collect();
        if !dropped.is_empty() {
            drop(dropped);
            self.registry.forget();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
