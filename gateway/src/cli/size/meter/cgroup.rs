//! A memory cgroup that belongs to what is measured alone: what it uses, has used at most, may use, and
//! whether the kernel killed something in it.

use std::fs;
use std::path::PathBuf;

use config::names;
use switchyard::headroom::cgroup::{Version, places};

/// No limit is spelled as the most that the kernel can count.
const NO_LIMIT: u64 = i64::MAX as u64 / 2;

/// The cgroup of one replica.
#[derive(Debug)]
pub(super) struct Cgroup {
    version: Version,
    dir: PathBuf,
    /// Whether the kernel's maximum may be set back: it is ours.
    own: bool,
    /// The maximum as it was seen last.
    peak: u64,
    /// File cache as it was seen last, bytes.
    cache: u64,
}

impl Cgroup {
    /// That of `pid`, when nothing but `members` is in it. `own`: it was made for the measurement.
    pub(super) fn of(pid: u32, members: &[u32], own: bool) -> Option<Cgroup> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let all = places(&mounts, &groups).into_iter();
        let of = |place: switchyard::headroom::cgroup::Place| Cgroup {
            version: place.version,
            dir: place.dir,
            own,
            peak: 0,
            cache: 0,
        };
        let mut found = all.map(of).find(|group| group.number(group.names().current).is_some())?;
        let inside = fs::read_to_string(found.dir.join("cgroup.procs")).ok()?;
        let inside: Vec<u32> = inside.lines().filter_map(|pid| pid.parse().ok()).collect();
        let alone = inside.contains(&pid) && inside.iter().all(|other| members.contains(other));
        found.dir = whole(found.dir);
        found.peak = found.number(found.names().peak).unwrap_or(0);
        alone.then_some(found)
    }

    fn names(&self) -> &'static Names {
        match self.version {
            Version::One => &ONE,
            Version::Two => &TWO,
        }
    }

    fn number(&self, file: &str) -> Option<u64> {
        fs::read_to_string(self.dir.join(file)).ok()?.trim().parse().ok()
    }

    fn field(&self, file: &str, key: &str) -> Option<u64> {
        let text = fs::read_to_string(self.dir.join(file)).ok()?;
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
    }

    /// The working set now, and the most that it was since the look before.
    pub(super) fn look(&mut self) -> Option<(u64, u64)> {
        let names = self.names();
        let used = self.number(names.current)?;
        let cache = self.field("memory.stat", names.cache).unwrap_or(0);
        let peak = self.peak_since();
        // How much of the peak was file cache isn't known: at most what it was before or is now.
        let most = peak.map(|peak| peak.saturating_sub(cache.max(self.cache)));
        self.cache = cache;
        let memory = used.saturating_sub(cache);
        Some((memory, most.unwrap_or(0).max(memory)))
    }

    /// The kernel's maximum since the look before; `None` when it wasn't exceeded, and can't be set back.
    fn peak_since(&mut self) -> Option<u64> {
        let peak = self.number(self.names().peak)?;
        let before = std::mem::replace(&mut self.peak, peak);
        // Version 1 takes any number here. Version 2 sets back only for whoever holds the file open.
        let back = self.own && self.version == Version::One;
        if back && fs::write(self.dir.join(self.names().peak), "0").is_ok() {
            return Some(peak);
        }
        (peak > before).then_some(peak)
    }

    pub(super) fn oom_kills(&self) -> u64 {
        self.field(self.names().events, "oom_kill").unwrap_or(0)
    }

    pub(super) fn limit(&self) -> Option<u64> {
        self.number(self.names().limit).filter(|limit| *limit < NO_LIMIT)
    }

    pub(super) fn describe(&self) -> String {
        let version = if self.version == Version::One { 1 } else { 2 };
        format!("working set by its cgroup (v{version})")
    }
}

/// The cgroup of all that an agent started, where it is in one of its own for itself.
fn whole(dir: PathBuf) -> PathBuf {
    match dir.parent() {
        Some(above) if dir.ends_with(names::AGENT_CGROUP) => above.to_owned(),
        _ => dir,
    }
}

struct Names {
    current: &'static str,
    peak: &'static str,
    limit: &'static str,
    events: &'static str,
    cache: &'static str,
}

const ONE: Names = Names {
    current: "memory.usage_in_bytes",
    peak: "memory.max_usage_in_bytes",
    limit: "memory.limit_in_bytes",
    events: "memory.oom_control",
    cache: "total_inactive_file",
};

const TWO: Names = Names {
    current: "memory.current",
    peak: "memory.peak",
    limit: "memory.max",
    events: "memory.events",
    cache: "inactive_file",
};

#[cfg(test)]
mod tests {
    use super::*;

    fn group(version: Version, own: bool) -> (tempfile::TempDir, Cgroup) {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().to_owned();
        (folder, Cgroup { version, dir, own, peak: 0, cache: 0 })
    }

    fn put(group: &Cgroup, file: &str, text: &str) {
        fs::write(group.dir.join(file), text).unwrap();
    }

    #[test]
    fn file_cache_is_not_needed_and_what_was_between_two_looks_counts() {
        let (_folder, mut group) = group(Version::Two, false);
        put(&group, "memory.current", "1000\n");
        put(&group, "memory.stat", "anon 700\ninactive_file 300\n");
        put(&group, "memory.peak", "1500\n");
        assert_eq!(group.look(), Some((700, 1200)));
        assert_eq!(group.look(), Some((700, 700)), "the maximum was there before");
        put(&group, "memory.max", "max\n");
        put(&group, "memory.events", "oom 3\noom_kill 2\n");
        assert_eq!((group.limit(), group.oom_kills()), (None, 2));
    }

    #[test]
    fn what_an_agent_starts_counts_where_it_keeps_itself_apart() {
        let of = |dir: &str| whole(PathBuf::from(dir)).display().to_string();
        assert_eq!(of("/sys/fs/cgroup/replica/agent-itself"), "/sys/fs/cgroup/replica");
        assert_eq!(of("/sys/fs/cgroup/replica"), "/sys/fs/cgroup/replica");
    }

    #[test]
    fn in_a_group_of_ours_the_maximum_is_set_back() {
        let (_folder, mut group) = group(Version::One, true);
        put(&group, "memory.usage_in_bytes", "1000\n");
        put(&group, "memory.max_usage_in_bytes", "1600\n");
        assert_eq!(group.look(), Some((1000, 1600)));
        assert_eq!(group.number("memory.max_usage_in_bytes"), Some(0));
        put(&group, "memory.limit_in_bytes", "4096\n");
        put(&group, "memory.oom_control", "oom_kill_disable 0\noom_kill 1\n");
        assert_eq!((group.limit(), group.oom_kills()), (Some(4096), 1));
    }
}
