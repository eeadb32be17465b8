//! Samples become windows, and windows a series that stays bounded however long it is measured.
//!
//! Windows begin at whole multiples of their length since the epoch, so that those of several
//! replicas, and those of a later run, lie alike.

use std::time::Duration;

use serde::Serialize;

/// Windows that are kept one by one. Beyond it two neighbours become one, again and again.
const KEPT: usize = 4096;

/// One look at the agent.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Sample {
    /// Since the epoch.
    pub(super) at: Duration,
    /// Memory in use, bytes.
    pub(super) memory: u64,
    /// The most since the sample before, where somebody kept it; at least `memory`.
    pub(super) peak: u64,
    /// Processor time so far.
    pub(super) cpu: Option<Duration>,
    /// Requests under way, and the bytes of their bodies; and the most since the sample before.
    pub(super) in_flight: u32,
    pub(super) bytes: u64,
    pub(super) most: (u32, u64),
    /// What the load was doing, and which step of it that was.
    pub(super) phase: Phase,
    pub(super) step: u32,
}

impl Sample {
    /// What was under way at its peak: a peak from between two looks goes with the most between them.
    fn under_way(&self) -> (u32, u64) {
        if self.peak > self.memory { self.most } else { (self.in_flight, self.bytes) }
    }

    /// Only what was at the moment itself.
    fn alone(self) -> Sample {
        Sample { peak: self.memory, ..self }
    }
}

/// What the load was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Phase {
    /// Nothing yet.
    #[default]
    Rest,
    /// First requests: what an agent sets up once isn't what a request takes.
    Warm,
    /// Step by step to the most: for the fit.
    Climb,
    /// As it is used: for the quantiles.
    Hold,
}

/// The peak of one stretch of time, and what was under way at it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub(super) struct Window {
    /// Since the epoch, in seconds.
    pub(super) at: f64,
    pub(super) peak: u64,
    pub(super) in_flight: u32,
    pub(super) bytes: u64,
    /// Thousandths of a CPU, on average.
    pub(super) cpu_millis: Option<f64>,
    pub(super) phase: Phase,
    /// The agent was killed in it: the peak would have been higher.
    pub(super) censored: bool,
}

/// Makes windows of samples in their order.
pub(super) struct Builder {
    length: Duration,
    open: Option<Open>,
}

/// A window that isn't over.
struct Open {
    number: u128,
    /// The sample of the highest memory in it.
    top: Sample,
    first: Sample,
    last: Sample,
    mixed: bool,
}

impl Builder {
    pub(super) fn new(length: Duration) -> Self {
        Self { length, open: None }
    }

    /// Takes a sample; gives the window that it ends, if any. A window in which the load changed is
    /// left out: its peak belongs to neither.
    pub(super) fn add(&mut self, sample: Sample) -> Option<Window> {
        let number = sample.at.as_nanos() / self.length.as_nanos();
        match &mut self.open {
            Some(open) if open.number == number => {
                open.add(sample);
                None
            }
            // Looks are timed so that this one is at the border: the peak since the one before is the
            // ended window's.
            _ => {
                let begun = self.open.replace(Open::begin(number, sample.alone()));
                begun.and_then(|open| open.end(Some(sample)))
            }
        }
    }

    /// The agent was killed: the window that is open was its last, and is known in part only. What it
    /// would have taken is at least `limit`, where it had one.
    pub(super) fn killed(&mut self, limit: Option<u64>) -> Option<Window> {
        let mut window = self.open.take()?.end(None)?;
        window.peak = window.peak.max(limit.unwrap_or(0));
        window.censored = true;
        Some(window)
    }
}

impl Open {
    fn begin(number: u128, sample: Sample) -> Open {
        Open { number, top: sample, first: sample, last: sample, mixed: false }
    }

    fn add(&mut self, sample: Sample) {
        self.mixed |= sample.step != self.first.step;
        if sample.peak > self.top.peak {
            self.top = sample;
        }
        self.last = sample;
    }

    /// `next` is the first sample of the window behind it: processor time and peak are counted up to
    /// there.
    fn end(mut self, next: Option<Sample>) -> Option<Window> {
        if self.mixed {
            return None;
        }
        if let Some(next) =
            next.filter(|next| next.step == self.first.step && next.peak > next.memory)
        {
            self.add(next);
        }
        let (in_flight, bytes) = self.top.under_way();
        let until = next.unwrap_or(self.last);
        let cpu_millis = used(&self.first, &until);
        Some(Window {
            at: self.first.at.as_secs_f64(),
            peak: self.top.peak,
            in_flight,
            bytes,
            phase: self.first.phase,
            cpu_millis,
            censored: false,
        })
    }
}

/// Thousandths of a CPU between two samples.
fn used(from: &Sample, until: &Sample) -> Option<f64> {
    // Less than before: another process, which began anew.
    let cpu = until.cpu?.checked_sub(from.cpu?)?;
    let time = until.at.checked_sub(from.at).filter(|time| !time.is_zero())?;
    Some(cpu.as_secs_f64() / time.as_secs_f64() * 1000.0)
}

/// All windows in their order, or, once there are too many, the higher of each few.
#[derive(Default)]
pub(super) struct Series {
    kept: Vec<Window>,
    /// How many windows one that is kept stands for, when not 1.
    doubled: u32,
    pending: Option<(Window, usize)>,
}

impl Series {
    pub(super) fn add(&mut self, window: Window) {
        let (higher, count) = match self.pending.take() {
            Some((before, count)) => (higher(before, window), count + 1),
            None => (window, 1),
        };
        if count < self.stride() {
            self.pending = Some((higher, count));
            return;
        }
        self.kept.push(higher);
        if self.kept.len() >= KEPT {
            self.halve();
        }
    }

    fn halve(&mut self) {
        let pair = |pair: &[Window]| pair.iter().copied().reduce(higher).unwrap_or_default();
        self.kept = self.kept.chunks(2).map(pair).collect();
        self.doubled += 1;
    }

    pub(super) fn windows(&self) -> &[Window] {
        &self.kept
    }

    /// How many windows each stands for.
    pub(super) fn stride(&self) -> usize {
        1 << self.doubled
    }
}

/// The one with the higher peak; what a part lost by a kill stays known.
fn higher(one: Window, other: Window) -> Window {
    let higher = if other.peak > one.peak { other } else { one };
    Window { censored: one.censored || other.censored, ..higher }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(ms: u64, memory: u64) -> Sample {
        let cpu = Some(Duration::from_millis(ms / 2));
        let at = Duration::from_millis(ms);
        Sample { at, memory, peak: memory, cpu, in_flight: memory as u32, ..Sample::default() }
    }

    #[test]
    fn a_window_has_its_peak_and_what_was_under_way_at_it() {
        let mut builder = Builder::new(Duration::from_secs(1));
        assert_eq!(builder.add(sample(5_300, 10)), None);
        assert_eq!(builder.add(sample(5_500, 30)), None);
        assert_eq!(builder.add(Sample { peak: 35, most: (7, 70), ..sample(5_900, 20) }), None);
        let window = builder.add(sample(6_100, 90)).unwrap();
        assert_eq!((window.at, window.peak, window.in_flight, window.bytes), (5.3, 35, 7, 70));
        assert_eq!(window.cpu_millis, Some(500.0));
        assert!(!window.censored);
    }

    #[test]
    fn what_was_before_the_border_is_the_ended_windows() {
        let mut builder = Builder::new(Duration::from_secs(1));
        builder.add(sample(5_100, 10));
        let next = Sample { peak: 50, ..sample(6_000, 20) };
        assert_eq!(builder.add(next).unwrap().peak, 50);
        assert_eq!(builder.add(sample(7_000, 5)).unwrap().peak, 20);
    }

    #[test]
    fn a_window_in_which_the_load_changed_is_left_out() {
        let mut builder = Builder::new(Duration::from_secs(1));
        builder.add(sample(100, 1));
        builder.add(Sample { step: 1, ..sample(500, 9) });
        assert_eq!(builder.add(sample(1_000, 1)), None);
        assert!(builder.add(sample(2_000, 1)).is_some());
    }

    #[test]
    fn the_window_of_a_kill_is_at_least_the_limit() {
        let mut builder = Builder::new(Duration::from_secs(1));
        builder.add(sample(100, 50));
        let window = builder.killed(Some(64)).unwrap();
        assert_eq!((window.peak, window.censored), (64, true));
        assert_eq!(builder.killed(None), None);
    }

    #[test]
    fn processor_time_of_another_process_counts_for_nothing() {
        let from = sample(2_000, 1);
        let until = Sample { at: Duration::from_secs(3), ..sample(100, 1) };
        assert_eq!(used(&from, &until), None);
    }

    #[test]
    fn a_long_series_stays_bounded_and_keeps_its_peaks() {
        let mut series = Series::default();
        for i in 0..100_000u64 {
            series.add(Window {
                at: i as f64,
                peak: i % 977,
                censored: i == 77,
                ..Window::default()
            });
        }
        let kept = series.windows();
        assert!(kept.len() < KEPT && kept.len() > KEPT / 4, "{}", kept.len());
        assert!(series.stride() >= 100_000 / KEPT);
        assert_eq!(kept.iter().map(|window| window.peak).max(), Some(976));
        assert_eq!(kept.iter().filter(|window| window.censored).count(), 1);
        assert!(kept.windows(2).all(|two| two[0].at < two[1].at));
    }
}
