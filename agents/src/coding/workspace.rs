//! A folder per session, in which its commands run and its files are; removed when the session is over, when it
//! was idle for long, and with the process.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::RwLock;

use crate::sandbox::disk::Space;

/// Most sessions at once; each may hold files, so that this bounds the disk as well.
pub(crate) const MAX_SESSIONS: usize = 64;
const PREFIX: &str = "agent-";
const LOCK: &str = ".lock";
/// How long a session that nobody uses is kept.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// How often that is looked at.
const SWEEP: Duration = Duration::from_secs(60);
/// Users that no distribution gives out (systemd's list of user ranges names 60578 to 61183 as unused), for commands of sessions.
const FIRST_USER: u32 = 60_578;
const USERS: u32 = 606;
/// Attempts to remove a folder in which a killed command may still be dying.
const REMOVALS: u32 = 20;

/// The sessions' folders.
pub(crate) struct Workspaces {
    root: TempDir,
    /// Locked while this process lives: tells the folder from one whose process was killed.
    _lock: File,
    sessions: Mutex<HashMap<String, Arc<Session>>>,
}

/// One session's folder.
#[derive(Debug)]
pub(crate) struct Session {
    /// The folder.
    pub(crate) dir: PathBuf,
    /// Whom its files belong to where commands run as users of their own.
    pub(crate) user: u32,
    /// Held by who reads files, or alone by who changes one.
    pub(crate) files: Arc<RwLock<()>>,
    used: Mutex<Option<Space>>,
    last: Mutex<Instant>,
}

/// The use of a session. One without a name ends with it.
pub(crate) struct Lease {
    session: Arc<Session>,
    /// Whether its folder was made for this use: whatever the session had before is not in it.
    pub(crate) is_new: bool,
    unnamed: Option<(Weak<Workspaces>, String)>,
}

impl std::ops::Deref for Lease {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl Workspaces {
    /// An empty place for sessions, in `parent`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn new(parent: &Path) -> io::Result<Arc<Self>> {
        remove_abandoned(parent);
        let root = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        let lock = lock(root.path())?;
        // The sessions' users may pass through it, but not look around.
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o711))?;
        let made = Arc::new(Self { root, _lock: lock, sessions: Mutex::default() });
        let weak = Arc::downgrade(&made);
        tokio::spawn(async move {
            let mut sweep = tokio::time::interval(SWEEP);
            loop {
                sweep.tick().await;
                let Some(workspaces) = weak.upgrade() else { return };
                workspaces.remove_idle(IDLE);
            }
        });
        Ok(made)
    }

    /// Where the sessions are.
    pub(crate) fn path(&self) -> &Path {
        self.root.path()
    }

    /// The session of that name, or a new one; without a name, one for this use only. `None` when there
    /// are as many as may be and all are in use.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub(crate) fn open(
        self: &Arc<Self>,
        name: Option<&str>,
        own_user: bool,
    ) -> io::Result<Option<Lease>> {
        let key = name.map_or_else(|| format!("-{}", uuid::Uuid::now_v7().simple()), str::to_owned);
        let mut sessions = self.sessions();
        let known = sessions.get(&key).map(Arc::clone);
        let is_new = known.is_none();
        let session = match known {
            Some(session) => session,
            None => {
                if sessions.len() >= MAX_SESSIONS && !remove_longest_idle(&mut sessions) {
                    return Ok(None);
                }
                let session = Arc::new(self.make(&sessions, own_user)?);
                sessions.insert(key.clone(), Arc::clone(&session));
                session
            }
        };
        let unnamed = name.is_none().then(|| (Arc::downgrade(self), key));
        Ok(Some(Lease { session, is_new, unnamed }))
    }

    fn make(
        &self,
        sessions: &HashMap<String, Arc<Session>>,
        own_user: bool,
    ) -> io::Result<Session> {
        let dir = self.root.path().join(uuid::Uuid::now_v7().simple().to_string());
        let user = free_user(sessions);
        std::fs::create_dir(&dir)?;
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700))?;
        if own_user {
            std::os::unix::fs::chown(&dir, Some(user), Some(user))?;
        }
        let last = Mutex::new(Instant::now());
        Ok(Session { dir, user, files: Arc::default(), used: Mutex::default(), last })
    }

    fn remove_idle(&self, idle: Duration) {
        self.sessions().retain(|_, session| {
            let stays = Arc::strong_count(session) > 1 || session.last_used().elapsed() < idle;
            if !stays {
                remove(session.dir.clone());
            }
            stays
        });
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The user of the first session of this process: processes on one machine start at different ones.
pub(crate) fn first_user() -> u32 {
    FIRST_USER + std::process::id() * 67 % USERS
}

fn free_user(sessions: &HashMap<String, Arc<Session>>) -> u32 {
    let first = first_user() - FIRST_USER;
    let candidates = (0..USERS).map(|step| FIRST_USER + (first + step) % USERS);
    let mut free = candidates.filter(|user| sessions.values().all(|session| session.user != *user));
    free.next().expect("there are more users than sessions")
}

fn remove_longest_idle(sessions: &mut HashMap<String, Arc<Session>>) -> bool {
    let idle = sessions.iter().filter(|(_, session)| Arc::strong_count(session) == 1);
    let Some(name) =
        idle.min_by_key(|(_, session)| session.last_used()).map(|(name, _)| name.clone())
    else {
        return false;
    };
    if let Some(session) = sessions.remove(&name) {
        remove(session.dir.clone());
    }
    true
}

impl Session {
    /// What its folder holds, as far as it is known: at most that.
    pub(crate) fn used(&self) -> Option<Space> {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what it holds in mind; `None` when that has to be found out anew.
    pub(crate) fn set_used(&self, used: Option<Space>) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = used;
    }

    fn last_used(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        *self.session.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let Some((workspaces, key)) = &self.unnamed else { return };
        if let Some(workspaces) = workspaces.upgrade() {
            workspaces.sessions().remove(key);
            remove(self.session.dir.clone());
        }
    }
}

/// Makes the lock's file and takes the lock. Renamed into place only then, so that nobody finds it free.
fn lock(dir: &Path) -> io::Result<File> {
    let new = dir.join(".lock-new");
    let file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
    file.try_lock()?;
    std::fs::rename(new, dir.join(LOCK))?;
    Ok(file)
}

/// Removes what earlier processes of this user left when they were killed.
fn remove_abandoned(parent: &Path) {
    let me = rustix::process::geteuid().as_raw();
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let ours = entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())
            && entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == me);
        if !ours {
            continue;
        }
        let Ok(file) = File::open(entry.path().join(LOCK)) else { continue };
        if file.try_lock().is_ok() {
            remove(entry.path());
        }
    }
}

/// Removes a folder in the background. What cannot be removed goes with the process's own folder.
fn remove(dir: PathBuf) {
    tokio::task::spawn_blocking(move || {
        for attempt in 1..=REMOVALS {
            let Err(error) = std::fs::remove_dir_all(&dir) else { return };
            if error.kind() == io::ErrorKind::NotFound {
                return;
            }
            open_up(&dir);
            if attempt == REMOVALS {
                tracing::warn!(%error, "a workspace cannot be removed");
            }
            #[expect(clippy::disallowed_methods, reason = "a thread for blocking work")]
            std::thread::sleep(Duration::from_millis(25));
        }
    });
}

/// Gives back the permission to delete that a command may have taken from its folders. Follows no links.
fn open_up(dir: &Path) {
    let _ = std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700));
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_session_is_found_again_and_one_without_a_name_is_not() {
        let place = tempfile::tempdir().unwrap();
        let workspaces = Workspaces::new(place.path()).unwrap();
        let first = workspaces.open(Some("a"), false).unwrap().unwrap().dir.clone();
        let again = workspaces.open(Some("a"), false).unwrap().unwrap();
        assert_eq!(first, again.dir);
        let unnamed = workspaces.open(None, false).unwrap().unwrap();
        assert_ne!(unnamed.user, again.user);
        drop(unnamed);
        assert_eq!(workspaces.sessions().len(), 1);
    }

    #[tokio::test]
    async fn the_longest_idle_session_makes_room_but_one_in_use_does_not() {
        let place = tempfile::tempdir().unwrap();
        let workspaces = Workspaces::new(place.path()).unwrap();
        let mut held: Vec<_> = (0..MAX_SESSIONS)
            .map(|n| workspaces.open(Some(&n.to_string()), false).unwrap().unwrap())
            .collect();
        assert!(workspaces.open(Some("more"), false).unwrap().is_none());
        drop(held.pop());
        assert!(workspaces.open(Some("more"), false).unwrap().is_some());
        workspaces.remove_idle(Duration::ZERO);
        assert_eq!(workspaces.sessions().len(), MAX_SESSIONS - 1);
    }
}
