//! Runs one command confined: its own processes, no network, bounded time, memory, output and files, and nothing
//! of the agent's environment. The command runs under a supervisor, which is this same program started again;
//! the two are tied by a socket, so that whatever ends the agent's interest (a dropped future, a killed agent)
//! ends the command with every process that it started.

mod confine;
mod run;
mod supervisor;

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use run::{Outcome, Sandbox};
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
    /// Address space of each process, bytes.
    pub memory: u64,
    /// Processes and threads.
    pub processes: u64,
}

/// What confines a command on this machine. Found out once, by trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Runs as a user of its own.
    pub own_user: bool,
    /// Namespaces of its own for processes, network and IPC.
    pub namespaces: Namespaces,
    /// A filter refuses every socket but local ones.
    pub seccomp: bool,
    /// Landlock holds it to its folder and the system's programs.
    pub landlock: bool,
}

/// How namespaces are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Namespaces {
    /// Not at all.
    None,
    /// With the agent's own privilege.
    Privileged,
    /// In a user namespace.
    Unprivileged,
}

impl Plan {
    /// The protections in force, as they stand in the log and the metadata.
    pub fn describe(&self) -> Value {
        let apart = self.namespaces != Namespaces::None;
        let network = match (apart, self.seccomp) {
            (true, _) => "namespace",
            (false, true) => "seccomp",
            (false, false) => "open",
        };
        json!({
            "network": network,
            "processes": if apart { "namespace" } else { "supervised" },
            "files": if self.landlock { "landlock" } else { "permissions" },
            "user": if self.own_user { "own" } else { "agent" },
        })
    }

    /// From the strongest to the weakest that makes sense for this process's user.
    fn candidates(landlock: bool) -> Vec<Self> {
        let root = rustix::process::geteuid().is_root();
        let with = if root { Namespaces::Privileged } else { Namespaces::Unprivileged };
        let plan = |own_user, namespaces, seccomp| Self { own_user, namespaces, seccomp, landlock };
        let mut plans = vec![
            plan(false, with, true),
            plan(false, with, false),
            plan(false, Namespaces::None, true),
            plan(false, Namespaces::None, false),
        ];
        if root {
            let own: Vec<_> = plans.iter().map(|plan| Self { own_user: true, ..*plan }).collect();
            plans.splice(0..0, own);
        }
        plans
    }
}

/// What the supervisor is told.
#[derive(Debug, Serialize, Deserialize)]
struct Spec {
    dir: std::path::PathBuf,
    command: Vec<String>,
    plan: Plan,
    user: Option<u32>,
    limits: Limits,
}

/// What the supervisor tells.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    exit: Option<i32>,
    signal: Option<i32>,
    timed_out: bool,
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
