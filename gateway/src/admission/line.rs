//! Those who wait, and who is next: a class before a lower one, within a class who was served least.
//!
//! Tenants of a class share by weighted fair queueing on the service that they received (Virtual Token
//! Counters: Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024; here a token is a
//! millisecond of a place). Who comes to wait begins level with who waits already: what was used while
//! nobody else wanted it is held against nobody. Each lower class gets a reserved part of all service
//! while it waits. Whoever is next and fits nowhere lets others pass that do.
//!
//! No clock and no lock of its own: whoever asks says when it is.

use std::cmp::Ordering;
use std::collections::VecDeque;

use super::service::{CLASSES, Classes, Service};
use super::sync::Arc;

/// How long a shortage is remembered after the last one has left the line: what was served meanwhile
/// counts.
pub const MEMORY_MS: u64 = 10_000;
/// How many are looked at behind one who fits nowhere, in each tenant's queue.
pub const LOOK: usize = 256;
/// Hand-overs before the pace is known.
pub const PACE_MIN: u32 = 8;
/// How many of the last gaps between two hand-overs count.
const SMOOTHING: f64 = 32.0;

/// One tenant at one agent, as far as the line goes.
#[derive(Debug, Default)]
pub struct Account {
    /// What it has been served.
    pub service: Service,
}

/// On which terms somebody waits.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Whose service counts.
    pub account: Arc<Account>,
    /// Index of its class.
    pub class: usize,
    /// Its share, relative to the others of its class.
    pub weight: u32,
}

/// Who waits.
#[derive(Debug)]
pub struct Waiter<T> {
    /// Its number.
    pub ticket: u64,
    /// What it waits with.
    pub turn: T,
}

/// Who waits at one agent.
#[derive(Debug)]
pub struct Line<T> {
    queues: Vec<Queue<T>>,
    waiting: usize,
    next_ticket: u64,
    /// All accounts that have waited and are still used.
    accounts: Vec<Known>,
    /// When somebody was last seen to wait.
    seen_ms: Option<u64>,
    classes: [Shortage; CLASSES],
}

/// An account that has waited.
#[derive(Debug)]
struct Known {
    account: Arc<Account>,
    /// What of its service doesn't count: what it had when this shortage began, less what it is credited
    /// for having come later.
    before: i64,
    pace: Pace,
}

#[derive(Debug)]
struct Queue<T> {
    terms: Terms,
    waiters: VecDeque<Waiter<T>>,
}

/// A class that goes short: what had been served when that began, to it and to all, and what the tenant
/// of it has been served, for its weight, that was let in last.
#[derive(Debug, Clone, Copy, Default)]
struct Shortage {
    seen_ms: Option<u64>,
    own: u64,
    all: u64,
    level: f64,
}

/// How quickly those of an account are let in while they wait.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    last_ms: u64,
    gap_ms: f64,
    known: u32,
}

impl Pace {
    fn moved(&mut self, now_ms: u64) {
        let gap = now_ms.saturating_sub(self.last_ms) as f64;
        self.gap_ms += (gap - self.gap_ms) / f64::from(self.known + 1).min(SMOOTHING);
        self.known = self.known.saturating_add(1);
        self.last_ms = now_ms;
    }

    /// How long until `n` more have their turn, if that is known.
    fn of(&self, n: usize, now_ms: u64) -> Option<u64> {
        // The gap that isn't over yet counts as one that is, once it is a long one.
        let open = now_ms.saturating_sub(self.last_ms) as f64;
        let gap = self.gap_ms + (open - self.gap_ms).max(0.0) / SMOOTHING;
        (self.known >= PACE_MIN).then_some((gap * n as f64) as u64)
    }
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            queues: Vec::new(),
            waiting: 0,
            next_ticket: 0,
            accounts: Vec::new(),
            seen_ms: None,
            classes: [Shortage::default(); CLASSES],
        }
    }
}

impl<T> Line<T> {
    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// How many of an account wait.
    #[must_use]
    pub fn len_of(&self, account: &Arc<Account>) -> usize {
        self.queue_of(account).map_or(0, |index| self.queues[index].waiters.len())
    }

    /// How long somebody who comes now would wait, in milliseconds, if that is known: behind those of its
    /// own account, at the pace at which they were let in lately.
    #[must_use]
    pub fn expected_ms(&self, account: &Arc<Account>, now_ms: u64) -> Option<u64> {
        self.known(account)?.pace.of(self.len_of(account) + 1, now_ms)
    }

    /// There are more places now: what was learned of the pace is of another time.
    pub fn forget_pace(&mut self) {
        self.accounts.iter_mut().for_each(|known| known.pace.known = 0);
    }

    /// Puts somebody at the end of its account's queue, and says its number.
    pub fn join(&mut self, terms: &Terms, turn: T, classes: &Classes, now_ms: u64) -> u64 {
        self.note(terms.class, classes, now_ms);
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let index = match self.queue_of(&terms.account) {
            Some(index) => index,
            None => self.begin(terms, now_ms),
        };
        let queue = &mut self.queues[index];
        queue.terms.clone_from(terms);
        queue.waiters.push_back(Waiter { ticket, turn });
        self.waiting += 1;
        ticket
    }

    /// Makes room in a full line for somebody who has fewer waiting, for its weight, than another: the
    /// last one of who has the most goes, of the lowest class that has anybody. A tenant that asks for more than it
    /// can get fills the line with its own only (longest queue drop: Suter et al., INFOCOM 1998).
    pub fn make_room(&mut self, terms: &Terms) -> Option<T> {
        let length = |queue: &Queue<T>, more: usize| {
            (queue.waiters.len() + more) as f64 / f64::from(queue.terms.weight)
        };
        let longest = (0..self.queues.len()).max_by(|a, b| {
            let rank = |at: &usize| (self.queues[*at].terms.class, length(&self.queues[*at], 0));
            let (a, b) = (rank(a), rank(b));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        })?;
        let queue = &self.queues[longest];
        let own = (self.len_of(&terms.account) + 1) as f64 / f64::from(terms.weight);
        let gives_way = match queue.terms.class.cmp(&terms.class) {
            Ordering::Greater => true,
            Ordering::Equal => own < length(queue, 0),
            Ordering::Less => false,
        };
        let last = queue.waiters.len() - 1;
        gives_way.then(|| self.take(longest, last))?
    }

    /// Takes somebody out who waits no more.
    pub fn leave(&mut self, account: &Arc<Account>, ticket: u64) -> Option<T> {
        let index = self.queue_of(account)?;
        let waiters = &self.queues[index].waiters;
        let at = waiters.binary_search_by_key(&ticket, |waiter| waiter.ticket).ok()?;
        self.take(index, at)
    }

    /// Takes out who is next of those that `fits` has something for; it is asked in their order.
    pub fn next<S>(
        &mut self,
        classes: &Classes,
        now_ms: u64,
        mut fits: impl FnMut(&Waiter<T>) -> Option<S>,
    ) -> Option<(T, Terms, S)> {
        let mut passed = Vec::new();
        while passed.len() < self.queues.len() {
            let index = self.first(classes, now_ms, &passed)?;
            let mut waiters = self.queues[index].waiters.iter().take(LOOK).enumerate();
            if let Some((at, seat)) = waiters.find_map(|(at, w)| Some((at, fits(w)?))) {
                let terms = self.queues[index].terms.clone();
                if let Some(known) = self.known_mut(&terms.account) {
                    known.pace.moved(now_ms);
                }
                self.note(terms.class, classes, now_ms);
                self.classes[terms.class].level = self.served(&terms, now_ms);
                return Some((self.take(index, at)?, terms, seat));
            }
            passed.push(index);
        }
        None
    }

    fn known(&self, account: &Arc<Account>) -> Option<&Known> {
        self.accounts.iter().find(|known| Arc::ptr_eq(&known.account, account))
    }

    fn known_mut(&mut self, account: &Arc<Account>) -> Option<&mut Known> {
        self.accounts.iter_mut().find(|known| Arc::ptr_eq(&known.account, account))
    }

    fn queue_of(&self, account: &Arc<Account>) -> Option<usize> {
        self.queues.iter().position(|queue| Arc::ptr_eq(&queue.terms.account, account))
    }

    fn take(&mut self, index: usize, at: usize) -> Option<T> {
        let waiters = &mut self.queues[index].waiters;
        let taken = waiters.remove(at)?;
        if waiters.is_empty() {
            self.queues.swap_remove(index);
        }
        self.waiting -= 1;
        Some(taken.turn)
    }

    /// Somebody of a class waits. After a while without anybody it is another shortage.
    fn note(&mut self, class: usize, classes: &Classes, now_ms: u64) {
        let over = |seen: Option<u64>| seen.is_none_or(|seen| now_ms > seen + MEMORY_MS);
        if self.waiting == 0 && over(self.seen_ms) {
            self.accounts.retain(|known| Arc::strong_count(&known.account) > 1);
            for known in &mut self.accounts {
                known.before = known.account.service.received(now_ms) as i64;
                known.pace.known = 0;
            }
        }
        self.seen_ms = Some(now_ms);
        if over(self.classes[class].seen_ms) && !self.waits(class) {
            let (own, all) = (classes.of(class).received(now_ms), classes.received(now_ms));
            self.classes[class] = Shortage { seen_ms: None, own, all, level: 0.0 };
        }
        self.classes[class].seen_ms = Some(now_ms);
    }

    fn waits(&self, class: usize) -> bool {
        self.queues.iter().any(|queue| queue.terms.class == class)
    }

    /// Begins the queue of an account that had nobody waiting, level with those that have.
    fn begin(&mut self, terms: &Terms, now_ms: u64) -> usize {
        let peers = self.queues.iter().filter(|queue| queue.terms.class == terms.class);
        let least = peers.map(|queue| self.served(&queue.terms, now_ms)).reduce(f64::min);
        let level = least.unwrap_or(self.classes[terms.class].level);
        let received = terms.account.service.received(now_ms) as i64;
        let level = (level * f64::from(terms.weight)) as i64;
        let before = received - level;
        match self.known_mut(&terms.account) {
            Some(known) => {
                known.before = known.before.min(before);
                // While nobody of it waited, nobody was let in.
                known.pace.last_ms = now_ms;
            }
            None => {
                let pace = Pace { last_ms: now_ms, ..Pace::default() };
                self.accounts.push(Known { account: Arc::clone(&terms.account), before, pace });
            }
        }
        self.queues.push(Queue { terms: terms.clone(), waiters: VecDeque::new() });
        self.queues.len() - 1
    }

    /// The queue whose turn it is, without those.
    fn first(&self, classes: &Classes, now_ms: u64, passed: &[usize]) -> Option<usize> {
        if let ([_], []) = (self.queues.as_slice(), passed) {
            return Some(0);
        }
        let class = self.class(classes, now_ms, passed)?;
        let open = self
            .queues
            .iter()
            .enumerate()
            .filter(|(index, queue)| queue.terms.class == class && !passed.contains(index));
        // Who has just come is level with somebody: it has less running, and goes first.
        let rank = |queue: &Queue<T>| {
            (self.served(&queue.terms, now_ms), queue.terms.account.service.running())
        };
        let ranked = open.map(|(index, queue)| (index, rank(queue)));
        let least = ranked.min_by(|(_, a), (_, b)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        least.map(|(index, _)| index)
    }

    /// The class whose turn it is: the lowest that has less than its reserve, or else the highest.
    fn class(&self, classes: &Classes, now_ms: u64, passed: &[usize]) -> Option<usize> {
        let mut waits = [false; CLASSES];
        for (index, queue) in self.queues.iter().enumerate() {
            waits[queue.terms.class] |= !passed.contains(&index);
        }
        let highest = waits.iter().position(|waits| *waits)?;
        let (all, reserve) = (classes.received(now_ms), classes.reserve());
        let short = |class: &usize| {
            let Shortage { own, all: before, .. } = self.classes[*class];
            let own = classes.of(*class).received(now_ms).saturating_sub(own);
            waits[*class] && (own as f64) < reserve * all.saturating_sub(before) as f64
        };
        Some((highest + 1..CLASSES).rev().find(short).unwrap_or(highest))
    }

    /// What a tenant has been served in this shortage, for its weight.
    fn served(&self, terms: &Terms, now_ms: u64) -> f64 {
        let received = terms.account.service.received(now_ms) as i64;
        let counts = received - self.known(&terms.account).map_or(received, |known| known.before);
        counts as f64 / f64::from(terms.weight)
    }
}
