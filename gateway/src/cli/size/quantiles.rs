//! Quantiles of the windows' peaks with their confidence, in bounded memory whatever the time: a
//! mergeable sketch for the values, order statistics for the intervals.
//!
//! The sketch is DDSketch (Masson, Rim, Lee: "DDSketch", VLDB 2019). The intervals hold for any
//! distribution: how many of n independent values lie below a quantile is binomial.

use sketches_ddsketch::{Config, DDSketch};
use statrs::function::beta::beta_reg;

/// A quantile out of the sketch is off by at most this part of itself.
pub(super) const ERROR: f64 = 0.002;
/// Bins of a sketch, of 8 bytes: with [`ERROR`] enough for values whose largest is 10^14 times the
/// smallest.
const BINS: u32 = 8192;
/// Values below it count as zero: a byte, or a thousandth of a CPU.
const LEAST: f64 = 1.0;
/// How often an interval may miss, on both sides together.
const MISS: f64 = 0.05;

/// The fewest independent windows that bound a 99th percentile from above: below that the largest
/// of them is smaller too often, 0.99^298 > 0.05.
pub(super) const P99_WINDOWS: f64 = 299.0;

/// Many values, as far as their quantiles are wanted.
#[derive(Clone)]
pub(super) struct Sketch(DDSketch);

/// A quantile, and between what it lies in 95 % of all cases. `None`: nobody can say from so few.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Quantile {
    pub(super) value: f64,
    pub(super) low: Option<f64>,
    pub(super) high: Option<f64>,
}

impl Default for Sketch {
    fn default() -> Self {
        Self(DDSketch::new(Config::new(ERROR, BINS, LEAST)))
    }
}

impl Sketch {
    pub(super) fn add(&mut self, value: f64) {
        self.0.add(value);
    }

    /// Takes in what another has seen, such as that of another replica.
    pub(super) fn merge(&mut self, other: &Sketch) {
        self.0.merge(&other.0).expect("all sketches have the same bins");
    }

    pub(super) fn count(&self) -> usize {
        self.0.count()
    }

    /// 0 when it is empty.
    pub(super) fn max(&self) -> f64 {
        self.0.max().unwrap_or(0.0)
    }

    /// The value that so great a part doesn't exceed; 0 when it is empty.
    pub(super) fn at(&self, part: f64) -> f64 {
        let value = self.0.quantile(part.clamp(0.0, 1.0)).ok().flatten().unwrap_or(0.0);
        // The ends are known exactly.
        value.clamp(self.0.min().unwrap_or(0.0), self.max())
    }

    /// A quantile of what the values were drawn from, when they tell as much as `worth` independent
    /// ones.
    pub(super) fn quantile(&self, part: f64, worth: f64) -> Quantile {
        let n = worth.min(self.count() as f64).floor();
        let low = rank_below(n, part, MISS / 2.0).map(|rank| self.at((rank - 1.0) / n));
        let high = rank_above(n, part, MISS / 2.0).map(|rank| self.at(rank / n));
        Quantile { value: self.at(part), low, high }
    }

    /// What a quantile doesn't exceed in 95 % of all cases; `None` when there are too few values.
    pub(super) fn upper(&self, part: f64, worth: f64) -> Option<f64> {
        let n = worth.min(self.count() as f64).floor();
        rank_above(n, part, MISS).map(|rank| self.at(rank / n))
    }
}

/// The highest rank, from 1, whose value exceeds the quantile no oftener than `miss`.
fn rank_below(n: f64, part: f64, miss: f64) -> Option<f64> {
    let rank = first(n, |k| binomial(k, n, part) > miss);
    (rank >= 1.0).then_some(rank)
}

/// The lowest rank whose value is under the quantile no oftener than `miss`.
fn rank_above(n: f64, part: f64, miss: f64) -> Option<f64> {
    let rank = first(n, |k| binomial(k, n, part) >= 1.0 - miss) + 1.0;
    (rank <= n).then_some(rank)
}

/// The least k from 0 to n of which `is` holds, when it holds from there on.
fn first(n: f64, is: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, n.max(0.0));
    while low < high {
        let middle = ((low + high) / 2.0).floor();
        if is(middle) { high = middle } else { low = middle + 1.0 }
    }
    low
}

/// How likely at most k of n succeed.
fn binomial(k: f64, n: f64, part: f64) -> f64 {
    if k >= n { 1.0 } else { beta_reg(n - k, k + 1.0, 1.0 - part) }
}

#[cfg(test)]
mod tests {
    use super::super::trend::worth;
    use super::*;

    /// Standard normal values (Box-Muller).
    fn normals(random: &mut fastrand::Rng) -> impl FnMut() -> f64 {
        || {
            let (one, two) = (1.0 - random.f64(), random.f64());
            (-2.0 * one.ln()).sqrt() * (std::f64::consts::TAU * two).cos()
        }
    }

    #[test]
    fn a_sketch_is_as_exact_as_it_says_and_merges() {
        let (mut one, mut other) = (Sketch::default(), Sketch::default());
        (1..=10_000).for_each(|i| {
            let to = if i % 2 == 0 { &mut one } else { &mut other };
            to.add(f64::from(i) * 1e5);
        });
        one.merge(&other);
        assert_eq!((one.count(), one.max(), one.at(1.0)), (10_000, 1e9, 1e9));
        assert_eq!(Sketch::default().at(0.5), 0.0);
        for part in [0.5, 0.9, 0.99] {
            let (value, exact) = (one.at(part), part * 1e9);
            assert!((value / exact - 1.0).abs() < ERROR + 1e-4, "{part}: {value}");
        }
    }

    #[test]
    fn known_ranks_are_found() {
        // 0.99^299 = 0.0495: the largest of 299 is enough, that of 298 isn't.
        assert_eq!(rank_above(P99_WINDOWS, 0.99, 0.05), Some(299.0));
        assert_eq!(rank_above(P99_WINDOWS - 1.0, 0.99, 0.05), None);
        // The tables' interval of the median of 100: ranks 40 and 61.
        assert_eq!(rank_below(100.0, 0.5, 0.025), Some(40.0));
        assert_eq!(rank_above(100.0, 0.5, 0.025), Some(61.0));
        assert_eq!(rank_below(3.0, 0.5, 0.025), None);
        assert_eq!(rank_above(0.0, 0.5, 0.025), None);
    }

    const TRIALS: usize = 400;

    /// In how many of the trials the interval holds the quantile of a log-normal distribution.
    fn covered(part: f64, z: f64, correlation: f64, count: usize) -> usize {
        let mut random = fastrand::Rng::with_seed(22);
        let (mut normal, truth) = (normals(&mut random), (10.0 + 0.5 * z).exp());
        let fresh = (1.0 - correlation * correlation).sqrt();
        let mut holds = || {
            let (mut sketch, mut values, mut state) = (Sketch::default(), Vec::new(), normal());
            for _ in 0..count {
                state = correlation * state + fresh * normal();
                let value = (10.0 + 0.5 * state).exp();
                sketch.add(value);
                values.push(value);
            }
            let quantile = sketch.quantile(part, worth(&values));
            let slack = truth * ERROR;
            quantile.low.is_none_or(|low| low <= truth + slack)
                && quantile.high.is_none_or(|high| high >= truth - slack)
        };
        (0..TRIALS).filter(|_| holds()).count()
    }

    #[test]
    fn the_intervals_hold_the_quantile_as_often_as_they_say() {
        for (part, z) in [(0.5, 0.0), (0.9, 1.2816), (0.99, 2.3263)] {
            let covered = covered(part, z, 0.0, 400);
            assert!(covered * 100 >= TRIALS * 93, "p{}: {covered}", part * 100.0);
        }
    }

    #[test]
    fn windows_that_hang_together_count_for_fewer() {
        let covered = covered(0.5, 0.0, 0.9, 1000);
        assert!(covered * 100 >= TRIALS * 90, "{covered}");
    }
}
