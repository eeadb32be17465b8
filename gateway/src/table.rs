//! The table in use: one immutable snapshot, swapped whole, and what outlives a swap.
//!
//! Counts and health belong to an address or to an agent's name; they are found again through
//! weak references, so that what still has a request under way is never counted anew.

mod found;
mod gap;
mod shares;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use tokio::sync::watch;

use crate::admission::Admission;
use crate::admission::gap::Gap;
use crate::admission::sleep::{Mode, Sleep};
use crate::forward::headers::{AgentHeaders, TrustedProxies};
use crate::metrics::{AgentMetrics, Metrics};
use crate::pool::{Endpoint, Lease, Place, Pool, Probe, State, hash, now_ms};
use crate::retry::Budget;
use crate::router::{BadRename, Routes};

pub use self::found::{Found, Replicas, Standing, version_key};
pub use self::shares::{Other, Running, Shares};

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
}

/// One agent of a snapshot.
pub struct Agent {
    /// What the table says of it.
    pub settings: config::Agent,
    /// Passive health: its own, or that of the agent in whose Deployment it runs.
    pub eject: Option<config::Eject>,
    /// Active health, likewise; `None` where it `shares`: the owner's probes count.
    pub health: Option<config::Health>,
    /// Its endpoints, by version; one without versions.
    pub splits: Vec<Split>,
    /// What outlives reloads.
    pub state: Arc<AgentState>,
    /// Its metrics.
    pub metrics: Arc<AgentMetrics>,
    /// What its requests' headers have in common.
    pub headers: AgentHeaders,
    total_weight: u32,
}

/// One version of an agent.
pub struct Split {
    /// Its share, relative to the sum.
    pub weight: u32,
    /// Its endpoints.
    pub pool: Pool,
    /// Whether others come when these go.
    pub standing: Standing,
}

/// What belongs to an agent's name.
#[derive(Debug, Default)]
pub struct AgentState {
    /// Places and line.
    pub admission: Admission,
    /// Whether it may be waited for without any replica.
    pub sleep: Sleep,
    /// Since when its last replica has gone.
    pub gap: Gap,
    /// What may be retried.
    pub budget: Budget,
    /// By the agent whose replica it is, and its address.
    places: DashMap<(String, config::Endpoint, config::Protocol), Weak<Place>>,
    /// Places that have left the table while something ran there.
    retired: Mutex<Vec<Weak<Place>>>,
}

impl AgentState {
    /// Keeps apart the places that are not among these any more.
    fn retire_others(&self, places: &HashSet<*const Place>) {
        let mut retired = self.retired.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        retired.clear();
        for place in self.places.iter().filter_map(|entry| entry.value().upgrade()) {
            place.retire(!places.contains(&Arc::as_ptr(&place)));
            if place.is_retired() {
                retired.push(Arc::downgrade(&place));
            }
        }
    }

    /// Requests that run on at replicas that have left the table.
    fn retired_in_flight(&self) -> u32 {
        let retired = self.retired.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        retired.iter().filter_map(Weak::upgrade).map(|place| place.in_flight()).sum()
    }
}

impl AgentState {
    /// Its requests by replica, where it has any.
    #[must_use]
    pub fn running(&self) -> BTreeMap<config::Endpoint, u32> {
        let mut running = BTreeMap::new();
        for place in self.places.iter().filter_map(|place| place.upgrade()) {
            if place.in_flight() > 0 {
                *running.entry(place.endpoint.address.clone()).or_default() += place.in_flight();
            }
        }
        running
    }

    /// Places that are in no pool any more and have requests under way: they end where they are.
    #[must_use]
    pub fn draining<'a>(&self, pooled: impl Iterator<Item = &'a Arc<Place>>) -> Vec<Arc<Place>> {
        let pooled: HashSet<_> = pooled.map(Arc::as_ptr).collect();
        let alive = self.places.iter().filter_map(|place| place.upgrade());
        alive
            .filter(|place| place.in_flight() > 0 && !pooled.contains(&Arc::as_ptr(place)))
            .collect()
    }
}

impl Agent {
    /// Endpoints that may be picked now. Those of a version without weight never are.
    #[must_use]
    pub fn ready(&self) -> usize {
        let now = now_ms();
        self.picked().map(|split| split.pool.ready(now)).sum()
    }

    fn picked(&self) -> impl Iterator<Item = &Split> {
        let only = self.splits.len() == 1;
        self.splits.iter().filter(move |split| only || split.weight > 0)
    }

    /// The ready ones.
    fn ready_places(&self) -> impl Iterator<Item = &Arc<Place>> {
        let now = now_ms();
        let places = self.picked().flat_map(|split| split.pool.places());
        places.filter(move |place| place.state(now) == State::Ready)
    }

    /// All its endpoints.
    pub fn places(&self) -> impl Iterator<Item = &Arc<Place>> {
        self.splits.iter().flat_map(|split| split.pool.places())
    }

    /// Endpoints that discovery has taken away and that still have requests of this agent.
    #[must_use]
    pub fn draining(&self) -> Vec<Arc<Place>> {
        self.state.draining(self.places())
    }

    /// The pool that this endpoint is in.
    #[must_use]
    pub fn pool_of(&self, place: &Arc<Place>) -> Option<&Pool> {
        let pools = self.splits.iter().map(|split| &split.pool);
        pools.into_iter().find(|pool| pool.places().iter().any(|other| Arc::ptr_eq(other, place)))
    }

    /// Takes a place: a version by weight (by session, where there is one), then one of its
    /// endpoints; another version where that one has none.
    #[must_use]
    pub fn pick(&self, session: Option<&[u8]>, tried: &[u64]) -> Option<Lease> {
        if let [only] = self.splits.as_slice() {
            return only.pool.pick(session, tried);
        }
        let total = u64::from(self.total_weight.max(1));
        let mut point = match session {
            Some(key) => hash(key) % total,
            None => fastrand::u64(..total),
        };
        let drawn = self.splits.iter().position(|split| {
            let here = point < u64::from(split.weight);
            point = point.saturating_sub(u64::from(split.weight));
            here
        });
        let (before, from) = self.splits.split_at(drawn.unwrap_or(0));
        let weighted = from.iter().chain(before).filter(|split| split.weight > 0);
        weighted.into_iter().find_map(|split| split.pool.pick(session, tried))
    }

    /// Tells admission how many places this gateway has at the ready endpoints. What runs on at
    /// others that have left the table takes none of them.
    pub fn refresh_capacity(&self) {
        self.state.admission.set_capacity(self.limit());
    }

    /// As [`Agent::refresh_capacity`], but only if there are fewer than before.
    fn lower_capacity(&self) {
        let (before, now) = (self.state.admission.capacity(), self.limit());
        if now.is_some_and(|now| before.is_none_or(|before| now < before)) {
            self.state.admission.set_capacity(now);
        }
    }

    /// Whether it has no replicas and requests wait for the first one.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        self.places().next().is_none() && self.state.sleep.wakes()
    }

    /// Whether it has no replicas because a person has scaled it to zero.
    #[must_use]
    pub fn is_kept_at_zero(&self) -> bool {
        self.places().next().is_none() && matches!(self.state.sleep.mode(), Mode::ByHand(_))
    }

    /// Requests beyond a share run on where they are, and take no place from the other endpoints. An
    /// agent that is awaited has no places, also where there is no limit: its requests stay in line.
    fn limit(&self) -> Option<u32> {
        if self.is_awaited() {
            return Some(0);
        }
        self.settings.max_in_flight?;
        let places = |place: &Arc<Place>| place.limit().unwrap_or(0).max(place.in_flight());
        let here = self.ready_places().map(places).fold(0, u32::saturating_add);
        Some(here.saturating_add(self.state.retired_in_flight()))
    }

    /// How many places the ready endpoints have for all gateways together; `None`: no limit.
    #[must_use]
    pub fn capacity(&self) -> Option<u32> {
        let each = self.settings.max_in_flight?;
        Some(each.saturating_mul(u32::try_from(self.ready()).unwrap_or(u32::MAX)))
    }

    /// This gateway's part of [`Agent::capacity`].
    #[must_use]
    pub fn share(&self) -> Option<u32> {
        self.settings.max_in_flight?;
        let places = self.ready_places().map(|place| place.limit().unwrap_or(0));
        Some(places.fold(0, u32::saturating_add))
    }

    /// Limits each endpoint to this gateway's share of its places.
    fn take_share(&self, shares: &Shares) {
        let places: Vec<_> = self.places().collect();
        let Some(limit) = self.settings.max_in_flight else {
            return places.iter().for_each(|place| place.set_limit(None));
        };
        let replicas: Vec<_> = places.iter().map(|place| &place.endpoint.address).collect();
        for (place, share) in places.iter().zip(shares.of(&self.settings.name, limit, &replicas)) {
            place.set_limit(Some(share));
        }
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
    metrics: Arc<Metrics>,
    /// This gateway's share of the places; locked while a snapshot is swapped or shared out.
    shares: Mutex<Shares>,
}

#[derive(Default)]
struct Registry {
    agents: DashMap<String, Weak<AgentState>>,
    endpoints: DashMap<(config::Endpoint, config::Protocol), Weak<Endpoint>>,
    probes: DashMap<(String, config::Endpoint), Weak<Probe>>,
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
        first.agents.iter().for_each(Agent::refresh_capacity);
        metrics.took(1, &first.table.hash);
        Ok(Self {
            current: ArcSwap::from_pointee(first),
            version: AtomicU64::new(1),
            swaps: watch::Sender::new(()),
            refused: ArcSwap::from_pointee(None),
            registry,
            metrics,
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
        let shares = self.shares.lock().unwrap_or_else(|p| p.into_inner());
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
        let shares = self.shares.lock().unwrap_or_else(|p| p.into_inner());
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
        self.registry.agents.get(agent)?.upgrade()
    }

    /// Shares the places out anew. Returns when it is in force for whoever picks from now on.
    pub fn share(&self, shares: Shares) {
        let mut now = self.shares.lock().unwrap_or_else(|p| p.into_inner());
        if *now == shares {
            return;
        }
        let snapshot = self.current();
        for agent in snapshot.agents.iter().filter(|agent| agent.settings.max_in_flight.is_some()) {
            agent.take_share(&shares);
            agent.refresh_capacity();
        }
        *now = shares;
    }

    /// Counts of every agent, also of those that have left the table and not yet finished.
    #[must_use]
    pub fn states(&self) -> Vec<(String, Arc<AgentState>)> {
        let agents = self.registry.agents.iter();
        agents.filter_map(|known| Some((known.key().clone(), known.upgrade()?))).collect()
    }

    /// Requests begun and not ended at every replica that is in use, the held ones too.
    #[must_use]
    pub fn running(&self) -> BTreeMap<config::Endpoint, u64> {
        let mut running = BTreeMap::new();
        for endpoint in self.registry.endpoints.iter().filter_map(|known| known.upgrade()) {
            *running.entry(endpoint.address.clone()).or_default() +=
                u64::from(endpoint.in_flight());
        }
        running
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
        self.current.store(Arc::clone(&snapshot));
        self.version.fetch_add(1, Ordering::Release);
        snapshot.agents.iter().for_each(Agent::note_coming);
        snapshot.agents.iter().for_each(Agent::refresh_capacity);
        self.registry.forget();
        self.swaps.send_replace(());
    }
}

impl Registry {
    fn snapshot(
        &self,
        generation: u64,
        table: Arc<config::Table>,
        found: &Found,
        metrics: &Metrics,
    ) -> Result<Snapshot, BadRename> {
        let names = table.agents.iter().map(|(name, agent)| (name.as_str(), &agent.paths));
        let routes = Routes::new(names)?;
        let agents: Vec<_> =
            table.agents.values().map(|agent| self.agent(&table, agent, found, metrics)).collect();
        let trusted = TrustedProxies::new(&table.gateway.trusted_proxies);
        Ok(Snapshot { generation, routes, agents, trusted, table })
    }

    fn agent(
        &self,
        table: &config::Table,
        settings: &config::Agent,
        found: &Found,
        metrics: &Metrics,
    ) -> Agent {
        let owner = settings.shares.as_ref().and_then(|owner| table.agents.get(owner));
        let owner = owner.unwrap_or(settings);
        let state = self.state(&settings.name);
        let split = |weight: u32, key: &str| {
            let Replicas { addresses, standing } = found.get(key).cloned().unwrap_or_default();
            let place = |address| self.place(&state, owner, address);
            Split { weight, pool: Pool::new(addresses.iter().map(place).collect()), standing }
        };
        let splits: Vec<_> = match owner.versions.as_slice() {
            [] => vec![split(1, &owner.name)],
            versions => versions
                .iter()
                .map(|version| split(version.weight, &version_key(&owner.name, &version.service)))
                .collect(),
        };
        Agent {
            eject: owner.eject,
            health: owner.health.clone().filter(|_| settings.shares.is_none()),
            total_weight: splits.iter().map(|split| split.weight).sum(),
            metrics: metrics.agent(&settings.name),
            headers: AgentHeaders::new(&settings.name),
            settings: settings.clone(),
            splits,
            state,
        }
    }

    fn state(&self, agent: &str) -> Arc<AgentState> {
        alive(&self.agents, agent.to_owned(), AgentState::default)
    }

    fn place(
        &self,
        agent: &AgentState,
        owner: &config::Agent,
        address: &config::Endpoint,
    ) -> Arc<Place> {
        let key = (address.clone(), owner.protocol);
        let probe = alive(&self.probes, (owner.name.clone(), address.clone()), Probe::default);
        if owner.health.is_none() {
            probe.reset();
        }
        let endpoint = || Endpoint::new(address.clone(), owner.protocol);
        let endpoint = alive(&self.endpoints, key, endpoint);
        let key = (owner.name.clone(), address.clone(), owner.protocol);
        alive(&agent.places, key, || Place::new(endpoint, probe))
    }

    /// Forgets what nobody holds any more.
    fn forget(&self) {
        self.agents.retain(|_, state| match state.upgrade() {
            Some(state) => {
                state.places.retain(|_, place| place.strong_count() > 0);
                true
            }
            None => false,
        });
        self.endpoints.retain(|_, endpoint| endpoint.strong_count() > 0);
        self.probes.retain(|_, probe| probe.strong_count() > 0);
    }
}

fn alive<K: std::hash::Hash + Eq, V>(
    map: &DashMap<K, Weak<V>>,
    key: K,
    make: impl FnOnce() -> V,
) -> Arc<V> {
    let mut entry = map.entry(key).or_default();
    entry.upgrade().unwrap_or_else(|| {
        let made = Arc::new(make());
        *entry = Arc::downgrade(&made);
        made
    })
}

/// One worker's view of [`Tables`]: its own count of references, so that workers share none.
pub struct View {
    tables: Arc<Tables>,
    seen: RefCell<(u64, Rc<Shared>)>,
}

impl View {
    /// A view of the snapshot in force.
    #[must_use]
    pub fn new(tables: Arc<Tables>) -> Self {
        let version = tables.version.load(Ordering::Acquire);
        let seen = RefCell::new((version, Rc::new(Shared(tables.current()))));
        Self { tables, seen }
    }

    /// The snapshot in force, for one request.
    #[must_use]
    pub fn current(&self) -> Current {
        let version = self.tables.version.load(Ordering::Acquire);
        let mut seen = self.seen.borrow_mut();
        if seen.0 != version {
            *seen = (version, Rc::new(Shared(self.tables.current())));
        }
        Current(Rc::clone(&seen.1))
    }
}

/// A snapshot as one request holds it.
#[derive(Clone)]
pub struct Current(Rc<Shared>);

/// A worker's one reference to what all workers share.
struct Shared(Arc<Snapshot>);

impl Deref for Current {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0.0
    }
}

impl Current {
    /// One agent, held as long as the request.
    #[must_use]
    pub fn agent(&self, index: u32) -> AgentRef {
        AgentRef { current: self.clone(), index: index as usize }
    }
}

/// An agent as one request holds it.
#[derive(Clone)]
pub struct AgentRef {
    current: Current,
    index: usize,
}

impl Deref for AgentRef {
    type Target = Agent;

    fn deref(&self) -> &Agent {
        &self.current.agents[self.index]
    }
}

impl AgentRef {
    /// The same agent as the snapshot in force has it, or as it was if it is gone there.
    #[must_use]
    pub fn latest(&self, view: &View) -> Self {
        let current = view.current();
        if Rc::ptr_eq(&current.0, &self.current.0) {
            return self.clone();
        }
        match current.routes.lookup(&self.settings.name) {
            Some(index) => current.agent(index),
            None => self.clone(),
        }
    }
}

/// A place that admission gave; given back by being dropped, at the body's last byte.
pub struct Permit {
    agent: AgentRef,
    place: Option<Arc<Place>>,
    held: bool,
}

impl Permit {
    /// Waits for a place.
    ///
    /// # Errors
    /// As [`Admission::enter`].
    pub async fn of(agent: &AgentRef) -> Result<Self, crate::error::Error> {
        agent.state.admission.enter(agent.settings.queue).await?;
        Ok(Self { agent: agent.clone(), place: None, held: false })
    }

    /// A place, if there is one without waiting.
    #[must_use]
    pub fn at_once(agent: &AgentRef) -> Option<Self> {
        let free = agent.state.admission.try_enter();
        free.then(|| Self { agent: agent.clone(), place: None, held: false })
    }

    /// Ties it to the replica that answers, where places are counted.
    pub fn settle(&mut self, place: &Arc<Place>) {
        self.place = self.agent.settings.max_in_flight.is_some().then(|| Arc::clone(place));
    }

    /// Counts it as held from now on: the client left, the agent goes on.
    pub fn hold(&mut self) {
        self.agent.state.admission.hold();
        self.held = true;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.held {
            self.agent.state.admission.release();
        }
        match &self.place {
            Some(place) if place.is_retired() => self.agent.state.admission.leave_for_good(),
            _ => self.agent.state.admission.leave(),
        }
    }
}
