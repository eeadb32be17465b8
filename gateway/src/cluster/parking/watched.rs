//! What is known of one Deployment that may be parked, and when something is to be done about it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::admission::sleep::Mode;
use crate::cluster::load::Loads;
use crate::metrics::AgentMetrics;
use crate::pool::now_ms;
use crate::table::{Agent, Snapshot};

/// Between two looks at a Deployment on whose start somebody waits, or that a person keeps at zero
/// and that is called all the same.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// After a failure: the first pause, doubled up to the longest.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// One Deployment.
pub(super) struct Watched {
    pub(super) owned: k8s::Owned,
    /// A question to the API is under way.
    pub(super) busy: bool,
    /// How many replicas there should be when it was last looked at.
    pub(super) size: Option<i32>,
    /// The last sign of a request, or that somebody wants more of it.
    active: Instant,
    looked: Instant,
    /// When this gateway woke it, until it is ready.
    woke: Option<Instant>,
    /// Requests so far, over all gateways.
    requests: u64,
    /// This gateway's requests when it was last seen to be kept at zero.
    refused: u64,
    places: BTreeSet<u64>,
    wake: Due,
    park: Due,
}

/// When something may be tried again.
struct Due {
    at: Instant,
    pause: Duration,
}

impl Due {
    fn now() -> Self {
        Self { at: Instant::now(), pause: PAUSE }
    }

    fn after(&mut self, pause: Duration) {
        *self = Self { at: Instant::now() + pause, pause: PAUSE };
    }

    /// Says whether this was the first failure in a row.
    fn failed(&mut self) -> bool {
        let first = self.pause == PAUSE;
        self.at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        first
    }

    fn is_now(&self) -> bool {
        Instant::now() >= self.at
    }
}

/// The agents that a Deployment's replicas serve, in the snapshot in force.
pub(super) fn agents<'a>(
    owned: &k8s::Owned,
    snapshot: &'a Snapshot,
) -> impl Iterator<Item = &'a Agent> {
    let index = |name: &String| snapshot.routes.lookup(name);
    let found: Vec<_> = owned.serves.iter().filter_map(index).collect();
    found.into_iter().map(|index| &snapshot.agents[index as usize])
}

/// What there is to do for the agents of a Deployment, over all gateways.
pub(super) fn load(owned: &k8s::Owned, loads: &Loads) -> u64 {
    let of = |name: &String| loads.agents.get(name).map_or(0, |load| load.load());
    owned.serves.iter().map(of).sum()
}

impl Watched {
    pub(super) fn new(owned: k8s::Owned) -> Self {
        let now = Instant::now();
        Self {
            owned,
            busy: false,
            size: None,
            active: now,
            looked: now,
            woke: None,
            requests: 0,
            refused: 0,
            places: BTreeSet::new(),
            wake: Due::now(),
            park: Due::now(),
        }
    }

    /// Whether somebody waits for it to be woken, or was refused because it was said to be at zero
    /// by a person, and it is time to look.
    pub(super) fn is_called(&self, snapshot: &Snapshot) -> bool {
        let mut refused = false;
        for agent in agents(&self.owned, snapshot) {
            if agent.is_parked() && agent.state.admission.queued() > 0 {
                return !self.busy && self.wake.is_now();
            }
            refused |= matches!(agent.state.sleep.mode(), Mode::ByHand(_));
        }
        refused && !self.busy && self.wake.is_now() && self.asked(snapshot) != self.refused
    }

    /// Whether it has ready replicas.
    pub(super) fn is_awake(&self, snapshot: &Snapshot) -> bool {
        agents(&self.owned, snapshot).any(|agent| agent.places().next().is_some())
    }

    /// It has ready replicas: nobody waits for the first one any more.
    pub(super) fn awake(&mut self, snapshot: &Snapshot) {
        let took = self.woke.take().map(|since| since.elapsed());
        for agent in agents(&self.owned, snapshot) {
            let sleep = &agent.state.sleep;
            sleep.started();
            if let Some(took) = took {
                sleep.learn(took);
            }
            if matches!(sleep.mode(), Mode::ByHand(_)) {
                sleep.set(Mode::Wakes);
            }
        }
        if let Some(took) = took {
            let deployment = self.to_string();
            tracing::info!(
                deployment,
                start_ms = took.as_millis() as u64,
                "a parked agent is ready"
            );
            if let Some(metrics) = self.metrics(snapshot) {
                metrics.start.record(took);
            }
        }
    }

    /// Of the agent that owns it.
    fn metrics(&self, snapshot: &Snapshot) -> Option<Arc<AgentMetrics>> {
        let index = snapshot.routes.lookup(&self.owned.agent)?;
        Some(Arc::clone(&snapshot.agents[index as usize].metrics))
    }

    /// Requests that this gateway has answered so far.
    fn asked(&self, snapshot: &Snapshot) -> u64 {
        agents(&self.owned, snapshot).map(|agent| agent.metrics.recent.requests()).sum()
    }

    /// Looks for signs of use. New replicas are one: somebody wanted them.
    pub(super) fn sample(
        &mut self,
        snapshot: &Snapshot,
        loads: &Loads,
        asked: &BTreeMap<String, u64>,
    ) {
        let requests = self.owned.serves.iter().filter_map(|name| asked.get(name)).sum();
        let places: BTreeSet<u64> = agents(&self.owned, snapshot)
            .flat_map(|agent| agent.places().map(|place| place.endpoint.id))
            .collect();
        let used = load(&self.owned, loads) > 0 || requests != self.requests;
        if used || !places.is_subset(&self.places) {
            self.active = Instant::now();
        }
        (self.requests, self.places) = (requests, places);
    }

    /// Whether it should be parked: it has been idle for long enough, as far as that is known.
    pub(super) fn is_due(&self) -> bool {
        let idle = self.owned.idle.is_some_and(|idle| self.active.elapsed() >= idle);
        idle && self.size.is_none_or(|size| size > 0) && !self.busy && self.park.is_now()
    }

    /// Whether it is time to see if somebody has changed its size.
    pub(super) fn is_to_be_looked_at(&self, every: Duration) -> bool {
        let due = self.size.is_none() || self.looked.elapsed() >= every;
        due && !self.busy && self.park.is_now()
    }

    /// What was seen. Somebody who scales it up wants it for a while.
    pub(super) fn has_size(&mut self, size: i32) {
        if self.size.is_some_and(|before| size > before) {
            self.active = Instant::now();
        }
        self.size = Some(size);
        self.looked = Instant::now();
        self.park.after(Duration::ZERO);
    }

    /// Tells those who wait that it starts, and looks again soon whether it still does.
    pub(super) fn starts(&mut self, snapshot: &Snapshot) {
        self.wake.after(LOOK_AGAIN);
        for agent in agents(&self.owned, snapshot) {
            agent.state.sleep.starts(now_ms());
            agent.state.sleep.set(Mode::Wakes);
        }
    }

    /// This gateway has woken it.
    pub(super) fn is_woken(&mut self, since: Instant, snapshot: &Snapshot) {
        self.woke = self.woke.or(Some(since));
        self.starts(snapshot);
        if let Some(metrics) = self.metrics(snapshot) {
            metrics.wakes.increment(1);
        }
    }

    /// This gateway has parked it.
    pub(super) fn is_parked(&mut self, snapshot: &Snapshot) {
        self.has_size(0);
        if let Some(metrics) = self.metrics(snapshot) {
            metrics.parks.increment(1);
        }
    }

    /// A person keeps it at zero: nobody waits for it.
    pub(super) fn is_kept_at_zero(&mut self, snapshot: &Snapshot) {
        self.woke = None;
        self.wake.after(LOOK_AGAIN);
        self.refused = self.asked(snapshot);
        let name = format!("deployment/{} -n {}", self.owned.name, self.owned.namespace);
        let name: Arc<str> = name.into();
        for agent in agents(&self.owned, snapshot) {
            agent.state.sleep.started();
            agent.state.sleep.set(Mode::ByHand(Arc::clone(&name)));
        }
    }

    pub(super) fn waking_failed(&mut self) -> bool {
        self.wake.failed()
    }

    pub(super) fn parking_failed(&mut self) -> bool {
        self.park.failed()
    }
}

impl std::fmt::Display for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.owned.name, self.owned.namespace)
    }
}
