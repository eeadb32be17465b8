//! The places and the line against a model of them: random arrivals, ends, cancels and changes of the
//! number of places, by a clock of the test's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::admission::line::{Account, Terms};
use crate::admission::places::Places;
use crate::admission::service::CLASSES;

/// Random runs, each of so many steps.
const RUNS: u64 = 200;
const STEPS: usize = 2_000;
const TENANTS: usize = 6;

struct Yard {
    places: Places<u64>,
    terms: Vec<Terms>,
    now_ms: u64,
    next: u64,
    /// Those that wait: by their number, their ticket and tenant.
    waiting: BTreeMap<u64, (u64, usize)>,
    /// Those that have a place: by their number, tenant and since when.
    inside: BTreeMap<u64, (usize, u64)>,
    served_ms: Vec<u64>,
}

impl Yard {
    /// Tenants as (class, weight).
    fn new(limit: u32, reserve: f64, tenants: &[(usize, u32)]) -> Self {
        let terms = |(class, weight): &(usize, u32)| Terms {
            account: Arc::new(Account::default()),
            class: *class,
            weight: *weight,
        };
        let yard = Self {
            places: Places::default(),
            terms: tenants.iter().map(terms).collect(),
            now_ms: 1_000_000,
            next: 0,
            waiting: BTreeMap::new(),
            inside: BTreeMap::new(),
            served_ms: vec![0; tenants.len()],
        };
        yard.places.set_limit(limit);
        yard.places.classes.set_reserve(reserve);
        yard
    }

    fn let_in(&mut self) {
        let mut came = Vec::new();
        self.places.let_in(
            self.now_ms,
            |_| Some(()),
            |number, _, ()| {
                came.push(number);
                true
            },
        );
        for number in came {
            let (_, tenant) = self.waiting.remove(&number).expect("it waited");
            self.inside.insert(number, (tenant, self.now_ms));
        }
    }

    fn arrive(&mut self, tenant: usize) {
        let number = self.next;
        self.next += 1;
        if self.places.try_enter() {
            let terms = &self.terms[tenant];
            terms.account.service.begin(self.now_ms);
            self.places.classes.of(terms.class).begin(self.now_ms);
            self.inside.insert(number, (tenant, self.now_ms));
            return;
        }
        let ticket = self.places.join(&self.terms[tenant], number, self.now_ms, |_| None::<()>);
        self.waiting.insert(number, (ticket.expect("nobody refuses"), tenant));
        self.let_in();
    }

    fn end(&mut self, number: u64) {
        let (tenant, begun) = self.inside.remove(&number).expect("it is inside");
        let terms = &self.terms[tenant];
        terms.account.service.end(begun, self.now_ms);
        self.places.classes.of(terms.class).end(begun, self.now_ms);
        self.served_ms[tenant] += self.now_ms - begun;
        self.places.leave();
        self.let_in();
    }

    fn cancel(&mut self, number: u64) {
        let (ticket, tenant) = self.waiting.remove(&number).expect("it waits");
        let left = self.places.cancel(&self.terms[tenant].account, ticket);
        assert_eq!(left, Some(number));
    }

    /// What holds whatever has happened.
    fn holds(&self, limit: u32) {
        let inside = self.inside.len() as u32;
        assert_eq!(self.places.taken(), inside);
        assert_eq!(self.places.waiting(), self.waiting.len());
        assert!(self.waiting.is_empty() || inside >= limit, "somebody waits beside a free place");
        for (tenant, terms) in self.terms.iter().enumerate() {
            let running = self.inside.values().filter(|(of, _)| *of == tenant).count();
            assert_eq!(terms.account.service.running() as usize, running);
        }
    }

    /// Keeps everybody waiting for so long, each request of a tenant taking as long as is said.
    fn overload(&mut self, ms: u64, takes: impl Fn(usize) -> u64) {
        let until = self.now_ms + ms;
        while self.now_ms < until {
            for tenant in 0..self.terms.len() {
                while self.waiting.values().filter(|(_, of)| *of == tenant).count() < 3 {
                    self.arrive(tenant);
                }
            }
            let due = |(number, (tenant, begun)): (&u64, &(usize, u64))| {
                (begun + takes(*tenant), *number)
            };
            let (at, number) = self.inside.iter().map(due).min().expect("somebody is inside");
            self.now_ms = at;
            self.end(number);
        }
    }
}

fn nth(of: &BTreeMap<u64, impl Copy>, random: &mut fastrand::Rng) -> Option<u64> {
    if of.is_empty() { None } else { of.keys().nth(random.usize(..of.len())).copied() }
}

#[test]
fn whatever_comes_there_are_never_more_than_places_and_none_is_lost() {
    for seed in 0..RUNS {
        let mut random = fastrand::Rng::with_seed(seed);
        let tenants: Vec<_> =
            (0..TENANTS).map(|_| (random.usize(..CLASSES), random.u32(1..5))).collect();
        let mut limit = random.u32(0..6);
        let mut yard = Yard::new(limit, 0.1, &tenants);
        for _ in 0..STEPS {
            yard.now_ms += random.u64(..50);
            match random.u8(..10) {
                0..=4 => yard.arrive(random.usize(..TENANTS)),
                5..=7 => {
                    if let Some(number) = nth(&yard.inside, &mut random) {
                        yard.end(number);
                    }
                }
                8 => {
                    if let Some(number) = nth(&yard.waiting, &mut random) {
                        yard.cancel(number);
                    }
                }
                _ => {
                    limit = random.u32(0..6);
                    yard.places.set_limit(limit);
                    yard.let_in();
                }
            }
            yard.holds(limit);
        }
        // In the end everybody has had a turn.
        limit = limit.max(1);
        yard.places.set_limit(limit);
        yard.let_in();
        while let Some(number) = nth(&yard.inside, &mut random) {
            yard.now_ms += 10;
            yard.end(number);
            yard.holds(limit);
        }
        assert!(yard.waiting.is_empty(), "seed {seed}");
    }
}

/// Whether each got its part of all, to within a tenth.
fn shared(yard: &Yard, parts: &[f64]) {
    let all: u64 = yard.served_ms.iter().sum();
    for (tenant, part) in parts.iter().enumerate() {
        let got = yard.served_ms[tenant] as f64 / all as f64;
        assert!((got / part - 1.0).abs() < 0.1, "tenant {tenant}: {got} for {part}");
    }
}

#[test]
fn tenants_are_served_by_their_weights_however_long_their_requests_take() {
    let mut yard = Yard::new(4, 0.0, &[(0, 1), (0, 1), (0, 2)]);
    yard.overload(2_000_000, |tenant| [20, 5_000, 300][tenant]);
    shared(&yard, &[0.25, 0.25, 0.5]);
}

#[test]
fn how_long_somebody_would_wait_is_learned_from_the_pace() {
    let mut yard = Yard::new(4, 0.0, &[(0, 1), (0, 3)]);
    yard.overload(100_000, |_| 100);
    // Forty are let in a second, thirty of them of the second tenant.
    for (tenant, gap) in [(0, 100), (1, 33)] {
        let account = &yard.terms[tenant].account;
        let line = yard.places.line();
        let turns = line.len_of(account) as u64 + 1;
        let expected = line.expected_ms(account, yard.now_ms).expect("the pace is known");
        assert!((turns * gap / 2..=turns * gap * 2).contains(&expected), "{expected} of {turns}");
    }
}

#[test]
fn who_asks_for_most_fills_a_full_line_only_with_its_own() {
    let mut yard = Yard::new(0, 0.0, &[(0, 1), (0, 1), (1, 1)]);
    for _ in 0..8 {
        yard.arrive(0);
    }
    for _ in 0..2 {
        yard.arrive(2);
    }
    let gives_way = |yard: &Yard, tenant: usize| {
        yard.places.line().make_room(&yard.terms[tenant]).map(|number| yard.waiting[&number].1)
    };
    assert_eq!(gives_way(&yard, 1), Some(2), "the lower class first");
    assert_eq!(gives_way(&yard, 0), Some(2));
    assert_eq!(gives_way(&yard, 0), None, "not for one's own sake");
    assert_eq!(gives_way(&yard, 2), None, "not for a lower class");
    for left in (2..=8).rev() {
        assert_eq!(gives_way(&yard, 1), Some(0), "{left}");
    }
    assert_eq!(gives_way(&yard, 1), None, "level by now");
}

#[test]
fn a_lower_class_has_its_reserve_and_no_more() {
    let mut yard = Yard::new(4, 0.1, &[(0, 1), (0, 1), (1, 1), (2, 1)]);
    yard.overload(2_000_000, |tenant| [100, 900, 200, 1_000][tenant]);
    shared(&yard, &[0.4, 0.4, 0.1, 0.1]);
}

#[test]
fn without_a_reserve_a_lower_class_waits_for_all_others() {
    let mut yard = Yard::new(2, 0.0, &[(0, 1), (2, 1)]);
    yard.overload(100_000, |_| 100);
    assert_eq!(yard.served_ms[1], 0);
}

#[test]
fn what_was_used_while_nobody_waited_is_held_against_nobody() {
    let mut yard = Yard::new(4, 0.0, &[(0, 1), (0, 1)]);
    // The first has had all four for an hour, and goes on.
    for _ in 0..4 {
        yard.arrive(0);
    }
    yard.now_ms += 3_600_000;
    let before = yard.now_ms;
    yard.overload(60_000, |tenant| if tenant == 0 { 3_600_100 } else { 100 });
    assert!(yard.now_ms > before);
    let begun_anew =
        yard.inside.values().filter(|(tenant, since)| *tenant == 0 && *since >= before);
    assert!(begun_anew.count() > 0, "it is not left waiting for what it used before");
}

#[test]
fn long_runs_of_one_do_not_keep_the_short_ones_of_another_waiting() {
    let mut yard = Yard::new(4, 0.0, &[(0, 1), (0, 1)]);
    // A burst of runs of an hour, and then somebody who has one short question after another.
    for _ in 0..200 {
        yard.arrive(0);
    }
    for _ in 0..100 {
        yard.now_ms += 1_000;
        yard.arrive(1);
        assert_eq!(yard.inside.len(), 4);
        let oldest = yard.inside.iter().min_by_key(|(_, (_, since))| *since).map(|(n, _)| *n);
        yard.end(oldest.expect("somebody is inside"));
        let waits = yard.waiting.values().filter(|(_, tenant)| *tenant == 1).count();
        assert_eq!(waits, 0, "the next place that becomes free is its");
        let short = yard.inside.iter().find(|(_, (tenant, _))| *tenant == 1).map(|(n, _)| *n);
        yard.now_ms += 50;
        yard.end(short.expect("it has a place"));
    }
}
