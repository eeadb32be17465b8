//! What the windows say: quantiles with their confidence, memory by what is under way, the fit, growth.

use std::collections::BTreeMap;

use super::fit::Fit;
use super::measure::Measured;
use super::meter::process::Start;
use super::quantiles::{Quantile, Sketch};
use super::trend::{growth, median, worth};
use super::windows::{Phase, Window};

/// Rows of memory by what is under way; with more levels than that, they are taken together by doubling.
const LEVELS: usize = 10;
/// Parts of a fit's windows that must be there, else those of the hold are taken, too.
const FIT_WINDOWS: usize = 20;
/// How many times the small bodies the large ones must be (the 5th and the 95th in a hundred).
const SIZES_APART: u64 = 4;

/// Quantiles of one figure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Distribution {
    pub(super) p50: Quantile,
    pub(super) p90: Quantile,
    pub(super) p99: Quantile,
    /// What p99 doesn't exceed in 95 % of all cases.
    pub(super) p99_upper: Option<f64>,
    pub(super) max: f64,
}

/// The windows with so many requests under way at their peak.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Level {
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) windows: usize,
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

/// All of it.
pub(super) struct Answer {
    pub(super) memory: Distribution,
    pub(super) cpu: Option<Distribution>,
    /// The windows that count, and how many independent ones they are worth.
    pub(super) windows: usize,
    pub(super) worth: f64,
    /// Memory before the first request, and what it took until it was ready.
    pub(super) rest: Option<f64>,
    pub(super) start: Option<Start>,
    pub(super) levels: Vec<Level>,
    /// What it was made of, or why there is none.
    pub(super) fit: Result<Fit, String>,
    /// Bytes a minute.
    pub(super) growth: Option<f64>,
    pub(super) kills: u64,
    pub(super) most: u64,
    pub(super) reached: u32,
}

impl Distribution {
    fn of(sketch: &Sketch, worth: f64) -> Distribution {
        let quantile = |part| sketch.quantile(part, worth);
        Distribution {
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p99_upper: sketch.upper(0.99, worth),
            max: sketch.max(),
        }
    }
}

impl Answer {
    pub(super) fn of(measured: &Measured) -> Answer {
        let (mut peaks, mut cpu) = (Sketch::default(), Sketch::default());
        for track in &measured.tracks {
            peaks.merge(&track.peaks);
            cpu.merge(&track.cpu);
        }
        let all = |phase| -> Vec<Window> {
            measured.tracks.iter().flat_map(|track| track.windows(phase)).collect()
        };
        let (hold, climb) = (all(Phase::Hold), all(Phase::Climb));
        let of_track = |value: fn(&Window) -> Option<f64>| -> f64 {
            let values = |track: &super::track::Track| -> Vec<f64> {
                track.windows(Phase::Hold).iter().filter_map(value).collect()
            };
            measured.tracks.iter().map(|track| worth(&values(track))).sum()
        };
        let worth = of_track(|window| Some(window.peak as f64));
        let cpu_worth = of_track(|window| window.cpu_millis);
        let separate = climb.len() >= FIT_WINDOWS;
        let fitted = if separate { climb.clone() } else { [climb.clone(), hold.clone()].concat() };
        let by_bytes = vary(&measured.sizes);
        let fitted: Vec<Window> = fitted.into_iter().filter(|window| !window.censored).collect();
        let fit = Fit::of(&told_apart(&fitted, by_bytes));
        let fit =
            fit.map(|fit| if separate { fit.tried_on(&told_apart(&hold, by_bytes)) } else { fit });
        let usable = fit.as_ref().ok().filter(|fit| fit.objection().is_none());
        let rest: Vec<f64> = all(Phase::Rest).iter().map(|window| window.peak as f64).collect();
        Answer {
            memory: Distribution::of(&peaks, worth),
            cpu: (cpu.count() > 0).then(|| Distribution::of(&cpu, cpu_worth)),
            windows: peaks.count(),
            worth: worth.min(peaks.count() as f64),
            rest: (!rest.is_empty()).then(|| median(&rest)),
            start: measured.tracks.iter().find_map(|track| track.start),
            levels: levels(&[climb, hold].concat()),
            growth: measured.tracks.iter().find_map(|track| {
                let windows = track.windows(Phase::Hold);
                let each = measured.window.as_secs_f64() * track.series.stride() as f64;
                growth(&left_over(&windows, usable)).map(|pace| pace * 60.0 / each)
            }),
            fit,
            kills: measured.tracks.iter().map(|track| track.kills).sum(),
            most: measured.tracks.iter().map(|track| track.most).max().unwrap_or(0),
            reached: measured.tracks.iter().map(|track| track.reached).max().unwrap_or(0),
        }
    }

    /// The fit, when it may be used.
    pub(super) fn usable_fit(&self) -> Option<&Fit> {
        self.fit.as_ref().ok().filter(|fit| fit.objection().is_none())
    }
}

/// Whether bodies were of sizes unlike enough to tell what a byte takes from what a request takes. Else all that a
/// request takes could be put down to its few bytes, and a long body would be thought to need a thousand times as much.
fn vary(sizes: &[u64]) -> bool {
    let mut sizes = sizes.to_vec();
    sizes.sort_unstable();
    let at = |part: usize| sizes.get(sizes.len().saturating_sub(1) * part / 100).copied();
    matches!((at(5), at(95)), (Some(small), Some(large)) if large >= small.max(1) * SIZES_APART)
}

/// The windows as the fit may see them.
fn told_apart(windows: &[Window], by_bytes: bool) -> Vec<Window> {
    let seen =
        |window: &Window| Window { bytes: if by_bytes { window.bytes } else { 0 }, ..*window };
    windows.iter().map(seen).collect()
}

/// Peaks without what the requests under way explain, so that a busier hour isn't growth.
fn left_over(windows: &[Window], fit: Option<&Fit>) -> Vec<f64> {
    let explained = |window: &Window| {
        fit.map_or(0.0, |fit| {
            fit.at(f64::from(window.in_flight), window.bytes as f64) - fit.base.value
        })
    };
    windows.iter().map(|window| window.peak as f64 - explained(window)).collect()
}

fn levels(windows: &[Window]) -> Vec<Level> {
    let mut by: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for window in windows {
        by.entry(window.in_flight).or_default().push(window.peak as f64);
    }
    if by.len() <= LEVELS {
        return by.into_iter().map(|(at, peaks)| level(at, at, peaks)).collect();
    }
    let mut doubling: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for (at, peaks) in by {
        doubling.entry((at + 1).next_power_of_two() / 2).or_default().extend(peaks);
    }
    let row = |(from, peaks): (u32, Vec<f64>)| {
        level(from.max(1) * u32::from(from > 0), (from * 2).saturating_sub(1), peaks)
    };
    doubling.into_iter().map(row).collect()
}

fn level(from: u32, to: u32, mut peaks: Vec<f64>) -> Level {
    peaks.sort_by(f64::total_cmp);
    let at = |part: f64| peaks[((peaks.len() - 1) as f64 * part).round() as usize];
    Level { from, to, windows: peaks.len(), p50: at(0.5), p99: at(0.99), max: at(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(levels: impl Iterator<Item = u32>) -> Vec<Level> {
        let window = |in_flight| Window { in_flight, peak: 7, ..Window::default() };
        super::levels(&levels.map(window).collect::<Vec<_>>())
    }

    #[test]
    fn bytes_are_told_from_requests_only_where_bodies_are_unlike() {
        assert!(!vary(&[]) && !vary(&[0; 50]));
        assert!(!vary(&(60..120).collect::<Vec<u64>>()), "questions of a line");
        assert!(vary(&(8..64).map(|kib| kib << 10).collect::<Vec<u64>>()));
        let window = Window { bytes: 9, in_flight: 2, ..Window::default() };
        assert_eq!(told_apart(&[window], false)[0].bytes, 0);
        assert_eq!(told_apart(&[window], true)[0], window);
    }

    #[test]
    fn few_levels_stand_alone_and_many_are_taken_together() {
        let few = at([1, 1, 4].into_iter());
        assert_eq!((few[0].from, few[0].to, few[0].windows, few[1].from), (1, 1, 2, 4));
        let many = at(0..40);
        let ranges: Vec<_> = many.iter().map(|level| (level.from, level.to)).collect();
        assert_eq!(ranges.first(), Some(&(0, 0)));
        assert!(ranges.windows(2).all(|two| two[0].1 + 1 == two[1].0), "{ranges:?}");
        assert_eq!(many.iter().map(|level| level.windows).sum::<usize>(), 40);
    }
}
