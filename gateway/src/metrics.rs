//! Every metric of the gateway, in one struct a scope.
//!
//! Handles are made when a table is built and kept in the snapshot: the request path never looks a
//! metric up by name. Gauges are read from the live counters when somebody scrapes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use crate::error::Code;

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

/// From below a local agent's answer to the longest run: a factor of about 2.5 each.
const SECONDS: [f64; 17] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 1800.0,
];

/// Agent names that get series of their own over the life of the process. Prometheus series can't
/// be forgotten by the exporter, so edits that invent names without end must not grow it.
const AGENT_NAMES_MAX: usize = 20_000;
/// Where the agents beyond [`AGENT_NAMES_MAX`] are counted together.
const OTHER: &str = "other";

/// Digits of the table's hash in its gauge, as many as `status` shows: 48 bits, which a float holds
/// exactly. A label would be a new series with every edit, and none is ever forgotten.
const HASH_DIGITS: usize = 12;

/// The registry and what is not about one agent.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    agents: DashMap<String, Arc<AgentMetrics>>,
    /// Requests that reached no agent, by code.
    unrouted: [Counter; Code::ALL.len()],
    /// Edits taken.
    pub reloads_ok: Counter,
    /// Edits refused.
    pub reloads_refused: Counter,
    /// Whether the last edit was refused.
    pub table_refused: Gauge,
    generation: Gauge,
    hash: Gauge,
    /// How long ago discovery was last known to be right.
    pub discovery_age: Gauge,
    /// How long edits of the table's ConfigMap may have gone unheard.
    pub config_map_age: Gauge,
    /// Gateways of the cluster that are heard, this one included.
    pub gateways: Gauge,
    /// Open client connections.
    pub connections: Gauge,
    /// Access log lines dropped because the writer could not keep up.
    pub log_dropped: Gauge,
    start: Instant,
}

impl Metrics {
    /// An empty registry with the build's information set.
    #[must_use]
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
            .expect("the list of buckets is not empty")
            .build_recorder();
        describe(&recorder);
        let counter = |name: &'static str, labels: Vec<Label>| {
            recorder.register_counter(&Key::from_parts(name, labels), &METADATA)
        };
        let gauge = |name: &'static str, labels: Vec<Label>| {
            recorder.register_gauge(&Key::from_parts(name, labels), &METADATA)
        };
        gauge("switchyard_build_info", vec![Label::new("version", env!("CARGO_PKG_VERSION"))])
            .set(1.0);
        Self {
            handle: recorder.handle(),
            agents: DashMap::new(),
            unrouted: Code::ALL
                .map(|code| counter("switchyard_requests_total", labels("", Some(code.as_str())))),
            reloads_ok: counter("switchyard_reloads_total", vec![Label::new("result", "ok")]),
            reloads_refused: counter(
                "switchyard_reloads_total",
                vec![Label::new("result", "refused")],
            ),
            table_refused: gauge("switchyard_table_refused", vec![]),
            generation: gauge("switchyard_table_generation", vec![]),
            hash: gauge("switchyard_table_hash", vec![]),
            discovery_age: gauge("switchyard_discovery_age_seconds", vec![]),
            config_map_age: gauge("switchyard_config_map_age_seconds", vec![]),
            gateways: gauge("switchyard_gateways", vec![]),
            connections: gauge("switchyard_connections", vec![]),
            log_dropped: gauge("switchyard_log_lines_dropped", vec![]),
            recorder,
            start: Instant::now(),
        }
    }

    /// The agent's handles; the same ones over every reload.
    #[must_use]
    pub fn agent(&self, name: &str) -> Arc<AgentMetrics> {
        let known = self.agents.contains_key(name) || self.agents.len() < AGENT_NAMES_MAX;
        let name = if known { name } else { OTHER };
        let agent = self.agents.entry(name.into());
        Arc::clone(&agent.or_insert_with(|| Arc::new(self.make_agent(name))))
    }

    /// A gauge of one agent, for what is read when somebody scrapes.
    pub fn agent_gauge(&self, metric: &'static str, agent: &str) -> Gauge {
        self.recorder.register_gauge(&Key::from_parts(metric, labels(agent, None)), &METADATA)
    }

    /// `switchyard_endpoints{agent,state}`.
    pub fn endpoints(&self, agent: &str, state: &'static str) -> Gauge {
        let labels = vec![Label::new("agent", agent.to_owned()), Label::new("state", state)];
        self.recorder.register_gauge(&Key::from_parts("switchyard_endpoints", labels), &METADATA)
    }

    /// `switchyard_worker_connections{worker}`.
    pub fn worker_connections(&self, worker: usize) -> Gauge {
        let labels = vec![Label::new("worker", worker.to_string())];
        let key = Key::from_parts("switchyard_worker_connections", labels);
        self.recorder.register_gauge(&key, &METADATA)
    }

    /// A table is in force from now on. `hash` is hexadecimal.
    pub fn took(&self, generation: u64, hash: &str) {
        self.generation.set(generation as f64);
        let digits = hash.get(..HASH_DIGITS).unwrap_or(hash);
        self.hash.set(u64::from_str_radix(digits, 16).unwrap_or(0) as f64);
    }

    /// Counts a request that reached no agent.
    pub fn unrouted(&self, code: Code) {
        self.unrouted[code.index()].increment(1);
    }

    /// Moves samples from the histograms' buffers into their buckets, so that they stay small
    /// though nobody scrapes, and forgets what is older than a minute. Call it every few seconds.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
        let now = self.start.elapsed();
        for agent in &self.agents {
            agent.recent.rotate(now);
        }
    }

    /// Prometheus text.
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.render()
    }

    fn make_agent(&self, name: &str) -> AgentMetrics {
        let counter = |metric: &'static str, outcome| {
            self.recorder
                .register_counter(&Key::from_parts(metric, labels(name, outcome)), &METADATA)
        };
        let histogram = |metric: &'static str| {
            self.recorder
                .register_histogram(&Key::from_parts(metric, labels(name, None)), &METADATA)
        };
        AgentMetrics {
            label: name.to_owned(),
            ok: counter("switchyard_requests_total", Some("ok")),
            upstream_error: counter("switchyard_requests_total", Some("upstream_error")),
            codes: Code::ALL.map(|code| counter("switchyard_requests_total", Some(code.as_str()))),
            duration: histogram("switchyard_request_duration_seconds"),
            first_byte: histogram("switchyard_first_byte_seconds"),
            queue: histogram("switchyard_queue_seconds"),
            retries: counter("switchyard_retries_total", None),
            ejections: counter("switchyard_ejections_total", None),
            parks: counter("switchyard_parks_total", None),
            wakes: counter("switchyard_wakes_total", None),
            start: histogram("switchyard_start_seconds"),
            request_bytes: counter("switchyard_request_bytes_total", None),
            response_bytes: counter("switchyard_response_bytes_total", None),
            recent: Recent::default(),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn labels(agent: &str, outcome: Option<&'static str>) -> Vec<Label> {
    let mut labels = vec![Label::new("agent", agent.to_owned())];
    labels.extend(outcome.map(|outcome| Label::new("outcome", outcome)));
    labels
}

#[rustfmt::skip]
fn describe(recorder: &PrometheusRecorder) {
    let counter = |name: &'static str, unit, text: &'static str| {
        recorder.describe_counter(KeyName::from(name), Some(unit), text.into());
    };
    let gauge = |name: &'static str, unit, text: &'static str| {
        recorder.describe_gauge(KeyName::from(name), Some(unit), text.into());
    };
    let histogram = |name: &'static str, text: &'static str| {
        recorder.describe_histogram(KeyName::from(name), Some(Unit::Seconds), text.into());
    };
    counter("switchyard_requests_total", Unit::Count, "Requests by outcome: ok, upstream_error or an error code. Counted when the response's body has ended; agent is empty where none was found");
    counter("switchyard_retries_total", Unit::Count, "Further attempts after the first");
    counter("switchyard_ejections_total", Unit::Count, "Times a replica was taken out by passive health");
    counter("switchyard_parks_total", Unit::Count, "Times an idle agent was scaled to zero by this gateway");
    counter("switchyard_wakes_total", Unit::Count, "Times a parked agent was woken by this gateway");
    histogram("switchyard_start_seconds", "From waking a parked agent to its first ready replica");
    gauge("switchyard_parked", Unit::Count, "1 while the agent has no replica and a request would wake it, else 0");
    counter("switchyard_request_bytes_total", Unit::Bytes, "Bytes of request bodies received");
    counter("switchyard_response_bytes_total", Unit::Bytes, "Bytes of response bodies received from agents");
    counter("switchyard_reloads_total", Unit::Count, "Edits of the table by result");
    histogram("switchyard_request_duration_seconds", "Head received to last byte of the response");
    histogram("switchyard_first_byte_seconds", "Request sent upstream to response head");
    histogram("switchyard_queue_seconds", "Waiting for a place, where there was any waiting");
    gauge("switchyard_load", Unit::Count, "Requests in flight, queued and held, over all gateways of the cluster");
    gauge("switchyard_in_flight", Unit::Count, "Requests that have a place");
    gauge("switchyard_queued", Unit::Count, "Requests that wait for a place");
    gauge("switchyard_held", Unit::Count, "Requests whose client left and whose agent goes on");
    gauge("switchyard_endpoints", Unit::Count, "Replicas by state");
    gauge("switchyard_table_generation", Unit::Count, "Tables taken since the start");
    gauge("switchyard_table_hash", Unit::Count, "First 12 hexadecimal digits of the table's hash, as a number");
    gauge("switchyard_table_refused", Unit::Count, "1 while the last edit of the table stands refused, else 0");
    gauge("switchyard_discovery_age_seconds", Unit::Seconds, "How long the source of the replicas' addresses has been away; 0 while it is followed");
    gauge("switchyard_config_map_age_seconds", Unit::Seconds, "How long the table's ConfigMap could not be followed; 0 while it is");
    gauge("switchyard_gateways", Unit::Count, "Gateways of the cluster that are heard, this one included");
    gauge("switchyard_connections", Unit::Count, "Open client connections");
    gauge("switchyard_worker_connections", Unit::Count, "Open client connections of a worker");
    gauge("switchyard_log_lines_dropped", Unit::Count, "Log lines dropped because the writer could not keep up");
    gauge("switchyard_build_info", Unit::Count, "1, with the version as a label");
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The agent answered, with a status below 500.
    Ok,
    /// The agent answered with a status of 500 or above.
    UpstreamError,
    /// The gateway answered, or had to break off.
    Failed(Code),
}

impl Outcome {
    /// As it stands in labels and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::UpstreamError => "upstream_error",
            Self::Failed(code) => code.as_str(),
        }
    }

    /// Whether this counts against the gateway or the agent (a caller's own faults don't).
    #[must_use]
    pub fn is_error(self) -> bool {
        match self {
            Self::Ok | Self::Failed(Code::ClientGone) => false,
            Self::UpstreamError => true,
            Self::Failed(code) => code.status().is_server_error(),
        }
    }
}

/// Handles of one agent's metrics.
pub struct AgentMetrics {
    /// The `agent` label that it is counted under: its name, or that of all agents beyond the most
    /// that have series of their own.
    pub label: String,
    ok: Counter,
    upstream_error: Counter,
    codes: [Counter; Code::ALL.len()],
    duration: Histogram,
    /// Request sent to response head.
    pub first_byte: Histogram,
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
    /// Bytes of request bodies.
    pub request_bytes: Counter,
    /// Bytes of response bodies.
    pub response_bytes: Counter,
    /// The last minute, for `/api/agents`.
    pub recent: Recent,
}

impl AgentMetrics {
    /// Counts a request that has ended.
    pub fn ended(&self, outcome: Outcome, duration: Duration) {
        match outcome {
            Outcome::Ok => self.ok.increment(1),
            Outcome::UpstreamError => self.upstream_error.increment(1),
            Outcome::Failed(code) => self.codes[code.index()].increment(1),
        }
        self.duration.record(duration.as_secs_f64());
        self.recent.record(duration, outcome.is_error());
    }
}

/// Ten-second slots that make up the last minute, and the one being filled.
const SLOTS: usize = 7;
const SLOT_SECONDS: u64 = 10;
/// Powers of √2 from 0.1 ms: bucket 47 begins at about 20 minutes.
const BUCKETS: usize = 48;

/// Requests of the last minute, in bounded memory: what `status` shows without a scraper.
pub struct Recent {
    slot: AtomicU64,
    counts: [[AtomicU32; BUCKETS]; SLOTS],
    total: AtomicU64,
    errors: AtomicU64,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            slot: AtomicU64::new(0),
            counts: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU32::new(0))),
            total: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        }
    }
}

/// What [`Recent`] adds up to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Requests a second.
    pub rate: f64,
    /// Median duration, within a factor of √2.
    pub p50: Option<Duration>,
    /// 99th percentile, within a factor of √2.
    pub p99: Option<Duration>,
    /// Requests since the start.
    pub requests: u64,
    /// Of them, those that failed through the agent or the gateway.
    pub errors: u64,
}

impl Recent {
    fn record(&self, duration: Duration, error: bool) {
        let slot = self.slot.load(Relaxed) as usize % SLOTS;
        self.counts[slot][bucket(duration)].fetch_add(1, Relaxed);
        self.total.fetch_add(1, Relaxed);
        if error {
            self.errors.fetch_add(1, Relaxed);
        }
    }

    fn rotate(&self, now: Duration) {
        let due = now.as_secs() / SLOT_SECONDS;
        let mut slot = self.slot.load(Relaxed);
        if due.saturating_sub(slot) > SLOTS as u64 {
            slot = due - SLOTS as u64;
        }
        while slot < due {
            slot += 1;
            for count in &self.counts[slot as usize % SLOTS] {
                count.store(0, Relaxed);
            }
            self.slot.store(slot, Relaxed);
        }
    }

    /// Requests since the start.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// Rate and percentiles of the last minute.
    #[must_use]
    pub fn summary(&self, uptime: Duration) -> Summary {
        let mut sums = [0u64; BUCKETS];
        for slot in &self.counts {
            for (sum, count) in sums.iter_mut().zip(slot) {
                *sum += u64::from(count.load(Relaxed));
            }
        }
        let all: u64 = sums.iter().sum();
        let begun = self.slot.load(Relaxed) * SLOT_SECONDS;
        let full = Duration::from_secs((SLOTS as u64 - 1) * SLOT_SECONDS);
        let window = (full + uptime.saturating_sub(Duration::from_secs(begun))).min(uptime);
        Summary {
            rate: all as f64 / window.as_secs_f64().max(1.0),
            p50: percentile(&sums, all, 0.50),
            p99: percentile(&sums, all, 0.99),
            requests: self.total.load(Relaxed),
            errors: self.errors.load(Relaxed),
        }
    }
}

impl Metrics {
    /// What the agent did in the last minute.
    #[must_use]
    pub fn summary(&self, agent: &AgentMetrics) -> Summary {
        agent.recent.summary(self.start.elapsed())
    }
}

fn bucket(duration: Duration) -> usize {
    let tenths = (duration.as_secs_f64() * 10_000.0).max(1.0);
    ((tenths.log2() * 2.0) as usize).min(BUCKETS - 1)
}

fn percentile(sums: &[u64; BUCKETS], all: u64, share: f64) -> Option<Duration> {
    let rank = (all as f64 * share).ceil() as u64;
    let mut seen = 0;
    let found = sums.iter().position(|count| {
        seen += count;
        seen >= rank && all > 0
    })?;
    let upper = 2f64.powf((found as f64 + 1.0) / 2.0) / 10_000.0;
    Some(Duration::from_secs_f64(upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_factor_of_two() {
        let recent = Recent::default();
        for ms in 1..=100 {
            recent.record(Duration::from_millis(ms), false);
        }
        let summary = recent.summary(Duration::from_secs(10));
        let p50 = summary.p50.expect("there was traffic").as_secs_f64();
        let p99 = summary.p99.expect("there was traffic").as_secs_f64();
        assert!((0.05..0.1).contains(&p50), "{p50}");
        assert!((0.099..0.2).contains(&p99), "{p99}");
        assert!((summary.rate - 10.0).abs() < 0.01);
    }

    #[test]
    fn a_minute_is_forgotten_after_a_minute() {
        let recent = Recent::default();
        recent.record(Duration::from_millis(5), true);
        recent.rotate(Duration::from_secs(65));
        assert!(recent.summary(Duration::from_secs(65)).p50.is_some());
        recent.rotate(Duration::from_secs(75));
        let later = recent.summary(Duration::from_secs(75));
        assert_eq!((later.p50, later.requests, later.errors), (None, 1, 1));
    }

    #[test]
    fn agents_keep_their_handles_and_names_are_bounded() {
        let metrics = Metrics::new();
        let first = metrics.agent("qa");
        assert!(Arc::ptr_eq(&first, &metrics.agent("qa")));
        first.ended(Outcome::Failed(Code::QueueFull), Duration::from_millis(1));
        metrics.unrouted(Code::BadPath);
        let text = metrics.render();
        assert!(text.contains(r#"switchyard_requests_total{agent="qa",outcome="queue-full"} 1"#));
        assert!(text.contains(r#"switchyard_requests_total{agent="",outcome="bad-path"} 1"#));
    }
}
