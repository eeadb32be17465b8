//! What outlives a request: values and lists by key, each with an expiry. In Redis, where every replica finds them,
//! or in this process. Knows nothing of what it keeps.

mod process;
mod remote;

use std::time::Duration;

pub use process::Process;
pub use remote::Remote;

/// The store cannot be asked now. Whoever uses it goes on without, and says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store is away")]
pub struct Away;

/// One of the two places.
pub enum Store {
    /// In this process, gone with it.
    Process(Process),
    /// In Redis.
    Redis(Remote),
}

impl Store {
    /// Redis where a URL names one, else this process.
    ///
    /// # Errors
    /// One line about a URL that is none. Whether anybody answers there is not asked yet.
    pub fn new(redis_url: Option<&str>) -> Result<Self, String> {
        Ok(match redis_url {
            Some(url) => Self::Redis(Remote::new(url)?),
            None => Self::Process(Process::default()),
        })
    }

    /// `redis` or `process`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Process(_) => "process",
            Self::Redis(_) => "redis",
        }
    }

    /// The list under `key`, oldest first; empty when there is none.
    ///
    /// # Errors
    /// When Redis cannot be asked; as with all that follow.
    pub async fn list(&self, key: &str) -> Result<Vec<String>, Away> {
        match self {
            Self::Process(store) => Ok(store.list(key)),
            Self::Redis(store) => store.list(key).await,
        }
    }

    /// Appends to the list under `key`, of which the last `keep` stay, for `ttl` from now on.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn append(
        &self,
        key: &str,
        item: &str,
        keep: usize,
        ttl: Duration,
    ) -> Result<(), Away> {
        match self {
            Self::Process(store) => store.append(key, item, keep, ttl),
            Self::Redis(store) => return store.append(key, item, keep, ttl).await,
        }
        Ok(())
    }

    /// The value under `key`.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn get(&self, key: &str) -> Result<Option<String>, Away> {
        match self {
            Self::Process(store) => Ok(store.list(key).pop()),
            Self::Redis(store) => store.get(key).await,
        }
    }

    /// Puts a value where there is none; whether it did.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn claim(&self, key: &str, value: &str, ttl: Duration) -> Result<bool, Away> {
        match self {
            Self::Process(store) => Ok(store.claim(key, value, ttl)),
            Self::Redis(store) => store.claim(key, value, ttl).await,
        }
    }

    /// Puts `new` in place of `old`, when that is still there; whether it was.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn exchange(
        &self,
        key: &str,
        old: &str,
        new: &str,
        ttl: Duration,
    ) -> Result<bool, Away> {
        match self {
            Self::Process(store) => Ok(store.exchange(key, old, new, ttl)),
            Self::Redis(store) => store.exchange(key, old, new, ttl).await,
        }
    }

    /// Removes `value`, when it is still there.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn release(&self, key: &str, value: &str) -> Result<(), Away> {
        match self {
            Self::Process(store) => store.release(key, value),
            Self::Redis(store) => return store.release(key, value).await,
        }
        Ok(())
    }

    /// Whether Redis answers; `None` where none is used.
    pub async fn answers(&self) -> Option<bool> {
        match self {
            Self::Process(_) => None,
            Self::Redis(store) => Some(store.answers().await),
        }
    }
}
