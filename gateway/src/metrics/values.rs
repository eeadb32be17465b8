//! What a series counts with: plain atomics, side by side where they are used side by side.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::text::{Label, Series};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn increment(&self, by: u64) {
        self.0.fetch_add(by, Relaxed);
    }

    /// What it has come to.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that is set: the bits of a float.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }

    /// What it was last set to.
    #[must_use]
    pub fn value(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }
}

/// Upper ends of a histogram's buckets, milliseconds: from below a local agent's answer to the
/// longest run, a factor of about 2.5 each.
const MILLISECONDS: [f64; 17] = [
    1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 10e3, 30e3, 60e3, 300e3,
    1800e3,
];
const BUCKETS: usize = MILLISECONDS.len() + 1;

/// Durations, by size.
#[derive(Debug, Default)]
pub struct Histogram(Histograms<1>);

impl Histogram {
    /// Counts one.
    pub fn record(&self, duration: Duration) {
        self.0.record(0, duration);
    }

    /// As [`Histograms::write`].
    pub(super) fn write(&self, series: &mut Series<'_>, label: Label<'_>) {
        self.0.write(0, series, label);
    }
}

/// Several durations of the same requests, by size. Those of one size stand side by side: mostly all
/// durations of a request are about the same, and so are those of all requests.
#[derive(Debug)]
#[repr(C, align(64))] // The sums stand in one line of a cache with the short ones, which are most.
pub(super) struct Histograms<const N: usize> {
    /// Nanoseconds: they overflow after 584 years of requests.
    sums: [AtomicU64; N],
    /// Each without those before it; the last holds what is longer than all bounds.
    counts: [[AtomicU64; N]; BUCKETS],
}

impl<const N: usize> Default for Histograms<N> {
    fn default() -> Self {
        let zeros = || std::array::from_fn(|_| AtomicU64::new(0));
        Self { sums: zeros(), counts: std::array::from_fn(|_| zeros()) }
    }
}

impl<const N: usize> Histograms<N> {
    /// See [`Agent::look_ahead`](crate::table::Agent::look_ahead).
    pub(super) fn look_ahead(&self) -> u64 {
        self.sums[0].load(Relaxed)
    }

    /// Counts one.
    pub(super) fn record(&self, which: usize, duration: Duration) {
        let ms = duration.as_secs_f64() * 1e3;
        let size = MILLISECONDS.partition_point(|bound| *bound < ms);
        self.counts[size][which].fetch_add(1, Relaxed);
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.sums[which].fetch_add(ns, Relaxed);
    }

    /// Writes the series of one: cumulative buckets, the sum in seconds, and the count.
    pub(super) fn write(&self, which: usize, series: &mut Series<'_>, label: Label<'_>) {
        let mut count = 0;
        let bounds = MILLISECONDS.iter().map(|ms| (ms / 1e3).to_string());
        for (bound, here) in bounds.chain(["+Inf".to_owned()]).zip(&self.counts) {
            count += here[which].load(Relaxed);
            series.add_part("_bucket", &[label, ("le", &bound)], count);
        }
        let sum = Duration::from_nanos(self.sums[which].load(Relaxed));
        series.add_part("_sum", &[label], sum.as_secs_f64());
        series.add_part("_count", &[label], count);
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::{Family, Text};
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_hold_their_bounds() {
        let histogram = Histogram::default();
        for ms in [0, 1, 2, 2_000_000] {
            histogram.record(Duration::from_millis(ms));
        }
        let mut text = Text::default();
        text.family(&Family::histogram("took_seconds", "How long"), |series| {
            histogram.write(series, ("agent", "qa"));
        });
        let text = text.into_string();
        for line in [
            "took_seconds_bucket{agent=\"qa\",le=\"0.001\"} 2",
            "took_seconds_bucket{agent=\"qa\",le=\"0.0025\"} 3",
            "took_seconds_bucket{agent=\"qa\",le=\"1800\"} 3",
            "took_seconds_bucket{agent=\"qa\",le=\"+Inf\"} 4",
            "took_seconds_sum{agent=\"qa\"} 2000.003",
            "took_seconds_count{agent=\"qa\"} 4",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} in\n{text}");
        }
    }
}
