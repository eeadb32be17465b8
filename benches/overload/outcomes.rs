//! What is said of many outcomes: waits, refusals, codes, shares.

use std::collections::BTreeMap;

use benches::packing::Window;
use benches::stats::{median, quantile};

use super::args::Effort;
use super::client::{Outcome, Served};

/// The part of a run that counts: after the warm-up, as long as requests come.
pub(crate) fn window(effort: Effort) -> Window {
    Window { from: effort.warm_up.as_secs_f64(), to: effort.time.as_secs_f64() }
}

/// Those that were due in it.
pub(crate) fn due(window: Window, outcomes: &[Outcome]) -> impl Iterator<Item = &Outcome> {
    outcomes.iter().filter(move |outcome| window.holds(outcome.arrival.due.as_secs_f64()))
}

/// How many, of this source or of all, a replica was done with in it.
pub(crate) fn done(window: Window, outcomes: &[Outcome], source: Option<usize>) -> usize {
    let of = outcomes.iter().filter(|outcome| source.is_none_or(|n| n == outcome.arrival.source));
    of.filter_map(|outcome| outcome.served).filter(|served| window.holds(served.ended)).count()
}

impl Outcome {
    /// From when it was due to when a replica had it, in milliseconds.
    fn wait_ms(&self, served: Served) -> f64 {
        (served.begun - self.arrival.due.as_secs_f64()) * 1e3
    }

    /// The gateway said that there is no room now.
    fn refused(&self) -> bool {
        matches!(self.status, 429 | 503) && self.code.is_some()
    }

    /// Neither served nor refused.
    pub(crate) fn lost(&self) -> bool {
        self.status != 200 && !self.refused()
    }
}

/// Waits of those that were served.
pub(crate) fn waits_ms<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Vec<f64> {
    outcomes.filter_map(|outcome| Some(outcome.wait_ms(outcome.served?))).collect()
}

/// How long it took to be refused: at once, and after a wait in line (`queue-timeout`).
pub(crate) fn refusals_ms<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Vec<f64> {
    outcomes.filter(|outcome| outcome.refused()).map(|outcome| outcome.took_ms).collect()
}

/// `p50 / p99`, in milliseconds.
pub(crate) fn middle_and_tail(values: &[f64]) -> String {
    match values {
        [] => "-".to_owned(),
        _ => format!("{} / {}", short(quantile(values, 0.5)), short(quantile(values, 0.99))),
    }
}

/// How many of each answer there were.
pub(crate) fn answers(outcomes: &[Outcome]) -> String {
    let mut counts = BTreeMap::new();
    for outcome in outcomes {
        let name = match (outcome.status, outcome.code.as_deref()) {
            (0, _) => "cut off".to_owned(),
            (status, None) => status.to_string(),
            (status, Some(code)) => format!("{status} {code}"),
        };
        *counts.entry(name).or_insert(0) += 1;
    }
    let counts: Vec<_> = counts.iter().map(|(name, n)| format!("{name}: {n}")).collect();
    counts.join(", ")
}

/// Least, middle and most of the seconds in `Retry-After`.
pub(crate) fn retry_after(outcomes: &[Outcome]) -> String {
    let seconds: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.retry_after_s).collect();
    if seconds.is_empty() {
        return "-".to_owned();
    }
    let (least, most) = (quantile(&seconds, 0.0), quantile(&seconds, 1.0));
    format!("{least:.0} / {:.0} / {most:.0}", median(&seconds))
}

/// Jain's index of fairness (Jain, Chiu and Hawe 1984): 1 where all have the same, 1/n where one
/// has all.
pub(crate) fn jain(values: &[f64]) -> f64 {
    let (sum, squares) = (values.iter().sum::<f64>(), values.iter().map(|v| v * v).sum::<f64>());
    sum * sum / (values.len() as f64 * squares)
}

/// A number with as many places as one reads.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
