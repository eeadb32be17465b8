//! What a process can give up for itself before it becomes the command.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, Scope, path_beneath_rules,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::{FILE_SIZE, Limits, OPEN_FILES};

/// What a command may read and run beside its own folder: the system's programs and what they need. No home folders,
/// no other workspace, no mounted secrets.
const READABLE: [&str; 9] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt", "/nix"];
/// And of devices and `/proc`.
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];
/// Bit that marks a system call of x86-64's second set, which reaches the same calls.
const X32: i64 = 0x4000_0000;

/// Whether the kernel has Landlock and it is switched on.
pub(super) fn landlock_works() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create)
        .is_ok()
}

/// Everything of the file system but `dir`, the system's programs and a few devices is out of reach, and so are
/// signals and abstract sockets to processes outside, where the kernel is new enough.
pub(super) fn files(dir: &Path) -> io::Result<RulesetCreated> {
    let abi = ABI::V6;
    let build = || {
        let device = AccessFs::ReadFile | AccessFs::WriteFile;
        Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(abi))?
            .scope(Scope::from_all(abi))?
            .create()?
            .add_rules(path_beneath_rules(READABLE, AccessFs::from_read(abi)))?
            .add_rules(path_beneath_rules(["/proc"], AccessFs::ReadFile | AccessFs::ReadDir))?
            .add_rules(path_beneath_rules(DEVICES, device))?
            .add_rules(path_beneath_rules([dir], AccessFs::from_all(abi)))
    };
    build().map_err(io::Error::other)
}

/// Refuses every socket but local ones, and io_uring, which could make one past the filter.
pub(super) fn no_network() -> io::Result<BpfProgram> {
    let build = || {
        let local = u64::from(libc::AF_UNIX.unsigned_abs());
        let not_local = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, local)?;
        let mut rules = BTreeMap::new();
        for set in [0, X32] {
            rules.insert(libc::SYS_socket | set, vec![SeccompRule::new(vec![not_local.clone()])?]);
            rules.insert(libc::SYS_io_uring_setup | set, vec![]);
        }
        let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
        let arch = std::env::consts::ARCH.try_into()?;
        BpfProgram::try_from(SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?)
    };
    build().map_err(io::Error::other)
}

/// Sets the limits of this process and its children. `processes_now` are those that the user has already: the kernel
/// counts them all.
pub(super) fn limit(limits: &Limits, processes_now: u64) -> io::Result<()> {
    let cpu = limits.time.as_secs() + 1;
    for (resource, most) in [
        (Resource::As, limits.memory),
        (Resource::Cpu, cpu),
        (Resource::Fsize, FILE_SIZE),
        (Resource::Nofile, OPEN_FILES),
        (Resource::Core, 0),
        (Resource::Nproc, limits.processes + processes_now),
    ] {
        // What was inherited may be lower already, and cannot be raised.
        let inherited = rustix::process::getrlimit(resource).maximum;
        let most = inherited.map_or(most, |inherited| inherited.min(most));
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    Ok(())
}

/// Gives up every capability, for good: a program with the set-user-ID bit brings none back.
pub(super) fn no_privileges() -> io::Result<()> {
    let none = CapabilitySet::empty();
    rustix::thread::set_no_new_privs(true)?;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )?;
    Ok(())
}
