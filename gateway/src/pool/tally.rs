//! What came of an endpoint's last exchanges: requests and failures of the last ten seconds.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Milliseconds that a [`Tally`] looks back.
const TALLY_MS: u64 = 10_000;

/// Counts by windows of ten seconds, as [`Budget`](crate::retry::Budget) does, and takes for the last
/// ten seconds what the present window has and as much of the one before as is less than ten
/// seconds ago. Who counts just when a window begins may be counted in either, or be lost: it is
/// a ratio that is asked for.
#[derive(Debug, Default)]
pub(super) struct Tally {
    window: AtomicU32,
    /// Requests in the upper half and failures in the lower one, so that one step counts both.
    now: AtomicU64,
    before: AtomicU64,
}

/// What a tally has counted of the last ten seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Recent {
    /// Exchanges that came to an end of their own.
    pub requests: f64,
    /// Those of them that failed.
    pub failures: f64,
}

impl Recent {
    /// Whether so many failed that they say something of the endpoint, beside what the `others` of its
    /// pool say together: they may fail for the same reason.
    #[must_use]
    pub fn stands_out(self, others: Self, settings: &config::Eject) -> bool {
        let percent = self.failures * 100.0 / self.requests.max(1.0);
        let enough = self.requests >= f64::from(settings.failure_min)
            && percent >= f64::from(settings.failure_percent);
        // As fractions with one denominator: others that were asked for nothing have not failed.
        enough && 2.0 * others.failures * self.requests < self.failures * others.requests.max(1.0)
    }
}

impl std::ops::Add for Recent {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let requests = self.requests + other.requests;
        Self { requests, failures: self.failures + other.failures }
    }
}

impl Tally {
    /// Counts an exchange.
    pub(super) fn count(&self, failed: bool, now_ms: u64) {
        self.turn(now_ms);
        self.now.fetch_add((1 << 32) | u64::from(failed), Relaxed);
    }

    /// The last ten seconds'.
    pub(super) fn recent(&self, now_ms: u64) -> Recent {
        self.turn(now_ms);
        let still = 1.0 - (now_ms % TALLY_MS) as f64 / TALLY_MS as f64;
        let (now, before) = (self.now.load(Relaxed), self.before.load(Relaxed));
        let sum = |part: fn(u64) -> u64| part(now) as f64 + part(before) as f64 * still;
        Recent { requests: sum(|count| count >> 32), failures: sum(|count| count & 0xffff_ffff) }
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.now.store(0, Relaxed);
        self.before.store(0, Relaxed);
    }

    fn turn(&self, now_ms: u64) {
        let now = (now_ms / TALLY_MS) as u32;
        let last = self.window.load(Relaxed);
        if last < now && self.window.compare_exchange(last, now, Relaxed, Relaxed).is_ok() {
            let counted = self.now.swap(0, Relaxed);
            self.before.store(if now - last == 1 { counted } else { 0 }, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(requests: u32, failures: u32, at: u64) -> Tally {
        let tally = Tally::default();
        (0..requests).for_each(|n| tally.count(n < failures, at));
        tally
    }

    fn recent(requests: f64, failures: f64) -> Recent {
        Recent { requests, failures }
    }

    #[test]
    fn what_is_over_ten_seconds_ago_is_forgotten_bit_by_bit() {
        let tally = counted(20, 10, 9_000);
        assert_eq!(tally.recent(9_999), recent(20.0, 10.0));
        assert_eq!(tally.recent(15_000), recent(10.0, 5.0));
        tally.count(true, 15_000);
        assert_eq!(tally.recent(15_000), recent(11.0, 6.0));
        assert_eq!(tally.recent(30_000), recent(0.0, 0.0));
    }

    #[test]
    fn who_fails_stands_out_only_where_it_was_asked_enough_and_the_others_fail_less_than_half_as_often()
     {
        let settings = config::Eject {
            consecutive: 3,
            time: std::time::Duration::ZERO,
            time_max: std::time::Duration::ZERO,
            failure_percent: 50,
            failure_min: 10,
            max_percent: 50,
        };
        let none = recent(0.0, 0.0);
        for (own, others, out) in [
            (recent(10.0, 5.0), none, true),
            (recent(9.0, 9.0), none, false),
            (recent(100.0, 49.0), none, false),
            (recent(10.0, 10.0), recent(1000.0, 499.0), true),
            (recent(10.0, 10.0), recent(1000.0, 500.0), false),
            (recent(10.0, 6.0), recent(10.0, 3.0), false),
            (recent(10.0, 7.0), recent(10.0, 3.0), true),
            (none, none, false),
        ] {
            assert_eq!(own.stands_out(others, &settings), out, "{own:?} beside {others:?}");
        }
    }
}
