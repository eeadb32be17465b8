//! The other gateways of the cluster: finding them, asking each what it has to do, answering them,
//! and taking this one's share of the places accordingly.
//!
//! Each asks each, twice a second. Nobody leads and nothing is stored: who is not heard is not
//! there. What it comes to is told by [`crate::cluster::load::Board`] and by the limits of the
//! endpoints ([`crate::table::Shares`]).

mod book;
mod key;
mod line;
mod report;
mod sign;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use self::book::Book;
use self::line::{Failure, Line};
pub use self::line::{PATH, SEAL};
pub(super) use self::report::Report;
use self::report::Wire;
use self::sign::Key;
pub use self::sign::Refusal;
use crate::discovery::kubernetes::Credentials;
use crate::discovery::{self, Gateways, Status, dns};
use crate::shared::{Phase, Shared};

/// Other gateways that are asked. Each asks each, and each takes one of the admin port's
/// connections: half of those, so that operators still get through.
pub const PEERS_MAX: usize = 32;
/// Between two questions to one gateway.
const EVERY: Duration = Duration::from_millis(500);
/// For one answer: over before the next question is due.
const ANSWER: Duration = Duration::from_millis(400);
/// Between two questions to this gateway itself, under one of its own addresses.
const OWN: Duration = Duration::from_secs(5);
/// How often shares are reckoned anew: who is silent grows too old without an event.
const TICK: Duration = Duration::from_millis(100);
/// After the replicas are known: how long requests that need a place wait at the start until the
/// others are heard.
const PATIENCE: Duration = Duration::from_secs(1);
/// For the Secret's key.
const KEY_ANSWER: Duration = Duration::from_secs(10);
/// Between two tries to get the key: first, longest; and before it is read again because somebody
/// has another.
const KEY_PAUSE: Duration = Duration::from_secs(1);
const KEY_PAUSE_MAX: Duration = Duration::from_secs(60);
const KEY_AGAIN: Duration = Duration::from_secs(10);

type Tables = watch::Receiver<Arc<config::Table>>;

/// This gateway among the others.
pub struct Peers {
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
    /// Its name among them, made up at the start.
    instance: String,
    key: ArcSwapOption<Key>,
    book: Mutex<Book>,
    /// Why it counts itself alone.
    problem: Mutex<Option<String>>,
    /// Somebody new was heard, or the first answers are there.
    news: Notify,
    /// Somebody has another key.
    distrust: Notify,
}

/// An answer to another gateway.
pub struct Answer {
    /// JSON.
    pub body: Vec<u8>,
    /// What proves that it is the answer to what was asked.
    pub seal: String,
}

impl Peers {
    /// Nobody is known yet. Where there may be others, no places are taken before they are heard.
    #[must_use]
    pub fn new(
        shared: Arc<Shared>,
        phase: watch::Receiver<Phase>,
        source: &discovery::Peers,
    ) -> Self {
        let instance = key::instance();
        let mut book = Book::new(instance.clone(), matches!(source, discovery::Peers::None));
        shared.tables.share(book.shares(Instant::now()));
        Self {
            shared,
            phase,
            instance,
            key: ArcSwapOption::empty(),
            book: Mutex::new(book),
            problem: Mutex::new(None),
            news: Notify::new(),
            distrust: Notify::new(),
        }
    }

    /// How many gateways there are, this one included.
    #[must_use]
    pub fn gateways(&self) -> usize {
        1 + self.book().live(Instant::now()).len()
    }

    /// Whether requests that need a place get one: the others were heard, or waited for.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.book().is_open()
    }

    /// Why this gateway counts itself alone, where it should know others.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        lock(&self.problem).clone()
    }

    /// What each of the others last said.
    pub(super) fn reports(&self) -> Vec<Arc<Report>> {
        self.book().live(Instant::now()).into_values().flatten().cloned().collect()
    }

    /// The answer to another gateway, which is known from now on: this one's share has become
    /// smaller before it tells what it has.
    ///
    /// # Errors
    /// When it isn't one of ours.
    pub fn answer(&self, authorization: Option<&str>) -> Result<Answer, Refusal> {
        let key = self.key.load_full().ok_or(Refusal::NoKey)?;
        let question = key.judge(authorization.unwrap_or_default(), wall_clock_ms());
        let question = question.inspect_err(|refusal| {
            if authorization.is_some() {
                tracing::debug!(%refusal, "a gateway's question was refused");
                self.distrust.notify_one();
            }
        })?;
        let is_new = self.book().asked(&question, Instant::now());
        if is_new {
            self.share();
        }
        let phase = *self.phase.borrow();
        let wire = Wire::of(&self.instance, &self.shared, phase);
        let body = serde_json::to_vec(&wire).expect("names and numbers are JSON");
        let seal = key.seal(&question.nonce, &body);
        Ok(Answer { body, seal })
    }

    /// Follows the others until dropped.
    pub async fn run(
        self: Arc<Self>,
        source: discovery::Peers,
        tables: Tables,
        status: Arc<Status>,
        port: u16,
    ) {
        let gateways = match (source, key::of_environment()) {
            (discovery::Peers::None, _) => return,
            (discovery::Peers::Dns, None) => {
                return self.stays_alone("SWITCHYARD_PEER_KEY isn't set");
            }
            (_, Some(Err(error))) => return self.stays_alone(&error),
            (discovery::Peers::Dns, Some(Ok(key))) => {
                self.key.store(Some(Arc::new(key)));
                let (sender, gateways) = watch::channel(None);
                tokio::spawn(look_up(tables, port, sender));
                gateways
            }
            (discovery::Peers::Followed(gateways, _), Some(Ok(key))) => {
                self.key.store(Some(Arc::new(key)));
                gateways
            }
            (discovery::Peers::Followed(gateways, credentials), None) => {
                tokio::spawn(Arc::clone(&self).keep_key(credentials, tables));
                gateways
            }
        };
        self.follow(gateways, &status).await;
    }

    fn stays_alone(&self, why: &str) {
        self.lacks_key(why.to_owned());
        self.book().open();
        self.share();
    }

    fn lacks_key(&self, why: String) {
        let mut problem = lock(&self.problem);
        if problem.is_none() {
            tracing::warn!(
                error = why,
                "no key to know the other gateways by: this one counts itself alone"
            );
        }
        *problem = Some(why);
    }

    /// Gets the key, and gets it again when somebody seems to have another.
    async fn keep_key(self: Arc<Self>, credentials: Credentials, tables: Tables) {
        let mut pause = KEY_PAUSE;
        loop {
            let namespace = tables.borrow().kubernetes.namespace.clone();
            let asked = timeout(KEY_ANSWER, key::of_secret(credentials, &namespace)).await;
            match asked.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
                Ok(key) => {
                    self.key.store(Some(Arc::new(key)));
                    if lock(&self.problem).take().is_some() {
                        tracing::info!("the other gateways can be known");
                    }
                    self.news.notify_one();
                    pause = KEY_PAUSE;
                    self.distrust.notified().await;
                    sleep(KEY_AGAIN).await;
                }
                Err(error) => {
                    // A key that was good may still be.
                    if self.key.load().is_none() {
                        self.lacks_key(error);
                    }
                    sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                    pause = (pause * 2).min(KEY_PAUSE_MAX);
                }
            }
        }
    }

    async fn follow(self: Arc<Self>, mut gateways: watch::Receiver<Gateways>, status: &Status) {
        let mut lines = BTreeMap::<config::Endpoint, Asking>::new();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut patience, mut known) = (None, 1);
        loop {
            let found = gateways.borrow_and_update().clone();
            if let Some(found) = found.as_ref().filter(|_| self.key.load().is_some()) {
                self.ask_these(&mut lines, found);
            }
            if !self.is_open() {
                self.open_when_heard(found.as_deref(), status, &mut patience);
            }
            self.share();
            let now = self.gateways();
            if now != known {
                tracing::info!(gateways = now, before = known, "gateways that share the places");
                known = now;
            }
            tokio::select! {
                changed = gateways.changed() => if changed.is_err() {
                    // Nobody looks any more: the process ends.
                    return;
                },
                _ = ticks.tick() => {}
                () = self.news.notified() => {}
            }
        }
    }

    /// Asks these and no others.
    fn ask_these(
        self: &Arc<Self>,
        lines: &mut BTreeMap<config::Endpoint, Asking>,
        found: &[config::Endpoint],
    ) {
        let found: std::collections::BTreeSet<_> = found.iter().take(PEERS_MAX + 1).collect();
        lines.retain(|address, _| found.contains(address));
        for address in found {
            lines.entry(address.clone()).or_insert_with(|| {
                let asking = Arc::clone(self).ask(address.clone());
                Asking(tokio::spawn(asking))
            });
        }
    }

    fn open_when_heard(
        &self,
        found: Option<&[config::Endpoint]>,
        status: &Status,
        patience: &mut Option<Instant>,
    ) {
        if !status.is_ready() {
            return;
        }
        let now = Instant::now();
        let over = *patience.get_or_insert(now + PATIENCE) <= now;
        let mut book = self.book();
        let heard = found.is_some_and(|found| book.has_tried(found.iter().take(PEERS_MAX + 1)));
        if heard || over {
            book.open();
        }
    }

    /// Asks one address over and over.
    async fn ask(self: Arc<Self>, address: config::Endpoint) {
        let mut line = Line::new(address.clone());
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failed = None;
        loop {
            ticks.tick().await;
            let Some(key) = self.key.load_full() else { continue };
            let answer = timeout(ANSWER, line.ask(&key, &self.instance)).await;
            match answer.unwrap_or(Err(Failure::Timeout)) {
                Ok(report) => {
                    failed = None;
                    if self.heard(&address, report) {
                        sleep(OWN).await;
                    }
                }
                Err(failure) => {
                    self.missed(&address, &failure, failed.replace(failure.is_about_trust()));
                }
            }
        }
    }

    fn heard(&self, address: &config::Endpoint, report: Report) -> bool {
        let mut book = self.book();
        let before = book.live(Instant::now()).len();
        let own = book.heard(address, report, Instant::now());
        if !book.is_open() || book.live(Instant::now()).len() != before {
            self.news.notify_one();
        }
        own
    }

    /// `before`: what the last failure in a row was about, if there was one.
    fn missed(&self, address: &config::Endpoint, failure: &Failure, before: Option<bool>) {
        let trust = failure.is_about_trust();
        if trust {
            self.distrust.notify_one();
        }
        let (peer, error) = (address.to_string(), failure.to_string());
        if trust && before != Some(true) {
            tracing::warn!(peer, error, "another gateway isn't counted");
        } else if before.is_none() {
            tracing::debug!(peer, error, "another gateway can't be asked");
        }
        let mut book = self.book();
        book.missed(address);
        if !book.is_open() {
            self.news.notify_one();
        }
    }

    /// Takes this gateway's share of the places as of now. Those who do so at the same time come
    /// one after another, so that none leaves an older share behind.
    fn share(&self) {
        let mut book = self.book();
        let shares = book.shares(Instant::now());
        self.shared.tables.share(shares);
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }
}

/// One who asks; ends by being dropped.
struct Asking(JoinHandle<()>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Looks the gateways' Service up, until nobody wants to know any more.
async fn look_up(tables: Tables, port: u16, found: watch::Sender<Gateways>) {
    loop {
        let namespace = tables.borrow().kubernetes.namespace.clone();
        let name = format!("{}.{namespace}:{port}", k8s::PEERS_SERVICE);
        match dns::ask(&name).await {
            Ok(addresses) => drop(found.send_replace(Some(addresses))),
            // The last answer stands.
            Err(error) => tracing::debug!(name, error, "the gateways can't be looked up"),
        }
        // Who starts is in the name only once it runs, and takes nobody's places before it knows whose.
        let pause = if found.borrow().is_some() { dns::EVERY } else { EVERY };
        tokio::select! {
            () = sleep(pause) => {}
            () = found.closed() => return,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Milliseconds since 1970, by this machine's clock.
fn wall_clock_ms() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64)
}
