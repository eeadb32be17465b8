//! A memory cgroup for each command, where the kernel lets this process make one: version 2 when the part of the tree in
//! which the agent stands is its own to divide, else version 1. And what the agent itself may use.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::Limits;

/// Names of commands' cgroups begin with this.
const PREFIX: &str = "agent-run-";
/// Where the agent itself goes, in version 2: a cgroup has either processes or cgroups that share its memory out.
pub(crate) const OWN: &str = config::names::AGENT_CGROUP;

/// The kernel's two kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Version {
    /// The memory controller's own hierarchy.
    One,
    /// The unified one.
    Two,
}

/// A cgroup in which commands' can be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    version: Version,
    dir: PathBuf,
    /// The agent's process: other agents may make theirs in the same place.
    owner: u32,
}

/// One command's cgroup.
#[derive(Debug)]
pub(super) struct Group {
    version: Version,
    dir: PathBuf,
}

impl Place {
    /// Where this process can make cgroups for commands. May move this process one level down, where it is alone.
    ///
    /// # Errors
    /// Says why there is no such place.
    pub(super) fn find() -> Result<Self, String> {
        let mut why = "no memory cgroup is mounted".to_owned();
        for place in Mount::all().iter().filter_map(Mount::own) {
            match place.prepare() {
                Ok(()) => return Ok(place),
                Err(error) => {
                    why = format!("no cgroup can be made in {}: {error}", place.dir.display());
                }
            }
        }
        Err(why)
    }

    fn prepare(&self) -> io::Result<()> {
        self.remove_stale();
        if self.version == Version::Two {
            self.share_out()?;
        }
        // One on trial shows whether the rest is allowed, too.
        let trial = Limits { memory: 64 << 20, ..Limits::TRIAL };
        let group = self.make(&trial)?;
        let door = group.door();
        group.remove();
        door.map(drop)
    }

    /// Version 2: has the kernel count memory in the cgroups below this one.
    fn share_out(&self) -> io::Result<()> {
        let there = fs::read_to_string(self.dir.join("cgroup.controllers"))?;
        if !there.split_whitespace().any(|controller| controller == "memory") {
            return Err(io::Error::other("the memory controller isn't in it"));
        }
        let control = self.dir.join("cgroup.subtree_control");
        if put(&control, "+memory").is_err() {
            let members = fs::read_to_string(self.dir.join("cgroup.procs"))?;
            if members.trim() != std::process::id().to_string() {
                return Err(io::Error::other("it can't be divided while it holds other processes"));
            }
            self.make_way(&control)?;
        }
        // The number of processes is bounded otherwise, too.
        let _ = put(&control, "+pids");
        Ok(())
    }

    fn make_way(&self, control: &Path) -> io::Result<()> {
        let own = self.dir.join(OWN);
        match fs::create_dir(&own) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => put(&own.join("cgroup.procs"), "0")?,
        }
        put(control, "+memory").inspect_err(|_| {
            let _ = put(&self.dir.join("cgroup.procs"), "0");
            let _ = fs::remove_dir(&own);
        })
    }

    /// A cgroup with the limits of one command.
    pub(super) fn make(&self, limits: &Limits) -> io::Result<Group> {
        let name = format!("{PREFIX}{}-{}", self.owner, uuid::Uuid::now_v7().simple());
        let group = Group { version: self.version, dir: self.dir.join(name) };
        fs::create_dir(&group.dir)?;
        group.limit(limits).inspect_err(|_| {
            group.remove();
        })?;
        Ok(group)
    }

    /// Removes what commands left whose agent and supervisor were killed. A cgroup with processes stays.
    fn remove_stale(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

impl Group {
    fn limit(&self, limits: &Limits) -> io::Result<()> {
        let bytes = limits.memory.to_string();
        match self.version {
            Version::One => {
                put(&self.dir.join("memory.limit_in_bytes"), &bytes)?;
                // Not there when swap isn't counted.
                let _ = put(&self.dir.join("memory.memsw.limit_in_bytes"), &bytes);
            }
            Version::Two => {
                put(&self.dir.join("memory.max"), &bytes)?;
                let _ = put(&self.dir.join("memory.swap.max"), "0");
                let _ = put(&self.dir.join("memory.oom.group"), "1");
                let _ = put(&self.dir.join("pids.max"), &limits.processes.to_string());
            }
        }
        Ok(())
    }

    /// The file by which a process enters: it writes `0`.
    pub(super) fn door(&self) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.dir.join("cgroup.procs"))
    }

    /// Whether the kernel killed here for want of memory.
    pub(super) fn ran_out(&self) -> bool {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let text = fs::read_to_string(self.dir.join(file)).unwrap_or_default();
        field(&text, "oom_kill").is_some_and(|kills| kills > 0)
    }

    /// Kills what is in it, once: who is forking at the time is met in the next round.
    pub(super) fn kill(&self) {
        if self.version == Version::Two && put(&self.dir.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        let members = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        for pid in members.lines().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Whether it is gone now; not while it holds processes.
    pub(super) fn remove(&self) -> bool {
        match fs::remove_dir(&self.dir) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

/// What holds the agent and its commands together: the least of the limits on this process's cgroup and those above.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Container {
    version: Version,
    dir: PathBuf,
    /// Bytes.
    pub(super) limit: u64,
}

impl Container {
    /// The cgroup that allows this process least; `None` where none has a limit.
    pub(super) fn find() -> Option<Self> {
        Mount::all().iter().filter_map(Mount::narrowest).min_by_key(|found| found.limit)
    }

    /// Whether less than so many bytes are left. What the kernel would give up, files' pages, counts as left.
    pub(super) fn leaves_less_than(&self, bytes: u64) -> bool {
        let full = self.limit.saturating_sub(bytes);
        // The second figure costs the kernel more than the first.
        self.charged().is_some_and(|all| all > full) && self.used().is_some_and(|used| used > full)
    }

    fn charged(&self) -> Option<u64> {
        let file = match self.version {
            Version::One => "memory.usage_in_bytes",
            Version::Two => "memory.current",
        };
        fs::read_to_string(self.dir.join(file)).ok()?.trim().parse().ok()
    }

    fn used(&self) -> Option<u64> {
        let cached = match self.version {
            Version::One => ["total_inactive_file", "total_active_file"],
            Version::Two => ["inactive_file", "active_file"],
        };
        let stat = fs::read_to_string(self.dir.join("memory.stat")).ok()?;
        let cached: u64 = cached.iter().filter_map(|key| field(&stat, key)).sum();
        Some(self.charged()?.saturating_sub(cached))
    }
}

/// A mounted hierarchy that has the memory controller, and this process's path in it.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    version: Version,
    point: PathBuf,
    own: PathBuf,
}

impl Mount {
    fn all() -> Vec<Self> {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        Self::of(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
    }

    /// Out of mountinfo (proc_pid_mountinfo(5)) and a process's cgroups (cgroups(7)), version 2 first.
    fn of(mountinfo: &str, own: &str) -> Vec<Self> {
        let versions = [Version::Two, Version::One];
        versions
            .into_iter()
            .filter_map(|version| Self::of_version(version, mountinfo, own))
            .collect()
    }

    fn of_version(version: Version, mountinfo: &str, own: &str) -> Option<Self> {
        let path = own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let wanted = match version {
                Version::One => controllers.split(',').any(|name| name == "memory"),
                Version::Two => number == "0" && controllers.is_empty(),
            };
            wanted.then_some(path)
        })?;
        mountinfo.lines().find_map(|line| {
            let (mounted, fs) = line.split_once(" - ")?;
            let mut fs = fs.split(' ');
            let (kind, options) = (fs.next()?, fs.nth(1)?);
            let wanted = match version {
                Version::One => kind == "cgroup" && options.split(',').any(|it| it == "memory"),
                Version::Two => kind == "cgroup2",
            };
            let mut mounted = mounted.split(' ').skip(3);
            let (root, point) = (mounted.next()?, PathBuf::from(mounted.next()?));
            // A path outside of what is mounted, as containers may see, stands for the mount itself.
            let inside = Path::new(path).strip_prefix(root).ok().filter(|_| !path.contains(".."));
            let own = inside.map_or_else(|| point.clone(), |inside| point.join(inside));
            wanted.then_some(Self { version, own, point })
        })
    }

    fn own(&self) -> Option<Place> {
        let dir = if self.own.is_dir() { &self.own } else { &self.point };
        let owner = std::process::id();
        dir.is_dir().then(|| Place { version: self.version, dir: dir.clone(), owner })
    }

    fn narrowest(&self) -> Option<Container> {
        let file = match self.version {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        };
        let dirs = self.own.ancestors().take_while(|dir| dir.starts_with(&self.point));
        let limits = dirs.filter_map(|dir| {
            let limit = allowed(&fs::read_to_string(dir.join(file)).ok()?)?;
            Some(Container { version: self.version, dir: dir.to_owned(), limit })
        });
        limits.min_by_key(|found| found.limit)
    }
}

/// No limit is `max` in version 2, and as many pages as there can be in version 1.
fn allowed(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|limit| *limit < i64::MAX.unsigned_abs() / 2)
}

/// The value of `key` in a file of `key value` lines.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Writes a control file; never creates one.
fn put(file: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
35 31 0:32 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn this_process_is_found_in_each_version() {
        let found = Mount::of(HYBRID, "4:memory:/a/b\n0::/c\n");
        let own: Vec<_> = found.iter().map(|mount| mount.own.to_str().unwrap()).collect();
        assert_eq!(own, ["/sys/fs/cgroup/unified/c", "/sys/fs/cgroup/memory/a/b"]);
        let container = "30 23 0:26 /docker/ab /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        for path in ["0::/docker/ab", "0::/../other", "0::/elsewhere"] {
            assert_eq!(Mount::of(container, path)[0].own, Path::new("/sys/fs/cgroup"), "{path}");
        }
    }

    #[test]
    fn the_narrowest_limit_on_the_way_up_counts() {
        let top = tempfile::tempdir().unwrap();
        let below = top.path().join("pod/one");
        fs::create_dir_all(&below).unwrap();
        fs::write(top.path().join("pod/memory.max"), "4096\n").unwrap();
        fs::write(below.join("memory.max"), "max\n").unwrap();
        let mount = Mount { version: Version::Two, point: top.path().into(), own: below.clone() };
        assert_eq!(mount.narrowest().unwrap().limit, 4096);
        fs::write(below.join("memory.max"), "1024\n").unwrap();
        let found = mount.narrowest().unwrap();
        assert_eq!((found.limit, &found.dir), (1024, &below));
        fs::write(below.join("memory.current"), "900\n").unwrap();
        fs::write(below.join("memory.stat"), "anon 1\nactive_file 300\ninactive_file 100\n")
            .unwrap();
        assert_eq!(found.used(), Some(500));
        assert!(found.leaves_less_than(600) && !found.leaves_less_than(500));
    }
}
