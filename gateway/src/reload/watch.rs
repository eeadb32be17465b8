//! Tells when something happens to a file: to itself, and to every link on the way to it, as in a
//! ConfigMap's volume (`switchyard.toml → ..data/switchyard.toml`, `..data → ..2030_01_01`).
//!
//! Folders are watched, not files: a file that is renamed over has another inode.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;

/// After an event that leaves the file whole, such as a rename over it: events come in small
/// groups.
pub(super) const SETTLE: Duration = Duration::from_millis(10);
/// After a write without a close: somebody is in the middle of writing.
const WRITING: Duration = Duration::from_secs(1);
/// After the file went away: some editors take it away and write it anew.
const GONE: Duration = Duration::from_millis(100);
/// Links that are followed on one path, as many as Linux does.
const LINKS_MAX: usize = 40;

/// The watched path.
pub(super) struct Watch {
    file: PathBuf,
    /// `None`: the system can't tell, or not any more.
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
    /// The file and the links on the way to it, each by the real path of its folder.
    names: Arc<ArcSwap<Vec<PathBuf>>>,
    settle: watch::Receiver<Duration>,
}

impl Watch {
    /// Watches from now on.
    pub(super) fn new(file: &Path) -> Self {
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let names = Arc::new(ArcSwap::from_pointee(Vec::new()));
        let (told, settle) = watch::channel(SETTLE);
        let filter = Arc::clone(&names);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if let Some(settle) = meaning(event.as_ref().ok(), &filter.load()) {
                told.send_replace(settle);
            }
        });
        let watcher = watcher.inspect_err(untold).ok();
        let mut watch = Self { file, watcher, folders: BTreeSet::new(), names, settle };
        watch.rearm();
        watch
    }

    /// Something happened to the file; it may be whole when nothing more happens for so long.
    pub(super) async fn changed(&mut self) -> Duration {
        match self.settle.changed().await {
            Ok(()) => *self.settle.borrow_and_update(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Follows the links anew: they may lead elsewhere now, and watches of folders that were taken
    /// away are gone even where there is one of the same name again.
    pub(super) fn rearm(&mut self) {
        let names = names(&self.file);
        let folders: BTreeSet<_> =
            names.iter().filter_map(|name| name.parent()).map(Path::to_owned).collect();
        self.names.store(Arc::new(names));
        let Some(watcher) = &mut self.watcher else { return };
        for gone in self.folders.difference(&folders) {
            // The folder may have taken its watch with it.
            let _ = watcher.unwatch(gone);
        }
        let new = |folder: &&PathBuf| !self.folders.contains(*folder);
        let failed = folders.iter().filter_map(|folder| {
            let watched = watcher.watch(folder, RecursiveMode::NonRecursive);
            watched.err().filter(|_| new(&folder))
        });
        failed.for_each(|error| untold(&error));
        self.folders = folders;
    }
}

fn untold(error: &notify::Error) {
    tracing::warn!(%error, "edits of the table are noticed by looking only, every two seconds");
}

/// The file and every link on the way to it: each of them decides where the path leads.
fn names(file: &Path) -> Vec<PathBuf> {
    let parts = |path: &Path| -> Vec<OsString> {
        path.components().rev().map(|part| part.as_os_str().to_owned()).collect()
    };
    let (mut names, mut here, mut todo) = (Vec::new(), PathBuf::new(), parts(file));
    while let Some(part) = todo.pop() {
        match Path::new(&part).components().next() {
            Some(Component::ParentDir) => {
                here.pop();
            }
            Some(Component::Normal(_)) => {
                let next = here.join(&part);
                match std::fs::read_link(&next) {
                    Ok(target) if names.len() < LINKS_MAX => {
                        names.push(next);
                        todo.extend(parts(&target));
                    }
                    _ => here = next,
                }
            }
            // A root, of the path itself or of a link's target.
            _ => here.push(&part),
        }
    }
    names.push(here);
    names
}

/// How long to wait after this event until the file may be read; `None`: it is not about it.
/// Without an event (the system lost some) everything may have happened.
fn meaning(event: Option<&Event>, names: &[PathBuf]) -> Option<Duration> {
    let Some(event) = event.filter(|event| !event.need_rescan()) else { return Some(SETTLE) };
    let path = event.paths.iter().find(|path| names.contains(path))?;
    // Elsewhere than on Linux nobody tells of a close.
    let writing = if cfg!(target_os = "linux") { WRITING } else { GONE };
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(SETTLE),
        EventKind::Access(_) => None,
        EventKind::Create(_) if !path.is_symlink() => Some(writing),
        EventKind::Modify(ModifyKind::Data(_)) => Some(writing),
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => Some(GONE),
        _ => Some(SETTLE),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_link_on_the_way_counts() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        let at = |name: &str| real.join(name);
        std::fs::create_dir(at("..2030_01")).unwrap();
        std::fs::write(at("..2030_01/t.toml"), "").unwrap();
        symlink("..2030_01", at("..data")).unwrap();
        symlink("..data/t.toml", at("t.toml")).unwrap();
        symlink(at("./x/../t.toml"), at("absolute")).unwrap();
        let chain = [at("t.toml"), at("..data"), at("..2030_01/t.toml")];
        assert_eq!(names(&at("t.toml")), chain);
        assert_eq!(names(&at("absolute")), [&[at("absolute")][..], &chain[..]].concat());
        symlink(at("loop"), at("loop")).unwrap();
        assert!(names(&at("loop")).len() <= LINKS_MAX + 1);
        assert_eq!(names(&at("absent/t")), [at("absent/t")]);
    }

    #[tokio::test]
    async fn what_happens_to_other_files_is_not_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.toml");
        std::fs::write(&file, "1").unwrap();
        let mut watch = Watch::new(&file);
        std::fs::write(folder.path().join("other"), "1").unwrap();
        std::fs::read(&file).unwrap();
        std::fs::rename(folder.path().join("other"), &file).unwrap();
        // The first that is told is the rename: the others would have asked for a longer wait.
        assert_eq!(watch.changed().await, SETTLE);
    }

    #[tokio::test]
    async fn a_file_in_the_middle_of_being_written_is_left_alone_until_it_is_closed() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.toml");
        std::fs::write(&path, "1").unwrap();
        let mut watch = Watch::new(&path);
        let mut file = std::fs::File::create(&path).unwrap();
        assert_eq!(watch.changed().await, WRITING);
        file.write_all(b"2").unwrap();
        drop(file);
        while watch.changed().await != SETTLE {}
        std::fs::remove_file(&path).unwrap();
        while watch.changed().await != GONE {}
    }

    #[tokio::test]
    async fn a_folder_that_is_made_anew_is_watched_again() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        let path = inner.join("t.toml");
        std::fs::create_dir(&inner).unwrap();
        let mut watch = Watch::new(&path);
        std::fs::remove_dir(&inner).unwrap();
        std::fs::create_dir(&inner).unwrap();
        watch.rearm();
        std::fs::write(&path, "1").unwrap();
        watch.changed().await;
    }
}
