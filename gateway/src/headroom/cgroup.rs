//! This process's memory cgroup, out of `/proc/self/mountinfo` and `/proc/self/cgroup`: how much it
//! allows, and where groups of our own may be made.

use std::path::{Path, PathBuf};

/// Which of the kernel's two kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The memory controller's own hierarchy.
    One,
    /// The unified one.
    Two,
}

/// A cgroup under which ours may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its kind.
    pub version: Version,
    /// Its folder.
    pub dir: PathBuf,
}

/// The places to try, best first: version 2 in this process's own cgroup or beside it, then
/// version 1 in its own.
#[must_use]
pub fn places(mountinfo: &str, own: &str) -> Vec<Place> {
    let of = |version| Some(mount(mountinfo, version)?.dirs(own_path(own, version)?));
    let mut places = Vec::new();
    if let Some((dir, beside)) = of(Version::Two) {
        let dirs = std::iter::once(dir).chain(beside);
        places.extend(dirs.map(|dir| Place { version: Version::Two, dir }));
    }
    if let Some((dir, _)) = of(Version::One) {
        places.push(Place { version: Version::One, dir });
    }
    places
}

/// The least memory that this process's cgroup or one above it allows, bytes; `None`: no limit.
#[must_use]
pub fn memory_limit() -> Option<u64> {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    limit(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
}

fn limit(mountinfo: &str, own: &str) -> Option<u64> {
    let of = |(version, file): (Version, &str)| {
        let mount = mount(mountinfo, version)?;
        let (dir, _) = mount.dirs(own_path(own, version)?);
        let dirs = dir.ancestors().take_while(|dir| dir.starts_with(&mount.point));
        dirs.filter_map(|dir| allowed(&std::fs::read_to_string(dir.join(file)).ok()?)).min()
    };
    let files = [(Version::Two, "memory.max"), (Version::One, "memory.limit_in_bytes")];
    files.into_iter().filter_map(of).min()
}

/// What a limit's file says; no limit is `max` in version 2, and as many pages as there can be in
/// version 1.
fn allowed(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|limit| *limit < i64::MAX as u64 / 2)
}

/// A mounted cgroup hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    /// The cgroup that is mounted.
    root: PathBuf,
    /// Where.
    point: PathBuf,
}

impl Mount {
    /// The folder of the cgroup `path`, and that of its parent where it is in the mount, too. A
    /// path that lies outside, as one may in a container, stands for the mount itself.
    fn dirs(&self, path: &str) -> (PathBuf, Option<PathBuf>) {
        let inside = Path::new(path).strip_prefix(&self.root).ok();
        let inside = inside.filter(|inside| inside.components().next().is_some());
        let dir = inside.filter(|_| !path.contains("..")).map(|inside| self.point.join(inside));
        match dir.filter(|dir| dir.exists()) {
            Some(dir) => {
                let beside = dir.parent().map(Path::to_owned);
                (dir, beside)
            }
            None => (self.point.clone(), None),
        }
    }
}

/// The first mount of a version's memory hierarchy (proc_pid_mountinfo(5)).
fn mount(mountinfo: &str, version: Version) -> Option<Mount> {
    mountinfo.lines().find_map(|line| {
        let (mounted, fs) = line.split_once(" - ")?;
        let mut fs = fs.split(' ');
        let (kind, options) = (fs.next()?, fs.nth(1)?);
        let wanted = match version {
            Version::One => kind == "cgroup" && options.split(',').any(|option| option == "memory"),
            Version::Two => kind == "cgroup2",
        };
        let mut mounted = mounted.split(' ').skip(3);
        let (root, point) = (mounted.next()?, mounted.next()?);
        wanted.then(|| Mount { root: unescape(root).into(), point: unescape(point).into() })
    })
}

/// This process's cgroup in a version's memory hierarchy (cgroups(7)).
fn own_path(own: &str, version: Version) -> Option<&str> {
    own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let wanted = match version {
            Version::One => controllers.split(',').any(|name| name == "memory"),
            Version::Two => number == "0" && controllers.is_empty(),
        };
        wanted.then_some(path)
    })
}

/// Spaces and the like stand as three octal digits in mountinfo.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                out.push_str(&part[3..]);
            }
            None => {
                out.push('\\');
                out.push_str(part);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    fn check_mount(mountinfo: &str, version: Version, expected: Option<(&str, &str)>) {
        let expected =
            expected.map(|(root, point)| Mount { root: root.into(), point: point.into() });
        assert_eq!(mount(mountinfo, version), expected);
    }

    #[test]
    fn both_versions_are_found_in_a_hybrid_tree() {
        check_mount(HYBRID, Version::One, Some(("/", "/sys/fs/cgroup/memory")));
        check_mount(HYBRID, Version::Two, Some(("/", "/sys/fs/cgroup/unified")));
        check_mount("22 28 0:21 / /proc rw - proc proc rw", Version::One, None);
    }

    #[test]
    fn a_containers_mount_has_its_own_root_and_odd_names_are_read() {
        check_mount(
            "30 23 0:26 /docker/ab /mnt/my\\040cgroups rw master:4 - cgroup2 cgroup rw,nsdelegate",
            Version::Two,
            Some(("/docker/ab", "/mnt/my cgroups")),
        );
    }

    #[test]
    fn a_process_knows_its_own_cgroup_in_each_version() {
        let own = "5:cpu,cpuacct:/a\n4:blkio,memory:/b:c\n1:name=systemd:/d\n0::/e\n";
        assert_eq!(own_path(own, Version::One), Some("/b:c"));
        assert_eq!(own_path(own, Version::Two), Some("/e"));
        assert_eq!(own_path("1:cpu:/a\n", Version::Two), None);
    }

    #[test]
    fn our_group_goes_into_our_own_cgroup_or_beside_it_and_never_above_the_mount() {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(top.path().join("user/term")).unwrap();
        let mountinfo = format!("30 23 0:26 / {} rw - cgroup2 cgroup rw", top.path().display());
        let dirs = |own: &str| -> Vec<_> {
            places(&mountinfo, own).into_iter().map(|place| place.dir).collect()
        };
        let (point, user) = (top.path().to_owned(), top.path().join("user"));
        assert_eq!(dirs("0::/user/term"), [user.join("term"), user.clone()]);
        assert_eq!(dirs("0::/user"), [&*user, &*point]);
        assert_eq!(dirs("0::/"), [&*point]);
        assert_eq!(dirs("0::/../elsewhere"), [&*point]);
    }

    #[test]
    fn the_least_limit_counts_of_the_cgroup_and_those_above_it() {
        let top = tempfile::tempdir().unwrap();
        let put = |dir: &str, file: &str, text: &str| {
            let dir = top.path().join(dir);
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join(file), text).unwrap();
        };
        let check = |kind: &str, own: &str, expected| {
            let mountinfo = format!("30 23 0:26 / {} rw - {kind}", top.path().display());
            assert_eq!(limit(&mountinfo, own), expected, "{kind}, {own}");
        };
        put("pod/one", "memory.max", "max\n");
        check("cgroup2 cgroup rw", "0::/pod/one", None);
        put("pod", "memory.max", "4096000\n");
        check("cgroup2 cgroup rw", "0::/pod/one", Some(4_096_000));
        put("pod/one", "memory.max", "1024\n");
        check("cgroup2 cgroup rw", "0::/pod/one", Some(1024));
        check("cgroup2 cgroup rw", "0::/pod", Some(4_096_000));
        put("old", "memory.limit_in_bytes", "9223372036854771712\n");
        check("cgroup cgroup rw,memory", "4:memory:/old", None);
        put("old", "memory.limit_in_bytes", "77\n");
        check("cgroup cgroup rw,memory", "4:memory:/old", Some(77));
    }
}
