//! Files of a workspace by relative path, as tools read and write them: answers and errors are texts for a model.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, fchmod, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use super::beneath::{Inside, Root, folder_in};
use super::edit;
use super::search::{Query, search};

/// Most of a file that is read at once, bytes.
const MAX_READ: usize = 64 << 10;
/// Largest file that is edited, bytes: it is held in memory three times.
const MAX_EDIT: u64 = 4 << 20;
/// Most entries that are listed, and how deep.
const MAX_ENTRIES: usize = 500;
const MAX_DEPTH: usize = 8;
/// So far a file is looked at to see whether it is text, bytes.
const SNIFFED: usize = 8 << 10;

/// A workspace's files.
pub(crate) struct Files {
    root: Root,
}

impl Files {
    /// The files of `dir`; what is made belongs to `owner` where there is one.
    ///
    /// # Errors
    /// When there is no such folder.
    pub(crate) fn of(dir: &Path, owner: Option<u32>) -> Result<Self, String> {
        Root::of(dir, owner).map(|root| Self { root }).map_err(|error| say(".", error))
    }

    /// What is in the folder `path`, with sizes, and in those below.
    ///
    /// # Errors
    /// When it is no folder in the workspace.
    pub(crate) fn list(&self, path: &str) -> Result<String, String> {
        let dir = self.root.folder(&Inside::parse(path)?).map_err(|error| say(path, error))?;
        let mut lines = Vec::new();
        list_into(&dir, "", 0, &mut lines).map_err(|error| say(path, error))?;
        if lines.is_empty() {
            return Ok("(empty)".to_owned());
        }
        if lines.len() >= MAX_ENTRIES {
            lines.push(format!(
                "… only the first {MAX_ENTRIES} entries are shown; list a folder below"
            ));
        }
        Ok(lines.join("\n"))
    }

    /// The text of the file `path`, from line `first` to line `last`, as far as it is not too long.
    ///
    /// # Errors
    /// When it is no text file in the workspace, or has no such lines.
    pub(crate) fn read(&self, path: &str, first: u64, last: u64) -> Result<String, String> {
        if first < 1 || last < first {
            return Err("lines count from 1, and end_line is not before start_line".to_owned());
        }
        let file = self.root.file(&Inside::parse(path)?).map_err(|error| say(path, error))?;
        let mut reader = BufReader::with_capacity(SNIFFED, file);
        let start = reader.fill_buf().map_err(|error| say(path, error))?;
        if start.contains(&0) {
            return Err(format!(
                "{path}: is binary; look at it with run, by a program that knows it"
            ));
        }
        read_lines(reader, first, last).map_err(|error| say(path, error))?.said(path)
    }

    /// Writes the file `path` anew, whole, with the folders on its way.
    ///
    /// # Errors
    /// When it cannot be a file in the workspace.
    pub(crate) fn write(&self, path: &str, content: &str) -> Result<(), String> {
        let inside = Inside::parse(path)?;
        let Some((folder, name)) = inside.split() else {
            return Err(format!("{path}: is a folder, not a file"));
        };
        let put = || {
            let folder = self.root.make_folder(&folder)?;
            let mode = mode_of_plain(&folder, name)?;
            self.replace(&folder, name, mode, content.as_bytes())
        };
        put().map_err(|error: io::Error| say(path, error))
    }

    /// Replaces `old` by `new` in the file `path`: where it is, once, or everywhere with `all`. Returns where.
    ///
    /// # Errors
    /// When there is no such file or text, or the text is there more than once.
    pub(crate) fn edit(
        &self,
        path: &str,
        old: &str,
        new: &str,
        all: bool,
    ) -> Result<String, String> {
        let file = self.root.file(&Inside::parse(path)?).map_err(|error| say(path, error))?;
        let length = file.metadata().map_err(|error| say(path, error))?.len();
        if length > MAX_EDIT {
            return Err(format!(
                "{path}: has {length} bytes, too many to edit; change it with run"
            ));
        }
        let text = io::read_to_string(io::Read::take(file, MAX_EDIT)).map_err(|error| {
            let binary = error.kind() == io::ErrorKind::InvalidData;
            if binary {
                format!("{path}: is not UTF-8 text; change it with run")
            } else {
                say(path, error)
            }
        })?;
        let (text, lines) =
            edit::replace(&text, old, new, all).map_err(|why| format!("{path}: {why}"))?;
        self.write(path, &text)?;
        Ok(edit::said(&lines))
    }

    /// The lines that match; see [`search`].
    ///
    /// # Errors
    /// What is wrong with the query.
    pub(super) fn search(&self, query: &Query) -> Result<String, String> {
        search(&self.root, query)
    }

    /// By a file beside it that takes its name: who reads meanwhile sees all of the old or all of the new.
    fn replace(&self, folder: &OwnedFd, name: &str, mode: Mode, content: &[u8]) -> io::Result<()> {
        let new = format!(".{}.new", uuid::Uuid::now_v7().simple());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mut file =
            File::from(openat(folder, &new, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o600))?);
        let mut put = || {
            file.write_all(content)?;
            self.root.give(&file)?;
            fchmod(&file, mode)?;
            Ok(renameat(folder, &new, folder, name)?)
        };
        put().inspect_err(|_| {
            let _ = unlinkat(folder, &new, AtFlags::empty());
        })
    }
}

/// The permissions that a file keeps when it is written anew, or those of a new one.
fn mode_of_plain(folder: &OwnedFd, name: &str) -> Result<Mode, Errno> {
    let stat = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(Mode::from_raw_mode(0o644)),
        stat => stat?,
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Err(Errno::ISDIR),
        FileType::Symlink => Err(Errno::LOOP),
        FileType::RegularFile if stat.st_nlink <= 1 => {
            Ok(Mode::from_raw_mode(stat.st_mode & 0o777))
        }
        _ => Err(Errno::INVAL),
    }
}

/// Some lines of a file.
struct Lines {
    text: Vec<u8>,
    first: u64,
    /// The line at which reading stopped, and whether that was for the length of the text.
    next: u64,
    cut: bool,
    more: bool,
}

/// Reads on to the lines that are meant, holding no more of them than are shown, however long they are.
fn read_lines(mut file: impl BufRead, first: u64, last: u64) -> io::Result<Lines> {
    let mut read = Lines { text: Vec::new(), first, next: 1, cut: false, more: true };
    while read.next <= last {
        let buffer = file.fill_buf()?;
        if buffer.is_empty() {
            read.more = false;
            return Ok(read);
        }
        let end = memchr::memchr(b'\n', buffer);
        let length = end.map_or(buffer.len(), |at| at + 1);
        if read.next >= first {
            let fits = length.min(MAX_READ - read.text.len());
            read.text.extend_from_slice(&buffer[..fits]);
            if fits < length {
                read.cut = true;
                return Ok(read);
            }
        }
        file.consume(length);
        read.next += u64::from(end.is_some());
    }
    read.more = !file.fill_buf()?.is_empty();
    Ok(read)
}

impl Lines {
    fn said(self, path: &str) -> Result<String, String> {
        let Self { first, next, cut, more, .. } = self;
        if self.text.is_empty() && first > 1 && !more {
            return Err(format!("{path}: has fewer than {first} lines"));
        }
        let mut text = String::from_utf8_lossy(&self.text).into_owned();
        if cut && next == first {
            text.push_str("\n… this line is longer than is shown; look at it with run");
        } else if more {
            let end = if text.ends_with('\n') { "" } else { "\n" };
            text.push_str(&format!("{end}… more in the file: read on with start_line {next}"));
        }
        Ok(text)
    }
}

fn list_into(
    dir: &OwnedFd,
    above: &str,
    depth: usize,
    lines: &mut Vec<String>,
) -> Result<(), Errno> {
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
                if depth < MAX_DEPTH
                    && let Ok(below) = folder_in(dir, &entry)
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

pub(super) fn say(path: &str, error: impl Into<io::Error>) -> String {
    let error = error.into();
    let why = match error.raw_os_error() {
        Some(libc::ELOOP | libc::ENOTDIR) => {
            "is or leads through something that is no folder; symbolic links are not followed"
        }
        Some(libc::ENOENT) => "there is no such file or folder",
        Some(libc::EINVAL) => "is not a plain file, or has a second name elsewhere",
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
        assert_eq!(files.read("a/b.txt", 1, u64::MAX).unwrap(), "hi");
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
            assert!(files.read(path, 1, 9).is_err(), "{path}");
            assert!(files.write(path, "gone").is_err(), "{path}");
        }
        assert!(files.list("up").is_err());
        let outside = std::fs::read_to_string(place.path().join("outside")).unwrap();
        assert_eq!(outside, "secret");
    }

    #[test]
    fn a_file_is_read_by_lines_and_says_where_to_read_on() {
        let (_place, files) = workspace();
        files.write("f", "one\ntwo\nthree\nfour").unwrap();
        let read = |first, last| files.read("f", first, last);
        assert_eq!(read(1, u64::MAX).unwrap(), "one\ntwo\nthree\nfour");
        assert_eq!(read(4, 9).unwrap(), "four");
        assert_eq!(
            read(2, 3).unwrap(),
            "two\nthree\n… more in the file: read on with start_line 4"
        );
        assert!(read(5, 9).unwrap_err().contains("has fewer than 5 lines"));
        assert!(read(0, 9).is_err() && read(3, 2).is_err());
        let long: String = (0..20_000).map(|n| format!("{n}\n")).collect();
        files.write("long", &long).unwrap();
        let part = files.read("long", 1, u64::MAX).unwrap();
        let (_, on) = part.rsplit_once(' ').unwrap();
        let rest = files.read("long", on.parse().unwrap(), u64::MAX).unwrap();
        assert!(rest.starts_with(&format!("{}\n", on.parse::<u64>().unwrap() - 1)), "{rest:.20}");
        files.write("wide", &"x".repeat(2 * MAX_READ)).unwrap();
        assert!(files.read("wide", 1, 1).unwrap().ends_with("look at it with run"));
        files.write("binary", "a\0b").unwrap();
        assert!(files.read("binary", 1, 1).unwrap_err().contains("is binary"));
    }

    #[test]
    fn a_file_is_edited_and_stays_executable() {
        use std::os::unix::fs::PermissionsExt;
        let (place, files) = workspace();
        files.write("run.sh", "echo a\necho b\n").unwrap();
        let path = place.path().join("in/run.sh");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(files.edit("run.sh", "echo b", "echo c", false).unwrap(), "in line 2");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "echo a\necho c\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
        assert!(files.edit("run.sh", "echo", "x", false).unwrap_err().contains("occurs 2 times"));
        assert!(files.edit("missing", "a", "b", false).is_err());
        std::fs::write(place.path().join("in/latin"), b"caf\xe9").unwrap();
        assert!(files.edit("latin", "a", "b", false).unwrap_err().contains("not UTF-8"));
        assert_eq!(std::fs::read_dir(place.path().join("in")).unwrap().count(), 2);
    }

    #[test]
    fn a_pipe_does_not_hold_the_agent_up() {
        let (place, files) = workspace();
        let made = std::process::Command::new("mkfifo").arg(place.path().join("in/pipe")).status();
        assert!(made.unwrap().success());
        assert!(files.read("pipe", 1, 9).is_err());
        assert!(files.write("pipe", "x").is_err());
    }
}
