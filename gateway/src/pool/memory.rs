//! A replica's memory, as far as its requests go: what they need, and what there is.
//!
//! What requests need is an estimate of the table's ([`config::Memory`]). What a replica reports of
//! itself tells what it takes at rest, and whether the estimates are too low.

use super::Endpoint;
use super::sync::Ordering::Relaxed;
use super::sync::{Arc, AtomicBool, AtomicU32, AtomicU64, Mutex, PoisonError};

/// What an estimate is multiplied by at most, in thousandths: more says that something else takes
/// memory there.
const FACTOR_MAX: u64 = 4_000;
/// Estimates are judged by no less than this part of what there is: of a single small request the
/// allocator's habits would be most.
const JUDGED_PART: u64 = 8;
/// At rest a replica takes at most this part of its limit, as far as requests go: else there would be
/// no room for any.
const REST_PART: u64 = 2;
/// One, in thousandths.
const ONE: u64 = 1_000;

/// One replica's memory, over all agents that it serves.
#[derive(Debug, Default)]
pub struct Memory {
    /// What its requests need, bytes.
    needed: AtomicU64,
    /// What is kept free for those that come next.
    claimed: AtomicU64,
    /// What its requests needed at most since it started.
    needed_max: AtomicU64,
    /// What it takes at rest, bytes.
    rest: AtomicU64,
    /// What it was seen to take at most since it started.
    seen_max: AtomicU64,
    /// Thousandths beyond one by which requests take more than estimated.
    beyond: AtomicU32,
    /// When it started, as it says; 0: nothing was reported yet.
    started: AtomicU64,
    /// What is under way: since when, and what it needs; in the order in which it began.
    running: Mutex<Vec<(u64, u64)>>,
}

/// What an agent's requests at one replica have to fit in.
#[derive(Debug)]
pub struct Room {
    /// What the replica has, bytes.
    limit: AtomicU64,
    /// How many gateways share it.
    gateways: AtomicU32,
    /// No other gateway has a request of this agent there.
    alone: AtomicBool,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            limit: AtomicU64::new(u64::MAX),
            gateways: AtomicU32::new(1),
            alone: AtomicBool::new(true),
        }
    }
}

impl Room {
    /// Sets what the replica has, bytes; among how many gateways it is shared; and whether no other has
    /// a request there.
    pub fn set(&self, limit: u64, gateways: u32, alone: bool) {
        self.limit.store(limit, Relaxed);
        self.gateways.store(gateways.max(1), Relaxed);
        self.alone.store(alone, Relaxed);
    }
}

/// What a replica says of its memory, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// What it takes now.
    pub resident: u64,
    /// What it took at most, where it knows.
    pub peak: Option<u64>,
    /// When it started, in seconds or as good as that; 0 where it doesn't say.
    pub started: u64,
}

impl Memory {
    /// What its requests need, bytes, as estimated.
    #[must_use]
    pub fn needed(&self) -> u64 {
        self.needed.load(Relaxed)
    }

    /// What it takes at rest, bytes; 0 where that isn't known.
    #[must_use]
    pub fn rest(&self) -> u64 {
        self.rest.load(Relaxed)
    }

    /// By what estimates are multiplied: 1 or more.
    #[must_use]
    pub fn factor(&self) -> f64 {
        1.0 + f64::from(self.beyond.load(Relaxed)) / ONE as f64
    }

    /// What requests may need there together, bytes, over all gateways.
    #[must_use]
    pub fn whole(&self, room: &Room) -> u64 {
        let limit = room.limit.load(Relaxed);
        let left = limit - self.rest().min(limit / REST_PART);
        match self.beyond.load(Relaxed) {
            0 => left,
            beyond => {
                (u128::from(left) * u128::from(ONE) / u128::from(ONE + u64::from(beyond))) as u64
            }
        }
    }

    /// Whether so much more fits, beside what is kept free for others.
    pub(super) fn fits(&self, need: u64, room: &Room) -> bool {
        self.fits_beside(self.needed(), need, room)
    }

    fn fits_beside(&self, needed: u64, need: u64, room: &Room) -> bool {
        let whole = self.whole(room);
        let used = needed.saturating_add(self.claimed.load(Relaxed));
        let share = whole / u64::from(room.gateways.load(Relaxed));
        // What is larger than a gateway's share fits where nothing else is.
        let only = used == 0 && room.alone.load(Relaxed) && need <= whole;
        used.saturating_add(need) <= share || only
    }

    /// When so much will fit, beside nothing that comes meanwhile, if each request takes as long as they
    /// usually do; milliseconds as `now_ms`.
    #[must_use]
    pub fn promise(&self, need: u64, room: &Room, usual_ms: u64, now_ms: u64) -> u64 {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = now_ms;
        let mut left = self.needed();
        for (begun, its) in running.iter() {
            if self.fits_beside(left, need, room) {
                break;
            }
            left = left.saturating_sub(*its);
            at = at.max(begun + usual_ms);
        }
        at
    }

    /// Takes so much in one step, if it fits.
    pub(super) fn take(&self, need: u64, room: &Room, now_ms: u64) -> bool {
        let fits = |needed: u64| self.fits_beside(needed, need, room).then(|| needed + need);
        let taken = self.needed.fetch_update(Relaxed, Relaxed, fits);
        if let Ok(before) = taken {
            self.needed_max.fetch_max(before + need, Relaxed);
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.push((now_ms, need));
        }
        taken.is_ok()
    }

    /// What is taken or kept free.
    pub(super) fn spoken_for(&self) -> u64 {
        self.needed().saturating_add(self.claimed.load(Relaxed))
    }

    /// Gives back what was taken. Of several that need the same, the first is taken to have ended.
    pub(super) fn give_back(&self, need: u64) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = running.iter().position(|(_, its)| *its == need) {
            running.remove(at);
        }
        drop(running);
        self.needed.fetch_sub(need, Relaxed);
    }

    /// Takes in what the replica says of itself.
    ///
    /// At rest it takes the least that was seen while it had no request: what an allocator keeps after
    /// a busy time is there for the next requests. And when it takes more than ever, more than the most
    /// that its requests were estimated to need together, the estimates are too low by so much.
    pub fn learn(&self, report: &Report, limit: u64) {
        let started = report.started.max(1);
        let anew = self.started.swap(started, Relaxed) != started;
        let needed = self.needed();
        if anew {
            self.rest.store(report.resident.saturating_sub(needed), Relaxed);
            self.needed_max.store(needed, Relaxed);
            self.beyond.store(0, Relaxed);
            // What it took to start says nothing about requests.
            self.seen_max.store(report.resident.max(report.peak.unwrap_or(0)), Relaxed);
            return;
        }
        if needed == 0 {
            self.rest.fetch_min(report.resident, Relaxed);
        }
        let seen = report.resident.max(report.peak.unwrap_or(0));
        let before = self.seen_max.fetch_max(seen, Relaxed);
        let estimated = self.needed_max.load(Relaxed);
        if seen > before && estimated >= limit / JUDGED_PART {
            let took = seen.saturating_sub(self.rest());
            let factor = (u128::from(took) * u128::from(ONE) / u128::from(estimated)) as u64;
            let factor = factor.clamp(ONE, FACTOR_MAX);
            self.beyond.store((factor - ONE) as u32, Relaxed);
        }
    }
}

/// Memory of a replica that is kept free for a request, given up by being dropped.
#[derive(Debug)]
pub struct Claim {
    endpoint: Arc<Endpoint>,
    need: u64,
    /// When there should be room for it, milliseconds: what is over by then may use it.
    pub promise_ms: u64,
}

impl Claim {
    pub(super) fn new(endpoint: &Arc<Endpoint>, need: u64, promise_ms: u64) -> Self {
        endpoint.memory.claimed.fetch_add(need, Relaxed);
        Self { endpoint: Arc::clone(endpoint), need, promise_ms }
    }

    /// Where.
    #[must_use]
    pub fn endpoint(&self) -> u64 {
        self.endpoint.id
    }

    /// Does something as if nothing were kept.
    pub fn without<T>(&self, what: impl FnOnce() -> T) -> T {
        self.endpoint.memory.claimed.fetch_sub(self.need, Relaxed);
        let done = what();
        self.endpoint.memory.claimed.fetch_add(self.need, Relaxed);
        done
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.endpoint.memory.claimed.fetch_sub(self.need, Relaxed);
    }
}
