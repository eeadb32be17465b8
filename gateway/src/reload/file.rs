//! The table's file: whether it changed, and what it or another source of the text holds.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use config::Problem;
use sha2::{Digest, Sha256};

use super::{Edit, Version};

/// Largest file that is read. A table of 10,000 agents has about 2 MiB.
const BYTES_MAX: u64 = 16 << 20;

/// What tells one state of a file from another without reading it: device, inode, size, and the
/// times of its last changes in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(u64, u64, u64, (i64, i64), (i64, i64));

impl Stamp {
    /// Of what the path leads to, through all links; `None` where it leads nowhere.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        let modified = (meta.mtime(), meta.mtime_nsec());
        let changed = (meta.ctime(), meta.ctime_nsec());
        Some(Self(meta.dev(), meta.ino(), meta.size(), modified, changed))
    }
}

/// What a file holds, or an edit from elsewhere.
#[derive(Debug, Clone)]
pub(super) struct Contents {
    /// What its problems are called by: a file's path.
    pub(super) name: String,
    /// Why there is no text, where there is none.
    pub(super) text: Result<String, Problem>,
    /// SHA-256 of the bytes, hexadecimal; empty where the file could not be read.
    pub(super) hash: String,
    /// Which edit it is, where it isn't the file's.
    pub(super) version: Option<Version>,
}

impl Contents {
    /// Reads it. Blocks.
    pub(super) fn read(path: &Path) -> Self {
        let bytes = bytes(path).map_err(|error| format!("can't be read: {error}"));
        Self::of(path.display().to_string(), bytes, None)
    }

    /// From elsewhere.
    pub(super) fn edit(edit: Edit) -> Self {
        Self::of(edit.name, edit.bytes, Some(edit.version))
    }

    fn of(name: String, bytes: Result<Vec<u8>, String>, version: Option<Version>) -> Self {
        let problem =
            |line, col, message| Problem { file: name.clone(), line, col, message, hint: None };
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(why) => {
                let text = Err(problem(1, 1, why));
                return Self { name, text, hash: String::new(), version };
            }
        };
        let hash = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
            let begun = good.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
            let col = String::from_utf8_lossy(begun).chars().count() + 1;
            problem(line, col, "this byte is no UTF-8".to_owned())
        });
        Self { name, text, hash, version }
    }

    /// What tells contents apart that were refused: the hash, or why there is none.
    pub(super) fn mark(&self) -> &str {
        match &self.text {
            Err(problem) if self.hash.is_empty() => &problem.message,
            _ => &self.hash,
        }
    }
}

fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    // Without it, a pipe in place of the file would be waited for until somebody writes to it.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {} MiB", BYTES_MAX >> 20)));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Contents {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.toml");
        std::fs::write(&path, bytes).unwrap();
        Contents::read(&path)
    }

    fn told(contents: &Contents) -> String {
        contents.text.as_ref().unwrap_err().to_string()
    }

    #[test]
    fn the_hash_is_the_tables() {
        let text = "[agents.qa]\nendpoints = [\"http://127.0.0.1:1\"]\n";
        let table = config::parse(text, "t.toml").unwrap().table;
        assert_eq!(of(text.as_bytes()).hash, table.hash);
    }

    #[test]
    fn bytes_that_are_no_text_are_named_with_their_place() {
        let told = told(&of(b"a = 1\n# \xc3\xa4\xff"));
        assert!(told.ends_with("t.toml:2:4: this byte is no UTF-8"), "{told}");
    }

    #[test]
    fn a_file_without_end_is_not_read_to_its_end() {
        let contents = of(&vec![b'#'; BYTES_MAX as usize + 1]);
        assert!(told(&contents).ends_with("can't be read: it is larger than 16 MiB"));
        assert_eq!(of(&vec![b'#'; BYTES_MAX as usize]).text.unwrap().len() as u64, BYTES_MAX);
    }

    #[test]
    fn what_is_no_file_is_a_problem() {
        let folder = tempfile::tempdir().unwrap();
        assert!(told(&Contents::read(folder.path())).ends_with("it is no regular file"));
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        assert!(told(&Contents::read(&pipe)).ends_with("it is no regular file"));
        let absent = Contents::read(&folder.path().join("absent"));
        assert!(told(&absent).contains("absent:1:1: can't be read: No such file"));
        assert_eq!(absent.hash, "");
    }

    #[test]
    fn a_write_of_the_same_length_changes_the_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        assert_eq!(Stamp::of(&path), None);
        std::fs::write(&path, "1").unwrap();
        let before = Stamp::of(&path);
        // The kernel's clock for files may tick only every few milliseconds.
        while Stamp::of(&path) == before {
            std::fs::write(&path, "2").unwrap();
        }
    }
}
