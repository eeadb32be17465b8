//! The last minute of an agent, for `status`: no scraper is needed for that.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Ten-second slots that make up the last minute, beside the one being filled.
const SLOTS: usize = 6;
const SLOT_SECONDS: u64 = 10;
/// Powers of √2 from 0.1 ms: bucket 47 begins at about 20 minutes.
const BUCKETS: usize = 48;

/// Requests of the last minute, in bounded memory: what `status` shows without a scraper.
#[derive(Debug)]
#[repr(C)] // What every request touches stands before the counts, of which it touches one.
pub struct Recent {
    slot: AtomicU64,
    total: AtomicU64,
    errors: AtomicU64,
    now: Counts,
    /// Apart, so that the counts of many agents lie close together.
    before: Box<[Counts; SLOTS]>,
}

type Counts = [AtomicU32; BUCKETS];

impl Default for Recent {
    fn default() -> Self {
        Self {
            slot: AtomicU64::new(0),
            total: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            now: zeros(),
            before: Box::new(std::array::from_fn(|_| zeros())),
        }
    }
}

fn zeros() -> Counts {
    std::array::from_fn(|_| AtomicU32::new(0))
}

/// What [`Recent`] adds up to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Requests a second.
    pub rate: f64,
    /// Median duration, within a factor of √2.
    pub p50: Option<Duration>,
    /// 99th percentile, within a factor of √2.
    pub p99: Option<Duration>,
    /// Requests since the start.
    pub requests: u64,
    /// Of them, those that failed through the agent or the gateway.
    pub errors: u64,
}

impl Recent {
    /// See [`Agent::look_ahead`](crate::table::Agent::look_ahead). The shortest are the most.
    pub(super) fn look_ahead(&self) -> u32 {
        self.now[0].load(Relaxed)
    }

    pub(super) fn record(&self, duration: Duration, error: bool) {
        self.now[bucket(duration)].fetch_add(1, Relaxed);
        self.total.fetch_add(1, Relaxed);
        if error {
            self.errors.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn rotate(&self, now: Duration) {
        let due = now.as_secs() / SLOT_SECONDS;
        let mut slot = self.slot.load(Relaxed);
        if due.saturating_sub(slot) > SLOTS as u64 + 1 {
            slot = due - SLOTS as u64 - 1;
        }
        while slot < due {
            for (now, before) in self.now.iter().zip(&self.before[slot as usize % SLOTS]) {
                // Mostly there is nothing, and nothing has to be written.
                let count = if now.load(Relaxed) == 0 { 0 } else { now.swap(0, Relaxed) };
                if before.load(Relaxed) != count {
                    before.store(count, Relaxed);
                }
            }
            slot += 1;
            self.slot.store(slot, Relaxed);
        }
    }

    /// Requests since the start.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// Rate and percentiles of the last minute.
    #[must_use]
    pub fn summary(&self, uptime: Duration) -> Summary {
        let mut sums = [0u64; BUCKETS];
        for slot in self.before.iter().chain([&self.now]) {
            for (sum, count) in sums.iter_mut().zip(slot) {
                *sum += u64::from(count.load(Relaxed));
            }
        }
        let all: u64 = sums.iter().sum();
        let begun = self.slot.load(Relaxed) * SLOT_SECONDS;
        let full = Duration::from_secs(SLOTS as u64 * SLOT_SECONDS);
        let window = (full + uptime.saturating_sub(Duration::from_secs(begun))).min(uptime);
        Summary {
            rate: all as f64 / window.as_secs_f64().max(1.0),
            p50: percentile(&sums, all, 0.50),
            p99: percentile(&sums, all, 0.99),
            requests: self.total.load(Relaxed),
            errors: self.errors.load(Relaxed),
        }
    }
}

fn bucket(duration: Duration) -> usize {
    let tenths = (duration.as_secs_f64() * 10_000.0).max(1.0);
    ((tenths.log2() * 2.0) as usize).min(BUCKETS - 1)
}

fn percentile(sums: &[u64; BUCKETS], all: u64, share: f64) -> Option<Duration> {
    let rank = (all as f64 * share).ceil() as u64;
    let mut seen = 0;
    let found = sums.iter().position(|count| {
        seen += count;
        seen >= rank && all > 0
    })?;
    let upper = 2f64.powf((found as f64 + 1.0) / 2.0) / 10_000.0;
    Some(Duration::from_secs_f64(upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_factor_of_two() {
        let recent = Recent::default();
        for ms in 1..=100 {
            recent.record(Duration::from_millis(ms), false);
        }
        let summary = recent.summary(Duration::from_secs(10));
        let p50 = summary.p50.expect("there was traffic").as_secs_f64();
        let p99 = summary.p99.expect("there was traffic").as_secs_f64();
        assert!((0.05..0.1).contains(&p50), "{p50}");
        assert!((0.099..0.2).contains(&p99), "{p99}");
        assert!((summary.rate - 10.0).abs() < 0.01);
    }

    #[test]
    fn a_minute_is_forgotten_after_a_minute() {
        let recent = Recent::default();
        recent.record(Duration::from_millis(5), true);
        recent.rotate(Duration::from_secs(65));
        assert!(recent.summary(Duration::from_secs(65)).p50.is_some());
        recent.rotate(Duration::from_secs(75));
        let later = recent.summary(Duration::from_secs(75));
        assert_eq!((later.p50, later.requests, later.errors), (None, 1, 1));
    }
}
