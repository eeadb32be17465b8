//! What all threads of a gateway share.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crate::metrics::Metrics;
use crate::table::Tables;

/// How far the shutdown has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It hasn't begun.
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
