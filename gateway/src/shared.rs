//! What all threads of a gateway share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

use crate::headroom::Headroom;
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
    /// What each worker has to do.
    pub loads: Vec<Arc<Load>>,
    /// Most client connections, over all workers.
    pub max_connections: usize,
    /// Memory and descriptors.
    pub headroom: Arc<Headroom>,
}

impl Shared {
    /// For so many workers that have nothing to do yet.
    #[must_use]
    pub fn new(
        tables: Arc<Tables>,
        metrics: Arc<Metrics>,
        workers: usize,
        (max_connections, headroom): (usize, Headroom),
    ) -> Self {
        let loads = (0..workers).map(|_| Arc::default()).collect();
        Self { tables, metrics, loads, max_connections, headroom: Arc::new(headroom) }
    }

    /// Open client connections, over all workers.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.loads.iter().map(|load| load.connections()).sum()
    }

    /// Whether there are more connections than there may be.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.connections() > self.max_connections
    }
}

/// What one worker has to do. Written by it, and once a connection by whoever accepted it; on
/// cache lines of its own, as the others only look at it when they accept (two lines: processors
/// fetch them in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Load {
    connections: AtomicUsize,
    requests: AtomicUsize,
}

impl Load {
    /// Open client connections, those on their way to the worker included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    /// How much there is to do: a connection counts once, a request under way once more, and again
    /// while its body is still coming.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.connections() + self.requests.load(Relaxed)
    }

    /// Counts a client connection until it is dropped. Of those who count at the same time as others
    /// do, the last one sees all in [`Shared::connections`], so that none slips past the limit.
    #[must_use]
    pub fn connected(self: &Arc<Self>) -> Connected {
        self.connections.fetch_add(1, SeqCst);
        Connected(Arc::clone(self))
    }
}

/// A client connection that counts, as a tunnel too.
#[derive(Debug)]
pub struct Connected(Arc<Load>);

impl Connected {
    /// Counts a request more. Only on the worker's own thread, so that it takes no locked instruction.
    pub fn request_begins(&self) {
        let requests = &self.0.requests;
        requests.store(requests.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Counts a request less, as [`Connected::request_begins`] does one more.
    pub fn request_ends(&self) {
        let requests = &self.0.requests;
        requests.store(requests.load(Relaxed).wrapping_sub(1), Relaxed);
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, SeqCst);
    }
}
