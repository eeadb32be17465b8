//! The places of one agent on this gateway, and who waits for one: counted without a lock while nobody
//! waits.

use super::line::{Account, Line, Terms, Waiter};
use super::service::Classes;
use super::sync::Ordering::SeqCst;
use super::sync::{Arc, AtomicU32, AtomicUsize, Mutex, MutexGuard, PoisonError};

/// Places, and the line of those who wait, each with a `T`.
#[derive(Debug)]
#[repr(C)] // What every request touches stands first.
pub struct Places<T> {
    taken: AtomicU32,
    limit: AtomicU32,
    waiting: AtomicUsize,
    line: Mutex<Line<T>>,
    /// What has been served, by class.
    pub classes: Classes,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self {
            taken: AtomicU32::new(0),
            limit: AtomicU32::new(u32::MAX),
            waiting: AtomicUsize::new(0),
            line: Mutex::default(),
            classes: Classes::default(),
        }
    }
}

impl<T> Places<T> {
    /// Places that are taken.
    #[must_use]
    pub fn taken(&self) -> u32 {
        self.taken.load(SeqCst)
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    /// How many places there are; `u32::MAX`: no limit.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit.load(SeqCst)
    }

    /// Sets how many places there are. Whoever fits now has still to be let in.
    pub fn set_limit(&self, places: u32) {
        // Mostly nothing has changed, and the counts beside it are the workers'.
        if self.limit() != places && self.limit.swap(places, SeqCst) < places && self.waiting() > 0
        {
            self.line().forget_pace();
        }
    }

    /// Takes a place if one is free and nobody waits for it.
    pub fn try_enter(&self) -> bool {
        self.waiting() == 0 && self.try_take()
    }

    /// Gives a place back. If somebody waits, who is next has still to be let in.
    pub fn leave(&self) {
        self.taken.fetch_sub(1, SeqCst);
    }

    /// Gives back a place that is no more, so that nobody may have it now.
    pub fn leave_for_good(&self) {
        let fewer = |limit: u32| (limit != u32::MAX).then(|| limit.saturating_sub(1));
        // It fails where there is no limit.
        let _ = self.limit.fetch_update(SeqCst, SeqCst, fewer);
        self.leave();
    }

    /// Puts somebody into the line, unless `refuse` has a reason not to. Whoever fits has still to be
    /// let in: a place may have become free meanwhile.
    ///
    /// # Errors
    /// The reason.
    pub fn join<E>(
        &self,
        terms: &Terms,
        turn: T,
        now_ms: u64,
        refuse: impl FnOnce(&Line<T>) -> Option<E>,
    ) -> Result<u64, E> {
        let mut line = self.line();
        if let Some(reason) = refuse(&line) {
            return Err(reason);
        }
        let ticket = line.join(terms, turn, &self.classes, now_ms);
        self.waiting.store(line.len(), SeqCst);
        Ok(ticket)
    }

    /// Takes somebody out of the line who waits no more; if its turn has come before, there is nobody.
    pub fn cancel(&self, account: &Arc<Account>, ticket: u64) -> Option<T> {
        let mut line = self.line();
        let turn = line.leave(account, ticket);
        self.waiting.store(line.len(), SeqCst);
        turn
    }

    /// Gives free places to those who are next. `fits` has something for who can be let in, and `hand`
    /// gives it over; where that finds nobody any more, the place is free as before.
    pub fn let_in<S>(
        &self,
        now_ms: u64,
        mut fits: impl FnMut(&Waiter<T>) -> Option<S>,
        mut hand: impl FnMut(T, Terms, S) -> bool,
    ) {
        let mut line = self.line();
        while !line.is_empty() && self.try_take() {
            let Some((turn, terms, seat)) = line.next(&self.classes, now_ms, &mut fits) else {
                self.leave();
                break;
            };
            let (account, class) = (Arc::clone(&terms.account), self.classes.of(terms.class));
            account.service.begin(now_ms);
            class.begin(now_ms);
            if !hand(turn, terms, seat) {
                account.service.never_began(now_ms);
                class.never_began(now_ms);
                self.leave();
            }
        }
        self.waiting.store(line.len(), SeqCst);
    }

    /// Looks at the line.
    pub fn line(&self) -> MutexGuard<'_, Line<T>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_take(&self) -> bool {
        let limit = self.limit();
        self.taken.fetch_update(SeqCst, SeqCst, |taken| (taken < limit).then(|| taken + 1)).is_ok()
    }
}
