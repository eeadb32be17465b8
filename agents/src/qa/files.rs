//! The folder of documents: which files count, whether one has changed, and its text, whole or not at all.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// Bounds of what is read: documents for people, not a disk. What memory and start-up time were measured with.
pub(super) const MAX_FILES: usize = 10_000;
pub(super) const MAX_FILE: u64 = 4 << 20;
pub(super) const MAX_BYTES: u64 = 64 << 20;
const MAX_DEPTH: usize = 16;
/// A file that was written later than this before it is looked at may be in the middle of it.
pub(super) const SETTLED: Duration = Duration::from_secs(1);

/// What of a file's metadata changes when its content does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    length: u64,
    modified_ns: i64,
    changed_ns: i64,
    inode: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
        Self {
            length: metadata.len(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
        }
    }

    /// Whether it is old enough that a further write would show in it: clocks of file systems are coarse.
    pub(super) fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let age = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX).saturating_sub(self.changed_ns);
        // A clock that is behind says nothing: then it counts as settled, or it never would.
        !(0..SETTLED.as_nanos() as i64).contains(&age)
    }
}

/// A document that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Document {
    pub(super) path: PathBuf,
    /// As cited: with the folder's own name.
    pub(super) name: String,
    pub(super) stamp: Stamp,
}

/// Why a file is not in the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub(super) name: String,
    pub(super) why: &'static str,
}

/// What is there.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// In the order of their names.
    pub(super) documents: Vec<Document>,
    pub(super) left_out: Vec<LeftOut>,
}

/// The folder.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    /// As it was named: a link is followed anew each time.
    pub(super) path: PathBuf,
    name: PathBuf,
}

impl Folder {
    /// The folder at `path`.
    pub(super) fn new(path: &Path) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let whole = path.canonicalize().unwrap_or_else(|_| path.clone());
        let name = path.file_name().or_else(|| whole.file_name());
        let name = name.map_or_else(PathBuf::new, PathBuf::from);
        Self { path, name }
    }

    /// The Markdown and text files in it and below, as far as the bounds allow.
    ///
    /// # Errors
    /// When the folder itself cannot be read.
    pub(super) fn list(&self) -> io::Result<Listing> {
        let mut found = Vec::new();
        let mut listing = Listing::default();
        find(fs::read_dir(&self.path)?, 0, &mut found);
        found.sort();
        let mut left = MAX_BYTES;
        for path in found {
            let inner = path.strip_prefix(&self.path).unwrap_or(&path);
            let name = self.name.join(inner).display().to_string();
            let stamp = match fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => Stamp::of(&metadata),
                // A folder of that name, or a link to one; or gone meanwhile.
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(_) => {
                    listing.left_out.push(LeftOut { name, why: "it cannot be read" });
                    continue;
                }
            };
            let why = if stamp.length > MAX_FILE {
                "it is larger than 4 MiB"
            } else if stamp.length > left {
                "the documents before it have 64 MiB together"
            } else if listing.documents.len() == MAX_FILES {
                "there are 10,000 before it"
            } else {
                left -= stamp.length;
                listing.documents.push(Document { path, name, stamp });
                continue;
            };
            listing.left_out.push(LeftOut { name, why });
        }
        Ok(listing)
    }
}

impl Document {
    /// The text, when it is whole: nobody wrote to it while it was read.
    ///
    /// # Errors
    /// Says why not.
    pub(super) fn read(&self) -> Result<String, Unread> {
        let open = || -> io::Result<(Vec<u8>, bool)> {
            let mut file = File::open(&self.path)?;
            let before = Stamp::of(&file.metadata()?);
            let mut bytes = Vec::with_capacity(self.stamp.length as usize);
            (&mut file).take(MAX_FILE + 1).read_to_end(&mut bytes)?;
            let same = Stamp::of(&file.metadata()?) == before && before == self.stamp;
            Ok((bytes, same))
        };
        let (bytes, same) = match open() {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unread::Changing),
            Err(_) => return Err(Unread::Never("it cannot be read")),
        };
        if !same {
            return Err(Unread::Changing);
        }
        let text = String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
        text.ok_or(Unread::Never("it is no UTF-8 text"))
    }

    /// Whether `#` makes a heading in it.
    pub(super) fn is_markdown(&self) -> bool {
        !has_ending(&self.path, &["txt", "text"])
    }
}

/// Why a text was not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// It is being written or replaced: to be looked at again.
    Changing,
    /// It is no document.
    Never(&'static str),
}

/// Collects the files. Links to files count (a mounted ConfigMap is made of them), links to folders do not: they may
/// lead in a circle.
fn find(folder: fs::ReadDir, depth: usize, found: &mut Vec<PathBuf>) {
    // Twice the bound: enough to say that there are too many, whichever come first.
    let most = 2 * MAX_FILES;
    for entry in folder.flatten() {
        if found.len() >= most || entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if let Ok(inner) = fs::read_dir(&path)
                && depth < MAX_DEPTH
            {
                find(inner, depth + 1, found);
            }
        } else if has_ending(&path, &["md", "markdown", "txt", "text"]) {
            found.push(path);
        }
    }
}

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    ending.is_some_and(|ending| endings.contains(&ending.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_files_and_other_kinds_are_no_documents_and_large_ones_are_named() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::create_dir_all(at("sub/.hidden")).unwrap();
        for name in ["b.md", "a.TXT", "c.png", ".d.md", "sub/e.markdown", "sub/.hidden/f.md"] {
            fs::write(at(name), "text").unwrap();
        }
        let large = File::create(at("large.md")).unwrap();
        large.set_len(MAX_FILE + 1).unwrap();
        let listing = Folder::new(place.path()).list().unwrap();
        let own = Path::new(place.path().file_name().unwrap());
        let names: Vec<_> = listing.documents.iter().map(|d| d.name.as_str()).collect();
        let named = |name: &str| own.join(name).display().to_string();
        assert_eq!(names, [named("a.TXT"), named("b.md"), named("sub/e.markdown")]);
        assert_eq!(listing.left_out.len(), 1);
        assert_eq!(listing.left_out[0].name, named("large.md"));
    }

    #[test]
    fn the_bound_on_all_together_leaves_out_what_comes_last() {
        let place = tempfile::tempdir().unwrap();
        for number in 0..17 {
            let file = File::create(place.path().join(format!("{number:02}.md"))).unwrap();
            file.set_len(MAX_FILE).unwrap();
        }
        let listing = Folder::new(place.path()).list().unwrap();
        assert_eq!((listing.documents.len(), listing.left_out.len()), (16, 1));
        assert!(listing.left_out[0].name.ends_with("16.md"));
    }

    #[test]
    fn a_document_that_changed_since_it_was_listed_is_not_read() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.md");
        fs::write(&path, "one").unwrap();
        let folder = Folder::new(place.path());
        let document = folder.list().unwrap().documents.remove(0);
        assert_eq!(document.read().unwrap(), "one");
        fs::write(&path, "other").unwrap();
        assert_eq!(document.read(), Err(Unread::Changing));
        fs::remove_file(&path).unwrap();
        assert_eq!(document.read(), Err(Unread::Changing));
    }

    #[test]
    fn a_stamp_settles_with_time() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("a.md"), "one").unwrap();
        let stamp = Folder::new(place.path()).list().unwrap().documents[0].stamp;
        let now = SystemTime::now();
        assert!(!stamp.is_settled(now));
        assert!(stamp.is_settled(now + 2 * SETTLED));
        assert!(stamp.is_settled(now - Duration::from_secs(3600)));
    }
}
