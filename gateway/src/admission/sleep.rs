//! An agent without replicas: whether one may be waited for, and how long its start takes.
//!
//! Requests only read it. Who wakes the agent, and writes this, is `cluster::parking`; what it goes
//! by is that somebody waits in the agent's line.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;

/// What is told of a start before one was measured: a small image on a node that has it.
const START_GUESSED: Duration = Duration::from_secs(10);
/// Within these a start is believed: clients are told to come back after that long.
const START_MIN: Duration = Duration::from_secs(1);
const START_MAX: Duration = Duration::from_secs(300);

/// What becomes of requests while there is no replica.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Mode {
    /// They are refused at once: nobody would wake it.
    #[default]
    Fixed,
    /// They wait in line, and that wakes it.
    Wakes,
    /// They are refused: a person has scaled this Deployment to zero. The text names it.
    ByHand(Arc<str>),
}

/// One agent's sleep. Outlives reloads.
#[derive(Debug, Default)]
pub struct Sleep {
    mode: watch::Sender<Mode>,
    /// When the start under way began; 0: none is.
    waking_since_ms: AtomicU64,
    /// How long starts take, milliseconds; 0: none was measured.
    start_ms: AtomicU64,
}

impl Sleep {
    /// What becomes of requests while there is no replica.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode.borrow().clone()
    }

    /// Whether requests wait for a replica.
    #[must_use]
    pub fn wakes(&self) -> bool {
        *self.mode.borrow() == Mode::Wakes
    }

    /// Sets what becomes of requests.
    pub fn set(&self, mode: Mode) {
        self.mode.send_if_modified(|now| {
            let differs = *now != mode;
            *now = mode;
            differs
        });
    }

    /// Ends when it is known that a person has scaled it to zero.
    pub async fn scaled_by_hand(&self) {
        let mut mode = self.mode.subscribe();
        let _ = mode.wait_for(|mode| matches!(mode, Mode::ByHand(_))).await;
    }

    /// A start is under way, since now unless it was before.
    pub fn starts(&self, now_ms: u64) {
        let _ = self.waking_since_ms.compare_exchange(0, now_ms.max(1), Relaxed, Relaxed);
    }

    /// Whether a start is under way.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        self.waking_since_ms.load(Relaxed) != 0
    }

    /// None is under way any more.
    pub fn started(&self) {
        self.waking_since_ms.store(0, Relaxed);
    }

    /// Takes in how long one has taken: a quarter of it counts, so that one slow pull of an image
    /// isn't all that is known.
    pub fn learn(&self, took: Duration) {
        let took = took.clamp(START_MIN, START_MAX).as_millis() as u64;
        let _ = self.start_ms.fetch_update(Relaxed, Relaxed, |before| {
            Some(if before == 0 { took } else { (3 * before + took) / 4 })
        });
    }

    /// How long a start takes.
    #[must_use]
    pub fn start(&self) -> Duration {
        match self.start_ms.load(Relaxed) {
            0 => START_GUESSED,
            ms => Duration::from_millis(ms),
        }
    }

    /// When to come back: what is left of the start under way, or all of one.
    #[must_use]
    pub fn come_back(&self, now_ms: u64) -> Duration {
        let elapsed = match self.waking_since_ms.load(Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis(now_ms.saturating_sub(since)),
        };
        self.start().saturating_sub(elapsed).max(START_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_learned_smoothly_and_within_bounds() {
        let sleep = Sleep::default();
        assert_eq!(sleep.start(), START_GUESSED);
        sleep.learn(Duration::from_secs(4));
        assert_eq!(sleep.start(), Duration::from_secs(4));
        sleep.learn(Duration::from_secs(8));
        assert_eq!(sleep.start(), Duration::from_secs(5));
        sleep.learn(Duration::from_secs(100_000));
        assert_eq!(sleep.start(), Duration::from_millis(78_750));
        let quick = Sleep::default();
        quick.learn(Duration::from_millis(1));
        assert_eq!(quick.start(), START_MIN);
    }

    #[test]
    fn who_comes_during_a_start_is_told_what_is_left_of_it() {
        let sleep = Sleep::default();
        assert_eq!(sleep.come_back(500), START_GUESSED);
        sleep.starts(1_000);
        sleep.starts(5_000);
        assert_eq!(sleep.come_back(4_000), START_GUESSED - Duration::from_secs(3));
        assert_eq!(sleep.come_back(60_000), START_MIN);
        sleep.started();
        assert_eq!(sleep.come_back(60_000), START_GUESSED);
    }
}
