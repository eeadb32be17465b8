//! What all threads of a gateway share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::metrics::Metrics;
use crate::table::Tables;

/// How far the start or the shutdown has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not accepting yet: it isn't known where the replicas are. Who connects waits.
    Starting,
    /// Accepting.
    Running,
    /// Not ready any more, but accepting.
    Closing,
    /// Not accepting; what is open runs on.
    Draining,
    /// What is open is cut.
    Cut,
}

/// What all workers share besides the tables.
pub struct Shared {
    /// The tables.
    pub tables: Arc<Tables>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Open client connections, over all workers.
    pub connections: AtomicUsize,
    /// Most of them.
    pub max_connections: usize,
}

impl Shared {
    /// Counts a client connection until it is dropped.
    #[must_use]
    pub fn connected(self: &Arc<Self>) -> Connected {
        self.connections.fetch_add(1, Relaxed);
        Connected(Arc::clone(self))
    }

    /// Whether there are more connections than there may be.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.connections.load(Relaxed) > self.max_connections
    }
}

/// A client connection that counts, as a tunnel too.
pub struct Connected(Arc<Shared>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}
