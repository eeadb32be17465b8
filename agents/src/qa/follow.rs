//! Following the folder in the background: at an event, and by looking, for file systems that tell of none.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::files::{LeftOut, SETTLED};
use super::update::{UpdateError, Updated, Updater};
use crate::metrics::IndexGauges;

/// Without an event: a look costs one call of the system for each file.
const LOOK: Duration = Duration::from_secs(10);
/// After an event, for those that come with it.
const GATHER: Duration = Duration::from_millis(200);
/// Files that are named in one line of the log.
const NAMED: usize = 20;

/// How far it is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    /// The number of the last commit; 0 before the first.
    pub(super) commit: u64,
    /// Passages in it.
    pub(super) passages: usize,
    /// Whether the last look found the folder, and what it found is in the index.
    pub(super) true_to_folder: bool,
}

/// The job; ended when dropped.
pub(super) struct Follower {
    pub(super) state: watch::Receiver<State>,
    stop: Arc<AtomicBool>,
    job: JoinHandle<()>,
}

impl Follower {
    /// Begins. `stop` is the one that `updater` looks at.
    pub(super) fn start(
        updater: Updater,
        folder: &Path,
        stop: Arc<AtomicBool>,
        gauges: IndexGauges,
    ) -> Self {
        let (told, state) = watch::channel(State::default());
        let ears = Ears::new(folder);
        let job = tokio::spawn(follow(updater, ears, told, gauges));
        Self { state, stop, job }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // An update that is under way is on a thread of its own, which the process would wait for.
        self.stop.store(true, Ordering::Relaxed);
        self.job.abort();
    }
}

async fn follow(
    mut updater: Updater,
    mut ears: Ears,
    told: watch::Sender<State>,
    gauges: IndexGauges,
) {
    let heard = Arc::clone(&ears.heard);
    let mut said = Said::default();
    loop {
        let look = move || {
            // Before the look: what happens during it is heard.
            ears.listen();
            let result = updater.update(SystemTime::now());
            (updater, ears, result)
        };
        let Ok((back, ears_back, result)) = tokio::task::spawn_blocking(look).await else {
            tracing::error!("the documents are not followed any more");
            told.send_modify(|state| state.true_to_folder = false);
            return;
        };
        (updater, ears) = (back, ears_back);
        if matches!(result, Err(UpdateError::Stopped)) {
            return;
        }
        said.say(&result);
        if let Ok(updated) = &result {
            show(updated, &gauges);
        }
        told.send_if_modified(|state| {
            let before = *state;
            next(state, &result);
            *state != before
        });
        let unsettled = result.is_ok_and(|updated| updated.unsettled);
        let wait = if unsettled { SETTLED + GATHER } else { LOOK };
        if tokio::time::timeout(wait, heard.notified()).await.is_ok() {
            tokio::time::sleep(GATHER).await;
        }
    }
}

fn next(state: &mut State, result: &Result<Updated, UpdateError>) {
    match result {
        Ok(updated) => {
            state.commit += u64::from(updated.changed || state.commit == 0);
            (state.passages, state.true_to_folder) = (updated.passages, true);
        }
        Err(_) => state.true_to_folder = false,
    }
}

fn show(updated: &Updated, gauges: &IndexGauges) {
    gauges.files.set(updated.files as f64);
    gauges.passages.set(updated.passages as f64);
    gauges.left_out.set(updated.left_out.len() as f64);
}

/// What the log was told last: the same is not told again.
#[derive(Default)]
struct Said {
    left_out: Vec<LeftOut>,
    error: Option<String>,
}

impl Said {
    fn say(&mut self, result: &Result<Updated, UpdateError>) {
        match result {
            Ok(updated) => {
                if updated.changed || self.error.is_some() {
                    let Updated { files, passages, .. } = updated;
                    tracing::info!(files, passages, "indexed");
                }
                self.error = None;
                self.name(&updated.left_out);
            }
            Err(error) => {
                let line = error.to_string();
                if self.error.as_ref() != Some(&line) {
                    let error = error as &dyn std::error::Error;
                    tracing::warn!(
                        error,
                        "the documents cannot be followed; the last index stands"
                    );
                }
                self.error = Some(line);
            }
        }
    }

    fn name(&mut self, left_out: &[LeftOut]) {
        let new: Vec<_> = left_out.iter().filter(|file| !self.left_out.contains(file)).collect();
        for file in new.iter().take(NAMED) {
            tracing::warn!(file = file.name, why = file.why, "left out of the index");
        }
        if let Some(more) = new.len().checked_sub(NAMED).filter(|more| *more > 0) {
            tracing::warn!(more, "further files are left out of the index");
        }
        self.left_out = left_out.to_vec();
    }
}

/// Hears of changes in a folder.
struct Ears {
    folder: PathBuf,
    /// Device and inode of the folder that is listened to: one of the same name may take its place.
    listening: Option<(u64, u64)>,
    watcher: Option<RecommendedWatcher>,
    heard: Arc<Notify>,
}

impl Ears {
    fn new(folder: &Path) -> Self {
        let heard = Arc::new(Notify::new());
        Self { folder: folder.to_owned(), listening: None, watcher: None, heard }
    }

    /// Listens to the folder that is there now.
    fn listen(&mut self) {
        let there = std::fs::metadata(&self.folder).ok().map(|its| (its.dev(), its.ino()));
        if there == self.listening {
            return;
        }
        self.listening = there;
        self.watcher = None;
        if there.is_none() {
            return;
        }
        let heard = Arc::clone(&self.heard);
        let made = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| !matters(&event.kind)) {
                return;
            }
            heard.notify_one();
        });
        let watched = made.and_then(|mut watcher| {
            watcher.watch(&self.folder, RecursiveMode::Recursive)?;
            Ok(watcher)
        });
        match watched {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => {
                tracing::warn!(%error, "changes of documents are noticed by looking only, every 10 s");
            }
        }
    }
}

/// Our own reading is no change.
fn matters(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(access) => *access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}
