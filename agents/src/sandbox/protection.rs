//! Which protections there are, which a machine allows, and which an operator insists on.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::confine;

/// One of the things that a command is kept from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Sockets to anywhere.
    Network,
    /// Files outside its workspace, but for the system's programs.
    Files,
    /// Seeing or signalling processes that aren't its own.
    Processes,
    /// Taking the agent's memory.
    Memory,
}

impl Protection {
    const ALL: [Self; 4] = [Self::Network, Self::Files, Self::Processes, Self::Memory];

    /// As it stands in the flag and the metadata.
    pub fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Files => "files",
            Self::Processes => "processes",
            Self::Memory => "memory",
        }
    }
}

/// The protections without which the agent must not start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Required(pub Vec<Protection>);

impl std::str::FromStr for Required {
    type Err = String;

    /// `full`, or names with commas between; nothing requires nothing.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "" => return Ok(Self::default()),
            "full" => return Ok(Self(Protection::ALL.to_vec())),
            _ => {}
        }
        let parse = |name: &str| {
            let found = Protection::ALL.into_iter().find(|it| it.name() == name.trim());
            found.ok_or_else(|| {
                format!("`{name}` is no protection; write full, or some of network,files,processes,memory")
            })
        };
        Ok(Self(text.split(',').map(parse).collect::<Result<_, _>>()?))
    }
}

/// What confines a command on this machine. Found out once, by trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    /// Runs as a user of its own.
    pub(super) own_user: bool,
    /// Namespaces of its own for processes, network and IPC.
    pub(super) namespaces: Namespaces,
    /// A filter refuses sockets and dangerous calls.
    pub(super) seccomp: bool,
    /// Landlock holds it to its folder and the system's programs.
    pub(super) landlock: bool,
    /// Landlock keeps its signals and abstract sockets from processes outside.
    pub(super) scoped: bool,
    /// Memory is bounded by a cgroup of its own; else the supervisor looks after it.
    pub(super) cgroup: bool,
}

/// How namespaces are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Namespaces {
    /// Not at all.
    None,
    /// With the agent's own privilege.
    Privileged,
    /// In a user namespace.
    Unprivileged,
}

impl Plan {
    /// The protections in force, as they stand in the log and the metadata.
    pub(super) fn describe(self) -> Value {
        let network = match (self.apart(), self.seccomp) {
            (true, _) => "namespace",
            (false, true) => "seccomp",
            (false, false) => "open",
        };
        let processes = match (self.apart(), self.scoped || self.own_user) {
            (true, _) => "namespace",
            (false, true) => "scoped",
            (false, false) => "supervised",
        };
        json!({
            "network": network,
            "processes": processes,
            "files": if self.landlock { "landlock" } else { "permissions" },
            "memory": if self.cgroup { "cgroup" } else { "supervised" },
            "user": if self.own_user { "own" } else { "agent" },
        })
    }

    /// Whether it sees and signals its own processes only, by a namespace.
    pub(super) fn apart(self) -> bool {
        self.namespaces != Namespaces::None
    }

    /// Whether a protection is in force by this plan alone.
    pub(super) fn has(self, protection: Protection) -> bool {
        match protection {
            Protection::Network => self.apart() || self.seccomp,
            Protection::Files => self.landlock,
            Protection::Processes => self.apart() || self.scoped || self.own_user,
            Protection::Memory => true,
        }
    }

    /// From the strongest to the weakest that makes sense for this process's user.
    pub(super) fn candidates(cgroup: bool) -> Vec<Self> {
        let (landlock, scoped) = (confine::landlock_works(), confine::landlock_scopes());
        let root = rustix::process::geteuid().is_root();
        let plan = |own_user, namespaces, seccomp| Self {
            own_user,
            namespaces,
            seccomp,
            landlock,
            scoped,
            cgroup: false,
        };
        let kinds: &[_] = match root {
            // Root without capabilities, as in some containers, may still make what anybody may.
            true => &[Namespaces::Privileged, Namespaces::Unprivileged, Namespaces::None],
            false => &[Namespaces::Unprivileged, Namespaces::None],
        };
        let users: &[_] = if root { &[true, false] } else { &[false] };
        let with = |own_user: bool| {
            // A user namespace of root's has no other users to become.
            let kinds =
                kinds.iter().filter(move |it| !own_user || **it != Namespaces::Unprivileged);
            kinds.flat_map(move |kind| [true, false].map(|seccomp| plan(own_user, *kind, seccomp)))
        };
        let plans = users.iter().flat_map(|own_user| with(*own_user));
        let both = |plan: Self| {
            // A command that could write to its cgroup's files would only be asked to keep its limit.
            let kept = cgroup && (plan.landlock || plan.own_user);
            let with = kept.then_some(Self { cgroup: true, ..plan });
            with.into_iter().chain([plan])
        };
        plans.flat_map(both).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_required_is_full_or_a_list() {
        assert_eq!("full".parse(), Ok(Required(Protection::ALL.to_vec())));
        let some = vec![Protection::Network, Protection::Files];
        assert_eq!("network, files".parse(), Ok(Required(some)));
        assert_eq!("".parse(), Ok(Required::default()));
        let why = "network,disk".parse::<Required>().unwrap_err();
        assert!(why.contains("`disk` is no protection; write full"), "{why}");
    }

    #[test]
    fn a_cgroup_is_used_only_where_the_command_cannot_change_it() {
        for plan in Plan::candidates(true) {
            assert!(!plan.cgroup || plan.landlock || plan.own_user, "{plan:?}");
        }
        assert!(Plan::candidates(false).iter().all(|plan| !plan.cgroup));
    }
}
