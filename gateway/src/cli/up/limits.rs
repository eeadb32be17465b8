//! Memory limits on replicas: a cgroup where one can be made, else a resource limit.

pub(super) mod cgroup;

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit};

use self::cgroup::{Group, Leaf};

/// How often removing a cgroup is tried, and the pause between: the kernel needs a moment after
/// the last process in it is gone.
const REMOVE_ATTEMPTS: usize = 100;
const REMOVE_PAUSE: Duration = Duration::from_millis(20);

/// How limits are enforced on this machine.
pub(super) enum Limits {
    /// Each limited replica in a cgroup of its own.
    Cgroup(Group),
    /// `RLIMIT_DATA` for each process, because cgroups can't be used, for this reason.
    Process(String),
}

impl Limits {
    /// The best that the machine allows.
    pub(super) fn choose() -> Limits {
        match Group::create() {
            Ok(group) => Limits::Cgroup(group),
            Err(reason) => Limits::Process(reason),
        }
    }

    /// The limit for one life of a replica. The error says why a cgroup couldn't be made.
    pub(super) fn make(&self, name: &str, bytes: u64) -> io::Result<Limit> {
        match self {
            Limits::Cgroup(group) => group.limit(name, bytes).map(Limit::Cgroup),
            Limits::Process(_) => Ok(Limit::Process(bytes)),
        }
    }
}

impl std::fmt::Display for Limits {
    /// One line for people.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Limits::Cgroup(group) => write!(f, "memory limits are enforced by {group}"),
            Limits::Process(reason) => write!(
                f,
                "memory limits are enforced by a resource limit on each process's data \
                 (RLIMIT_DATA), not on a replica as a whole: {reason}"
            ),
        }
    }
}

/// The limit on one life of a replica.
pub(super) enum Limit {
    /// A cgroup of its own.
    Cgroup(Leaf),
    /// Bytes of data, each process for itself.
    Process(u64),
}

impl Limit {
    /// What the new process does between fork and exec to come under the limit.
    pub(super) fn entry(&self) -> io::Result<Entry> {
        match self {
            Limit::Cgroup(leaf) => Ok(Entry::Cgroup(Arc::new(leaf.door()?))),
            Limit::Process(bytes) => Ok(Entry::Process(*bytes)),
        }
    }

    /// Bytes in use that can't be had back, where the kernel counts them for this limit.
    pub(super) fn usage(&self) -> Option<u64> {
        match self {
            Limit::Cgroup(leaf) => leaf.usage(),
            Limit::Process(_) => None,
        }
    }

    /// Whether the kernel killed something for going over.
    pub(super) fn exceeded(&self) -> bool {
        matches!(self, Limit::Cgroup(leaf) if leaf.oom_kills() > 0)
    }

    /// Takes the limit away after the replica's end, with what it left running.
    pub(super) async fn remove(self) {
        let Limit::Cgroup(leaf) = self else { return };
        for _ in 0..REMOVE_ATTEMPTS {
            if leaf.remove() {
                return;
            }
            tokio::time::sleep(REMOVE_PAUSE).await;
        }
    }
}

/// The way under a limit, made before the fork.
pub(super) enum Entry {
    /// The cgroup's `cgroup.procs`.
    Cgroup(Arc<File>),
    /// Bytes.
    Process(u64),
}

impl Entry {
    /// Puts the calling process under the limit. Only system calls, no allocation: it is called
    /// between fork and exec.
    pub(super) fn enter(&self) -> io::Result<()> {
        match self {
            // "0" is the process that writes.
            Entry::Cgroup(procs) => Ok(rustix::io::write(procs, b"0").map(drop)?),
            Entry::Process(bytes) => {
                let limit = Rlimit { current: Some(*bytes), maximum: Some(*bytes) };
                Ok(rustix::process::setrlimit(Resource::Data, limit)?)
            }
        }
    }
}
