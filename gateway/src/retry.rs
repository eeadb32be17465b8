//! Whether a request may be tried again: what kind of failure allows it, and the budget.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use http::Method;

use crate::forward::Chance;
use crate::message::{Fields, Name};
use crate::pool::now_ms;

/// Whether another attempt may be made after such a failure. `unsent`: nothing of the request went
/// out; `repeatable`: all of its body is still here.
#[must_use]
pub fn allows(
    chance: Chance,
    (unsent, repeatable): (bool, bool),
    method: &Method,
    fields: &Fields,
) -> bool {
    match chance {
        Chance::NotBegun => unsent || repeatable,
        Chance::Unknown => repeatable && is_idempotent(method, fields),
        Chance::None => false,
    }
}

/// Whether sending it twice does no more than sending it once.
fn is_idempotent(method: &Method, fields: &Fields) -> bool {
    method.is_idempotent() || fields.contains(Name::IdempotencyKey)
}

/// Seconds that a [`Budget`] looks back, and one being filled.
const BUDGET_SECONDS: u64 = 10;
/// Retries that are always allowed within that time.
const BUDGET_MIN: u32 = 3;

/// How much retrying is left: a share of the last ten seconds' requests, at least three.
#[derive(Debug, Default)]
pub struct Budget {
    seconds: [Second; BUDGET_SECONDS as usize],
}

#[derive(Debug, Default)]
struct Second {
    number: AtomicU64,
    requests: AtomicU32,
    retries: AtomicU32,
}

impl Budget {
    /// Counts a request.
    pub fn request(&self) {
        self.second(Self::now()).requests.fetch_add(1, SeqCst);
    }

    /// Takes one retry out of the budget, if there is one.
    pub fn take(&self, share: f64) -> bool {
        let now = Self::now();
        let (mut requests, mut retries) = (0, 0);
        for second in &self.seconds {
            if second.number.load(SeqCst) + BUDGET_SECONDS > now {
                requests += second.requests.load(SeqCst);
                retries += second.retries.load(SeqCst);
            }
        }
        let allowed = ((f64::from(requests) * share) as u32).max(BUDGET_MIN);
        if retries >= allowed {
            return false;
        }
        self.second(now).retries.fetch_add(1, SeqCst);
        true
    }

    fn now() -> u64 {
        now_ms() / 1000
    }

    fn second(&self, now: u64) -> &Second {
        let second = &self.seconds[(now % BUDGET_SECONDS) as usize];
        if second.number.load(SeqCst) != now && second.number.swap(now, SeqCst) != now {
            second.requests.store(0, SeqCst);
            second.retries.store(0, SeqCst);
        }
        second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_a_share_and_at_least_three() {
        let budget = Budget::default();
        assert_eq!((0..10).filter(|_| budget.take(0.2)).count(), 3);
        for _ in 0..100 {
            budget.request();
        }
        assert_eq!((0..100).filter(|_| budget.take(0.2)).count(), 17);
    }

    #[test]
    fn a_key_makes_a_post_idempotent() {
        let mut fields = Fields::default();
        assert!(is_idempotent(&Method::PUT, &fields));
        assert!(!is_idempotent(&Method::POST, &fields));
        fields.push(Name::IdempotencyKey, b"k");
        assert!(is_idempotent(&Method::POST, &fields));
    }
}
