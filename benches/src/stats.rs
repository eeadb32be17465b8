//! Medians, quantiles, and how sure a median of few values is.

/// Resamples for an interval.
const RESAMPLES: usize = 4000;
/// The same numbers give the same interval.
const SEED: u64 = 20;

/// By nearest rank; not a number where there are no values.
#[must_use]
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// The one in the middle, or halfway between the two.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len() / 2, sorted.len() % 2) {
        (0, 0) => f64::NAN,
        (half, 0) => f64::midpoint(sorted[half - 1], sorted[half]),
        (half, _) => sorted[half],
    }
}

/// A median and the ends of its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Of the values as they are.
    pub median: f64,
    /// Below it lie 2.5 % of the medians of resamples.
    pub low: f64,
    /// Above it lie 2.5 %.
    pub high: f64,
}

impl Estimate {
    /// By the percentile bootstrap (Efron 1979).
    #[must_use]
    pub fn of(values: &[f64]) -> Self {
        let mut random = fastrand::Rng::with_seed(SEED);
        let mut resample = || -> f64 {
            let drawn = values.iter().map(|_| values[random.usize(..values.len())]);
            median(&drawn.collect::<Vec<_>>())
        };
        let medians: Vec<_> = (0..RESAMPLES).map(|_| resample()).collect();
        let (low, high) = (quantile(&medians, 0.025), quantile(&medians, 0.975));
        Self { median: median(values), low, high }
    }
}

/// Quotients of what was measured in the same round.
#[must_use]
pub fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(our, their)| our / their).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&values, 0.99), 99.0);
        assert_eq!(quantile(&values, 1.0), 100.0);
    }

    #[test]
    fn an_interval_holds_its_median_and_narrows_with_agreement() {
        let wide = Estimate::of(&[0.8, 0.9, 1.0, 1.1, 1.2]);
        assert!(wide.low <= wide.median && wide.median <= wide.high, "{wide:?}");
        assert!(wide.low < wide.high, "{wide:?}");
        let narrow = Estimate::of(&[1.0; 5]);
        assert_eq!((narrow.low, narrow.high), (1.0, 1.0));
    }

    #[test]
    fn a_ratio_is_of_one_round() {
        assert_eq!(ratios(&[2.0, 9.0], &[1.0, 3.0]), [2.0, 3.0]);
    }
}
