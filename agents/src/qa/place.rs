//! Where an index lies on disk: in a folder that was named, and is found again at the next start, or in a temporary one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Our folders begin with this; nothing else is ever removed.
const PREFIX: &str = "switchyard-qa-";
/// Held while an agent runs.
const LOCK: &str = "lock";
/// Agents that may keep their indexes in one folder: replicas on one machine are told the same.
const MAX_SLOTS: usize = 16;

/// A folder that no other agent uses meanwhile.
pub(super) struct Place {
    /// The folder.
    pub(super) path: PathBuf,
    /// Removes the folder at the end, where it is temporary.
    _temporary: Option<tempfile::TempDir>,
    _lock: File,
}

impl Place {
    /// In `folder`, or a temporary one.
    ///
    /// # Errors
    /// One line that says what to do.
    pub(super) fn open(folder: Option<&Path>) -> Result<Self, String> {
        match folder {
            Some(folder) => Self::slot(folder)
                .map_err(|error| format!("no index can be kept in {}: {error}", folder.display())),
            None => Self::temporary().map_err(|error| {
                let folder = std::env::temp_dir();
                let folder = folder.display();
                format!("no index can be made in {folder}: {error}; name a folder with --index or AGENT_INDEX")
            }),
        }
    }

    fn slot(folder: &Path) -> io::Result<Self> {
        for number in 0..MAX_SLOTS {
            let path = folder.join(format!("{PREFIX}{number}"));
            fs::create_dir_all(&path)?;
            if let Some(lock) = lock(&path)? {
                return Ok(Self { path, _temporary: None, _lock: lock });
            }
        }
        Err(io::Error::other(format!("{MAX_SLOTS} agents use it already; name another")))
    }

    fn temporary() -> io::Result<Self> {
        let all = std::env::temp_dir();
        remove_left_behind(&all);
        let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(all)?;
        // Under its name only once it is held: who removes what was left behind must not find it free.
        let unnamed = made.path().join("lock.new");
        let lock = try_lock(&unnamed)?.ok_or_else(|| io::Error::other("it is in use"))?;
        fs::rename(unnamed, made.path().join(LOCK))?;
        Ok(Self { path: made.path().to_owned(), _temporary: Some(made), _lock: lock })
    }

    /// Removes what is in the folder, but for the lock: it does not fit this program.
    ///
    /// # Errors
    /// When that fails.
    pub(super) fn clear(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)?.flatten() {
            if entry.file_name() != LOCK {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn lock(folder: &Path) -> io::Result<Option<File>> {
    try_lock(&folder.join(LOCK))
}

fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Agents that were killed could not remove theirs: in a pod, /tmp outlives its container.
fn remove_left_behind(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let ours = entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes());
        // Without a lock file it is only being made, or is no folder of ours.
        if ours && entry.path().join(LOCK).is_file() && matches!(lock(&entry.path()), Ok(Some(_))) {
            // Others' are not ours to remove; then it stays.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_agent_has_a_folder_of_its_own_and_finds_it_again() {
        let kept = tempfile::tempdir().unwrap();
        let first = Place::open(Some(kept.path())).unwrap();
        let second = Place::open(Some(kept.path())).unwrap();
        assert_ne!(first.path, second.path);
        fs::write(first.path.join("x"), "").unwrap();
        let path = first.path.clone();
        drop(first);
        let again = Place::open(Some(kept.path())).unwrap();
        assert_eq!(again.path, path);
        assert!(path.join("x").exists());
        again.clear().unwrap();
        assert!(!path.join("x").exists() && path.join(LOCK).exists());
    }

    #[test]
    fn what_a_killed_agent_left_is_removed_and_what_a_live_one_has_is_not() {
        let all = tempfile::tempdir().unwrap();
        let at = |name: &str| all.path().join(format!("{PREFIX}{name}"));
        for name in ["dead", "live", "other"] {
            fs::create_dir(at(name)).unwrap();
        }
        let held = lock(&at("live")).unwrap().unwrap();
        drop(lock(&at("dead")).unwrap());
        remove_left_behind(all.path());
        assert_eq!(["dead", "live", "other"].map(|name| at(name).exists()), [false, true, true]);
        drop(held);
    }
}
