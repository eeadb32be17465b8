//! Runs one command confined: its own processes, no network, bounded time, memory, disk and output, and nothing
//! of the agent's environment. The command runs under a supervisor, which is this same program started again;
//! the two are tied by a socket, so that whatever ends the agent's interest (a dropped future, a killed agent)
//! ends the command with every process that it started.

pub(crate) mod cgroup;
mod confine;
pub mod disk;
mod filter;
mod memory;
mod processes;
mod protection;
mod run;
mod supervisor;
mod watch;

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use disk::Space;
pub use memory::Whole;
use protection::{Namespaces, Plan};
pub use protection::{Protection, Required};
pub use run::{Bounds, Outcome, Sandbox};
pub use supervisor::supervise_if_asked;

/// What runs a line of commands.
pub const SHELL: &str = "/bin/sh";
/// Where commands are looked for: the system's, never the caller's.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Largest file that a command may write, bytes.
const FILE_SIZE: u64 = 256 << 20;
/// Most files that one process may hold open.
const OPEN_FILES: u64 = 256;

/// What one command may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Wall time.
    pub time: Duration,
    /// Memory of all its processes together, bytes.
    pub memory: u64,
    /// Processes and threads.
    pub processes: u64,
    /// What its workspace may hold.
    pub disk: Space,
}

impl Limits {
    /// For what is only tried out.
    const TRIAL: Self = Self {
        time: Duration::from_secs(10),
        memory: 64 << 20,
        processes: 8,
        disk: Space { bytes: 1 << 20, files: 100 },
    };
}

/// Which bound a command was killed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Over {
    /// Its own memory.
    Memory,
    /// The memory that the agent and all commands have together.
    Container,
    /// Its processes.
    Processes,
    /// Its workspace's disk space or files.
    Disk,
}

/// What the supervisor is told.
#[derive(Debug, Serialize, Deserialize)]
struct Spec {
    dir: std::path::PathBuf,
    command: Vec<String>,
    plan: Plan,
    user: Option<u32>,
    limits: Limits,
    /// Where its cgroup is made, if the plan says so.
    place: Option<cgroup::Place>,
    /// What must not fill up, where commands have no cgroup.
    container: Option<cgroup::Container>,
}

/// What the supervisor tells.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Report {
    exit: Option<i32>,
    signal: Option<i32>,
    timed_out: bool,
    over: Option<Over>,
    time: Duration,
    cpu: Duration,
    peak_memory: u64,
    error: Option<String>,
}

/// The program that a command's name means in the sandbox, if the machine has it.
pub fn find_program(name: &str) -> Option<std::path::PathBuf> {
    PATH.split(':').map(|dir| Path::new(dir).join(name)).find(|path| path.is_file())
}

/// Keeps this process's memory, and with it its environment, from others of the same user: `/proc/PID/environ`
/// can no longer be read by them.
pub fn hide_memory() {
    let hidden = rustix::process::DumpableBehavior::NotDumpable;
    if let Err(error) = rustix::process::set_dumpable_behavior(hidden) {
        tracing::warn!(%error, "this process's memory cannot be hidden");
    }
}
