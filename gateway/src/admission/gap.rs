//! An agent between two replicas: since when its last one has gone, and none has come since.
//!
//! Who writes this is the table, by what discovery tells; requests only read it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// It has none, and never had one.
const NEVER_HAD: u64 = 0;
/// It has one.
const HAS_ONE: u64 = u64::MAX;

/// The time since an agent's last replica has gone. Outlives reloads.
#[derive(Debug, Default)]
pub struct Gap {
    /// When it began, milliseconds; or one of the two above.
    since_ms: AtomicU64,
}

impl Gap {
    /// There is a replica. Says how long there was none, if one had gone before.
    pub fn end(&self, now_ms: u64) -> Option<Duration> {
        age(self.since_ms.swap(HAS_ONE, Relaxed), now_ms)
    }

    /// There is none any more. Says whether it went just now.
    pub fn begin(&self, now_ms: u64) -> bool {
        let now_ms = now_ms.clamp(NEVER_HAD + 1, HAS_ONE - 1);
        self.since_ms.compare_exchange(HAS_ONE, now_ms, Relaxed, Relaxed).is_ok()
    }

    /// Nobody would say whether there is one.
    pub fn forget(&self) {
        self.since_ms.store(NEVER_HAD, Relaxed);
    }

    /// How long there is none, if one has gone.
    #[must_use]
    pub fn age(&self, now_ms: u64) -> Option<Duration> {
        age(self.since_ms.load(Relaxed), now_ms)
    }
}

fn age(since_ms: u64, now_ms: u64) -> Option<Duration> {
    let since = Some(since_ms).filter(|since| ![NEVER_HAD, HAS_ONE].contains(since))?;
    Some(Duration::from_millis(now_ms.saturating_sub(since)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_from_the_last_ones_going_to_the_next_ones_coming() {
        let gap = Gap::default();
        assert_eq!(gap.end(1_000), None);
        assert_eq!(gap.age(2_000), None);
        assert!(gap.begin(3_000));
        assert!(!gap.begin(4_000), "it began before");
        assert_eq!(gap.age(5_500), Some(Duration::from_millis(2_500)));
        assert_eq!(gap.end(6_000), Some(Duration::from_secs(3)));
        assert_eq!((gap.age(7_000), gap.end(7_000)), (None, None));
    }

    #[test]
    fn who_never_had_a_replica_or_is_not_followed_is_in_none() {
        let gap = Gap::default();
        assert!(!gap.begin(1_000));
        assert_eq!(gap.age(2_000), None);
        gap.end(3_000);
        gap.forget();
        assert!(!gap.begin(4_000));
        assert_eq!(gap.age(5_000), None);
    }
}
