//! The load: requests of a mix or a recording, sent as they are to arrive, counted while they are under
//! way, until the time is over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use config::Agent;
use reqwest::{Client, Url};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{self, Instant};

use super::flight::Flight;
use super::mix::{Arrival, Call, Mix};
use super::replay::Recording;
use super::windows::Phase;
use crate::cli::http;

/// After a failed request, before the next of the same worker: a broken agent isn't stormed.
const PAUSE: Duration = Duration::from_millis(100);
/// The parts of the time that go to first requests and to climbing; the rest is for holding.
const WARM_PART: f64 = 0.05;
const CLIMB_PART: f64 = 0.25;
/// What is held back at the start, to see the agent at rest.
pub(super) const REST: Duration = Duration::from_secs(2);
/// Sizes that each step of the climb is taken with, as parts of all sizes.
const STEPS: [f64; 3] = [0.1, 0.6, 0.95];
/// The most requests of one run: a closed loop against an agent that answers at once ends, too.
const CALLS_MAX: u64 = 10_000_000;
const AGENT_TYPE: &str = "x-agent-type";
/// The seed of the load: two runs ask the same.
const SEED: u64 = 6;

/// What is asked.
#[derive(Debug, Clone)]
pub(super) enum Load {
    Mix(Mix),
    /// At its own times.
    Timed(Recording),
    /// One after another and over again, with these concurrencies.
    Looped(Recording, Vec<u32>),
}

impl Load {
    /// The most requests that are to be under way, where that is set.
    pub(super) fn top(&self) -> Option<u32> {
        match self {
            Load::Mix(Mix { arrival: Arrival::Closed(levels), .. }) | Load::Looped(_, levels) => {
                levels.last().copied()
            }
            _ => None,
        }
    }

    fn levels(&self) -> &[u32] {
        match self {
            Load::Mix(Mix { arrival: Arrival::Closed(levels), .. }) | Load::Looped(_, levels) => {
                levels
            }
            _ => &[],
        }
    }

    /// The part of the time that is left for holding.
    pub(super) fn hold_part(&self) -> f64 {
        match self.levels().len() {
            0 => 1.0,
            1 => 1.0 - WARM_PART,
            _ => 1.0 - WARM_PART - CLIMB_PART,
        }
    }

    /// The `n`th call; `at` as for [`Mix::call`].
    fn call(&self, n: u64, at: Option<f64>, random: &mut fastrand::Rng) -> Call {
        match self {
            Load::Mix(mix) => mix.call(n, at, random),
            Load::Timed(all) | Load::Looped(all, _) => {
                let place = usize::try_from(n).unwrap_or(0) % all.calls.len();
                all.calls[place].1.clone()
            }
        }
    }
}

/// What the gateway would do to a request for this agent.
#[derive(Debug, Clone)]
struct Asked {
    name: String,
    /// As callers ask, to as the agent is asked; none where a gateway is on the way.
    paths: BTreeMap<String, String>,
    /// For one request.
    timeout: Duration,
}

/// Who sends.
pub(super) struct Driver {
    pub(super) load: Load,
    pub(super) client: Client,
    pub(super) base: Url,
    pub(super) flight: Arc<Flight>,
    /// Whom it asks, as far as requests are made for it.
    agent: Asked,
    next: Mutex<(u64, fastrand::Rng)>,
}

/// What closed loops are to do now.
#[derive(Debug, Clone, Copy, Default)]
struct Step {
    level: u32,
    at: Option<f64>,
}

impl Driver {
    /// `base` is the agent, or its place at a gateway (`/agents/TYPE`).
    pub(super) fn new(
        load: Load,
        base: Url,
        flight: Arc<Flight>,
        agent: &Agent,
    ) -> Result<Driver, String> {
        let client = http::client(&base)?;
        let next = Mutex::new((0, fastrand::Rng::with_seed(SEED)));
        let mount = format!("/agents/{}", agent.name);
        let by_gateway = base.path().trim_end_matches('/').ends_with(&mount);
        let paths = if by_gateway { BTreeMap::new() } else { agent.paths.clone() };
        let agent = Asked { name: agent.name.clone(), paths, timeout: agent.timeout };
        Ok(Driver { load, client, base, flight, agent, next })
    }

    /// Sends until the time is over; what is under way then is given up. Dropping it ends it at once.
    pub(super) async fn run(self: &Arc<Self>, total: Duration) {
        time::sleep(REST.min(total)).await;
        let until = Instant::now() + total.saturating_sub(REST);
        match &self.load {
            Load::Timed(recording) => self.timed(recording, until).await,
            Load::Mix(Mix { arrival: Arrival::Open { rate, max }, .. }) => {
                self.open(*rate, *max, until).await;
            }
            _ => self.closed(until).await,
        }
    }

    /// First requests, then every level with small to large ones, then the last level as it comes.
    async fn closed(self: &Arc<Self>, until: Instant) {
        let levels = self.load.levels().to_vec();
        let top = levels.last().copied().unwrap_or(1);
        let (steps, seen) = watch::channel(Step::default());
        let mut workers = JoinSet::new();
        for number in 0..top {
            workers.spawn(Arc::clone(self).work(number, seen.clone()));
        }
        let total = until.saturating_duration_since(Instant::now());
        let go = |phase, step: Step| {
            self.flight.turn(phase, step.level);
            steps.send_replace(step);
        };
        go(Phase::Warm, Step { level: levels.first().copied().unwrap_or(1), at: None });
        time::sleep(total.mul_f64(WARM_PART)).await;
        if levels.len() > 1 {
            let each = total.mul_f64(CLIMB_PART) / (levels.len() * STEPS.len()) as u32;
            for level in levels {
                for at in STEPS {
                    go(Phase::Climb, Step { level, at: Some(at) });
                    time::sleep(each).await;
                }
            }
        }
        go(Phase::Hold, Step { level: top, at: None });
        time::sleep_until(until).await;
    }

    /// One of the closed loops: asks, while it is among those that are to ask.
    async fn work(self: Arc<Self>, number: u32, mut steps: watch::Receiver<Step>) {
        loop {
            let Ok(step) = steps.wait_for(|step| step.level > number).await.map(|step| *step)
            else {
                return;
            };
            let Some(call) = self.draw(step.at) else { return };
            if !self.send(call).await {
                time::sleep(PAUSE).await;
            }
        }
    }

    /// By a Poisson process; what would be too many at once is left out, and counted.
    async fn open(self: &Arc<Self>, rate: f64, max: u32, until: Instant) {
        self.flight.turn(Phase::Hold, 0);
        let mut pauses = fastrand::Rng::with_seed(SEED);
        let (mut sending, mut at) = (JoinSet::new(), Instant::now());
        loop {
            at += Duration::from_secs_f64(-(1.0 - pauses.f64()).ln() / rate);
            if at >= until {
                break;
            }
            time::sleep_until(at).await;
            while sending.try_join_next().is_some() {}
            let Some(call) = self.draw(None) else { break };
            self.spawn(&mut sending, call, max);
        }
        time::sleep_until(until).await;
    }

    async fn timed(self: &Arc<Self>, recording: &Recording, until: Instant) {
        self.flight.turn(Phase::Hold, 0);
        let (mut sending, begun) = (JoinSet::new(), Instant::now());
        for (at, call) in &recording.calls {
            let at = begun + at.unwrap_or_default();
            if at >= until {
                break;
            }
            time::sleep_until(at).await;
            while sending.try_join_next().is_some() {}
            self.spawn(&mut sending, call.clone(), super::mix::LEVEL_MAX);
        }
        let all = async { while sending.join_next().await.is_some() {} };
        // What isn't answered by then is given up.
        let _ = time::timeout_at(until, all).await;
    }

    fn spawn(self: &Arc<Self>, sending: &mut JoinSet<()>, call: Call, max: u32) {
        if self.flight.now().in_flight >= max {
            self.flight.fail(format!("not sent: {max} requests were under way"), false);
            return;
        }
        let own = Arc::clone(self);
        sending.spawn(async move {
            let _ = own.send(call).await;
        });
    }

    /// `None`: there were enough.
    fn draw(&self, at: Option<f64>) -> Option<Call> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let (n, random) = &mut *next;
        *n += 1;
        (*n <= CALLS_MAX).then(|| self.load.call(*n - 1, at, random))
    }

    /// Sends one and reads its answer to the end. Says whether it was answered well.
    async fn send(&self, call: Call) -> bool {
        let underway = self.flight.begin(call.body.len() as u64);
        let answered = self.exchange(call).await;
        drop(underway);
        match answered {
            Ok(()) => true,
            Err((why, refused)) => {
                self.flight.fail(why, refused);
                false
            }
        }
    }

    async fn exchange(&self, call: Call) -> Result<(), (String, bool)> {
        let mut url = self.base.clone();
        let (path, query) =
            call.path.split_once('?').map_or((&*call.path, None), |(p, q)| (p, Some(q)));
        let path = self.agent.paths.get(path).map_or(path, String::as_str);
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url.set_query(query);
        let mut request =
            self.client.request(call.method, url).timeout(self.agent.timeout).body(call.body);
        // As the gateway tells agents that share their replicas.
        if !call.headers.iter().any(|(name, _)| name == AGENT_TYPE) {
            request = request.header(AGENT_TYPE, &self.agent.name);
        }
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        let failed = |error: reqwest::Error| (http::causes(&error.without_url()), false);
        let mut answer = request.send().await.map_err(failed)?;
        let status = answer.status();
        let refused = answer.headers().contains_key("x-switchyard-not-begun")
            || status == reqwest::StatusCode::TOO_MANY_REQUESTS;
        let events = answer
            .headers()
            .get("content-type")
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let mut broke = false;
        while let Some(piece) = answer.chunk().await.map_err(failed)? {
            broke |= events && memchr::memmem::find(&piece, b"event: error").is_some();
        }
        match (status.is_success(), broke) {
            (false, _) => Err((format!("status {status}"), refused)),
            (true, true) => Err(("an error event in its stream".to_owned(), false)),
            (true, false) => Ok(()),
        }
    }
}
