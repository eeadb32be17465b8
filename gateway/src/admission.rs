//! Whether a request may start now: places per agent, and the line of those who wait.
//!
//! The fast path is one compare-and-swap; the line's lock is taken only while somebody waits.

pub mod gap;
pub mod sleep;

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::error::{Code, Error};

/// One agent's places and line. Outlives reloads.
#[derive(Debug)]
#[repr(C)] // What every request touches stands first.
pub struct Admission {
    taken: AtomicU32,
    limit: AtomicU32,
    held: AtomicU32,
    waiting: AtomicUsize,
    line: Mutex<VecDeque<Waiter>>,
    next_ticket: AtomicU64,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    turn: oneshot::Sender<()>,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            taken: AtomicU32::new(0),
            limit: AtomicU32::new(u32::MAX),
            held: AtomicU32::new(0),
            waiting: AtomicUsize::new(0),
            line: Mutex::default(),
            next_ticket: AtomicU64::new(0),
        }
    }
}

impl Admission {
    /// Requests that have a place, without the held ones.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.taken.load(SeqCst).saturating_sub(self.held())
    }

    /// Requests that wait.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    /// Requests whose client left and whose agent goes on.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.held.load(SeqCst)
    }

    /// How many places there are; `None`: no limit.
    #[must_use]
    pub fn capacity(&self) -> Option<u32> {
        Some(self.limit.load(SeqCst)).filter(|limit| *limit != u32::MAX)
    }

    /// Sets how many places there are (`None`: no limit) and lets in who now fits.
    pub fn set_capacity(&self, places: Option<u32>) {
        let places = places.unwrap_or(u32::MAX);
        // Mostly nothing has changed, and the counts beside it are the workers'.
        if self.limit.load(SeqCst) == places {
            return;
        }
        if self.limit.swap(places, SeqCst) < places && self.queued() > 0 {
            self.let_in();
        }
    }

    /// Takes a place if one is free and nobody waits for it.
    pub fn try_enter(&self) -> bool {
        self.queued() == 0 && self.try_take()
    }

    /// Takes a place, first come first served. Dropping the future leaves the line.
    ///
    /// # Errors
    /// `queue-full` at once, `queue-timeout` after `queue.timeout`.
    pub async fn enter(&self, queue: config::Queue) -> Result<(), Error> {
        if self.try_enter() {
            return Ok(());
        }
        let (turn, my_turn) = oneshot::channel();
        let ticket = self.join(turn, queue)?;
        let mut spot = Spot { admission: self, ticket, my_turn, served: false };
        self.let_in();
        match tokio::time::timeout(queue.timeout, &mut spot.my_turn).await {
            Ok(Ok(())) => {
                spot.served = true;
                Ok(())
            }
            _ => Err(Error::new(
                Code::QueueTimeout,
                format!("no place became free within {:?}; try again later", queue.timeout),
            )
            .retry_after(queue.timeout)),
        }
    }

    /// Gives a place back.
    pub fn leave(&self) {
        self.taken.fetch_sub(1, SeqCst);
        if self.queued() > 0 {
            self.let_in();
        }
    }

    /// Gives back a place that goes with its replica, so that nobody may have it now.
    pub fn leave_for_good(&self) {
        let fewer = |limit: u32| (limit != u32::MAX).then(|| limit.saturating_sub(1));
        // It fails where there is no limit.
        let _ = self.limit.fetch_update(SeqCst, SeqCst, fewer);
        self.taken.fetch_sub(1, SeqCst);
    }

    /// Counts a request as held: its place stays taken though its client left.
    pub fn hold(&self) {
        self.held.fetch_add(1, SeqCst);
    }

    /// Ends [`Admission::hold`], before [`Admission::leave`].
    pub fn release(&self) {
        self.held.fetch_sub(1, SeqCst);
    }

    fn try_take(&self) -> bool {
        let limit = self.limit.load(SeqCst);
        self.taken.fetch_update(SeqCst, SeqCst, |taken| (taken < limit).then(|| taken + 1)).is_ok()
    }

    fn join(&self, turn: oneshot::Sender<()>, queue: config::Queue) -> Result<u64, Error> {
        let mut line = self.lock();
        if line.len() >= queue.max {
            let text = match queue.max {
                0 => "every place is taken and the agent has no queue".to_owned(),
                max => format!("every place is taken and {max} requests wait already"),
            };
            return Err(Error::new(Code::QueueFull, text).retry_after(Duration::from_secs(1)));
        }
        let ticket = self.next_ticket.fetch_add(1, SeqCst);
        line.push_back(Waiter { ticket, turn });
        self.waiting.store(line.len(), SeqCst);
        Ok(ticket)
    }

    /// Hands free places to the front of the line.
    fn let_in(&self) {
        let mut line = self.lock();
        while !line.is_empty() && self.try_take() {
            let Some(first) = line.pop_front() else { break };
            if first.turn.send(()).is_err() {
                self.taken.fetch_sub(1, SeqCst);
            }
        }
        self.waiting.store(line.len(), SeqCst);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Waiter>> {
        self.line.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A spot in the line; dropped before its turn was taken, it is given up.
struct Spot<'a> {
    admission: &'a Admission,
    ticket: u64,
    my_turn: oneshot::Receiver<()>,
    served: bool,
}

impl Drop for Spot<'_> {
    fn drop(&mut self) {
        if self.served {
            return;
        }
        {
            let mut line = self.admission.lock();
            line.retain(|waiter| waiter.ticket != self.ticket);
            self.admission.waiting.store(line.len(), SeqCst);
        }
        // Its turn may have come at the same moment: the place goes to the next.
        self.my_turn.close();
        if self.my_turn.try_recv().is_ok() {
            self.admission.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const QUEUE: config::Queue =
        config::Queue { max: 2, bytes: 1 << 20, timeout: Duration::from_secs(5) };

    fn one_place() -> Arc<Admission> {
        let admission = Arc::new(Admission::default());
        admission.set_capacity(Some(1));
        admission
    }

    async fn waiting(admission: &Arc<Admission>) -> tokio::task::JoinHandle<Result<(), Error>> {
        let (shared, before) = (Arc::clone(admission), admission.queued());
        let task = tokio::spawn(async move { shared.enter(QUEUE).await });
        while admission.queued() == before && !task.is_finished() {
            tokio::task::yield_now().await;
        }
        task
    }

    #[tokio::test(start_paused = true)]
    async fn the_line_is_first_come_first_served() {
        let admission = one_place();
        admission.enter(QUEUE).await.unwrap();
        let first = waiting(&admission).await;
        let second = waiting(&admission).await;
        assert_eq!((admission.queued(), admission.in_flight()), (2, 1));
        admission.leave();
        first.await.unwrap().unwrap();
        assert!(!second.is_finished());
        admission.leave();
        second.await.unwrap().unwrap();
        assert_eq!((admission.queued(), admission.in_flight()), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_line_and_a_long_wait_are_told_apart() {
        let admission = one_place();
        admission.enter(QUEUE).await.unwrap();
        let waiters = [waiting(&admission).await, waiting(&admission).await];
        let full = admission.enter(QUEUE).await.unwrap_err();
        assert_eq!(full.code, Code::QueueFull);
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap().unwrap_err().code, Code::QueueTimeout);
        }
        assert_eq!((admission.queued(), admission.in_flight()), (0, 1));
    }

    #[tokio::test]
    async fn who_leaves_the_line_costs_nobody_a_place() {
        let admission = one_place();
        admission.enter(QUEUE).await.unwrap();
        let leaver = waiting(&admission).await;
        let stayer = waiting(&admission).await;
        admission.leave();
        leaver.abort();
        let left = leaver.await;
        if matches!(left, Ok(Ok(()))) {
            admission.leave();
        }
        stayer.await.unwrap().unwrap();
        assert_eq!((admission.queued(), admission.in_flight()), (0, 1));
    }

    #[tokio::test]
    async fn more_places_let_the_line_in() {
        let admission = one_place();
        admission.enter(QUEUE).await.unwrap();
        let waiter = waiting(&admission).await;
        admission.set_capacity(None);
        waiter.await.unwrap().unwrap();
        assert_eq!((admission.in_flight(), admission.capacity()), (2, None));
    }
}
