//! Whether a request may be tried again: what kind of failure allows it, and the budget.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use http::Method;

use crate::forward::Chance;
use crate::message::{Fields, Name};
use crate::pool::now_ms;

/// Whether another attempt may be made after such a failure. `unsent`: nothing of the request went
/// out; `repeatable`: all of its body is still here.
#[must_use]
pub fn allows(
    chance: Chance,
    (unsent, repeatable): (bool, bool),
    method: &Method,
    fields: &Fields,
) -> bool {
    match chance {
        Chance::NotBegun => unsent || repeatable,
        Chance::Unknown => repeatable && is_idempotent(method, fields),
        Chance::None => false,
    }
}

/// Whether sending it twice does no more than sending it once.
fn is_idempotent(method: &Method, fields: &Fields) -> bool {
    method.is_idempotent() || fields.contains(Name::IdempotencyKey)
}

/// Milliseconds that a [`Budget`] looks back.
const BUDGET_MS: u64 = 10_000;
/// Retries that are always allowed within that time.
const BUDGET_MIN: u32 = 3;

/// How much retrying is left: a share of the last ten seconds' requests, at least three.
///
/// It counts by windows of ten seconds, and takes the last ten seconds for what the present one has
/// and as much of the one before as is less than ten seconds ago, as if that had come evenly.
#[derive(Debug, Default)]
pub struct Budget {
    window: AtomicU32,
    requests: Counts,
    retries: Counts,
}

/// Of the present window and the one before.
#[derive(Debug, Default)]
struct Counts {
    now: AtomicU32,
    before: AtomicU32,
}

impl Budget {
    /// See [`Agent::look_ahead`](crate::table::Agent::look_ahead). The places are in the same line.
    pub(crate) fn look_ahead(&self) -> u32 {
        self.window.load(Relaxed)
    }

    /// Counts a request.
    pub fn request(&self) {
        self.turn(now_ms());
        self.requests.now.fetch_add(1, SeqCst);
    }

    /// Takes one retry out of the budget, if there is one.
    pub fn take(&self, share: f64) -> bool {
        self.take_at(now_ms(), share)
    }

    fn take_at(&self, now_ms: u64, share: f64) -> bool {
        self.turn(now_ms);
        let still = 1.0 - (now_ms % BUDGET_MS) as f64 / BUDGET_MS as f64;
        let allowed = (self.requests.recent(still) * share).max(f64::from(BUDGET_MIN));
        let left = self.retries.recent(still) + 1.0 <= allowed;
        if left {
            self.retries.now.fetch_add(1, SeqCst);
        }
        left
    }

    /// Begins the next window, if it is time. Who counts just then may be counted in either.
    fn turn(&self, now_ms: u64) {
        let now = (now_ms / BUDGET_MS) as u32;
        let last = self.window.load(SeqCst);
        if last < now && self.window.compare_exchange(last, now, SeqCst, SeqCst).is_ok() {
            self.requests.turn(now - last);
            self.retries.turn(now - last);
        }
    }
}

impl Counts {
    /// Those of the last ten seconds, if of the window before so much was less than ten seconds ago.
    fn recent(&self, still: f64) -> f64 {
        let count = |count: &AtomicU32| f64::from(count.load(SeqCst));
        count(&self.now) + count(&self.before) * still
    }

    fn turn(&self, windows: u32) {
        let now = self.now.swap(0, SeqCst);
        self.before.store(if windows == 1 { now } else { 0 }, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_a_share_and_at_least_three() {
        let budget = Budget::default();
        assert_eq!((0..10).filter(|_| budget.take_at(5, 0.2)).count(), 3);
        for _ in 0..100 {
            budget.request();
        }
        assert_eq!((0..100).filter(|_| budget.take_at(5, 0.2)).count(), 17);
    }

    #[test]
    fn the_budget_forgets_what_is_over_ten_seconds_ago() {
        let budget = Budget::default();
        let taken = |at| (0..200).filter(|_| budget.take_at(at, 0.2)).count();
        budget.requests.now.store(100, SeqCst);
        assert_eq!(taken(9_000), 20);
        assert_eq!(taken(10_000), 0);
        // Half of the requests and half of the retries are still less than ten seconds ago.
        budget.requests.now.fetch_add(100, SeqCst);
        assert_eq!(taken(15_000), 20);
        assert_eq!(taken(40_000), BUDGET_MIN as usize);
    }

    #[test]
    fn a_key_makes_a_post_idempotent() {
        let mut fields = Fields::default();
        assert!(is_idempotent(&Method::PUT, &fields));
        assert!(!is_idempotent(&Method::POST, &fields));
        fields.push(Name::IdempotencyKey, b"k");
        assert!(is_idempotent(&Method::POST, &fields));
    }
}
