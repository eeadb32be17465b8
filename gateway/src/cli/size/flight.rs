//! What is under way: requests and the bytes of their bodies, and what became of those before.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::windows::Phase;

/// Sizes of bodies that are kept: enough to know their distribution.
const SIZES: usize = 4096;

/// Shared by those who send and those who look.
#[derive(Default)]
pub(super) struct Flight {
    now: Mutex<Now>,
    pub(super) done: AtomicU64,
    failed: Mutex<Failures>,
    sizes: Mutex<Vec<u64>>,
    sent: AtomicU64,
}

/// At one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Now {
    pub(super) in_flight: u32,
    pub(super) bytes: u64,
    /// The most that they were since somebody looked.
    pub(super) most: (u32, u64),
    pub(super) phase: Phase,
    /// What the load means to keep under way; 0: it follows no level.
    pub(super) level: u32,
    /// How often that has changed.
    pub(super) step: u32,
}

/// Requests that weren't answered well.
#[derive(Debug, Clone, Default)]
pub(super) struct Failures {
    pub(super) count: u64,
    /// Of them, those that the agent refused unbegun: its own limit was reached.
    pub(super) refused: u64,
    /// What the first one came to.
    pub(super) first: Option<String>,
}

/// One request under way, until it is dropped.
pub(super) struct Underway {
    flight: Arc<Flight>,
    bytes: u64,
}

impl Flight {
    pub(super) fn now(&self) -> Now {
        *lock(&self.now)
    }

    /// As [`Flight::now`], and the most begins anew.
    pub(super) fn look(&self) -> Now {
        let mut now = lock(&self.now);
        let looked = *now;
        now.most = (now.in_flight, now.bytes);
        looked
    }

    pub(super) fn turn(&self, phase: Phase, level: u32) {
        let mut now = lock(&self.now);
        (now.phase, now.level, now.step) = (phase, level, now.step + 1);
    }

    /// A request with so large a body begins.
    pub(super) fn begin(self: &Arc<Self>, bytes: u64) -> Underway {
        let sent = self.sent.fetch_add(1, Relaxed);
        self.keep_size(sent, bytes);
        let mut now = lock(&self.now);
        now.in_flight += 1;
        now.bytes += bytes;
        now.most = (now.most.0.max(now.in_flight), now.most.1.max(now.bytes));
        Underway { flight: Arc::clone(self), bytes }
    }

    /// A sample of all sizes (Vitter's algorithm R): of the `sent + 1` so far each with the same chance.
    fn keep_size(&self, sent: u64, bytes: u64) {
        let mut sizes = lock(&self.sizes);
        if sizes.len() < SIZES {
            sizes.push(bytes);
            return;
        }
        let place = fastrand::u64(..=sent) as usize;
        if let Some(kept) = sizes.get_mut(place) {
            *kept = bytes;
        }
    }

    pub(super) fn sizes(&self) -> Vec<u64> {
        lock(&self.sizes).clone()
    }

    pub(super) fn fail(&self, why: String, refused: bool) {
        let mut failed = lock(&self.failed);
        failed.count += 1;
        failed.refused += u64::from(refused);
        failed.first.get_or_insert(why);
    }

    pub(super) fn failures(&self) -> Failures {
        lock(&self.failed).clone()
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let mut now = lock(&self.flight.now);
        now.in_flight -= 1;
        now.bytes -= self.bytes;
        drop(now);
        self.flight.done.fetch_add(1, Relaxed);
    }
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_under_way_until_it_is_dropped() {
        let flight = Arc::new(Flight::default());
        let (one, other) = (flight.begin(10), flight.begin(5));
        assert_eq!((flight.now().in_flight, flight.now().bytes), (2, 15));
        drop(one);
        assert_eq!((flight.now().in_flight, flight.now().bytes), (1, 5));
        assert_eq!((flight.look().most, flight.look().most), ((2, 15), (1, 5)));
        drop(other);
        assert_eq!((flight.now().bytes, flight.done.load(Relaxed)), (0, 2));
    }

    #[test]
    fn sizes_are_sampled_in_bounded_memory() {
        let flight = Arc::new(Flight::default());
        (0..20_000).for_each(|size| drop(flight.begin(size)));
        let sizes = flight.sizes();
        assert_eq!(sizes.len(), SIZES);
        let mean = sizes.iter().sum::<u64>() / SIZES as u64;
        assert!((9_000..11_000).contains(&mean), "{mean}");
    }

    #[test]
    fn the_first_failure_is_kept_and_all_are_counted() {
        let flight = Flight::default();
        flight.fail("500".into(), false);
        flight.fail("503".into(), true);
        let failures = flight.failures();
        assert_eq!((failures.count, failures.refused), (2, 1));
        assert_eq!(failures.first.as_deref(), Some("500"));
    }
}
