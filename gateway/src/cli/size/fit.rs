//! Memory as a sum: what the agent takes at rest, so much for each request under way, and so much for
//! each byte of their bodies. Least squares without negative parts, with what chance leaves open.

use super::trend::median;
use super::windows::Window;

/// Parts of the sum: base, per request, per byte.
const PARTS: usize = 3;
/// Drawings of the bootstrap, and their seed: the same windows give the same intervals.
const DRAWINGS: usize = 400;
const SEED: u64 = 22;
/// Windows that are drawn together: neighbours hang together.
const BLOCK: usize = 5;
/// A window that lies this many median errors below the sum is left out: four standard deviations, were the
/// errors normal. So many rounds, and no more windows than leave this part of them.
const FAR_BELOW: f64 = 6.0;
const ROUNDS: usize = 3;
const TAKEN_MIN: f64 = 0.8;
/// The fewest windows that a fit is made of.
const WINDOWS_MIN: usize = 20;
/// A fit is good when it is off by no more than this part of the mean, and explains this part of what
/// varies.
const OFF_MAX: f64 = 0.10;
const EXPLAINS_MIN: f64 = 0.5;
/// A part is known when its interval is no wider than this part of it, to either side.
const KNOWN: f64 = 0.5;

/// One part of the sum and its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Part {
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// What was fitted, good or not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Fit {
    pub(super) windows: usize,
    pub(super) base: Part,
    pub(super) per_request: Part,
    pub(super) per_byte: Part,
    /// Root of the mean of the squared errors, bytes; and as a part of the mean peak.
    pub(super) off: f64,
    pub(super) off_part: f64,
    /// The largest error, bytes.
    pub(super) off_most: f64,
    /// The error that 99 % of the windows don't exceed upwards, bytes.
    pub(super) above: f64,
    /// The part of the peaks' variance that the sum explains.
    pub(super) explains: f64,
    /// As `off_part`, over windows that it wasn't made of.
    pub(super) off_elsewhere: Option<f64>,
}

impl Part {
    /// Whether it can be told from nothing, and how much it is.
    pub(super) fn is_known(&self) -> bool {
        let wide = (self.high - self.value).max(self.value - self.low);
        self.value > 0.0 && wide <= self.value * KNOWN
    }
}

impl Fit {
    /// Of these windows; the error says why there is none.
    pub(super) fn of(windows: &[Window]) -> Result<Fit, String> {
        if windows.len() < WINDOWS_MIN {
            return Err(format!(
                "a fit takes at least {WINDOWS_MIN} windows, not {}",
                windows.len()
            ));
        }
        let rows: Vec<Row> = windows.iter().map(Row::of).collect();
        let some = |of: fn(&Row) -> f64| {
            let first = of(&rows[0]);
            rows.iter().any(|row| of(row) != first)
        };
        if !some(|row| row.x[1]) && !some(|row| row.x[2]) {
            return Err("neither the requests under way nor their bytes varied".to_owned());
        }
        let (best, taken) = settled(&rows).ok_or("the windows don't tell the parts apart")?;
        let drawn = drawings(&taken);
        let part = |index: usize| {
            let mut values: Vec<f64> = drawn.iter().map(|one| one[index]).collect();
            values.sort_by(f64::total_cmp);
            let at = |q: f64| values[((values.len() - 1) as f64 * q).round() as usize];
            Part { value: best[index], low: at(0.025), high: at(0.975) }
        };
        let (base, per_request, per_byte) = (part(0), part(1), part(2));
        Ok(errors(&rows, &best, Fit { base, per_request, per_byte, ..Fit::blank(rows.len()) }))
    }

    fn blank(windows: usize) -> Fit {
        let (base, per_request, per_byte) = <(Part, Part, Part)>::default();
        let (off, off_part, off_most, above, explains) = <(f64, f64, f64, f64, f64)>::default();
        let off_elsewhere = None;
        Fit {
            windows,
            base,
            per_request,
            per_byte,
            off,
            off_part,
            off_most,
            above,
            explains,
            off_elsewhere,
        }
    }

    /// As it is, and how far other windows are from what it says.
    pub(super) fn tried_on(mut self, windows: &[Window]) -> Fit {
        let rows: Vec<Row> = windows.iter().map(Row::of).collect();
        if !rows.is_empty() {
            let best = [self.base.value, self.per_request.value, self.per_byte.value];
            self.off_elsewhere = Some(errors(&rows, &best, self).off_part);
        }
        self
    }

    /// Why its numbers must not be used, if so.
    pub(super) fn objection(&self) -> Option<String> {
        let percent = |part: f64| part * 100.0;
        if self.off_part > OFF_MAX {
            let (off, max) = (percent(self.off_part), percent(OFF_MAX));
            return Some(format!("it is off by {off:.1} %, more than {max:.0} %"));
        }
        if let Some(off) = self.off_elsewhere.filter(|off| *off > OFF_MAX) {
            let (off, max) = (percent(off), percent(OFF_MAX));
            return Some(format!(
                "made of the climb, it is off by {off:.1} % over the hold, more than {max:.0} %"
            ));
        }
        if self.explains < EXPLAINS_MIN {
            let (part, least) = (percent(self.explains.max(0.0)), percent(EXPLAINS_MIN));
            return Some(format!(
                "it explains {part:.0} % of what varies, less than {least:.0} %: memory here doesn't follow \
                 the requests under way"
            ));
        }
        None
    }

    /// What it says that so much under way takes, bytes.
    pub(super) fn at(&self, requests: f64, bytes: f64) -> f64 {
        self.base.value + self.per_request.value * requests + self.per_byte.value * bytes
    }
}

/// A window as the fit sees it.
#[derive(Clone, Copy)]
struct Row {
    x: [f64; PARTS],
    y: f64,
}

impl Row {
    fn of(window: &Window) -> Row {
        Row { x: [1.0, f64::from(window.in_flight), window.bytes as f64], y: window.peak as f64 }
    }

    fn error(&self, best: &[f64; PARTS]) -> f64 {
        self.y - self.x.iter().zip(best).map(|(x, part)| x * part).sum::<f64>()
    }
}

fn errors(rows: &[Row], best: &[f64; PARTS], fit: Fit) -> Fit {
    let n = rows.len() as f64;
    let mean = rows.iter().map(|row| row.y).sum::<f64>() / n;
    let varies = rows.iter().map(|row| (row.y - mean).powi(2)).sum::<f64>();
    let mut errors: Vec<f64> = rows.iter().map(|row| row.error(best)).collect();
    let squares = errors.iter().map(|error| error * error).sum::<f64>();
    errors.sort_by(f64::total_cmp);
    let above = errors[((n - 1.0) * 0.99).floor() as usize].max(0.0);
    let off_most = errors[0].abs().max(errors[errors.len() - 1].abs());
    let off = (squares / n).sqrt();
    let explains = if varies > 0.0 { 1.0 - squares / varies } else { 0.0 };
    Fit { off, off_part: off / mean.max(1.0), off_most, above, explains, ..fit }
}

/// The best sum, and the windows that it was made of: without those in which requests had not yet taken
/// what they take, or had given it back, which lie far below it. None lies far above without reason.
fn settled(rows: &[Row]) -> Option<([f64; PARTS], Vec<Row>)> {
    let mut taken = rows.to_vec();
    let mut best = solve(&Sums::of(taken.iter()))?;
    for _ in 0..ROUNDS {
        let spread: Vec<f64> = taken.iter().map(|row| row.error(&best).abs()).collect();
        let least = -median(&spread) * FAR_BELOW;
        let left: Vec<Row> = rows.iter().filter(|row| row.error(&best) >= least).copied().collect();
        if (left.len() as f64) < rows.len() as f64 * TAKEN_MIN {
            break;
        }
        taken = left;
        best = solve(&Sums::of(taken.iter()))?;
    }
    Some((best, taken))
}

/// Fits to windows drawn in blocks, with putting back.
fn drawings(rows: &[Row]) -> Vec<[f64; PARTS]> {
    let mut random = fastrand::Rng::with_seed(SEED);
    let blocks: Vec<Sums> = rows.chunks(BLOCK).map(|block| Sums::of(block.iter())).collect();
    let mut draw = || {
        let mut sums = Sums::default();
        (0..blocks.len()).for_each(|_| sums.add(&blocks[random.usize(..blocks.len())]));
        solve(&sums)
    };
    let drawn: Vec<_> = (0..DRAWINGS).filter_map(|_| draw()).collect();
    if drawn.is_empty() { vec![[f64::NAN; PARTS]] } else { drawn }
}

/// All that least squares need of the rows.
#[derive(Clone, Default)]
struct Sums {
    xx: [[f64; PARTS]; PARTS],
    xy: [f64; PARTS],
    yy: f64,
}

impl Sums {
    fn of<'a>(rows: impl Iterator<Item = &'a Row>) -> Sums {
        let mut sums = Sums::default();
        for row in rows {
            for i in 0..PARTS {
                (0..PARTS).for_each(|j| sums.xx[i][j] += row.x[i] * row.x[j]);
                sums.xy[i] += row.x[i] * row.y;
            }
            sums.yy += row.y * row.y;
        }
        sums
    }

    fn add(&mut self, other: &Sums) {
        for i in 0..PARTS {
            (0..PARTS).for_each(|j| self.xx[i][j] += other.xx[i][j]);
            self.xy[i] += other.xy[i];
        }
        self.yy += other.yy;
    }

    /// The squared error that a solution leaves.
    fn left(&self, parts: &[f64; PARTS]) -> f64 {
        let mut left = self.yy;
        for i in 0..PARTS {
            left -= 2.0 * parts[i] * self.xy[i];
            left += (0..PARTS).map(|j| parts[i] * parts[j] * self.xx[i][j]).sum::<f64>();
        }
        left
    }
}

/// The best sum without negative parts. With three parts all subsets can be tried: the best of those
/// that have no negative part is the solution (Lawson and Hanson, "Solving Least Squares Problems",
/// chapter 23). The base is in each.
fn solve(sums: &Sums) -> Option<[f64; PARTS]> {
    let subsets = [vec![0], vec![0, 1], vec![0, 2], vec![0, 1, 2]];
    let solutions = subsets.iter().filter_map(|subset| solve_for(sums, subset));
    let allowed = solutions.filter(|parts| parts.iter().all(|part| *part >= 0.0));
    allowed.min_by(|a, b| sums.left(a).total_cmp(&sums.left(b)))
}

/// The normal equations of a subset, by Gauss' elimination, each column scaled to one. `None` when
/// they are singular.
fn solve_for(sums: &Sums, subset: &[usize]) -> Option<[f64; PARTS]> {
    /// A pivot below it is a rounding error.
    const SINGULAR: f64 = 1e-9;
    let scale = |i: usize| sums.xx[i][i].sqrt();
    if subset.iter().any(|i| scale(*i) == 0.0) {
        return None;
    }
    let row = |i: &usize| -> Vec<f64> {
        let left = subset.iter().map(|j| sums.xx[*i][*j] / scale(*i) / scale(*j));
        left.chain([sums.xy[*i] / scale(*i)]).collect()
    };
    let mut rows: Vec<Vec<f64>> = subset.iter().map(row).collect();
    let n = rows.len();
    for pivot in 0..n {
        if rows[pivot][pivot] < SINGULAR {
            return None;
        }
        let upper = rows[pivot].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(index, _)| *index != pivot) {
            let factor = row[pivot] / upper[pivot];
            row.iter_mut().zip(&upper).for_each(|(cell, above)| *cell -= factor * above);
        }
    }
    let mut parts = [0.0; PARTS];
    for (place, i) in subset.iter().enumerate() {
        parts[*i] = rows[place][n] / rows[place][place] / scale(*i);
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: f64 = 1048576.0;

    fn windows(memory: impl Fn(f64, f64, f64) -> f64) -> Vec<Window> {
        let mut random = fastrand::Rng::with_seed(3);
        let levels = [0u32, 1, 2, 4, 8];
        let cells = levels.iter().flat_map(|n| [1000u64, 100_000].map(|size| (*n, size)));
        let mut windows = Vec::new();
        for (in_flight, size) in cells.flat_map(|cell| [cell; 12]) {
            let bytes = u64::from(in_flight) * size;
            let peak = memory(f64::from(in_flight), bytes as f64, random.f64()) as u64;
            windows.push(Window { peak, in_flight, bytes, ..Window::default() });
        }
        windows
    }

    #[test]
    fn a_sum_is_found_in_its_parts() {
        let all =
            windows(|n, bytes, chance| 100.0 * MIB + n * 6.0 * MIB + bytes * 50.0 + chance * MIB);
        let fit = Fit::of(&all).unwrap();
        assert_eq!(fit.objection(), None);
        for (part, truth) in
            [(fit.base, 100.5 * MIB), (fit.per_request, 6.0 * MIB), (fit.per_byte, 50.0)]
        {
            assert!((part.value / truth - 1.0).abs() < 0.01, "{part:?}, not {truth}");
            assert!(part.low <= truth && truth <= part.high && part.is_known(), "{part:?}");
        }
        assert!(fit.off < MIB && fit.above < MIB && fit.explains > 0.99, "{fit:?}");
        assert!((fit.at(2.0, 0.0) / MIB - 112.5).abs() < 1.0);
        let fit = fit.tried_on(&all);
        assert!(fit.off_elsewhere.unwrap() < 0.01 && fit.objection().is_none());
        let more: Vec<Window> =
            all.iter().map(|window| Window { peak: window.peak * 2, ..*window }).collect();
        assert!(fit.tried_on(&more).objection().unwrap().contains("over the hold"));
    }

    #[test]
    fn requests_that_have_not_taken_theirs_yet_do_not_pull_it_down() {
        let sum = |n: f64, bytes: f64| 100.0 * MIB + n * 6.0 * MIB + bytes * 50.0;
        let all = windows(|n, bytes, chance| {
            sum(n, bytes) + chance * 0.2 * MIB - if chance > 0.9 { n * 3.0 * MIB } else { 0.0 }
        });
        let fit = Fit::of(&all).unwrap();
        assert!((fit.per_request.value / MIB - 6.0).abs() < 0.06, "{fit:?}");
        assert_eq!(fit.windows, all.len());
    }

    #[test]
    fn no_part_is_negative() {
        let fit =
            Fit::of(&windows(|n, bytes, _| 100.0 * MIB + n * 6.0 * MIB - bytes * 3.0)).unwrap();
        assert_eq!(fit.per_byte.value, 0.0);
        assert!(!fit.per_byte.is_known());
    }

    #[test]
    fn what_does_not_follow_requests_is_no_fit() {
        let fit = Fit::of(&windows(|_, _, chance| 100.0 * MIB + chance * 10.0 * MIB)).unwrap();
        assert!(fit.objection().unwrap().contains("doesn't follow"), "{fit:?}");
        let fit =
            Fit::of(&windows(|n, _, chance| (100.0 + n) * MIB * (1.0 + 3.0 * chance))).unwrap();
        assert!(fit.objection().unwrap().contains("off by"), "{fit:?}");
    }

    #[test]
    fn what_did_not_vary_is_not_fitted() {
        let one = Window { peak: 1 << 20, in_flight: 3, bytes: 9, ..Window::default() };
        assert!(Fit::of(&[one; 50]).unwrap_err().contains("varied"));
        assert!(Fit::of(&[one; 5]).unwrap_err().contains("at least 20"));
    }

    #[test]
    fn bytes_that_go_with_requests_are_not_told_apart_from_them() {
        let mut all = windows(|_, _, _| 0.0);
        for window in &mut all {
            window.bytes = u64::from(window.in_flight) * 5000;
            window.peak = 1_000_000 + window.bytes * 10;
        }
        let fit = Fit::of(&all).unwrap();
        assert!(fit.per_request.value == 0.0 || fit.per_byte.value == 0.0, "{fit:?}");
        assert!(fit.off_part < 0.01);
    }
}
