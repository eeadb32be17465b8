//! How much somebody has been served: places held, times how long.
//!
//! What is under way counts as it goes on, so that runs of an hour weigh before they end. It counts at
//! least as much as such a request usually takes: else whoever has been served least would be given
//! every place that becomes free before it had held one for any time.

use super::sync::Ordering::Relaxed;
use super::sync::{AtomicI64, AtomicU32, AtomicU64};

/// How much of a request's time its successors are expected to take: one eighth of each counts.
const SMOOTHING: u64 = 8;

/// Milliseconds of service, of one tenant at one agent or of a class there.
#[derive(Debug, Default)]
pub struct Service {
    /// Of what has ended.
    done_ms: AtomicU64,
    running: AtomicU32,
    /// Minus the moments at which what is under way began.
    begun_ms: AtomicI64,
    /// What one usually takes.
    usual_ms: AtomicU64,
}

impl Service {
    /// A place was taken.
    pub fn begin(&self, now_ms: u64) {
        self.begun_ms.fetch_sub(now_ms as i64, Relaxed);
        self.running.fetch_add(1, Relaxed);
    }

    /// A place that was taken then has been given back.
    pub fn end(&self, begun_ms: u64, now_ms: u64) {
        self.never_began(begun_ms);
        let took = now_ms.saturating_sub(begun_ms);
        self.done_ms.fetch_add(took, Relaxed);
        let usual = self.usual_ms.load(Relaxed);
        let next = if usual == 0 { took } else { usual - usual / SMOOTHING + took / SMOOTHING };
        self.usual_ms.store(next, Relaxed);
    }

    /// A place that was given then has found nobody.
    pub fn never_began(&self, begun_ms: u64) {
        self.running.fetch_sub(1, Relaxed);
        self.begun_ms.fetch_add(begun_ms as i64, Relaxed);
    }

    /// Places held now.
    #[must_use]
    pub fn running(&self) -> u32 {
        self.running.load(Relaxed)
    }

    /// All of it, up to now.
    #[must_use]
    pub fn received(&self, now_ms: u64) -> u64 {
        let running = u64::from(self.running.load(Relaxed));
        // Between two steps of a request that begins or ends this may be out by far, for a moment.
        let so_far = (running * now_ms) as i64 + self.begun_ms.load(Relaxed);
        let expected = running * self.usual_ms.load(Relaxed);
        self.done_ms.load(Relaxed) + expected.max(u64::try_from(so_far).unwrap_or(0))
    }
}

/// Classes of tenants, the first one served first.
pub const CLASSES: usize = 3;

/// What the classes of one agent have been served, and what is reserved for the lower ones.
#[derive(Debug, Default)]
pub struct Classes {
    services: [Service; CLASSES],
    /// In thousandths of all.
    reserve: AtomicU32,
}

impl Classes {
    /// One class, by its index.
    #[must_use]
    pub fn of(&self, class: usize) -> &Service {
        &self.services[class.min(CLASSES - 1)]
    }

    /// What all have been served, up to now.
    #[must_use]
    pub fn received(&self, now_ms: u64) -> u64 {
        self.services.iter().map(|service| service.received(now_ms)).sum()
    }

    /// Sets what each lower class gets, while it waits: a share of all.
    pub fn set_reserve(&self, share: f64) {
        self.reserve.store((share.clamp(0.0, 1.0) * 1000.0) as u32, Relaxed);
    }

    pub(super) fn reserve(&self) -> f64 {
        f64::from(self.reserve.load(Relaxed)) / 1000.0
    }
}
