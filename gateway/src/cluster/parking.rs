//! Zero and back: a Deployment whose agents nobody asks is set to zero replicas by the one gateway
//! that decides, and to one again by any gateway where a request waits for it.
//!
//! What was parked stands in the Lease, so that a Deployment that a person has scaled to zero is
//! told from one of ours, over restarts too.

mod watched;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use self::watched::{Watched, agents, load};
use super::asker::{Asker, Failed};
use super::lease::Handle;
use super::load::Board;
use super::scale::Scale;
use crate::admission::sleep::Mode;
use crate::shared::Shared;
use crate::table::{Agent, Snapshot};

/// How often it is looked whether somebody waits.
const TICK: Duration = Duration::from_millis(50);
/// How often signs of use are looked for: so much longer than `idle` an agent may stay.
const SAMPLE: Duration = Duration::from_secs(1);
/// Between two looks at one Deployment's size, and how much longer for each that there is: at most
/// five questions a second.
const LOOK: Duration = Duration::from_secs(5);
const LOOK_EACH: Duration = Duration::from_millis(200);
/// How often a wake is tried again at once, because somebody else changed the Deployment.
const WAKE_TRIES: u32 = 5;
/// The annotation of the Lease that says what was parked, and when.
const PARKED: &str = "switchyard/parked";

/// A Deployment: its namespace and its name.
type Key = (String, String);

/// What came of a question to the API.
enum Done {
    Wake(Result<Wake, Failed>),
    Look(Result<Look, Failed>),
}

/// Of one on which somebody waits.
enum Wake {
    /// It was parked, and starts since then.
    Woken(Instant),
    /// It isn't at zero.
    Runs,
    /// It is, and not by us.
    KeptAtZero,
}

/// Of one that may be idle.
enum Look {
    /// It had so many replicas.
    Parked(i32),
    /// It has so many.
    Size(i32),
}

/// Everything about parking that one gateway does.
pub(super) struct Parking {
    shared: Arc<Shared>,
    board: Board,
    asker: Arc<Asker>,
    lease: Handle,
    watched: BTreeMap<Key, Watched>,
    jobs: JoinSet<(Key, Done)>,
}

impl Parking {
    pub(super) fn new(shared: Arc<Shared>, board: Board, asker: Arc<Asker>, lease: Handle) -> Self {
        let (watched, jobs) = (BTreeMap::new(), JoinSet::new());
        Self { shared, board, asker, lease, watched, jobs }
    }

    /// Parks and wakes what these tables say, until it is dropped.
    pub(super) async fn run(mut self, mut tables: watch::Receiver<Arc<config::Table>>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sampled = Instant::now();
        let mut swaps = self.shared.tables.swaps();
        self.narrow(&tables.borrow_and_update());
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    self.wake();
                    if sampled.elapsed() >= SAMPLE {
                        sampled = Instant::now();
                        self.sample();
                    }
                }
                Some(Ok((key, done))) = self.jobs.join_next() => self.take(&key, done),
                Ok(()) = swaps.changed() => {
                    let table = Arc::clone(&self.shared.tables.current().table);
                    self.narrow(&table);
                }
                changed = tables.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Watches what this table says, and nothing else.
    fn narrow(&mut self, table: &config::Table) {
        let key = |owned: &k8s::Owned| (owned.namespace.clone(), owned.name.clone());
        let wanted: BTreeMap<Key, _> = parked(table).map(|owned| (key(&owned), owned)).collect();
        set_modes(&self.shared, table);
        self.watched.retain(|key, _| wanted.contains_key(key));
        for (key, owned) in wanted {
            match self.watched.get_mut(&key) {
                Some(watched) => watched.owned = owned,
                None => drop(self.watched.insert(key, Watched::new(owned))),
            }
        }
    }

    /// Wakes what is waited for.
    fn wake(&mut self) {
        let snapshot = self.shared.tables.current();
        for (key, watched) in &mut self.watched {
            if watched.is_awake(&snapshot) {
                watched.awake(&snapshot);
            } else if watched.is_called(&snapshot) {
                watched.busy = true;
                let (key, lease) = (key.clone(), self.lease.clone());
                let scale = Scale::of(&self.asker, &watched.owned);
                self.jobs.spawn(async move {
                    let done = wake(&scale, &lease, &key).await;
                    (key, Done::Wake(done))
                });
            }
        }
    }

    /// Looks for signs of use, and parks what has none.
    fn sample(&mut self) {
        let (snapshot, loads) = (self.shared.tables.current(), self.board.overall());
        let every = LOOK.max(LOOK_EACH * u32::try_from(self.watched.len()).unwrap_or(u32::MAX));
        let (asked, leads) = (self.board.asked(), self.lease.leads());
        for (key, watched) in &mut self.watched {
            watched.sample(&snapshot, &loads, &asked);
            let look = watched.is_to_be_looked_at(every);
            let park = watched.is_due();
            if !leads || !(look || park) {
                continue;
            }
            watched.busy = true;
            let job = Job {
                key: key.clone(),
                known: watched.size.filter(|_| park),
                owned: watched.owned.clone(),
                scale: Scale::of(&self.asker, &watched.owned),
                lease: self.lease.clone(),
                board: self.board.clone(),
            };
            self.jobs.spawn(async move {
                let done = job.run().await;
                (job.key, Done::Look(done))
            });
        }
    }

    fn take(&mut self, key: &Key, done: Done) {
        let snapshot = self.shared.tables.current();
        let Some(watched) = self.watched.get_mut(key) else { return };
        watched.busy = false;
        match done {
            Done::Wake(answer) => after_wake(watched, &snapshot, answer),
            Done::Look(answer) => after_look(watched, &snapshot, answer),
        }
    }
}

/// The Deployments that a table lets be parked.
fn parked(table: &config::Table) -> impl Iterator<Item = k8s::Owned> + use<> {
    k8s::owned(table).into_iter().filter(|owned| owned.idle.is_some())
}

/// Says of each agent whether its requests wait while it has no replica.
pub(super) fn set_modes(shared: &Shared, table: &config::Table) {
    let served: BTreeSet<String> = parked(table).flat_map(|owned| owned.serves).collect();
    for agent in &shared.tables.current().agents {
        let sleep = &agent.state.sleep;
        match (sleep.mode(), served.contains(&agent.settings.name)) {
            (Mode::Fixed, true) => sleep.set(Mode::Wakes),
            (Mode::Wakes | Mode::ByHand(_), false) => sleep.set(Mode::Fixed),
            _ => {}
        }
        agent.refresh_capacity();
    }
}

fn after_wake(watched: &mut Watched, snapshot: &Snapshot, answer: Result<Wake, Failed>) {
    let deployment = watched.to_string();
    match answer {
        Ok(Wake::Woken(since)) => {
            tracing::info!(deployment, "a parked agent is woken");
            watched.is_woken(since, snapshot);
        }
        Ok(Wake::Runs) => watched.starts(snapshot),
        Ok(Wake::KeptAtZero) => {
            if !agents(&watched.owned, snapshot).any(Agent::is_kept_at_zero) {
                tracing::warn!(deployment, "asked for, and scaled to zero by hand: it stays so");
            }
            watched.is_kept_at_zero(snapshot);
        }
        Err(error) => {
            if watched.waking_failed() {
                tracing::error!(deployment, %error, "a parked agent can't be woken: tried again");
            }
        }
    }
}

fn after_look(watched: &mut Watched, snapshot: &Snapshot, answer: Result<Look, Failed>) {
    let deployment = watched.to_string();
    match answer {
        Ok(Look::Parked(replicas)) => {
            tracing::info!(deployment, replicas, "an idle agent is parked");
            watched.is_parked(snapshot);
        }
        Ok(Look::Size(size)) => watched.has_size(size),
        Err(error) => {
            if watched.parking_failed() && !error.is_conflict() {
                tracing::warn!(deployment, %error, "an idle agent can't be parked: tried again");
            }
        }
    }
}

/// Sets one that we parked to one replica. Who else does the same at this moment is no harm: it
/// happens once.
async fn wake(scale: &Scale, lease: &Handle, key: &Key) -> Result<Wake, Failed> {
    let begun = Instant::now();
    let mut tries = 0;
    loop {
        let size = scale.size().await?;
        if size.replicas > 0 {
            return Ok(Wake::Runs);
        }
        if !lease.read(PARKED).await?.contains_key(&entry(key)) {
            return Ok(Wake::KeptAtZero);
        }
        tries += 1;
        match scale.set(&size, 1).await {
            Ok(()) => return Ok(Wake::Woken(begun)),
            Err(failed) if failed.is_conflict() && tries < WAKE_TRIES => {}
            Err(failed) => return Err(failed),
        }
    }
}

/// A look at one Deployment's size by the gateway that decides.
struct Job {
    key: Key,
    /// The size that it may be parked at; `None`: it is only looked at.
    known: Option<i32>,
    owned: k8s::Owned,
    scale: Scale,
    lease: Handle,
    board: Board,
}

impl Job {
    /// Parks it, if it is idle and nobody has changed its size. First it is noted who did it.
    async fn run(&self) -> Result<Look, Failed> {
        let size = self.scale.size().await?;
        if size.replicas == 0 {
            return Ok(Look::Size(0));
        }
        if self.known.is_none_or(|known| size.replicas > known) {
            // It runs: if a person scales it to zero now, that isn't us.
            self.note(None).await?;
            return Ok(Look::Size(size.replicas));
        }
        self.note(Some(Timestamp::now().to_string())).await?;
        if load(&self.owned, &self.board.overall()) > 0 || !self.lease.leads() {
            return Ok(Look::Size(size.replicas));
        }
        self.scale.set(&size, 0).await?;
        Ok(Look::Parked(size.replicas))
    }

    async fn note(&self, parked: Option<String>) -> Result<(), Failed> {
        self.lease.note(PARKED, BTreeMap::from([(entry(&self.key), parked)])).await
    }
}

/// As it stands in the Lease.
fn entry((namespace, name): &Key) -> String {
    format!("{namespace}/{name}")
}
