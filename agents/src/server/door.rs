//! Who may come in: the limit on requests at once, and the refusal of new ones once SIGTERM has come.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::error::Error;

/// Counts the requests in flight. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Door {
    limit: u32,
    state: Arc<Mutex<State>>,
    busy: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    in_flight: u32,
    draining: bool,
}

/// A request's place; given back when dropped.
pub(crate) struct Pass(Door);

impl Door {
    /// An open door for `limit` requests at once.
    pub(crate) fn new(limit: u32) -> Self {
        Self { limit, state: Arc::default(), busy: watch::Sender::new(false) }
    }

    /// Takes a place.
    ///
    /// # Errors
    /// At the limit, or while draining: the request was not begun.
    pub(crate) fn enter(&self) -> Result<Pass, Error> {
        let mut state = self.state();
        if state.draining {
            return Err(Error::Draining);
        }
        if state.in_flight >= self.limit {
            return Err(Error::AtLimit(self.limit));
        }
        state.in_flight += 1;
        self.busy.send_replace(true);
        Ok(Pass(self.clone()))
    }

    /// From now on everything new is refused.
    pub(crate) fn close(&self) {
        self.state().draining = true;
    }

    /// Whether [`close`](Self::close) was called.
    pub(crate) fn is_closed(&self) -> bool {
        self.state().draining
    }

    /// How many are in.
    pub(crate) fn in_flight(&self) -> u32 {
        self.state().in_flight
    }

    /// Waits until nobody is in.
    pub(crate) async fn idle(&self) {
        // The sender lives in `self`, so that this cannot fail.
        let _ = self.busy.subscribe().wait_for(|busy| !busy).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.in_flight -= 1;
        self.0.busy.send_replace(state.in_flight > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_door_is_idle_when_the_last_has_left() {
        let door = Door::new(1);
        let pass = door.enter().unwrap();
        assert!(matches!(door.enter(), Err(Error::AtLimit(1))));
        door.close();
        assert!(matches!(door.enter(), Err(Error::Draining)));
        let waiting = tokio::spawn({
            let door = door.clone();
            async move { door.idle().await }
        });
        drop(pass);
        waiting.await.unwrap();
        assert_eq!(door.in_flight(), 0);
    }
}
