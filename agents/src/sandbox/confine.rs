//! What a process can give up for itself before it becomes the command.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, Scope, path_beneath_rules,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{FILE_SIZE, Limits, OPEN_FILES};

/// What a command may read and run beside its own folder: the system's programs. No home folders, no other workspace,
/// no mounted secrets.
const READABLE: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt", "/nix"];
/// And what those need of `/etc`, by the beginnings of the names there. Not all of it: Secrets are mounted in `/etc`, too.
const ETC: [&str; 36] = [
    "alternatives",
    "bash.bashrc",
    "ca-certificates",
    "debian_version",
    "fonts",
    "gai.conf",
    "gitconfig",
    "group",
    "host.conf",
    "hostname",
    "hosts",
    "inputrc",
    "java-",
    "ld.so.",
    "ld-musl-",
    "locale",
    "localtime",
    "magic",
    "maven",
    "mime.types",
    "networks",
    "npmrc",
    "nsswitch.conf",
    "os-release",
    "passwd",
    "perl",
    "php",
    "profile",
    "protocols",
    "python",
    "resolv.conf",
    "services",
    "shells",
    "terminfo",
    "timezone",
    "xdg",
];
/// Of `/etc/ssl` and `/etc/pki`, where private keys are as well.
const CERTIFICATES: [&str; 3] = ["/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/pki/tls/certs"];
/// Address space beyond a command's memory, bytes: what the runtimes of Node and Go reserve and don't use.
const RESERVED: u64 = 1 << 30;
/// How far commands stand back for the agent where the CPU is short: it must answer probes meanwhile.
const NICE: i32 = 10;
/// And of devices and `/proc`.
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Whether the kernel has Landlock and it is switched on.
pub(super) fn landlock_works() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create)
        .is_ok()
}

/// Whether Landlock also keeps signals and abstract sockets from processes outside: since Linux 6.12.
pub(super) fn landlock_scopes() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .scope(Scope::from_all(ABI::V6))
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
            .add_rules(path_beneath_rules(etc(), AccessFs::from_read(abi)))?
            .add_rules(path_beneath_rules(CERTIFICATES, AccessFs::from_read(abi)))?
            .add_rules(path_beneath_rules(["/proc"], AccessFs::ReadFile | AccessFs::ReadDir))?
            .add_rules(path_beneath_rules(DEVICES, device))?
            .add_rules(path_beneath_rules([dir], AccessFs::from_all(abi)))
    };
    build().map_err(io::Error::other)
}

fn etc() -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir("/etc").into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        // `passwd-` and `group-` are old copies, for the machine's administrator.
        !name.ends_with(b"-") && ETC.iter().any(|known| name.starts_with(known.as_bytes()))
    })
}

/// Sets the limits of this process and its children. `processes_now` are those that the user has already: the kernel
/// counts them all. With a cgroup the address space is left alone: what is only reserved costs nothing.
pub(super) fn limit(limits: &Limits, processes_now: u64, cgroup: bool) -> io::Result<()> {
    let cpu = limits.time.as_secs() + 1;
    let address_space = if cgroup { u64::MAX } else { limits.memory.saturating_add(RESERVED) };
    for (resource, most) in [
        (Resource::As, address_space),
        (Resource::Cpu, cpu),
        (Resource::Fsize, FILE_SIZE),
        (Resource::Nofile, OPEN_FILES),
        (Resource::Core, 0),
        (Resource::Msgqueue, 0),
        (Resource::Nproc, limits.processes + processes_now),
    ] {
        if most == u64::MAX {
            continue;
        }
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

/// Becomes another user, with its group and no other.
pub(super) fn become_user(user: u32) -> io::Result<()> {
    use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
    let group = rustix::process::Gid::from_raw(user);
    set_thread_groups(&[group])?;
    set_thread_gid(group)?;
    set_thread_uid(rustix::process::Uid::from_raw(user))?;
    Ok(())
}

/// Comes after the agent, where there is too little of something.
pub(super) fn stand_back() {
    // What may not be looked at may not be written to either; the command's own program sets this anew.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable);
    // Where memory runs out, the kernel is to take the command and not the agent. Neither is worth failing for.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    if let Ok(nice) = rustix::process::getpriority_process(None) {
        let _ = rustix::process::setpriority_process(None, nice + NICE);
    }
}

/// Lets the command have no descriptor but the first three. Whoever started the agent may have left it some, by which a
/// file or a socket could be reached that no path leads to.
pub(super) fn no_descriptors() -> io::Result<()> {
    let numbers: Vec<i32> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect();
    for number in numbers {
        // SAFETY: it is only marked, whoever owns it; one that is closed by now, as the listing's own, is an error.
        #[allow(unsafe_code)]
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        match rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC) {
            Ok(()) | Err(rustix::io::Errno::BADF) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
