//! Whether a request may start now: places per agent, room in its replicas' memory, and the line of
//! those who wait.
//!
//! The fast path is one compare-and-swap; the line's lock is taken only while somebody waits.

pub mod gap;
pub mod line;
pub mod places;
pub mod rates;
pub mod service;
pub mod sleep;
pub mod sync;
pub mod tenants;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use self::line::{Account, Line, Terms, Waiter};
use self::places::Places;
use crate::error::{Code, Error};
use crate::pool::{Claim, Lease, Picker, now_ms};

/// When to come back at the latest, whatever was learned of the line.
const COME_BACK_MAX: Duration = Duration::from_secs(300);
/// Who is told the same comes back over a time longer by half, so that not all come at once.
const JITTER: f64 = 0.5;
/// A wait has to be longer than allowed by half before somebody is refused for it: the pace is that of
/// the last few.
const SURELY: f64 = 1.5;

/// One agent's places and line. Outlives reloads.
#[derive(Debug, Default)]
#[repr(C)] // What every request touches stands first.
pub struct Admission {
    places: Places<Turn>,
    held: AtomicU32,
    /// Bytes of bodies that those who wait hold.
    bytes: AtomicU64,
    /// Whose service counts where callers are not told apart.
    everyone: OnceLock<Terms>,
    /// Where those who wait are let in, where it takes more than a place.
    picker: Mutex<Option<Arc<Picker>>>,
    /// What is kept free for somebody who fits nowhere yet, and who that is.
    claim: Mutex<Option<(u64, Claim)>>,
}

/// What somebody waits with.
#[derive(Debug)]
struct Turn {
    /// What it needs of a replica's memory, bytes.
    need: u64,
    session: Option<Box<[u8]>>,
    seat: oneshot::Sender<Seat>,
}

/// What a request wants in.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ask<'a> {
    /// Whose it is; `None` where callers are not told apart.
    pub terms: Option<&'a Terms>,
    /// What it needs of a replica's memory, bytes; 0: nobody counts that.
    pub need: u64,
    /// What affinity goes by.
    pub session: Option<&'a [u8]>,
    /// Bytes of its body that are here.
    pub held: u64,
}

/// A place that was given, with what has to be given back with it.
#[derive(Debug, Default)]
pub struct Seat {
    /// Whose service it counts as, and since when.
    pub service: Option<(Terms, u64)>,
    /// The place at a replica, where one was taken with it.
    pub lease: Option<Lease>,
}

impl Admission {
    /// Requests that have a place, without the held ones.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.places.taken().saturating_sub(self.held())
    }

    /// Requests that wait.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.places.waiting()
    }

    /// Requests of one tenant that wait.
    #[must_use]
    pub fn queued_of(&self, account: &Arc<Account>) -> usize {
        self.places.line().len_of(account)
    }

    /// Bytes of bodies that those who wait hold.
    #[must_use]
    pub fn queued_bytes(&self) -> u64 {
        self.bytes.load(SeqCst)
    }

    /// Requests whose client left and whose agent goes on.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.held.load(SeqCst)
    }

    /// How many places there are; `None`: no limit.
    #[must_use]
    pub fn capacity(&self) -> Option<u32> {
        Some(self.places.limit()).filter(|limit| *limit != u32::MAX)
    }

    /// Sets how many places there are (`None`: no limit) and lets in who now fits.
    pub fn set_capacity(&self, places: Option<u32>) {
        self.places.set_limit(places.unwrap_or(u32::MAX));
        self.tend();
    }

    /// Sets where those who wait are let in, where it takes more than a place; and what each lower class
    /// of tenants has reserved.
    pub fn set_rules(&self, picker: Option<Picker>, reserve: f64) {
        *lock(&self.picker) = picker.map(Arc::new);
        self.places.classes.set_reserve(reserve);
    }

    /// Lets in who fits: something may have changed that nobody tells.
    pub fn tend(&self) {
        if self.queued() > 0 {
            self.let_in();
        }
    }

    /// Takes a place if one is free and nobody waits for it. The place at a replica is still to be
    /// taken.
    pub fn try_enter(&self, terms: Option<&Terms>) -> Option<Seat> {
        self.places.try_enter().then(|| self.seat(terms))
    }

    /// Takes a place, in the order of the line. Dropping the future leaves the line.
    ///
    /// # Errors
    /// `queue-full` at once, also for who would surely wait too long; `queue-timeout` after
    /// `queue.timeout`.
    pub async fn enter(&self, ask: Ask<'_>, queue: config::Queue) -> Result<Seat, Error> {
        let terms = ask.terms.unwrap_or_else(|| self.everyone()).clone();
        let (seat, my_seat) = oneshot::channel();
        let turn = Turn { need: ask.need, session: ask.session.map(Box::from), seat };
        let now = now_ms();
        let refuse = |line: &Line<Turn>| self.refusal(line, &terms, (ask.held, queue, now));
        let ticket = self.places.join(&terms, turn, now, refuse)?;
        let mut spot = Spot { admission: self, account: terms.account, ticket, my_seat };
        self.let_in();
        match tokio::time::timeout(queue.timeout, &mut spot.my_seat).await {
            Ok(Ok(seat)) => Ok(seat),
            _ => {
                let text =
                    format!("no place became free within {:?}; try again later", queue.timeout);
                Err(Error::new(Code::QueueTimeout, text).retry_after(jittered(queue.timeout)))
            }
        }
    }

    /// Counts bytes of a body that somebody who waits holds, until the guard is dropped.
    #[must_use]
    pub fn hold_bytes(&self, bytes: u64) -> HeldBytes<'_> {
        self.bytes.fetch_add(bytes, SeqCst);
        HeldBytes { admission: self, bytes }
    }

    /// Gives a place back that was not used, and lets in who is next.
    pub fn give_back(&self, seat: Seat) {
        drop(seat.lease);
        if let Some((terms, begun)) = seat.service {
            terms.account.service.never_began(begun);
            self.places.classes.of(terms.class).never_began(begun);
        }
        self.places.leave();
        self.tend();
    }

    /// Gives a place back, and lets in who is next.
    pub fn leave(&self, seat: Seat) {
        self.end(seat);
        self.places.leave();
        self.tend();
    }

    /// Gives back a place that goes with its replica, so that nobody may have it now.
    pub fn leave_for_good(&self, seat: Seat) {
        self.end(seat);
        self.places.leave_for_good();
    }

    /// Counts a request as held: its place stays taken though its client left.
    pub fn hold(&self) {
        self.held.fetch_add(1, SeqCst);
    }

    /// Ends [`Admission::hold`], before [`Admission::leave`].
    pub fn release(&self) {
        self.held.fetch_sub(1, SeqCst);
    }

    fn seat(&self, terms: Option<&Terms>) -> Seat {
        let Some(terms) = terms else { return Seat::default() };
        let now = now_ms();
        terms.account.service.begin(now);
        self.places.classes.of(terms.class).begin(now);
        Seat { service: Some((terms.clone(), now)), lease: None }
    }

    fn end(&self, seat: Seat) {
        // Before the place, which its next holder looks for there.
        drop(seat.lease);
        let Some((terms, begun)) = seat.service else { return };
        let now = now_ms();
        terms.account.service.end(begun, now);
        self.places.classes.of(terms.class).end(begun, now);
    }

    fn everyone(&self) -> &Terms {
        self.everyone.get_or_init(|| Terms { account: Arc::default(), class: 0, weight: 1 })
    }

    /// Why somebody may not wait.
    fn refusal(
        &self,
        line: &Line<Turn>,
        terms: &Terms,
        (held, queue, now): (u64, config::Queue, u64),
    ) -> Option<Error> {
        // Nobody has a turn before there is a replica, at whatever pace that was before.
        let awaited = self.places.limit() == 0;
        let expected = line.expected_ms(terms, now).filter(|_| !awaited).map(Duration::from_millis);
        let too_long = expected.filter(|wait| *wait > queue.timeout.mul_f64(SURELY));
        let bytes = self.queued_bytes().saturating_add(held);
        let text = if queue.max == 0 {
            "every place is taken and the agent has no queue".to_owned()
        } else if line.len() >= queue.max {
            format!("every place is taken and {} requests wait already", line.len())
        } else if bytes > queue.bytes && !line.is_empty() {
            format!(
                "the bodies of those that wait take {} bytes already, of {}",
                self.queued_bytes(),
                queue.bytes
            )
        } else {
            let (wait, most) = (too_long?.as_secs_f64(), queue.timeout);
            format!(
                "at the present pace this would wait for about {wait:.0} s, and at most {most:?} are allowed"
            )
        };
        let wait = jittered(expected.unwrap_or_default());
        Some(Error::new(Code::QueueFull, text).retry_after(wait))
    }

    /// Hands free places to those who are next.
    fn let_in(&self) {
        let picker = lock(&self.picker).clone();
        let now = now_ms();
        self.places.let_in(
            now,
            |waiter| self.fits(waiter, picker.as_deref()),
            |turn, terms, lease| {
                turn.seat.send(Seat { service: Some((terms, now)), lease }).is_ok()
            },
        );
    }

    /// A replica with room for somebody who waits, where that matters. For the first who has none, room
    /// is kept from then on: others pass only where that stays free.
    fn fits(&self, waiter: &Waiter<Turn>, picker: Option<&Picker>) -> Option<Option<Lease>> {
        let need = waiter.turn.need;
        let Some(picker) = picker.filter(|_| need > 0) else { return Some(None) };
        let mut claim = lock(&self.claim);
        let own = claim.take_if(|(ticket, _)| *ticket == waiter.ticket);
        let before = own.map(|(_, claim)| claim.endpoint());
        if let Some(lease) = picker.pick(waiter.turn.session.as_deref(), need) {
            return Some(Some(lease));
        }
        if claim.is_none() {
            *claim = picker.claim(need, before).map(|claim| (waiter.ticket, claim));
        }
        None
    }
}

/// When to come back, for one of many who are told so.
fn jittered(wait: Duration) -> Duration {
    let wait = wait.clamp(Duration::from_secs(1), COME_BACK_MAX);
    wait.mul_f64(1.0 + JITTER * fastrand::f64())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See [`Admission::hold_bytes`].
#[derive(Debug)]
pub struct HeldBytes<'a> {
    admission: &'a Admission,
    bytes: u64,
}

impl HeldBytes<'_> {
    /// So much is held now. Whether more may be, of `max` for all who wait.
    pub fn now(&mut self, bytes: u64, max: u64) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        self.bytes += more;
        self.admission.bytes.fetch_add(more, SeqCst) + more < max
    }
}

impl Drop for HeldBytes<'_> {
    fn drop(&mut self) {
        self.admission.bytes.fetch_sub(self.bytes, SeqCst);
    }
}

/// A spot in the line; dropped before its turn was taken, it is given up.
struct Spot<'a> {
    admission: &'a Admission,
    account: Arc<Account>,
    ticket: u64,
    my_seat: oneshot::Receiver<Seat>,
}

impl Drop for Spot<'_> {
    fn drop(&mut self) {
        let left = self.admission.places.cancel(&self.account, self.ticket).is_some();
        if left {
            // What was kept free for it may be what others wait for.
            let claim = lock(&self.admission.claim).take_if(|(ticket, _)| *ticket == self.ticket);
            if claim.is_some() {
                drop(claim);
                self.admission.tend();
            }
            return;
        }
        // Its turn may have come at the same moment: the place goes to the next.
        self.my_seat.close();
        if let Ok(seat) = self.my_seat.try_recv() {
            self.admission.give_back(seat);
        }
    }
}

#[cfg(test)]
mod tests;
