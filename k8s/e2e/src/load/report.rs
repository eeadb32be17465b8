//! What a load has seen.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::exchange::Fault;
use crate::agent::Said;

/// Most failures that are told one by one.
const EXAMPLES: usize = 12;
/// Most answers whose times are kept: an hour at 250 a second.
const TIMES: usize = 900_000;

/// The last line of a load.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    /// How long it went on, seconds.
    pub(crate) seconds: f64,
    pub(crate) requests: Counts,
    pub(crate) streams: Counts,
    /// Most streams that were open at once.
    pub(crate) open_most: u32,
    /// Who answered.
    pub(crate) pods: BTreeMap<String, Seen>,
    /// From sent to the last byte of whole answers, milliseconds.
    pub(crate) p50_ms: u32,
    pub(crate) p99_ms: u32,
    pub(crate) max_ms: u32,
    /// Longest pause between two events of a stream, milliseconds.
    pub(crate) gap_ms: u32,
    /// Oldest that the gateway's knowledge of the replicas was said to be, seconds.
    pub(crate) oldest_s: f64,
    /// Sent again because a kept connection had been closed before anything of it was sent.
    pub(crate) resent: u64,
    /// The first failures, each with its time.
    pub(crate) examples: Vec<String>,
}

/// How many were begun, how many were as they should be, and the rest by kind.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) good: u64,
    pub(crate) failed: BTreeMap<String, u64>,
}

/// What is known of a pod by its answers.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) answers: u64,
    /// Its first answer, milliseconds since 1970.
    pub(crate) first_ms: u64,
    /// Its last one.
    pub(crate) last_ms: u64,
    /// The most requests it ever had at once.
    pub(crate) peak: u32,
    /// How many it refused because of its own limit.
    pub(crate) refused: u32,
}

/// A line of each second.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) open: u32,
    pub(crate) good: u64,
    pub(crate) failed: u64,
    /// How many pods have answered.
    pub(crate) pods: usize,
}

impl Counts {
    pub(crate) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

impl Report {
    /// Failed requests and streams.
    pub(crate) fn failures(&self) -> u64 {
        self.requests.failures() + self.streams.failures()
    }

    /// Requests a second that were really sent.
    pub(crate) fn rate(&self) -> f64 {
        self.requests.sent as f64 / self.seconds.max(0.001)
    }
}

/// Whether a request or a stream is counted.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum What {
    Request,
    Stream,
}

/// A report that grows.
pub(super) struct Tally {
    begun: Instant,
    open: u32,
    times_ms: Vec<u32>,
    report: Report,
}

impl Tally {
    pub(super) fn new(begun: Instant) -> Self {
        Self { begun, open: 0, times_ms: Vec::new(), report: Report::default() }
    }

    pub(super) fn sent(&mut self, what: What) {
        self.counts(what).sent += 1;
    }

    /// A stream's first event is there.
    pub(super) fn opened(&mut self) {
        self.open += 1;
        self.report.open_most = self.report.open_most.max(self.open);
    }

    pub(super) fn closed(&mut self) {
        self.open -= 1;
    }

    pub(super) fn gap(&mut self, ms: u32) {
        self.report.gap_ms = self.report.gap_ms.max(ms);
    }

    pub(super) fn resent(&mut self) {
        self.report.resent += 1;
    }

    pub(super) fn good(&mut self, what: What, time_ms: u32) {
        self.counts(what).good += 1;
        if what == What::Request && self.times_ms.len() < TIMES {
            self.times_ms.push(time_ms);
        }
    }

    pub(super) fn failed(&mut self, what: What, fault: Fault) {
        let kind = if what == What::Request { "request" } else { "stream" };
        if self.report.examples.len() < EXAMPLES {
            let after = self.begun.elapsed().as_secs_f64();
            let told = format!("{kind} at {after:.1} s: {}: {}", fault.kind, fault.detail);
            self.report.examples.push(told);
        }
        *self.counts(what).failed.entry(fault.kind).or_default() += 1;
    }

    /// An answer, or the first event of a stream.
    pub(super) fn heard(&mut self, said: &Said) {
        let now = now_ms();
        let seen = self.report.pods.entry(said.pod.clone()).or_default();
        seen.answers += 1;
        if seen.first_ms == 0 {
            seen.first_ms = now;
        }
        seen.last_ms = now;
        seen.peak = seen.peak.max(said.peak);
        seen.refused = seen.refused.max(said.refused);
    }

    /// What `/readyz` of a gateway says.
    pub(super) fn aged(&mut self, readyz: &[u8]) {
        let said: Value = serde_json::from_slice(readyz).unwrap_or_default();
        let age = find(&said, "age_seconds").and_then(Value::as_f64).unwrap_or_default();
        self.report.oldest_s = self.report.oldest_s.max(age);
    }

    pub(super) fn progress(&self) -> Progress {
        let (requests, streams) = (&self.report.requests, &self.report.streams);
        Progress {
            open: self.open,
            good: requests.good + streams.good,
            failed: self.report.failures(),
            pods: self.report.pods.len(),
        }
    }

    pub(super) fn report(&mut self) -> Report {
        self.times_ms.sort_unstable();
        let at = |share: f64| {
            let last = self.times_ms.len().saturating_sub(1);
            let place = (last as f64 * share) as usize;
            self.times_ms.get(place).copied().unwrap_or_default()
        };
        let (p50_ms, p99_ms, max_ms) = (at(0.5), at(0.99), at(1.0));
        let seconds = self.begun.elapsed().as_secs_f64();
        Report { seconds, p50_ms, p99_ms, max_ms, ..self.report.clone() }
    }

    fn counts(&mut self, what: What) -> &mut Counts {
        match what {
            What::Request => &mut self.report.requests,
            What::Stream => &mut self.report.streams,
        }
    }
}

/// The first member of that name, however deep.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(members) => {
            members.get(name).or_else(|| members.values().find_map(|inner| find(inner, name)))
        }
        Value::Array(items) => items.iter().find_map(|inner| find(inner, name)),
        _ => None,
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
