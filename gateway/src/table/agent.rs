//! An agent as one snapshot has it, and what of it outlives the snapshot.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use smallvec::SmallVec;

use super::known::Known;
use super::{Shares, Standing};
use crate::admission::Admission;
use crate::admission::gap::Gap;
use crate::admission::rates;
use crate::admission::sleep::{Mode, Sleep};
use crate::admission::tenants::Callers;
use crate::forward::headers::AgentHeaders;
use crate::metrics::AgentMetrics;
use crate::pool::{Lease, Picker, Place, Pool, State, now_ms, weighted};
use crate::retry::Budget;

/// One agent of a snapshot.
pub struct Agent {
    /// What the table says of it.
    pub settings: config::Agent,
    /// Passive health: its own, or that of the agent in whose Deployment it runs.
    pub eject: Option<config::Eject>,
    /// Active health, likewise; `None` where it `shares`: the owner's probes count.
    pub health: Option<config::Health>,
    /// Its endpoints, by version; one without versions.
    pub splits: SmallVec<[Split; 1]>,
    /// What outlives reloads.
    pub state: Arc<AgentState>,
    /// Its metrics.
    pub metrics: Arc<AgentMetrics>,
    /// What its requests' headers have in common.
    pub headers: AgentHeaders,
    /// What each lower class of tenants has reserved.
    pub(super) reserve: f64,
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

/// By the agent whose replica it is, and its address.
pub(super) type Places = Known<(String, config::Endpoint, config::Protocol), Place>;

/// What belongs to an agent's name.
#[derive(Debug, Default)]
#[repr(C, align(64))] // What every request touches stands first, in one line of a cache.
pub struct AgentState {
    /// What may be retried.
    pub budget: Budget,
    /// Places and line.
    pub admission: Admission,
    /// Whether it may be waited for without any replica.
    pub sleep: Sleep,
    /// Since when its last replica has gone.
    pub gap: Gap,
    /// All that a table had and that are still in use.
    places: Mutex<Places>,
    /// Places that have left the table while something ran there.
    retired: Mutex<Vec<Weak<Place>>>,
    /// Its callers, where they are told apart or limited.
    callers: OnceLock<Callers>,
    /// Some table had it so that time alone may change how many places it has.
    clocked: AtomicBool,
}

impl AgentState {
    /// Keeps apart the places that are not among these any more.
    pub(super) fn retire_others(&self, places: &HashSet<*const Place>) {
        let mut retired = self.retired.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        retired.clear();
        for place in self.places().alive() {
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
    /// Its callers, where they are told apart or limited.
    #[must_use]
    pub fn callers(&self) -> &Callers {
        self.callers.get_or_init(Callers::default)
    }

    /// As [`AgentState::callers`], where there have been any.
    #[must_use]
    pub fn callers_seen(&self) -> Option<&Callers> {
        self.callers.get()
    }

    /// Its requests by replica, where it has any.
    #[must_use]
    pub fn running(&self) -> BTreeMap<config::Endpoint, u32> {
        let mut running = BTreeMap::new();
        for place in self.places().alive() {
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
        let places = self.places();
        let ends =
            |place: &Arc<Place>| place.in_flight() > 0 && !pooled.contains(&Arc::as_ptr(place));
        places.alive().filter(ends).collect()
    }

    pub(super) fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Agent {
    /// Looks at everything in memory that a request for this agent is about to use, all at once. Among
    /// thousands of agents hardly any of it is in the processor's caches, and what is looked at
    /// together is waited for once; step by step, as the request goes, each would be waited for alone.
    #[inline]
    pub fn look_ahead(&self) {
        let place = self.splits.first().and_then(|split| split.pool.places().first());
        let settings = &self.settings;
        std::hint::black_box((
            (settings.max_body, settings.timeout, settings.retry.is_some(), settings.keepalive.max),
            (settings.max_in_flight, settings.affinity.is_some(), self.eject.is_some()),
            self.state.budget.look_ahead(),
            self.metrics.look_ahead(),
            place.map(|place| (place.in_flight(), place.probe.is_unhealthy())),
            self.headers.mount().as_bytes().first().copied(),
        ));
    }

    /// Endpoints that may be picked now. Those of a version without weight never are.
    #[must_use]
    pub fn ready(&self) -> usize {
        let now = now_ms();
        self.picked().map(|split| split.pool.ready(now)).sum()
    }

    pub(super) fn picked(&self) -> impl Iterator<Item = &Split> {
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

    /// Takes a place, and `need` bytes of memory: a version by weight (by session, where there is one),
    /// then one of its endpoints; another version where that one has none.
    #[must_use]
    pub fn pick(&self, session: Option<&[u8]>, tried: &[u64], need: u64) -> Option<Lease> {
        if let [only] = self.splits.as_slice() {
            return only.pool.pick(session, tried, need);
        }
        let pools = self.splits.iter().map(|split| (split.weight, &split.pool));
        weighted(pools, session, tried, need)
    }

    /// The most that a request may need at any ready endpoint, bytes, if there is one.
    #[must_use]
    pub fn largest_need(&self) -> Option<u64> {
        self.ready_places().map(|place| place.endpoint.memory.whole(place.room())).max()
    }

    /// Tells admission by what those who wait are let in.
    pub(super) fn set_rules(&self) {
        let picker = self.settings.memory.map(|_| {
            Picker::new(
                self.picked().map(|split| (split.weight.max(1), split.pool.places().to_vec())),
            )
        });
        self.state.admission.set_rules(picker, self.reserve);
    }

    /// Tells admission how many places this gateway has at the ready endpoints. What runs on at
    /// others that have left the table takes none of them.
    pub fn refresh_capacity(&self) {
        self.state.admission.set_capacity(self.limit());
    }

    /// Whether time alone may change how many places there are, without anybody who would tell
    /// admission: by this table, or by one before, of which requests may still be under way.
    pub(super) fn is_clocked(&self) -> bool {
        let limited = self.settings.max_in_flight.is_some() || self.settings.memory.is_some();
        let now = limited || self.is_followed() || self.places().next().is_none();
        self.state.clocked.fetch_or(now, Relaxed) || now
    }

    /// As [`Agent::refresh_capacity`], but only if there are fewer than before.
    pub(super) fn lower_capacity(&self) {
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
    pub(super) fn take_share(&self, shares: &Shares) {
        let places: Vec<_> = self.places().collect();
        if let Some(memory) = self.settings.memory {
            let rates::Part { gateways, .. } = shares.part();
            for place in &places {
                let alone = !shares.is_used(&self.settings.name, &place.endpoint.address);
                place.room().set(memory.limit, gateways, alone);
            }
        }
        let Some(limit) = self.settings.max_in_flight else {
            return places.iter().for_each(|place| place.set_limit(None));
        };
        let replicas: Vec<_> = places.iter().map(|place| &place.endpoint.address).collect();
        for (place, share) in places.iter().zip(shares.of(&self.settings.name, limit, &replicas)) {
            place.set_limit(Some(share));
        }
    }
}
