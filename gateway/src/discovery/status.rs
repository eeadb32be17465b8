//! Whether a source knows where everything is, and how old its knowledge is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use crate::pool::now_ms;

/// What probes and metrics tell of discovery.
#[derive(Debug)]
pub struct Status {
    source: &'static str,
    ready: watch::Sender<bool>,
    /// Since when what is known may be out of date; 0: it is not.
    away_since_ms: AtomicU64,
    /// What is in the way, where that is known.
    error: ArcSwapOption<String>,
}

impl Status {
    /// Of a source that always knows.
    #[must_use]
    pub fn at_hand(source: &'static str) -> Self {
        Self::of(source, true)
    }

    /// Of a source that has to ask first.
    #[must_use]
    pub fn waiting(source: &'static str) -> Self {
        Self::of(source, false)
    }

    fn of(source: &'static str, ready: bool) -> Self {
        let (away_since_ms, error) = (AtomicU64::new(0), ArcSwapOption::empty());
        Self { source, ready: watch::Sender::new(ready), away_since_ms, error }
    }

    /// `listed`, `managed`, `kubernetes` or `dns`.
    #[must_use]
    pub fn source(&self) -> &'static str {
        self.source
    }

    /// Whether the first answer is in force, or was waited for long enough.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Ends when [`Status::is_ready`].
    pub async fn ready(&self) {
        // The sender is our own, so that there is no end before.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// How long ago what is known was last known to be right; 0 while it is followed.
    #[must_use]
    pub fn age(&self) -> Duration {
        match self.away_since_ms.load(Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis(now_ms().saturating_sub(since)),
        }
    }

    /// Why what is known may be out of date, where that is known; `None` while it is followed.
    #[must_use]
    pub fn error(&self) -> Option<Arc<String>> {
        self.error.load_full().filter(|_| self.away_since_ms.load(Relaxed) != 0)
    }

    pub(super) fn set_error(&self, error: &str) {
        self.error.store(Some(Arc::new(error.to_owned())));
    }

    pub(super) fn set_ready(&self) {
        self.ready.send_replace(true);
    }

    /// `None`: everything is followed.
    pub(super) fn set_away(&self, since_ms: Option<u64>) {
        self.away_since_ms.store(since_ms.map_or(0, |since| since.max(1)), Relaxed);
    }
}
