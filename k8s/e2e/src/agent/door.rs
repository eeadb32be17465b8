//! Who may come in: the agent's own limit, the refusal of new requests once it ends, and the most
//! that there ever were at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::sync::watch;

/// Counts the requests that are in.
pub(super) struct Door {
    limit: u32,
    closed: AtomicBool,
    inside: watch::Sender<u32>,
    peak: AtomicU32,
    refused: AtomicU32,
}

/// A request's place; given back when dropped.
pub(super) struct Pass(Arc<Door>);

impl Door {
    /// An open door; 0 is no limit.
    pub(super) fn new(limit: u32) -> Self {
        let limit = if limit == 0 { u32::MAX } else { limit };
        let inside = watch::Sender::new(0);
        Self { limit, closed: false.into(), inside, peak: 0.into(), refused: 0.into() }
    }

    /// Takes a place, or says why there is none.
    pub(super) fn enter(self: &Arc<Self>) -> Result<Pass, &'static str> {
        if self.is_closed() {
            return Err("draining");
        }
        let entered = self.inside.send_if_modified(|inside| {
            let room = *inside < self.limit;
            *inside += u32::from(room);
            self.peak.fetch_max(*inside, Ordering::Relaxed);
            room
        });
        if entered {
            return Ok(Pass(Arc::clone(self)));
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err("at its limit")
    }

    /// From now on everything new is refused.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Waits until nobody is in.
    pub(super) async fn empty(&self) {
        // The sender lives in `self`, so that this can't fail.
        let _ = self.inside.subscribe().wait_for(|inside| *inside == 0).await;
    }
}

impl Pass {
    /// The most that were ever in at once.
    pub(super) fn peak(&self) -> u32 {
        self.0.peak.load(Ordering::Relaxed)
    }

    /// How many were refused because of the limit.
    pub(super) fn refused(&self) -> u32 {
        self.0.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.inside.send_modify(|inside| *inside -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_counts_its_most_and_is_empty_when_the_last_has_left() {
        let door = Arc::new(Door::new(2));
        let (first, second) = (door.enter().unwrap(), door.enter().unwrap());
        assert!(door.enter().is_err());
        drop(first);
        assert_eq!((second.peak(), second.refused()), (2, 1));
        door.close();
        assert!(door.enter().is_err());
        drop(second);
        door.empty().await;
    }
}
