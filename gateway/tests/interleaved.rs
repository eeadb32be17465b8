//! The places, the line and a replica's memory under a concurrency checker: shuttle runs threads in many orders, each order
//! chosen at random (and again by PCT: Burckhardt et al., "A Randomized Scheduler with Probabilistic
//! Guarantees of Finding Bugs", ASPLOS 2010), and every step of an atomic is a point where another
//! thread may go on.
//!
//! It takes the files as they are and puts its own mutexes and atomics below them.

#![allow(dead_code, unreachable_pub)]

mod sync {
    pub use shuttle::sync::atomic::{
        AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering,
    };
    pub use shuttle::sync::{Arc, Mutex, MutexGuard};
    pub use std::sync::PoisonError;
}

#[path = "../src/admission/line.rs"]
mod line;
#[path = "../src/pool/memory.rs"]
mod memory;
#[path = "../src/admission/places.rs"]
mod places;
#[path = "../src/admission/service.rs"]
mod service;

use shuttle::thread;

use self::line::{Account, Terms};
use self::memory::{Claim, Memory, Room};
use self::places::Places;
use self::sync::Ordering::SeqCst;
use self::sync::{Arc, AtomicU32};

/// Orders that each test tries.
const ORDERS: usize = 2_000;
/// Switches between threads that PCT looks for a fault with.
const DEPTH: usize = 3;

/// Whose turn has come is told by this.
type Turn = Arc<AtomicU32>;

struct Yard {
    places: Places<Turn>,
    terms: [Terms; 2],
    /// Who has a place, as they say.
    inside: AtomicU32,
}

impl Yard {
    fn new(limit: u32) -> Arc<Self> {
        let terms = |class| Terms { account: Arc::new(Account::default()), class, weight: 1 };
        let yard = Self {
            places: Places::default(),
            terms: [terms(0), terms(1)],
            inside: AtomicU32::new(0),
        };
        yard.places.set_limit(limit);
        yard.places.classes.set_reserve(0.2);
        Arc::new(yard)
    }

    fn let_in(&self) {
        let hand = |turn: Turn, _: Terms, ()| {
            turn.store(1, SeqCst);
            true
        };
        self.places.let_in(1, |_| Some(()), hand);
    }

    fn leave(&self) {
        self.places.leave();
        if self.places.waiting() > 0 {
            self.let_in();
        }
    }

    fn within(&self, limit: u32) {
        assert!(self.inside.fetch_add(1, SeqCst) < limit, "more inside than there are places");
        thread::yield_now();
        self.inside.fetch_sub(1, SeqCst);
        self.leave();
    }

    fn join(&self, of: usize) -> (u64, Turn) {
        let turn = Turn::default();
        let refuse = |_: &mut line::Line<Turn>| None::<()>;
        let ticket = self.places.join(&self.terms[of], Arc::clone(&turn), 1, refuse);
        let ticket = ticket.expect("nobody refuses");
        self.let_in();
        (ticket, turn)
    }

    /// Enters, waits as long as it takes, and leaves.
    fn stay(&self, of: usize, limit: u32) {
        if !self.places.try_enter() {
            let (_, turn) = self.join(of);
            while turn.load(SeqCst) == 0 {
                thread::yield_now();
            }
        }
        self.within(limit);
    }

    /// Enters, or gives up at once.
    fn give_up(&self, of: usize, limit: u32) {
        if self.places.try_enter() {
            return self.within(limit);
        }
        let (ticket, _turn) = self.join(of);
        if self.places.cancel(&self.terms[of].account, ticket).is_none() {
            // Its turn had come.
            self.leave();
        }
    }
}

fn check(test: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(test.clone(), ORDERS);
    shuttle::check_pct(test, ORDERS, DEPTH);
}

/// Nobody is left waiting (the threads would never end), and nothing is left over.
fn all_left(yard: &Yard) {
    assert_eq!((yard.places.taken(), yard.places.waiting()), (0, 0));
}

#[test]
fn no_place_is_lost_or_given_twice_and_everybody_has_a_turn() {
    check(|| {
        let yard = Yard::new(1);
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let yard = Arc::clone(&yard);
                thread::spawn(move || yard.stay(n % 2, 1))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        all_left(&yard);
    });
}

#[test]
fn who_gives_up_as_its_turn_comes_costs_nobody_a_place() {
    check(|| {
        let yard = Yard::new(1);
        let threads: Vec<_> = (0..4)
            .map(|n| {
                let yard = Arc::clone(&yard);
                thread::spawn(move || match n {
                    0 | 1 => yard.give_up(n, 1),
                    _ => yard.stay(n % 2, 1),
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        all_left(&yard);
    });
}

#[test]
fn more_places_let_in_who_waits() {
    check(|| {
        let yard = Yard::new(0);
        let threads: Vec<_> = (0..2)
            .map(|n| {
                let yard = Arc::clone(&yard);
                thread::spawn(move || yard.stay(n, 2))
            })
            .collect();
        let grows = Arc::clone(&yard);
        let grow = thread::spawn(move || {
            for limit in 1..=2 {
                grows.places.set_limit(limit);
                grows.let_in();
            }
        });
        grow.join().unwrap();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        all_left(&yard);
    });
}

/// What the memory's file knows of an endpoint.
#[derive(Debug, Default)]
struct Endpoint {
    id: u64,
    memory: Memory,
}

#[test]
fn no_more_of_a_replicas_memory_is_taken_than_there_is() {
    check(|| {
        let endpoint = Arc::new(Endpoint::default());
        let room = Arc::new(Room::default());
        room.set(100, 1, true);
        let threads: Vec<_> = [70, 40, 30]
            .map(|need| {
                let (endpoint, room) = (Arc::clone(&endpoint), Arc::clone(&room));
                thread::spawn(move || {
                    for _ in 0..2 {
                        if !endpoint.memory.take(need, &room, 1) {
                            let claim = Claim::new(&endpoint, need, 1);
                            thread::yield_now();
                            drop(claim);
                            continue;
                        }
                        assert!(endpoint.memory.needed() <= 100);
                        endpoint.memory.give_back(need);
                    }
                })
            })
            .into_iter()
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(endpoint.memory.take(100, &room, 1), "all of it is there again");
    });
}
