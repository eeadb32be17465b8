//! Whether values in their order are what they seem: how many independent ones they are worth, and
//! whether they grow.

/// The correlation that chance alone seldom exceeds is this over the root of their count.
const CHANCE: f64 = 1.96;
/// Wandering within this part of the level is a third of the usual headroom; flickering within this one is
/// less than the sizes are rounded by.
const WANDER_PART: f64 = 0.05;
const FLICKER_PART: f64 = 0.01;
/// Values to each side over which wandering is told from the rest.
const AROUND: usize = 25;
/// Of the flicker that is put over that of the values.
const SEED: u64 = 5;
/// Blocks that a trend is looked for in: enough for the test, few enough to be independent.
const BLOCKS: usize = 24;
/// Each quarter has at least this part of all growth.
const STEADY_PART: f64 = 0.1;
/// The fewest values that can show a trend.
const TREND_MIN: usize = 12;
/// The normal quantile beyond which a trend is no chance: one in a thousand, on one side.
const SURE: f64 = 3.09;
/// Growth below these is not worth stopping for: a part of the level, and bytes.
const GROWTH_PART: f64 = 0.02;
const GROWTH_BYTES: f64 = 1024.0 * 1024.0;

/// How many independent windows these peaks are worth. What comes before the last two thirds is warming up;
/// what wanders slowly and little, or flickers by less than anybody would notice, is no dependence that
/// matters: an agent whose memory stands still would otherwise never be known.
pub(super) fn worth(values: &[f64]) -> f64 {
    let late = &values[values.len() / 3..];
    let level = median(late);
    let slow: Vec<f64> = (0..late.len()).map(|at| around(late, at)).collect();
    let wanders = part_of(&slow, 0.95) - part_of(&slow, 0.05) > level * WANDER_PART;
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut flicker = || (random.f64() - 0.5) * 2.0 * FLICKER_PART * level;
    let left =
        late.iter().zip(&slow).map(|(value, slow)| value - if wanders { 0.0 } else { *slow });
    let left: Vec<f64> = left.map(|value| value + flicker()).collect();
    independent(&left) * values.len() as f64 / late.len().max(1) as f64
}

/// The median of the values around one.
fn around(values: &[f64], at: usize) -> f64 {
    median(&values[at.saturating_sub(AROUND)..values.len().min(at + AROUND + 1)])
}

fn part_of(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get((sorted.len().saturating_sub(1) as f64 * part) as usize).copied().unwrap_or(0.0)
}

/// How many independent values these tell as much as: their count over the integrated
/// autocorrelation time of their ranks, summed as far as it is more than chance.
fn independent(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let ranks = ranks(values);
    let mean = (n - 1.0) / 2.0;
    let product = |lag: usize| {
        ranks.iter().zip(&ranks[lag..]).map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>()
    };
    let variance = if ranks.is_empty() { 0.0 } else { product(0) };
    if variance == 0.0 {
        return n;
    }
    let significant = |rho: &f64| *rho > CHANCE / n.sqrt();
    let correlations = (1..values.len() / 2).map(|lag| product(lag) / variance);
    let time = 1.0 + 2.0 * correlations.take_while(significant).sum::<f64>();
    n / time
}

/// The place of each value in their order, from 0; equal ones share theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut from = 0;
    for same in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let rank = from as f64 + (same.len() as f64 - 1.0) / 2.0;
        same.iter().for_each(|index| ranks[*index] = rank);
        from += same.len();
    }
    ranks
}

/// What memory grows by from one value to the next, when it grows beyond doubt (Mann-Kendall, with
/// the slope of Theil and Sen) and to an extent that matters. What comes before the last two thirds
/// is warming up.
pub(super) fn growth(values: &[f64]) -> Option<f64> {
    let values = &values[values.len() / 3..];
    if values.len() < TREND_MIN {
        return None;
    }
    let size = values.len().div_ceil(BLOCKS);
    // A last block that isn't whole would weigh as much as the others.
    let blocks: Vec<f64> = values.chunks_exact(size).map(median).collect();
    let quarters: Vec<f64> = values.chunks(values.len().div_ceil(4)).map(median).collect();
    let (first, last) = (quarters[0], quarters[quarters.len() - 1]);
    let matters = last - first > (first * GROWTH_PART).max(GROWTH_BYTES);
    // A step, as when an allocator takes another piece, is over; what grows does so in each quarter.
    let steady = quarters.windows(2).all(|two| two[1] - two[0] >= (last - first) * STEADY_PART);
    (matters && steady && kendall(&blocks) > SURE).then(|| slope(&blocks) / size as f64)
}

pub(super) fn median(values: &[f64]) -> f64 {
    let (mut values, middle) = (values.to_vec(), values.len() / 2);
    if values.is_empty() {
        return 0.0;
    }
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

fn pairs(values: &[f64]) -> impl Iterator<Item = (usize, f64)> {
    let after = move |i: usize| {
        values[i + 1..].iter().enumerate().map(move |(n, v)| (n + 1, v - values[i]))
    };
    (0..values.len()).flat_map(after)
}

/// Mann and Kendall's statistic, standard normal when there is no trend.
fn kendall(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let sign = |(_, difference): (usize, f64)| match difference {
        d if d > 0.0 => 1.0,
        d if d < 0.0 => -1.0,
        _ => 0.0,
    };
    let sum: f64 = pairs(values).map(sign).sum();
    let deviation = (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
    (sum - sum.signum()) / deviation
}

fn slope(values: &[f64]) -> f64 {
    let slopes: Vec<f64> = pairs(values).map(|(apart, more)| more / apart as f64).collect();
    median(&slopes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: f64 = 1048576.0;

    fn noise(count: usize) -> Vec<f64> {
        let mut random = fastrand::Rng::with_seed(7);
        (0..count).map(|_| 200.0 * MIB + random.f64() * 40.0 * MIB).collect()
    }

    #[test]
    fn independent_values_count_as_they_are() {
        assert!(independent(&noise(400)) > 360.0);
        assert_eq!(independent(&[5.0; 10]), 10.0);
        assert_eq!(independent(&[]), 0.0);
    }

    #[test]
    fn values_that_stay_for_a_while_count_once() {
        let held: Vec<f64> = noise(100).iter().flat_map(|value| [*value; 8]).collect();
        let worth = independent(&held);
        assert!((70.0..140.0).contains(&worth), "{worth} of 800 in 100 groups");
    }

    #[test]
    fn what_stands_still_but_for_a_little_is_known_well() {
        let creeping: Vec<f64> =
            (0..450).map(|i| 100.0 * MIB + f64::from(i) * MIB / 150.0).collect();
        let steps: Vec<f64> = (0..450).map(|i| (100.0 + f64::from(i / 90)) * MIB).collect();
        let warm: Vec<f64> = (0..450).map(|i| f64::from(i.min(120) + 20) * MIB).collect();
        for values in [creeping, steps, warm, vec![5.0; 450]] {
            assert!(worth(&values) > 299.0, "{}", worth(&values));
        }
        assert_eq!(worth(&[]), 0.0);
    }

    #[test]
    fn large_slow_swings_are_few() {
        let swings: Vec<f64> =
            (0..450).map(|i| (100.0 + 30.0 * (f64::from(i) / 40.0).sin()) * MIB).collect();
        assert!(worth(&swings) < 50.0, "{}", worth(&swings));
    }

    #[test]
    fn noise_and_warming_up_are_no_growth() {
        let warm: Vec<f64> =
            noise(300).iter().enumerate().map(|(i, v)| v + (i.min(90) as f64) * MIB).collect();
        let step: Vec<f64> = (0..300).map(|i| (100.0 + f64::from(i / 220) * 9.0) * MIB).collect();
        for values in [noise(300), warm, step, vec![5.0 * MIB; 100], Vec::new(), noise(5)] {
            assert_eq!(growth(&values), None, "{} values", values.len());
        }
    }

    #[test]
    fn a_leak_under_noise_is_found_with_its_pace() {
        let leaking: Vec<f64> =
            noise(300).iter().enumerate().map(|(i, v)| v + i as f64 * 0.5 * MIB).collect();
        let pace = growth(&leaking).unwrap() / MIB;
        assert!((0.4..0.6).contains(&pace), "{pace} MiB a window");
    }
}
