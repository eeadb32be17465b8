//! Every metric of the gateway, in one struct a scope.
//!
//! Counters are atomics that the snapshot's agents point at: the request path never looks a metric
//! up by name. What depends on the moment is read from the live counts when somebody scrapes.

mod agent;
pub(crate) mod families;
mod recent;
pub mod text;
mod values;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

pub use self::agent::AgentMetrics;
pub use self::recent::{Recent, Summary};
use self::text::{Family, Text};
pub use self::values::{Counter, Gauge, Histogram};
use crate::error::Code;

/// Agent names that get series of their own over the life of the process: a series stays until it
/// ends, so edits that invent names without end must not grow it.
const AGENT_NAMES_MAX: usize = 20_000;
/// Where the agents beyond [`AGENT_NAMES_MAX`] are counted together.
const OTHER: &str = "other";

/// Digits of the table's hash in its gauge, as many as `status` shows: 48 bits, which a float holds
/// exactly. A label would be a new series with every edit, and none is ever forgotten.
const HASH_DIGITS: usize = 12;

/// The agents' metrics and what is not about one agent.
pub struct Metrics {
    agents: Mutex<BTreeMap<String, Arc<AgentMetrics>>>,
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
    /// Resident memory, bytes.
    pub memory: Gauge,
    /// Most of it, bytes; 0 without a limit.
    pub memory_max: Gauge,
    /// Whether there is too much of it for new requests.
    pub shedding: Gauge,
    /// Access log lines dropped because the writer could not keep up.
    pub log_dropped: Gauge,
    start: Instant,
}

impl Metrics {
    /// Everything at zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            agents: Mutex::default(),
            unrouted: Code::ALL.map(|_| Counter::default()),
            reloads_ok: Counter::default(),
            reloads_refused: Counter::default(),
            table_refused: Gauge::default(),
            generation: Gauge::default(),
            hash: Gauge::default(),
            discovery_age: Gauge::default(),
            config_map_age: Gauge::default(),
            gateways: Gauge::default(),
            connections: Gauge::default(),
            memory: Gauge::default(),
            memory_max: Gauge::default(),
            shedding: Gauge::default(),
            log_dropped: Gauge::default(),
            start: Instant::now(),
        }
    }

    /// The agent's metrics; the same ones over every reload.
    #[must_use]
    pub fn agent(&self, name: &str) -> Arc<AgentMetrics> {
        let mut agents = self.agents();
        if let Some(known) = agents.get(name) {
            return Arc::clone(known);
        }
        let name = if agents.len() < AGENT_NAMES_MAX { name } else { OTHER };
        let agent = agents.entry(name.to_owned());
        Arc::clone(agent.or_insert_with(|| Arc::new(AgentMetrics::new(name))))
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

    /// Forgets what is older than a minute. Call it every few seconds.
    pub fn upkeep(&self) {
        let now = self.start.elapsed();
        for agent in self.agents().values() {
            agent.recent.rotate(now);
        }
    }

    /// What the agent did in the last minute.
    #[must_use]
    pub fn summary(&self, agent: &AgentMetrics) -> Summary {
        agent.recent.summary(self.start.elapsed())
    }

    /// All of them as Prometheus text; what is read of the agents at that moment may follow.
    #[must_use]
    pub fn render(&self) -> Text {
        let mut text = Text::default();
        // Not under the lock: the text of many agents takes a while, and a new table needs it.
        let agents: Vec<_> = self.agents().values().cloned().collect();
        agent::write(&mut text, &agents, &self.unrouted);
        text.family(&families::RELOADS, |series| {
            series.add(&[("result", "ok")], self.reloads_ok.value());
            series.add(&[("result", "refused")], self.reloads_refused.value());
        });
        for (family, gauge) in self.gauges() {
            text.family(&family, |series| series.add(&[], gauge.value()));
        }
        text.family(&families::BUILD_INFO, |series| {
            series.add(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        });
        text
    }

    fn gauges(&self) -> [(Family, &Gauge); 11] {
        [
            (families::TABLE_GENERATION, &self.generation),
            (families::TABLE_HASH, &self.hash),
            (families::TABLE_REFUSED, &self.table_refused),
            (families::DISCOVERY_AGE, &self.discovery_age),
            (families::CONFIG_MAP_AGE, &self.config_map_age),
            (families::GATEWAYS, &self.gateways),
            (families::CONNECTIONS, &self.connections),
            (families::MEMORY, &self.memory),
            (families::MEMORY_MAX, &self.memory_max),
            (families::SHEDDING, &self.shedding),
            (families::LOG_LINES_DROPPED, &self.log_dropped),
        ]
    }

    fn agents(&self) -> MutexGuard<'_, BTreeMap<String, Arc<AgentMetrics>>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn agents_keep_their_counts_over_reloads() {
        let metrics = Metrics::new();
        let first = metrics.agent("qa");
        assert!(Arc::ptr_eq(&first, &metrics.agent("qa")));
        first.ended(Outcome::Failed(Code::QueueFull), Duration::from_millis(1));
        metrics.unrouted(Code::BadPath);
        let text = metrics.render().into_string();
        assert!(text.contains(r#"switchyard_requests_total{agent="qa",outcome="queue-full"} 1"#));
        assert!(text.contains(r#"switchyard_requests_total{agent="",outcome="bad-path"} 1"#));
    }

    #[test]
    fn names_beyond_the_bound_are_counted_together() {
        let metrics = Metrics::new();
        for n in 0..AGENT_NAMES_MAX {
            let _ = metrics.agent(&format!("t{n}"));
        }
        let (one, other) = (metrics.agent("one-more"), metrics.agent("and-another"));
        assert!(Arc::ptr_eq(&one, &other));
        assert_eq!((one.label.as_str(), metrics.agent("t7").label.as_str()), (OTHER, "t7"));
    }
}
