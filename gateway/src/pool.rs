//! An agent's endpoints and which is next.
//!
//! Counts and health belong to an endpoint's address and outlive every reload; a [`Pool`] is the
//! list of them that one snapshot holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use http::uri::Authority;
use smallvec::SmallVec;

mod memory;
mod picker;
mod sync;
mod tally;

pub use self::memory::{Claim, Memory, Report, Room};
pub use self::picker::{Picker, weighted};
pub use self::tally::Recent;
use self::tally::Tally;

static START: LazyLock<u64> = LazyLock::new(coarse_ms);
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// Pairs that power-of-two-choices draws before it looks at every endpoint.
const DRAWS: usize = 3;

/// Milliseconds since the process began to count: what health's atomics hold. By a clock that is read
/// at a fraction of the other's price and is up to 4 ms late.
#[must_use]
pub fn now_ms() -> u64 {
    // Whoever asks first begins to count.
    let start = *START;
    coarse_ms() - start
}

fn coarse_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

/// One address of a replica, whatever agents it serves.
#[derive(Debug)]
#[repr(C)] // What every request touches stands first.
pub struct Endpoint {
    /// Unique over the life of the process.
    pub id: u64,
    /// Requests begun and not ended, over all agents.
    in_flight: AtomicU32,
    /// How it speaks.
    pub protocol: config::Protocol,
    ejection: Ejection,
    /// `host:port` as it stands in requests.
    pub authority: Authority,
    hash: u64,
    /// Where it listens.
    pub address: config::Endpoint,
    /// What its requests need of its memory.
    pub memory: Memory,
}

#[derive(Debug, Default)]
struct Ejection {
    /// Out until then; 0: never was.
    until_ms: AtomicU64,
    /// How long the last one lasted.
    lasted_ms: AtomicU64,
    /// Failures since the last success.
    failures: AtomicU32,
    /// What came of the last exchanges.
    tally: Tally,
}

impl Endpoint {
    /// An endpoint that nothing is known about yet.
    ///
    /// # Panics
    /// If the address is no authority; the table's check has made sure that it is.
    #[must_use]
    pub fn new(address: config::Endpoint, protocol: config::Protocol) -> Self {
        let text = address.to_string();
        Self {
            id: NEXT_ID.fetch_add(1, Relaxed),
            authority: text.parse().expect("the table holds only valid addresses"),
            hash: hash(text.as_bytes()),
            address,
            protocol,
            in_flight: AtomicU32::new(0),
            ejection: Ejection::default(),
            memory: Memory::default(),
        }
    }

    /// The value of `host` in requests.
    #[must_use]
    pub fn host(&self) -> &[u8] {
        self.authority.as_str().as_bytes()
    }

    /// Requests begun and not ended, over all agents.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Whether passive health has it out.
    #[must_use]
    pub fn is_ejected(&self, now_ms: u64) -> bool {
        self.ejection.until_ms.load(Relaxed) > now_ms
    }

    /// Records an exchange that came to its end, `well` or with a status that says that the replica
    /// failed. Doubling starts anew once it stayed in as long as it was last out.
    pub fn ended(&self, well: bool, now_ms: u64) {
        self.ejection.tally.count(!well, now_ms);
        if self.ejection.failures.load(Relaxed) != 0 {
            self.ejection.failures.store(0, Relaxed);
        }
        if !well {
            return;
        }
        let lasted = self.ejection.lasted_ms.load(Relaxed);
        if lasted != 0 && now_ms >= self.ejection.until_ms.load(Relaxed) + lasted {
            self.ejection.lasted_ms.store(0, Relaxed);
        }
    }

    /// Records one that didn't, and says how many there were in a row.
    pub fn failed(&self, now_ms: u64) -> u32 {
        self.ejection.tally.count(true, now_ms);
        self.ejection.failures.fetch_add(1, Relaxed).saturating_add(1)
    }

    /// What came of its exchanges in the last ten seconds, over all agents.
    #[must_use]
    pub fn recent(&self, now_ms: u64) -> Recent {
        self.ejection.tally.recent(now_ms)
    }

    fn eject(&self, first: Duration, longest: Duration, now_ms: u64) -> Duration {
        let doubled = self.ejection.lasted_ms.load(Relaxed).saturating_mul(2);
        let ms = doubled.clamp(first.as_millis() as u64, longest.as_millis() as u64);
        self.ejection.lasted_ms.store(ms, Relaxed);
        self.ejection.failures.store(0, Relaxed);
        self.ejection.tally.clear();
        self.ejection.until_ms.store(now_ms + ms, Relaxed);
        Duration::from_millis(ms)
    }
}

/// What active checks know of one replica of one agent.
#[derive(Debug, Default)]
pub struct Probe {
    unhealthy: AtomicBool,
    /// Equal results in a row that speak against the present state.
    against: AtomicU32,
}

impl Probe {
    /// Whether active checks have it out.
    #[must_use]
    pub fn is_unhealthy(&self) -> bool {
        self.unhealthy.load(Relaxed)
    }

    /// Records a probe's result; the state flips after `needed` in a row. Says whether it did.
    pub fn record(&self, healthy: bool, needed: u32) -> bool {
        if healthy != self.is_unhealthy() {
            self.against.store(0, Relaxed);
            return false;
        }
        if self.against.fetch_add(1, Relaxed) + 1 < needed {
            return false;
        }
        self.against.store(0, Relaxed);
        self.unhealthy.store(!healthy, Relaxed);
        true
    }

    /// Forgets what was seen: there are no active checks any more.
    pub fn reset(&self) {
        self.unhealthy.store(false, Relaxed);
        self.against.store(0, Relaxed);
    }
}

/// An endpoint as one agent sees it.
#[derive(Debug)]
pub struct Place {
    /// The address.
    pub endpoint: Arc<Endpoint>,
    /// Active health.
    pub probe: Arc<Probe>,
    /// This agent's requests there.
    in_flight: AtomicU32,
    /// How many of them this gateway may have there; `u32::MAX`: no limit.
    limit: AtomicU32,
    /// What this agent's requests have to fit in.
    room: Room,
    /// Not in the table in force: what runs there ends there.
    retired: AtomicBool,
    /// On its way out, and asked only because nobody else is there.
    leaving: AtomicBool,
    /// On its way out, and begins nothing new.
    closed: AtomicBool,
}

/// What `/api/agents` shows of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is picked.
    Ready,
    /// Out by passive health.
    Ejected,
    /// Out by active checks.
    Unhealthy,
    /// Discovery has taken it away, or it is on its way out and begins nothing new; what it still
    /// has under way goes on.
    Draining,
}

impl State {
    /// Every state, for gauges.
    pub const ALL: [Self; 4] = [Self::Ready, Self::Ejected, Self::Unhealthy, Self::Draining];

    /// As it stands in JSON and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Ejected => "ejected",
            Self::Unhealthy => "unhealthy",
            Self::Draining => "draining",
        }
    }
}

impl Place {
    /// A place that nobody has taken yet.
    #[must_use]
    pub fn new(endpoint: Arc<Endpoint>, probe: Arc<Probe>) -> Self {
        Self {
            endpoint,
            probe,
            in_flight: AtomicU32::new(0),
            limit: AtomicU32::new(u32::MAX),
            room: Room::default(),
            retired: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// Whether it has left the table.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.retired.load(Relaxed)
    }

    /// Says whether it has left the table.
    pub fn retire(&self, retired: bool) {
        self.retired.store(retired, Relaxed);
    }

    /// Says whether it is on its way out, and asked only because nobody else is there.
    pub fn leave(&self, leaving: bool) {
        self.leaving.store(leaving, Relaxed);
        if !leaving {
            self.closed.store(false, Relaxed);
        }
    }

    /// Whether it is on its way out.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Relaxed)
    }

    /// It has not begun what it was asked. If it is on its way out, it isn't asked again. Says
    /// whether it is.
    pub fn turned_away(&self) -> bool {
        let leaving = self.is_leaving();
        if leaving {
            self.closed.store(true, Relaxed);
        }
        leaving
    }

    /// Its state now, as one that is in the pool.
    #[must_use]
    pub fn state(&self, now_ms: u64) -> State {
        if self.closed.load(Relaxed) {
            State::Draining
        } else if self.probe.is_unhealthy() {
            State::Unhealthy
        } else if self.endpoint.is_ejected(now_ms) {
            State::Ejected
        } else {
            State::Ready
        }
    }

    /// This agent's requests there.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// How many requests of this agent this gateway may have there; `None`: no limit.
    #[must_use]
    pub fn limit(&self) -> Option<u32> {
        Some(self.limit.load(Relaxed)).filter(|limit| *limit != u32::MAX)
    }

    /// Sets [`Place::limit`]. What is there beyond it ends where it is.
    pub fn set_limit(&self, limit: Option<u32>) {
        self.limit.store(limit.unwrap_or(u32::MAX), Relaxed);
    }

    /// What this agent's requests there have to fit in.
    #[must_use]
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// Takes a place in one step, and so much of its memory, unless all are taken or it doesn't fit.
    fn take<const MEMORY: bool>(self: &Arc<Self>, need: u64) -> Option<Lease> {
        let free = |taken| (taken < self.limit.load(Relaxed)).then(|| taken + 1);
        self.in_flight.fetch_update(Relaxed, Relaxed, free).ok()?;
        if MEMORY && !self.endpoint.memory.take(need, &self.room, now_ms()) {
            self.in_flight.fetch_sub(1, Relaxed);
            return None;
        }
        self.endpoint.in_flight.fetch_add(1, Relaxed);
        Some(Lease { place: Arc::clone(self), need })
    }

    /// Whether so much more fits in its memory.
    fn fits(&self, need: u64) -> bool {
        self.endpoint.memory.fits(need, &self.room)
    }
}

/// A place at an endpoint, given back by being dropped: at the body's last byte.
#[derive(Debug)]
pub struct Lease {
    place: Arc<Place>,
    /// What was taken of its memory, bytes.
    need: u64,
}

impl Lease {
    /// Where the place is.
    #[must_use]
    pub fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// The address.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.place.endpoint
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.place.in_flight.fetch_sub(1, Relaxed);
        self.place.endpoint.in_flight.fetch_sub(1, Relaxed);
        if self.need > 0 {
            self.place.endpoint.memory.give_back(self.need);
        }
    }
}

/// The endpoints of one agent in one snapshot.
#[derive(Debug, Default)]
pub struct Pool {
    places: SmallVec<[Arc<Place>; 2]>,
    ejecting: Mutex<()>,
}

impl Pool {
    /// A pool of these.
    #[must_use]
    pub fn new(places: impl IntoIterator<Item = Arc<Place>>) -> Self {
        Self { places: places.into_iter().collect(), ejecting: Mutex::new(()) }
    }

    /// All of them, ready or not.
    #[must_use]
    pub fn places(&self) -> &[Arc<Place>] {
        &self.places
    }

    /// How many may be picked now.
    #[must_use]
    pub fn ready(&self, now_ms: u64) -> usize {
        self.places.iter().filter(|place| place.state(now_ms) == State::Ready).count()
    }

    /// Takes a place, and `need` bytes of memory (0: nobody counts that), at a ready endpoint that has
    /// both free: where `session` points (rendezvous hashing, so that only the sessions of a lost
    /// endpoint move), or the less loaded of two drawn at random. Endpoints in `tried` only if there is
    /// no other.
    pub fn pick(&self, session: Option<&[u8]>, tried: &[u64], need: u64) -> Option<Lease> {
        match need {
            0 => self.pick_by::<false>(session, tried, 0),
            need => self.pick_by::<true>(session, tried, need),
        }
    }

    /// Made twice: what most agents don't ask for costs them nothing.
    fn pick_by<const MEMORY: bool>(
        &self,
        session: Option<&[u8]>,
        tried: &[u64],
        need: u64,
    ) -> Option<Lease> {
        let now = now_ms();
        let fits = |place: &Place| {
            place.state(now) == State::Ready
                && place.limit().is_none_or(|n| place.in_flight() < n)
                && (!MEMORY || place.fits(need))
        };
        let fresh = |place: &Place| fits(place) && !tried.contains(&place.endpoint.id);
        // A place can be lost between the look and the taking: look again, at most once an endpoint.
        for _ in 0..=self.places.len() {
            let found = match session {
                Some(key) => self.rendezvous(key, fresh),
                None => self.two_choices(fresh, &mut |n| fastrand::usize(..n)),
            };
            let found = match found {
                None if !tried.is_empty() => self.two_choices(fits, &mut |n| fastrand::usize(..n)),
                found => found,
            };
            if let Some(lease) = found?.take::<MEMORY>(need) {
                return Some(lease);
            }
        }
        None
    }

    /// Power of two choices (Mitzenmacher 2001) on the in-flight count.
    fn two_choices(
        &self,
        fits: impl Fn(&Place) -> bool,
        random: &mut impl FnMut(usize) -> usize,
    ) -> Option<&Arc<Place>> {
        let n = self.places.len();
        if n <= 1 {
            return self.places.first().filter(|place| fits(place));
        }
        for _ in 0..DRAWS {
            let first = random(n);
            let second = (first + 1 + random(n - 1)) % n;
            let (a, b) = (&self.places[first], &self.places[second]);
            match (fits(a), fits(b)) {
                (true, true) if b.endpoint.in_flight() < a.endpoint.in_flight() => return Some(b),
                (true, _) => return Some(a),
                (false, true) => return Some(b),
                (false, false) => {}
            }
        }
        let start = random(n);
        let (before, after) = self.places.split_at(start);
        after.iter().chain(before).filter(|p| fits(p)).min_by_key(|p| p.endpoint.in_flight())
    }

    /// Highest random weight (Thaler and Ravishankar 1998).
    fn rendezvous(&self, key: &[u8], fits: impl Fn(&Place) -> bool) -> Option<&Arc<Place>> {
        let key = hash(key);
        let weight = |place: &&Arc<Place>| mix(key ^ place.endpoint.hash);
        self.places.iter().filter(|place| fits(place)).max_by_key(weight)
    }

    /// Whether an endpoint fails so often, and so much more than the others, that the reason has to
    /// be with it.
    pub fn stands_out(&self, place: &Place, settings: &config::Eject) -> bool {
        let now = now_ms();
        let others = self.places.iter().filter(|other| other.endpoint.id != place.endpoint.id);
        let together = others.map(|other| other.endpoint.recent(now));
        let together = together.fold(Recent::default(), std::ops::Add::add);
        place.endpoint.recent(now).stands_out(together, settings)
    }

    /// Takes an endpoint out for a while, unless too many are out or no other is ready.
    /// Says for how long.
    pub fn eject(&self, place: &Place, settings: &config::Eject) -> Option<Duration> {
        let _one_at_a_time = self.ejecting.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let now = now_ms();
        if place.endpoint.is_ejected(now) {
            return None;
        }
        let out = self.places.iter().filter(|other| other.endpoint.is_ejected(now)).count();
        let others = |other: &&Arc<Place>| other.endpoint.id != place.endpoint.id;
        let other_ready =
            self.places.iter().filter(others).any(|other| other.state(now) == State::Ready);
        let allowed = self.places.len() * settings.max_percent as usize / 100;
        (other_ready && out < allowed)
            .then(|| place.endpoint.eject(settings.time, settings.time_max, now))
    }
}

/// FNV-1a, then mixed: stable between gateways, so that they agree on where a session lives.
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    mod memory;

    const EJECT: config::Eject = config::Eject {
        consecutive: 3,
        time: Duration::from_secs(60),
        time_max: Duration::from_secs(200),
        failure_percent: 50,
        failure_min: 10,
        max_percent: 50,
    };

    fn limited(n: u16, limit: u32) -> Pool {
        let pool = pool(n);
        pool.places().iter().for_each(|place| place.set_limit(Some(limit)));
        pool
    }

    fn pool(n: u16) -> Pool {
        let place = |port| {
            let address = config::Endpoint { host: "127.0.0.1".into(), port };
            let endpoint = Endpoint::new(address, config::Protocol::Http1);
            Arc::new(Place::new(Arc::new(endpoint), Arc::default()))
        };
        Pool::new((1..=n).map(place))
    }

    fn port(lease: &Lease) -> u16 {
        lease.endpoint().address.port
    }

    #[test]
    fn places_are_given_back() {
        let pool = limited(1, 1);
        let lease = pool.pick(None, &[], 0).expect("there is a place");
        assert!(pool.pick(None, &[], 0).is_none());
        drop(lease);
        assert!(pool.pick(None, &[], 0).is_some());
    }

    #[test]
    fn two_choices_spread_the_load() {
        let pool = pool(8);
        let leases: Vec<_> = (0..800).map(|_| pool.pick(None, &[], 0).expect("any")).collect();
        for place in pool.places() {
            assert!((90..=110).contains(&place.in_flight()), "{}", place.in_flight());
        }
        drop(leases);
    }

    #[test]
    fn a_full_pool_is_filled_to_the_last_place() {
        let pool = limited(5, 3);
        let leases: Vec<_> = (0..15).map(|_| pool.pick(None, &[], 0)).collect();
        assert!(leases.iter().all(Option::is_some));
        assert!(pool.pick(None, &[], 0).is_none());
    }

    #[test]
    fn who_has_more_than_a_new_limit_takes_no_more_until_it_is_below() {
        let pool = limited(1, 3);
        let mut leases: Vec<_> = (0..3).map(|_| pool.pick(None, &[], 0)).collect();
        pool.places()[0].set_limit(Some(2));
        leases.pop();
        assert!(pool.pick(None, &[], 0).is_none());
        leases.pop();
        assert!(pool.pick(None, &[], 0).is_some());
    }

    #[test]
    fn a_session_stays_until_its_endpoint_goes_and_others_stay_then() {
        let pool = pool(4);
        let homes = |pool: &Pool| -> Vec<u16> {
            (0..200)
                .map(|n| port(&pool.pick(Some(format!("s{n}").as_bytes()), &[], 0).expect("any")))
                .collect()
        };
        let before = homes(&pool);
        assert_eq!(before, homes(&pool));
        let gone = Arc::clone(&pool.places()[0]);
        assert!(pool.eject(&gone, &EJECT).is_some());
        for (before, after) in before.into_iter().zip(homes(&pool)) {
            assert!(before == after || before == gone.endpoint.address.port);
            assert_ne!(after, gone.endpoint.address.port);
        }
    }

    #[test]
    fn a_full_endpoint_gives_its_session_away() {
        let pool = limited(2, 1);
        let home = pool.pick(Some(b"s"), &[], 0).expect("any");
        let other = pool.pick(Some(b"s"), &[], 0).expect("the other");
        assert_ne!(port(&home), port(&other));
    }

    #[test]
    fn never_more_than_half_and_never_the_only_one() {
        for (n, out) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)] {
            let pool = pool(n);
            let ejected =
                pool.places().iter().filter(|place| pool.eject(place, &EJECT).is_some()).count();
            assert_eq!(ejected, out, "of {n}");
        }
        let pool = pool(2);
        pool.places()[0].probe.record(false, 1);
        assert!(pool.eject(&pool.places()[1], &EJECT).is_none(), "the last that is ready");
    }

    #[test]
    fn ejections_double_up_to_the_longest_and_start_anew_after_a_good_while() {
        let endpoint = &pool(1).places()[0].endpoint.clone();
        let seconds = |now| endpoint.eject(EJECT.time, EJECT.time_max, now).as_secs();
        assert_eq!((seconds(0), seconds(60_000)), (60, 120));
        endpoint.ended(true, 200_000);
        assert_eq!(seconds(200_000), 200);
        endpoint.ended(true, 1_000_000);
        assert_eq!(seconds(1_000_000), 60);
    }

    #[test]
    fn who_fails_more_than_the_others_stands_out_and_starts_anew_once_it_was_out() {
        let pool = pool(3);
        let [bad, good, other] = pool.places() else { panic!("three") };
        for place in pool.places() {
            (0..20).for_each(|_| place.endpoint.ended(!Arc::ptr_eq(place, bad), now_ms()));
        }
        assert!(pool.stands_out(bad, &EJECT));
        assert!(!pool.stands_out(good, &EJECT) && !pool.stands_out(other, &EJECT));
        assert!(pool.eject(bad, &EJECT).is_some());
        assert!(!pool.stands_out(bad, &EJECT));
    }

    #[test]
    fn where_all_fail_nobody_stands_out() {
        let pool = pool(4);
        for place in pool.places() {
            (0..20).for_each(|_| place.endpoint.ended(false, now_ms()));
        }
        assert!(pool.places().iter().all(|place| !pool.stands_out(place, &EJECT)));
    }

    #[test]
    fn what_was_tried_comes_last() {
        let pool = pool(2);
        let tried = [pool.places()[0].endpoint.id];
        for _ in 0..20 {
            let lease = pool.pick(None, &tried, 0).expect("any");
            assert_eq!(port(&lease), pool.places()[1].endpoint.address.port);
        }
        let one = self::pool(1);
        assert!(one.pick(None, &[one.places()[0].endpoint.id], 0).is_some());
    }

    #[test]
    fn who_leaves_is_asked_until_it_begins_nothing_new() {
        let pool = pool(1);
        let place = &pool.places()[0];
        assert!(!place.turned_away(), "it stays");
        place.leave(true);
        assert!(pool.pick(None, &[], 0).is_some());
        assert!(place.turned_away());
        place.leave(true);
        assert!(pool.pick(None, &[], 0).is_none());
        assert_eq!((pool.ready(now_ms()), place.state(now_ms())), (0, State::Draining));
        place.leave(false);
        assert!(pool.pick(None, &[], 0).is_some(), "a new one at the same address");
    }

    #[test]
    fn probes_flip_after_enough_in_a_row() {
        let probe = Probe::default();
        assert!(!probe.record(false, 2));
        assert!(!probe.record(true, 1));
        assert!(!probe.record(false, 2));
        assert!(probe.record(false, 2));
        assert!(probe.is_unhealthy());
        assert!(probe.record(true, 1));
        assert!(!probe.is_unhealthy());
    }
}
