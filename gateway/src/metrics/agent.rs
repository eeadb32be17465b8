//! One agent's metrics: what every request touches stands together.

use std::sync::Arc;
use std::time::Duration;

use super::recent::Recent;
use super::text::{Family, Label, Series, Text};
use super::values::{Counter, Histogram, Histograms};
use super::{Outcome, families};
use crate::error::Code;

/// One agent's metrics.
#[derive(Debug)]
// In the order in which they are touched, by the line of a cache; large and rare ones apart, so that
// those of many agents lie close together.
#[repr(C, align(64))]
pub struct AgentMetrics {
    ok: Counter,
    /// Bytes of request bodies.
    pub request_bytes: Counter,
    /// Bytes of response bodies.
    pub response_bytes: Counter,
    /// The last minute, for `/api/agents`.
    pub recent: Recent,
    of_each: Histograms<2>,
    upstream_error: Counter,
    codes: Box<[Counter; Code::ALL.len()]>,
    /// Time in the queue.
    pub queue: Box<Histogram>,
    /// Further attempts after the first.
    pub retries: Counter,
    /// Replicas taken out by passive health.
    pub ejections: Counter,
    /// Times that its Deployment was parked by this gateway.
    pub parks: Counter,
    /// Times that its Deployment was woken by this gateway.
    pub wakes: Counter,
    /// From waking it to its first ready replica.
    pub start: Box<Histogram>,
    /// The `agent` label that it is counted under: its name, or that of all agents beyond the most
    /// that have series of their own.
    pub label: String,
}

/// The durations that every answered request has.
#[derive(Debug, Clone, Copy)]
enum OfEach {
    Duration,
    FirstByte,
}

impl AgentMetrics {
    pub(super) fn new(label: &str) -> Self {
        Self {
            ok: Counter::default(),
            request_bytes: Counter::default(),
            response_bytes: Counter::default(),
            recent: Recent::default(),
            of_each: Histograms::default(),
            upstream_error: Counter::default(),
            codes: Box::new(Code::ALL.map(|_| Counter::default())),
            queue: Box::default(),
            retries: Counter::default(),
            ejections: Counter::default(),
            parks: Counter::default(),
            wakes: Counter::default(),
            start: Box::default(),
            label: label.to_owned(),
        }
    }

    /// See [`Agent::look_ahead`](crate::table::Agent::look_ahead).
    pub(crate) fn look_ahead(&self) -> (u64, u32, u64) {
        (self.ok.value(), self.recent.look_ahead(), self.of_each.look_ahead())
    }

    /// Counts a request that has ended.
    pub fn ended(&self, outcome: Outcome, duration: Duration) {
        let counter = match outcome {
            Outcome::Ok => &self.ok,
            Outcome::UpstreamError => &self.upstream_error,
            Outcome::Failed(code) => &self.codes[code.index()],
        };
        counter.increment(1);
        self.of_each.record(OfEach::Duration as usize, duration);
        self.recent.record(duration, outcome.is_error());
    }

    /// Counts an answer's head, so long after its request was sent.
    pub fn first_byte(&self, after: Duration) {
        self.of_each.record(OfEach::FirstByte as usize, after);
    }

    fn write_of_each(&self, which: OfEach, series: &mut Series<'_>) {
        self.of_each.write(which as usize, series, self.agent());
    }

    fn agent(&self) -> Label<'_> {
        ("agent", &self.label)
    }

    fn outcomes(&self) -> impl Iterator<Item = (Outcome, &Counter)> {
        let codes = Code::ALL.into_iter().map(Outcome::Failed).zip(self.codes.iter());
        [(Outcome::Ok, &self.ok), (Outcome::UpstreamError, &self.upstream_error)]
            .into_iter()
            .chain(codes)
    }
}

type Read<V> = fn(&AgentMetrics) -> &V;

const COUNTERS: [(Family, Read<Counter>); 6] = [
    (families::RETRIES, |agent| &agent.retries),
    (families::EJECTIONS, |agent| &agent.ejections),
    (families::PARKS, |agent| &agent.parks),
    (families::WAKES, |agent| &agent.wakes),
    (families::REQUEST_BYTES, |agent| &agent.request_bytes),
    (families::RESPONSE_BYTES, |agent| &agent.response_bytes),
];

type Write = fn(&AgentMetrics, &mut Series<'_>);

const HISTOGRAMS: [(Family, Write); 4] = [
    (families::DURATION, |agent, series| agent.write_of_each(OfEach::Duration, series)),
    (families::FIRST_BYTE, |agent, series| agent.write_of_each(OfEach::FirstByte, series)),
    (families::QUEUE, |agent, series| agent.queue.write(series, agent.agent())),
    (families::START, |agent, series| agent.start.write(series, agent.agent())),
];

/// Writes all families of these agents; `unrouted` are the requests that reached none.
pub(super) fn write(text: &mut Text, agents: &[Arc<AgentMetrics>], unrouted: &[Counter]) {
    text.family(&families::REQUESTS, |series| {
        for (code, counter) in Code::ALL.iter().zip(unrouted) {
            series.add(&[("agent", ""), ("outcome", code.as_str())], counter.value());
        }
        for agent in agents {
            for (outcome, counter) in agent.outcomes() {
                series.add(&[agent.agent(), ("outcome", outcome.as_str())], counter.value());
            }
        }
    });
    for (family, read) in COUNTERS {
        text.family(&family, |series| {
            for agent in agents {
                series.add(&[agent.agent()], read(agent).value());
            }
        });
    }
    for (family, write) in HISTOGRAMS {
        text.family(&family, |series| agents.iter().for_each(|agent| write(agent, series)));
    }
}
