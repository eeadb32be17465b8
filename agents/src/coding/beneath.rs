//! Opening what lies in a workspace by relative path. No path leaves it, whoever made which symbolic links and whenever:
//! the kernel resolves it within the folder (openat2(2)), or, where it cannot, each step is opened from the one before.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    FileType, Mode, OFlags, ResolveFlags, fchown, fstat, mkdirat, open, openat, openat2,
};
use rustix::io::Errno;

/// Most steps of a path.
const MAX_STEPS: usize = 32;
const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A workspace's folder.
pub(super) struct Root {
    folder: OwnedFd,
    /// To whom belongs what is made, where that isn't the agent.
    owner: Option<u32>,
}

/// A path within a workspace, split at its slashes.
#[derive(Debug, Clone)]
pub(super) struct Inside<'a> {
    steps: Vec<&'a str>,
}

impl<'a> Inside<'a> {
    /// # Errors
    /// When it leads out, or is too deep: a text for a model.
    pub(super) fn parse(path: &'a str) -> Result<Self, String> {
        if path.starts_with('/') {
            return Err(format!(
                "{path}: paths are relative to the workspace, without a leading /"
            ));
        }
        let steps: Vec<&str> =
            path.split('/').filter(|step| !step.is_empty() && *step != ".").collect();
        if steps.contains(&"..") || path.contains('\0') {
            return Err(format!("{path}: paths stay in the workspace, without .."));
        }
        if steps.len() > MAX_STEPS {
            return Err(format!("the path has more than {MAX_STEPS} steps; use one less deep"));
        }
        Ok(Self { steps })
    }

    /// The folder it is in, and its name there; `None` for the workspace itself.
    pub(super) fn split(&self) -> Option<(Self, &'a str)> {
        let (name, folder) = self.steps.split_last()?;
        Some((Self { steps: folder.to_vec() }, name))
    }

    /// With single slashes, and empty for the workspace itself.
    pub(super) fn text(&self) -> String {
        self.steps.join("/")
    }
}

impl Root {
    pub(super) fn of(dir: &Path, owner: Option<u32>) -> Result<Self, Errno> {
        Ok(Self { folder: open(dir, FOLDER, Mode::empty())?, owner })
    }

    /// Opens a folder.
    pub(super) fn folder(&self, path: &Inside<'_>) -> Result<OwnedFd, Errno> {
        self.open(path, FOLDER)
    }

    /// Opens a folder, and makes what is missing of the way to it.
    pub(super) fn make_folder(&self, path: &Inside<'_>) -> Result<OwnedFd, Errno> {
        let mut folder = openat(&self.folder, ".", FOLDER, Mode::empty())?;
        for step in &path.steps {
            if mkdirat(&folder, *step, Mode::from_raw_mode(0o755)).is_ok() {
                self.give(&openat(&folder, *step, FOLDER, Mode::empty())?)?;
            }
            folder = openat(&folder, *step, FOLDER, Mode::empty())?;
        }
        Ok(folder)
    }

    /// Opens a plain file for reading.
    pub(super) fn file(&self, path: &Inside<'_>) -> Result<File, Errno> {
        if path.steps.is_empty() {
            return Err(Errno::ISDIR);
        }
        plain(self.open(path, READ)?)
    }

    /// Gives what was made to its owner.
    pub(super) fn give(&self, made: impl AsFd) -> Result<(), Errno> {
        let Some(owner) = self.owner else { return Ok(()) };
        let (uid, gid) = (rustix::fs::Uid::from_raw(owner), rustix::fs::Gid::from_raw(owner));
        fchown(made, Some(uid), Some(gid))
    }

    fn open(&self, path: &Inside<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
        let text = if path.steps.is_empty() { ".".to_owned() } else { path.text() };
        let inside = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        match openat2(&self.folder, text, flags, Mode::empty(), inside) {
            // Kernels before 5.6, and containers whose filter does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => self.open_by_steps(path, flags),
            opened => opened,
        }
    }

    fn open_by_steps(&self, path: &Inside<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut folder = openat(&self.folder, ".", FOLDER, Mode::empty())?;
        let Some((name, folders)) = path.steps.split_last() else { return Ok(folder) };
        for step in folders {
            folder = openat(&folder, *step, FOLDER, Mode::empty())?;
        }
        openat(&folder, *name, flags, Mode::empty())
    }
}

/// A pipe that a command left there must not hold the agent up.
const READ: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Opens a plain file of a folder for reading.
pub(super) fn file_in(folder: &OwnedFd, name: &std::ffi::CStr) -> Result<File, Errno> {
    plain(openat(folder, name, READ, Mode::empty())?)
}

/// Opens a folder of a folder.
pub(super) fn folder_in(folder: &OwnedFd, name: &std::ffi::CStr) -> Result<OwnedFd, Errno> {
    openat(folder, name, FOLDER, Mode::empty())
}

fn plain(opened: OwnedFd) -> Result<File, Errno> {
    let stat = fstat(&opened)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Err(Errno::ISDIR),
        // A second name may lie outside the workspace.
        FileType::RegularFile if stat.st_nlink <= 1 => Ok(opened.into()),
        _ => Err(Errno::INVAL),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    type Open = fn(&Root, &Inside<'_>, OFlags) -> Result<OwnedFd, Errno>;

    /// As the kernel resolves it, and step by step: both must hold.
    const WAYS: [Open; 2] = [Root::open, Root::open_by_steps];

    #[test]
    fn either_way_links_are_not_followed_and_folders_are() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("in");
        std::fs::create_dir_all(dir.join("a/b")).unwrap();
        std::fs::write(dir.join("a/b/file"), "inside").unwrap();
        std::fs::write(place.path().join("outside"), "secret").unwrap();
        for (name, to) in
            [("link", "../outside"), ("up", ".."), ("self", "/proc/self/root"), ("b", "a/b")]
        {
            std::os::unix::fs::symlink(to, dir.join(name)).unwrap();
        }
        let root = Root::of(&dir, None).unwrap();
        for open in WAYS {
            let read = |path| open(&root, &Inside::parse(path).unwrap(), READ).and_then(plain);
            let mut text = String::new();
            read("./a//b/file").unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "inside");
            for path in ["link", "up/outside", "self/etc/passwd", "b/file"] {
                assert!(read(path).is_err(), "{path}");
            }
            assert_eq!(read("a").unwrap_err(), Errno::ISDIR);
        }
    }

    #[test]
    fn a_folder_that_becomes_a_link_in_between_leads_nowhere() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("in");
        std::fs::create_dir_all(dir.join("sub")).unwrap();
        std::fs::create_dir(place.path().join("out")).unwrap();
        std::fs::write(dir.join("sub/file"), "inside").unwrap();
        std::fs::write(place.path().join("out/file"), "secret").unwrap();
        let root = Root::of(&dir, None).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (sub, old) = (dir.join("sub"), dir.join("old"));
                while !done.load(Ordering::Relaxed) {
                    std::fs::rename(&sub, &old).unwrap();
                    std::os::unix::fs::symlink("../out", &sub).unwrap();
                    std::fs::remove_file(&sub).unwrap();
                    std::fs::rename(&old, &sub).unwrap();
                }
            });
            let path = Inside::parse("sub/file").unwrap();
            let (mut inside, mut refused) = (0, 0);
            for round in 0..20_000 {
                match WAYS[round % 2](&root, &path, READ).and_then(plain) {
                    Ok(mut file) => {
                        let mut text = String::new();
                        file.read_to_string(&mut text).unwrap();
                        assert_eq!(text, "inside");
                        inside += 1;
                    }
                    Err(_) => refused += 1,
                }
            }
            done.store(true, Ordering::Relaxed);
            assert!(inside > 0 && refused > 0, "no race: {inside} inside, {refused} refused");
        });
    }
}
