//! What was said before: a session's exchanges, oldest first, bounded in number, size and time. Without its store a
//! request goes on without, and its reply says so.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::store::{Away, Store};
use crate::text;

/// Exchanges that are kept of a session: more than most models' contexts take.
const MAX_EXCHANGES: usize = 32;
/// Most of an input or output that is kept, bytes; of a longer one the beginning and the end.
const MAX_TEXT: usize = 8 << 10;

/// A question and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// What was asked.
    pub input: String,
    /// What was answered.
    pub output: String,
}

/// Where a request's memory is; as JSON `null`, `"redis"`, `"process"` or `"down"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(into = "Option<&'static str>")]
pub enum Memory {
    /// The request names no session.
    None,
    /// It does, and its exchanges are there.
    In(&'static str),
    /// It does, and the store is away.
    Down,
}

impl From<Memory> for Option<&'static str> {
    fn from(memory: Memory) -> Self {
        match memory {
            Memory::None => None,
            Memory::In(store) => Some(store),
            Memory::Down => Some("down"),
        }
    }
}

/// All sessions of an agent type.
pub struct Sessions {
    store: Arc<Store>,
    ttl: Duration,
}

impl Sessions {
    /// Sessions in `store`, each kept for `ttl` after its last exchange.
    pub fn new(store: Arc<Store>, ttl: Duration) -> Self {
        Self { store, ttl }
    }

    /// What was said in the session until now.
    pub async fn recall(&self, agent: &str, session: Option<&str>) -> (Vec<Exchange>, Memory) {
        let Some(session) = session else { return (Vec::new(), Memory::None) };
        match self.store.list(&key(agent, session)).await {
            // What another version wrote, and this one can't read, is as if forgotten.
            Ok(items) => {
                let exchanges = items.iter().filter_map(|item| serde_json::from_str(item).ok());
                (exchanges.collect(), Memory::In(self.store.name()))
            }
            Err(Away) => (Vec::new(), Memory::Down),
        }
    }

    /// Adds an exchange; whether it could be kept.
    pub async fn remember(&self, agent: &str, session: &str, input: &str, output: &str) -> bool {
        let (input, output) = (text::shorten(input, MAX_TEXT), text::shorten(output, MAX_TEXT));
        let Ok(item) = serde_json::to_string(&Exchange { input, output }) else { return false };
        self.store.append(&key(agent, session), &item, MAX_EXCHANGES, self.ttl).await.is_ok()
    }
}

/// Types that share a process don't share their sessions.
fn key(agent: &str, session: &str) -> String {
    format!("session:{agent}:{session}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions() -> Sessions {
        let store = Arc::new(Store::new(None).unwrap());
        Sessions::new(store, Duration::from_secs(60))
    }

    #[tokio::test]
    async fn a_session_is_found_again_and_no_other_is() {
        let sessions = sessions();
        assert!(sessions.remember("qa", "s", "hello", "hi").await);
        let (past, memory) = sessions.recall("qa", Some("s")).await;
        assert_eq!(past, [Exchange { input: "hello".into(), output: "hi".into() }]);
        assert_eq!(memory, Memory::In("process"));
        assert!(sessions.recall("coding", Some("s")).await.0.is_empty());
        assert_eq!(sessions.recall("qa", None).await, (Vec::new(), Memory::None));
    }

    #[tokio::test]
    async fn a_session_is_bounded_in_number_and_size() {
        let sessions = sessions();
        for number in 0..MAX_EXCHANGES + 5 {
            sessions.remember("qa", "s", &number.to_string(), &"x".repeat(4 * MAX_TEXT)).await;
        }
        let (past, _) = sessions.recall("qa", Some("s")).await;
        assert_eq!((past.len(), past[0].input.as_str()), (MAX_EXCHANGES, "5"));
        assert!(past.iter().all(|exchange| exchange.output.len() < MAX_TEXT + 100));
        assert!(past[0].output.contains("bytes left out"));
    }
}
