//! Where memory and processor time of a replica are read: from the kernel where it runs here, from its own
//! metrics, or from the cluster.

pub(super) mod cgroup;
pub(super) mod metrics;
pub(super) mod pods;
pub(super) mod ports;
pub(super) mod process;

use std::time::Duration;

/// What was read at one look.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Reading {
    /// In use, bytes.
    pub(super) memory: u64,
    /// The most since the look before, at least `memory`.
    pub(super) peak: u64,
    /// Processor time so far.
    pub(super) cpu: Option<Duration>,
    /// How often the kernel has killed something here for want of memory.
    pub(super) oom_kills: u64,
    /// Which life this is: another number is another process.
    pub(super) life: u64,
}

/// One replica's.
pub(super) enum Meter {
    /// A process of this machine.
    Process(process::Process),
    /// What it says of itself.
    Metrics(metrics::Metrics),
    /// What the cluster says of a pod.
    Pod(pods::PodMeter),
}

impl Meter {
    /// `None` while it can't be read, as when it has ended.
    pub(super) async fn look(&mut self) -> Option<Reading> {
        match self {
            Meter::Process(process) => process.look(),
            Meter::Metrics(metrics) => metrics.look().await,
            Meter::Pod(pod) => pod.look().await,
        }
    }

    /// For people: what its figures are.
    pub(super) fn describe(&self) -> String {
        match self {
            Meter::Process(process) => process.describe(),
            Meter::Metrics(_) => "resident memory by the agent's own metrics".to_owned(),
            Meter::Pod(pod) => pod.describe(),
        }
    }

    /// What it is limited to, where that is known.
    pub(super) fn limit(&self) -> Option<u64> {
        match self {
            Meter::Process(process) => process.limit(),
            Meter::Metrics(_) => None,
            Meter::Pod(pod) => pod.limit(),
        }
    }
}
