//! One agent's metrics: what every request touches stands together.

use std::sync::Arc;
use std::time::Duration;

use super::recent::Recent;
use super::text::{Family, Label, Text};
use super::values::{Counter, Histogram};
use super::{Outcome, families};
use crate::error::Code;

/// One agent's metrics.
#[derive(Debug)]
pub struct AgentMetrics {
    /// The `agent` label that it is counted under: its name, or that of all agents beyond the most
    /// that have series of their own.
    pub label: String,
    ok: Counter,
    /// Bytes of request bodies.
    pub request_bytes: Counter,
    /// Bytes of response bodies.
    pub response_bytes: Counter,
    duration: Histogram,
    /// Request sent to response head.
    pub first_byte: Histogram,
    /// The last minute, for `/api/agents`.
    pub recent: Recent,
    upstream_error: Counter,
    codes: [Counter; Code::ALL.len()],
    /// Time in the queue.
    pub queue: Histogram,
    /// Further attempts after the first.
    pub retries: Counter,
    /// Replicas taken out by passive health.
    pub ejections: Counter,
    /// Times that its Deployment was parked by this gateway.
    pub parks: Counter,
    /// Times that its Deployment was woken by this gateway.
    pub wakes: Counter,
    /// From waking it to its first ready replica.
    pub start: Histogram,
}

impl AgentMetrics {
    pub(super) fn new(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            ok: Counter::default(),
            request_bytes: Counter::default(),
            response_bytes: Counter::default(),
            duration: Histogram::default(),
            first_byte: Histogram::default(),
            recent: Recent::default(),
            upstream_error: Counter::default(),
            codes: Code::ALL.map(|_| Counter::default()),
            queue: Histogram::default(),
            retries: Counter::default(),
            ejections: Counter::default(),
            parks: Counter::default(),
            wakes: Counter::default(),
            start: Histogram::default(),
        }
    }

    /// Counts a request that has ended.
    pub fn ended(&self, outcome: Outcome, duration: Duration) {
        let counter = match outcome {
            Outcome::Ok => &self.ok,
            Outcome::UpstreamError => &self.upstream_error,
            Outcome::Failed(code) => &self.codes[code.index()],
        };
        counter.increment(1);
        self.duration.record(duration);
        self.recent.record(duration, outcome.is_error());
    }

    fn agent(&self) -> Label<'_> {
        ("agent", &self.label)
    }

    fn outcomes(&self) -> impl Iterator<Item = (Outcome, &Counter)> {
        let codes = Code::ALL.into_iter().map(Outcome::Failed).zip(&self.codes);
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

const HISTOGRAMS: [(Family, Read<Histogram>); 4] = [
    (families::DURATION, |agent| &agent.duration),
    (families::FIRST_BYTE, |agent| &agent.first_byte),
    (families::QUEUE, |agent| &agent.queue),
    (families::START, |agent| &agent.start),
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
    for (family, read) in HISTOGRAMS {
        text.family(&family, |series| {
            for agent in agents {
                read(agent).write(series, agent.agent());
            }
        });
    }
}
