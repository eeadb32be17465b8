//! Files of a workspace by relative path. No path leaves it: every step is opened from the folder before it, and
//! symbolic links are not followed, whoever made them and whenever.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, fchown, fstat, mkdirat, open, openat, statat,
};

/// Most of a file that is read, bytes.
const MAX_READ: u64 = 64 << 10;
/// Most entries that are listed, and how deep.
const MAX_ENTRIES: usize = 500;
const MAX_DEPTH: usize = 8;
/// Most steps of a path.
const MAX_STEPS: usize = 32;

/// A workspace's files. Answers and errors are texts for a model.
pub(crate) struct Files {
    root: OwnedFd,
    owner: Option<u32>,
}

impl Files {
    /// The files of `dir`; what is made belongs to `owner` where there is one.
    ///
    /// # Errors
    /// When there is no such folder.
    pub(crate) fn of(dir: &Path, owner: Option<u32>) -> Result<Self, String> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = open(dir, flags, Mode::empty()).map_err(|error| say(".", error))?;
        Ok(Self { root, owner })
    }

    /// What is in the folder `path`, with sizes, and in those below.
    ///
    /// # Errors
    /// When it is no folder in the workspace.
    pub(crate) fn list(&self, path: &str) -> Result<String, String> {
        let dir = self.folder(&steps(path)?, false).map_err(|error| say(path, error))?;
        let mut lines = Vec::new();
        list_into(&dir, "", 0, &mut lines).map_err(|error| say(path, error))?;
        if lines.is_empty() {
            return Ok("(empty)".to_owned());
        }
        if lines.len() >= MAX_ENTRIES {
            lines.push(format!("… only the first {MAX_ENTRIES} entries are shown"));
        }
        Ok(lines.join("\n"))
    }

    /// The text of the file `path`, its beginning when it is long.
    ///
    /// # Errors
    /// When it is no file in the workspace.
    pub(crate) fn read(&self, path: &str) -> Result<String, String> {
        let file = self.file(path, OFlags::RDONLY)?;
        let length = file.metadata().map_err(|error| say(path, error))?.len();
        let mut bytes = Vec::new();
        file.take(MAX_READ).read_to_end(&mut bytes).map_err(|error| say(path, error))?;
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        if length > MAX_READ {
            text.push_str(&format!("\n… {} more bytes", length - MAX_READ));
        }
        Ok(text)
    }

    /// Writes the file `path` anew, with the folders on its way.
    ///
    /// # Errors
    /// When it cannot be a file in the workspace.
    pub(crate) fn write(&self, path: &str, content: &str) -> Result<(), String> {
        let mut file = self.file(path, OFlags::WRONLY | OFlags::CREATE)?;
        let write = || {
            if let Some(owner) = self.owner {
                own(&file, owner)?;
            }
            file.set_len(0)?;
            file.write_all(content.as_bytes())
        };
        let mut write = write;
        write().map_err(|error: io::Error| say(path, error))
    }

    fn file(&self, path: &str, flags: OFlags) -> Result<File, String> {
        let steps = steps(path)?;
        let Some((name, folders)) = steps.split_last() else {
            return Err(format!("{path}: is a folder, not a file"));
        };
        // A pipe that a command left there must not hold the agent up.
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = || {
            let folder = self.folder(folders, flags.contains(OFlags::CREATE))?;
            let file = openat(&folder, *name, flags, Mode::from_raw_mode(0o644))?;
            let stat = fstat(&file)?;
            // A second name may lie outside the workspace.
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink > 1 {
                return Err(rustix::io::Errno::INVAL);
            }
            Ok(File::from(file))
        };
        open().map_err(|error| say(path, error))
    }

    fn folder(&self, steps: &[&str], make: bool) -> Result<OwnedFd, rustix::io::Errno> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut folder = openat(&self.root, ".", flags, Mode::empty())?;
        for step in steps {
            if make && mkdirat(&folder, *step, Mode::from_raw_mode(0o755)).is_ok() {
                let made = openat(&folder, *step, flags, Mode::empty())?;
                if let Some(owner) = self.owner {
                    own(&made, owner)?;
                }
            }
            folder = openat(&folder, *step, flags, Mode::empty())?;
        }
        Ok(folder)
    }
}

fn own(file: impl std::os::fd::AsFd, owner: u32) -> Result<(), rustix::io::Errno> {
    let (uid, gid) = (rustix::fs::Uid::from_raw(owner), rustix::fs::Gid::from_raw(owner));
    fchown(file, Some(uid), Some(gid))
}

fn steps(path: &str) -> Result<Vec<&str>, String> {
    if path.starts_with('/') {
        return Err(format!("{path}: paths are relative to the workspace, without a leading /"));
    }
    let steps: Vec<&str> =
        path.split('/').filter(|step| !step.is_empty() && *step != ".").collect();
    if steps.contains(&"..") || path.contains('\0') {
        return Err(format!("{path}: paths stay in the workspace, without .."));
    }
    if steps.len() > MAX_STEPS {
        return Err("the path is too deep".to_owned());
    }
    Ok(steps)
}

fn list_into(
    dir: &OwnedFd,
    above: &str,
    depth: usize,
    lines: &mut Vec<String>,
) -> Result<(), rustix::io::Errno> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            entries.push(name);
        }
        if entries.len() >= MAX_ENTRIES {
            break;
        }
    }
    entries.sort();
    for entry in entries {
        if lines.len() >= MAX_ENTRIES {
            return Ok(());
        }
        let Ok(stat) = statat(dir, &entry, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let name = format!("{above}{}", entry.to_string_lossy());
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                lines.push(format!("{name}/"));
                let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                if depth < MAX_DEPTH
                    && let Ok(below) = openat(dir, &entry, flags, Mode::empty())
                {
                    list_into(&below, &format!("{name}/"), depth + 1, lines)?;
                }
            }
            FileType::RegularFile => lines.push(format!("{name}  {} bytes", stat.st_size)),
            FileType::Symlink => lines.push(format!("{name}  (symbolic link, not followed)")),
            _ => lines.push(format!("{name}  (not a file)")),
        }
    }
    Ok(())
}

fn say(path: &str, error: impl Into<io::Error>) -> String {
    let error = error.into();
    let why = match error.raw_os_error() {
        Some(libc::ELOOP | libc::ENOTDIR) => {
            "is or leads through something that is no folder; symbolic links are not followed"
        }
        Some(libc::ENOENT) => "there is no such file or folder",
        Some(libc::EINVAL) => "is not a plain file",
        Some(libc::EISDIR) => "is a folder, not a file",
        _ => return format!("{path}: {error}"),
    };
    format!("{path}: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace() -> (tempfile::TempDir, Files) {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("outside"), "secret").unwrap();
        std::fs::create_dir(place.path().join("in")).unwrap();
        let files = Files::of(&place.path().join("in"), None).unwrap();
        (place, files)
    }

    #[test]
    fn what_is_written_is_read_and_listed() {
        let (_place, files) = workspace();
        files.write("a/b.txt", "hello").unwrap();
        files.write("./a//b.txt", "hi").unwrap();
        assert_eq!(files.read("a/b.txt").unwrap(), "hi");
        assert_eq!(files.list(".").unwrap(), "a/\na/b.txt  2 bytes");
    }

    #[test]
    fn no_path_leaves_the_workspace() {
        let (place, files) = workspace();
        let inside = place.path().join("in");
        std::os::unix::fs::symlink("../outside", inside.join("link")).unwrap();
        std::os::unix::fs::symlink("..", inside.join("up")).unwrap();
        std::fs::hard_link(place.path().join("outside"), inside.join("hard")).unwrap();
        let absolute = place.path().join("outside").display().to_string();
        for path in ["../outside", "a/../../outside", "link", "up/outside", "hard", &absolute] {
            assert!(files.read(path).is_err(), "{path}");
            assert!(files.write(path, "gone").is_err(), "{path}");
        }
        assert!(files.list("up").is_err());
        let outside = std::fs::read_to_string(place.path().join("outside")).unwrap();
        assert_eq!(outside, "secret");
    }

    #[test]
    fn a_pipe_does_not_hold_the_agent_up() {
        let (place, files) = workspace();
        let made = std::process::Command::new("mkfifo").arg(place.path().join("in/pipe")).status();
        assert!(made.unwrap().success());
        assert!(files.read("pipe").is_err());
        assert!(files.write("pipe", "x").is_err());
    }
}
