//! The agent under each set of protections that a machine may offer: made by taking away from it what this machine has.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::{Builder, agent};

/// The user that stands for an unprivileged one.
pub(crate) const NOBODY: u32 = 65_534;

/// What protects at a level.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Level {
    pub(crate) name: &'static str,
    pub(crate) namespaces: bool,
    pub(crate) seccomp: bool,
    pub(crate) landlock: bool,
    /// Whether Landlock keeps signals in, too.
    pub(crate) scoped: bool,
    pub(crate) own_user: bool,
    /// Who the agent is.
    pub(crate) user: u32,
    without: &'static [Lack],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    Namespaces,
    Seccomp,
    Landlock,
    Capabilities,
}

const ALL: Level = Level {
    name: "as root",
    namespaces: true,
    seccomp: true,
    landlock: true,
    scoped: true,
    own_user: true,
    user: 0,
    without: &[],
};

/// Every level, less what this machine has none of to take away.
pub(crate) fn levels() -> Vec<Level> {
    let (landlock, scoped) = landlock();
    let made = [false, true].map(namespaces_can_be_made);
    let here = |level: Level| Level {
        landlock: level.landlock && landlock,
        scoped: level.scoped && level.landlock && scoped,
        namespaces: level.namespaces && made[usize::from(level.user == 0)],
        ..level
    };
    levels_with_everything().into_iter().map(here).collect()
}

/// Whether this kernel has Landlock, and whether that keeps signals in.
fn landlock() -> (bool, bool) {
    use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};
    let hard = || Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let files = hard().handle_access(AccessFs::from_all(ABI::V1)).and_then(Ruleset::create);
    let scoped = hard().scope(Scope::from_all(ABI::V6)).and_then(Ruleset::create);
    if files.is_err() {
        eprintln!("this kernel has no Landlock: levels with it are as those without");
    }
    (files.is_ok(), scoped.is_ok())
}

fn namespaces_can_be_made(by_root: bool) -> bool {
    use std::os::unix::process::CommandExt;
    let root = rustix::process::geteuid().is_root();
    let mut command = std::process::Command::new("unshare");
    command.args(["--pid", "--net", "--ipc", "--fork"]).stderr(std::process::Stdio::null());
    if !by_root {
        command.arg("--user");
    }
    if root && !by_root {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.arg("true").status().is_ok_and(|status| status.success())
}

/// What needs root to be set up is left out without it, and said.
fn levels_with_everything() -> Vec<Level> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: levels that need root to be set up; run as root to see them all");
        let user = rustix::process::geteuid().as_raw();
        return vec![Level { name: "as this user", own_user: false, user, ..ALL }];
    }
    let nobody = Level { own_user: false, user: NOBODY, ..ALL };
    vec![
        ALL,
        Level {
            name: "as root, without namespaces",
            namespaces: false,
            without: &[Lack::Namespaces],
            ..ALL
        },
        Level {
            name: "as root, without Landlock",
            landlock: false,
            without: &[Lack::Landlock],
            ..ALL
        },
        Level {
            name: "as root, without seccomp",
            seccomp: false,
            without: &[Lack::Seccomp],
            ..ALL
        },
        Level {
            name: "as root without capabilities, without namespaces",
            namespaces: false,
            own_user: false,
            without: &[Lack::Capabilities, Lack::Namespaces],
            ..ALL
        },
        Level { name: "unprivileged", ..nobody },
        Level {
            name: "unprivileged, without namespaces, as in a pod",
            namespaces: false,
            without: &[Lack::Namespaces],
            ..nobody
        },
        Level {
            name: "unprivileged, without namespaces and Landlock",
            namespaces: false,
            landlock: false,
            without: &[Lack::Namespaces, Lack::Landlock],
            ..nobody
        },
    ]
}

impl Level {
    pub(crate) fn builder(self) -> Builder {
        agent("coding").with(|command| self.apply(command))
    }

    pub(crate) fn apply(self, command: &mut Command) {
        if self.user != rustix::process::geteuid().as_raw() {
            command.uid(self.user).gid(self.user);
        }
        for lack in self.without {
            match lack {
                Lack::Namespaces => no_namespaces(command),
                Lack::Seccomp => {
                    refuse(
                        command,
                        &[(libc::SYS_seccomp, vec![]), (libc::SYS_prctl, of_prctl(22))],
                    );
                }
                Lack::Landlock => refuse(command, &[(libc::SYS_landlock_create_ruleset, vec![])]),
                Lack::Capabilities => no_capabilities(command),
            }
        }
    }

    /// What the agent must say of itself here.
    pub(crate) fn check(self, said: &Value) {
        let network = match (self.namespaces, self.seccomp) {
            (true, _) => "namespace",
            (_, true) => "seccomp",
            _ => "open",
        };
        assert_eq!(said["network"], network, "{}: {said}", self.name);
        assert_eq!(said["files"] == "landlock", self.landlock, "{}: {said}", self.name);
        assert_eq!(said["user"] == "own", self.own_user, "{}: {said}", self.name);
        let processes = match self {
            Self { namespaces: true, .. } => json!("namespace"),
            Self { own_user: true, .. } | Self { scoped: true, .. } => json!("scoped"),
            _ => json!("supervised"),
        };
        assert_eq!(said["processes"], processes, "{}: {said}", self.name);
    }
}

/// The machine does not let the agent make namespaces, as in most containers.
pub(crate) fn no_namespaces(command: &mut Command) {
    refuse(command, &[(libc::SYS_unshare, vec![])]);
}

/// Only a `prctl` of that option.
fn of_prctl(option: u64) -> Vec<SeccompRule> {
    use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition};
    let condition =
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, option).unwrap();
    vec![SeccompRule::new(vec![condition]).unwrap()]
}

/// The kernel does not have these calls.
fn refuse(command: &mut Command, calls: &[(i64, Vec<SeccompRule>)]) {
    let rules: BTreeMap<_, _> = calls.iter().cloned().collect();
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).unwrap();
    let program = BpfProgram::try_from(filter).unwrap();
    // SAFETY: between fork and exec only prctl and seccomp are called, on memory made before.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(move || {
            seccompiler::apply_filter(&program).map_err(|_| std::io::ErrorKind::Other.into())
        });
    }
}

/// Root as a container has it whose capabilities are all dropped: also a program that is started gets none.
fn no_capabilities(command: &mut Command) {
    use rustix::thread::CapabilitySet;
    // SAFETY: between fork and exec only prctl is called.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(|| {
            for capability in CapabilitySet::all().iter() {
                match rustix::thread::remove_capability_from_bounding_set(capability) {
                    // One that this kernel doesn't know.
                    Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        });
    }
}
