//! Memory cgroups: version 2 where a part of the tree is ours to divide, else version 1.
//!
//! A `Group` is one folder for the whole yard, a `Leaf` one in it for each life of a replica. Both
//! are removed at the end; what a killed `up` left behind is removed by the next.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use switchyard::headroom::cgroup::{Place, Version, places};

/// The names of our folders begin with this; the process id and a number follow.
const PREFIX: &str = "switchyard-";

/// Where `up` itself goes when its own cgroup must hold groups instead of processes.
const OWN: &str = "supervisor";

/// The limit of the group that is made to see whether groups can be made, in bytes.
const TRIAL: u64 = 64 << 20;

/// The yard's cgroup.
pub(crate) struct Group {
    place: Place,
    dir: PathBuf,
    /// Whether `up` moved itself out of `place` into a group of its own there.
    moved: bool,
}

/// The cgroup of one life of a replica.
pub(crate) struct Leaf {
    version: Version,
    dir: PathBuf,
}

impl Group {
    /// Makes the yard's group under this process's own. The error says, in words, why not.
    pub(super) fn create() -> Result<Group, String> {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let mut reason = "no memory cgroup is mounted".to_owned();
        for place in places(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup")) {
            remove_stale(&place.dir);
            match Group::at(&place) {
                Ok(group) => return Ok(group),
                Err(error) => {
                    reason = format!("no cgroup can be made in {}: {error}", place.dir.display());
                }
            }
        }
        Err(reason)
    }

    fn at(place: &Place) -> io::Result<Group> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        // Whoever moves a process must be allowed to write here, in the common ancestor.
        door(&place.dir)?;
        let mut group = Group { place: place.clone(), dir: place.dir.join(name), moved: false };
        fs::create_dir(&group.dir)?;
        if place.version == Version::Two {
            group.enable_memory()?;
        }
        // A first leaf shows whether the rest is allowed, too.
        let trial = group.limit("trial", TRIAL)?;
        trial.door()?;
        trial.remove();
        Ok(group)
    }

    /// Version 2: has the memory controller count in our group, and in those under it.
    fn enable_memory(&mut self) -> io::Result<()> {
        let there = fs::read_to_string(self.place.dir.join("cgroup.controllers"))?;
        if !there.split_whitespace().any(|controller| controller == "memory") {
            return Err(io::Error::other("the memory controller isn't in it"));
        }
        if !self.dir.join("memory.max").exists() {
            self.enable_in_place()?;
        }
        put(&self.dir.join("cgroup.subtree_control"), "+memory")
    }

    /// A cgroup either holds processes or hands controllers down. Where `up` is the only process,
    /// it can make way.
    fn enable_in_place(&mut self) -> io::Result<()> {
        let control = self.place.dir.join("cgroup.subtree_control");
        if put(&control, "+memory").is_ok() {
            return Ok(());
        }
        let there = fs::read_to_string(self.place.dir.join("cgroup.procs"))?;
        if there.trim() != std::process::id().to_string() {
            return Err(io::Error::other("it can't be divided while it holds other processes"));
        }
        let own = self.place.dir.join(OWN);
        make_dir(&own)?;
        put(&own.join("cgroup.procs"), "0")?;
        self.moved = true;
        put(&control, "+memory")
    }

    /// A new group with a limit. Swap is no way around it, where the kernel counts swap.
    pub(super) fn limit(&self, name: &str, bytes: u64) -> io::Result<Leaf> {
        let leaf = Leaf { version: self.place.version, dir: self.dir.join(name) };
        make_dir(&leaf.dir)?;
        let bytes = bytes.to_string();
        let (limit, swap, swap_value) = match leaf.version {
            Version::One => {
                ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", bytes.as_str())
            }
            Version::Two => ("memory.max", "memory.swap.max", "0"),
        };
        put(&leaf.dir.join(limit), &bytes)?;
        // Not there when swap accounting is off.
        let _ = put(&leaf.dir.join(swap), swap_value);
        Ok(leaf)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        remove_tree(&self.dir);
        if self.moved {
            // Back where it came from; should that fail, an empty group stays.
            let _ = put(&self.place.dir.join("cgroup.subtree_control"), "-memory");
            let _ = put(&self.place.dir.join("cgroup.procs"), "0");
            let _ = fs::remove_dir(self.place.dir.join(OWN));
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = match self.place.version {
            Version::One => 1,
            Version::Two => 2,
        };
        write!(f, "cgroup v{version} ({})", self.dir.display())
    }
}

impl Leaf {
    /// The file through which a process enters.
    pub(super) fn door(&self) -> io::Result<File> {
        door(&self.dir)
    }

    /// Bytes in use, without the file cache that the kernel would give up first: the working set,
    /// as `kubectl top` counts it.
    pub(super) fn usage(&self) -> Option<u64> {
        let (current, cache) = match self.version {
            Version::One => ("memory.usage_in_bytes", "total_inactive_file"),
            Version::Two => ("memory.current", "inactive_file"),
        };
        let all: u64 = fs::read_to_string(self.dir.join(current)).ok()?.trim().parse().ok()?;
        let stat = fs::read_to_string(self.dir.join("memory.stat")).ok()?;
        Some(all.saturating_sub(field(&stat, cache).unwrap_or(0)))
    }

    /// How many processes the kernel has killed here for want of memory.
    pub(super) fn oom_kills(&self) -> u64 {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let text = fs::read_to_string(self.dir.join(file)).unwrap_or_default();
        field(&text, "oom_kill").unwrap_or(0)
    }

    /// Kills what is still in it and removes it; false while the kernel isn't done.
    pub(super) fn remove(&self) -> bool {
        // A replica may have divided its own, as the coding agent does for its commands.
        for dir in below(&self.dir).chain([self.dir.clone()]) {
            for pid in members(&dir) {
                // It may be gone by now.
                let _ = kill_process(pid, Signal::KILL);
            }
            if dir != self.dir {
                let _ = fs::remove_dir(dir);
            }
        }
        match fs::remove_dir(&self.dir) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

/// The value of `key` in a file of `key value` lines.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

fn members(dir: &Path) -> Vec<Pid> {
    let list = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    list.lines().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

fn door(dir: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).open(dir.join("cgroup.procs"))
}

fn make_dir(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Writes a control file; never creates one.
fn put(file: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
}

/// Removes one of our groups and what is in it, as far as it is empty.
fn remove_tree(dir: &Path) {
    for leaf in below(dir) {
        for part in below(&leaf) {
            let _ = fs::remove_dir(part);
        }
        let _ = fs::remove_dir(leaf);
    }
    let _ = fs::remove_dir(dir);
}

/// The groups directly in one.
fn below(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.map(|entry| entry.path())
}

/// Removes the groups of yards that are no more.
fn remove_stale(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        let owner = owner.and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove_tree(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_their_whole_name() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n";
        assert_eq!(field(text, "oom_kill"), Some(2));
        assert_eq!(field(text, "oom"), None);
    }

    #[test]
    fn a_group_is_made_divided_and_removed_where_the_machine_allows_it() {
        let Ok(group) = Group::create() else {
            eprintln!("skipped: no cgroup can be made here");
            return;
        };
        let leaf = group.limit("a-1", 32 << 20).unwrap();
        let dir = group.dir.clone();
        assert!(leaf.usage().is_some_and(|bytes| bytes < 32 << 20));
        assert_eq!(leaf.oom_kills(), 0);
        fs::create_dir(dir.join("a-1/of-its-own")).unwrap();
        assert!(leaf.remove());
        drop(group);
        assert!(!dir.exists());
    }

    #[test]
    fn groups_of_dead_yards_are_removed_and_those_of_live_ones_kept() {
        let place = tempfile::tempdir().unwrap();
        let live = place.path().join(format!("{PREFIX}{}-0", std::process::id()));
        // Above the largest process id that Linux gives.
        let dead = place.path().join(format!("{PREFIX}4194999-0"));
        let other = place.path().join("switchyard-notes");
        for dir in [&live, &dead, &other] {
            fs::create_dir(dir).unwrap();
        }
        fs::create_dir(dead.join("qa-1")).unwrap();
        remove_stale(place.path());
        assert_eq!([&live, &dead, &other].map(|dir| dir.exists()), [true, false, true]);
    }
}
