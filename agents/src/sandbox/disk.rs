//! What a workspace holds. Walked by descriptors, without following links: a command may change it at the time.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, open, openat, statat};
use rustix::io::Errno;

/// How deep folders are followed; what is deeper counts as too many files.
const MAX_DEPTH: usize = 64;

/// Most files and folders of one workspace: what a large project has, and a disk has inodes for.
pub const MAX_FILES: u64 = 50_000;

/// Disk space and files of a workspace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Space {
    /// Bytes on the disk, files and folders.
    pub bytes: u64,
    /// Files, folders and everything else that has a name.
    pub files: u64,
}

impl Space {
    /// Whether this is more than `bounds`.
    pub fn exceeds(self, bounds: Self) -> bool {
        self.bytes > bounds.bytes || self.files > bounds.files
    }

    /// The larger of each.
    pub fn max(self, other: Self) -> Self {
        Self { bytes: self.bytes.max(other.bytes), files: self.files.max(other.files) }
    }
}

/// What is in `dir`; not followed further than to twice `bounds`' files. With `open_up`, folders that
/// a command closed to their owner are opened again; without, they are left out.
pub fn measure(dir: &Path, bounds: Space, open_up: bool) -> Space {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut walk = Walk { used: Space::default(), most: bounds.files.saturating_mul(2), open_up };
    if let Ok(root) = open(dir, flags, Mode::empty()) {
        walk.folder(&root, 0);
    }
    walk.used
}

struct Walk {
    used: Space,
    most: u64,
    open_up: bool,
}

impl Walk {
    fn folder(&mut self, folder: &OwnedFd, depth: usize) {
        let Ok(entries) = Dir::read_from(folder) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if self.used.files > self.most {
                return;
            }
            let Ok(stat) = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            self.used.files += 1;
            // In units of 512 bytes, whatever the block size.
            self.used.bytes += stat.st_blocks.unsigned_abs() * 512;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                self.below(folder, name, depth + 1);
            }
        }
    }

    fn below(&mut self, folder: &OwnedFd, name: &std::ffi::CStr, depth: usize) {
        if depth > MAX_DEPTH {
            self.used.files = self.most.saturating_add(1);
            return;
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(folder, name, flags, Mode::empty());
        let opened = match opened {
            Err(Errno::ACCESS) if self.open_up => {
                unclose(folder, name).and_then(|()| openat(folder, name, flags, Mode::empty()))
            }
            opened => opened,
        };
        if let Ok(opened) = opened {
            self.folder(&opened, depth);
        }
    }
}

/// Gives the owner of a folder its permissions back. By descriptor: what has its name by then doesn't matter.
fn unclose(folder: impl AsFd, name: &std::ffi::CStr) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let closed = openat(folder, name, flags, Mode::empty())?;
    // A descriptor of a path only can't be given to fchmod; its entry in /proc can.
    rustix::fs::chmod(format!("/proc/self/fd/{}", closed.as_raw_fd()), Mode::RWXU)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Space = Space { bytes: 1 << 20, files: 100 };

    #[test]
    fn files_below_are_counted_and_links_out_are_not_followed() {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(place.path().join("a/b")).unwrap();
        std::fs::write(place.path().join("a/b/file"), vec![1; 100_000]).unwrap();
        std::os::unix::fs::symlink("/usr", place.path().join("link")).unwrap();
        let used = measure(place.path(), BOUNDS, false);
        assert_eq!(used.files, 4);
        assert!((100_000..200_000).contains(&used.bytes), "{used:?}");
        assert!(!used.exceeds(BOUNDS) && used.exceeds(Space { files: 3, ..BOUNDS }));
    }

    #[test]
    fn a_folder_too_deep_is_too_much() {
        let place = tempfile::tempdir().unwrap();
        let deep: std::path::PathBuf = std::iter::repeat_n("d", MAX_DEPTH + 2).collect();
        std::fs::create_dir_all(place.path().join(deep)).unwrap();
        assert!(measure(place.path(), Space { files: 1000, ..BOUNDS }, false).exceeds(BOUNDS));
    }
}
