//! What the replicas of agents with `memory` report of theirs, on their `/metrics`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{MissedTickBehavior, interval};

use super::ask::read as ask;
use crate::pool::{Endpoint, Report};
use crate::table::Tables;

/// Between two questions to each replica.
const EVERY: Duration = Duration::from_secs(5);
/// For one answer.
const ANSWER: Duration = Duration::from_secs(2);
/// Bytes of one answer.
const ANSWER_MAX: usize = 1024 * 1024;
/// Questions at once, each a descriptor.
const AT_ONCE: usize = 16;

const PATH: &str = "/metrics";
/// As the Prometheus clients of all languages call it.
pub const RESIDENT: &str = "process_resident_memory_bytes";
/// Since the epoch; another one is another process.
pub const STARTED: &str = "process_start_time_seconds";
/// As our own agents call it, and as cAdvisor does.
pub const PEAKS: [&str; 2] = ["cgroup_memory_peak_bytes", "container_memory_max_usage_bytes"];

/// A replica, an agent that it serves, and the memory that it has.
struct Target {
    endpoint: Arc<Endpoint>,
    agent: String,
    limit: u64,
}

/// Asks until dropped, whatever the table in force says: every replica again and again, and a new one
/// at once.
pub async fn read(tables: Arc<Tables>) {
    let mut swaps = tables.swaps();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked = HashSet::new();
    loop {
        let all = targets(&tables);
        asked.retain(|id| all.iter().any(|target| target.endpoint.id == *id));
        let turn = tokio::select! {
            _ = ticks.tick() => true,
            swapped = swaps.changed() => match swapped {
                Ok(()) => false,
                Err(_) => return,
            },
        };
        let due = targets(&tables).into_iter();
        let due = due.filter(|target| asked.insert(target.endpoint.id) || turn);
        futures_util::stream::iter(due).for_each_concurrent(AT_ONCE, learn).await;
    }
}

/// Each replica once.
fn targets(tables: &Tables) -> Vec<Target> {
    let snapshot = tables.current();
    let mut seen = HashSet::new();
    let mut targets = Vec::new();
    for agent in &snapshot.agents {
        let Some(memory) = agent.settings.memory else { continue };
        for place in agent.places().filter(|place| seen.insert(place.endpoint.id)) {
            let (endpoint, agent) = (Arc::clone(&place.endpoint), agent.settings.name.clone());
            targets.push(Target { endpoint, agent, limit: memory.limit });
        }
    }
    targets
}

async fn learn(target: Target) {
    let Target { endpoint, agent, limit } = target;
    let asked = ask(&endpoint, &agent, PATH, Some(ANSWER_MAX));
    let said = match tokio::time::timeout(ANSWER, asked).await {
        Ok(Ok(said)) => said,
        // Many agents have no metrics: then the estimates alone count.
        Ok(Err(error)) => {
            tracing::debug!(agent, endpoint = %endpoint.address, %error, "no memory report");
            return;
        }
        Err(_) => return,
    };
    let Some(report) = parse(&String::from_utf8_lossy(&said)) else { return };
    let before = endpoint.memory.factor();
    endpoint.memory.learn(&report, limit);
    let factor = endpoint.memory.factor();
    if factor > before {
        let message = "requests take more memory than the table says: each counts for more";
        tracing::warn!(agent, endpoint = %endpoint.address, factor, message);
    }
}

/// The first sample of this name in Prometheus' text (or OpenMetrics'), whatever its labels; `None` also
/// when it is negative or no number.
#[must_use]
pub fn value(text: &str, name: &str) -> Option<f64> {
    let of = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let sample = match rest.as_bytes().first()? {
            b'{' => rest.rsplit_once('}')?.1,
            b' ' | b'\t' => rest,
            _ => return None,
        };
        sample.split_whitespace().next()?.parse::<f64>().ok()
    };
    text.lines().find_map(of).filter(|value| value.is_finite() && *value >= 0.0)
}

fn parse(text: &str) -> Option<Report> {
    let value = |name: &str| value(text, name);
    Some(Report {
        resident: value(RESIDENT)? as u64,
        peak: PEAKS.into_iter().find_map(value).map(|peak| peak as u64),
        // To the hundredth: a container that was killed starts within a second.
        started: value(STARTED).map_or(0, |seconds| (seconds * 100.0) as u64),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_found_among_other_metrics() {
        let text = "# HELP process_resident_memory_bytes Resident memory size in bytes.\n\
                    # TYPE process_resident_memory_bytes gauge\n\
                    process_resident_memory_bytes_total 1\n\
                    process_resident_memory_bytes 4.2e+07\n\
                    process_start_time_seconds{pod=\"a b\"} 1700000000.25 1700000001000\n\
                    cgroup_memory_peak_bytes 50000000\n";
        let report =
            Report { resident: 42_000_000, peak: Some(50_000_000), started: 170_000_000_025 };
        assert_eq!(parse(text), Some(report));
    }

    #[test]
    fn without_what_it_takes_now_there_is_no_report() {
        for text in ["", "up 1\n", "process_resident_memory_bytes NaN\n", "<html></html>"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
