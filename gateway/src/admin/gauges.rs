//! `/metrics`: the registry as Prometheus text, with gauges read from the live counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;

use super::Admin;
use crate::admission::Admission;
use crate::cluster::load::{AgentLoad, Board, Loads};
use crate::discovery::Status;
use crate::metrics::families;
use crate::metrics::text::{Family, Text};
use crate::pool::{State as EndpointState, now_ms};
use crate::shared::Shared;
use crate::table::Agent;

/// The text format that every Prometheus since 2014 reads.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `/metrics`. The text of many agents is long: made on a thread where nobody waits for it.
pub(super) async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let text = tokio::task::spawn_blocking(move || {
        let config_map = admin.config_map.as_ref().map_or(0.0, |status| status.age_seconds());
        admin.shared.metrics.config_map_age.set(config_map);
        let gauges = admin.gauges.read(&admin.shared, &admin.discovery, &admin.board);
        let mut text = admin.shared.metrics.render();
        write(&mut text, &gauges);
        write_workers(&mut text, &admin.shared);
        text.into_string()
    });
    ([(CONTENT_TYPE, TEXT)], text.await.expect("rendering doesn't panic"))
}

/// The labels of every agent that was ever shown: one that has left the table goes to 0, as its
/// other series stay.
#[derive(Default)]
pub(super) struct Gauges {
    shown: Mutex<BTreeSet<String>>,
}

impl Gauges {
    /// Sets the gateway's own gauges, and says what those of the agents are now.
    fn read(&self, shared: &Shared, discovery: &Status, board: &Board) -> BTreeMap<String, Counts> {
        shared.metrics.discovery_age.set(discovery.age().as_secs_f64());
        shared.metrics.connections.set(shared.connections() as f64);
        let (metrics, headroom) = (&shared.metrics, &shared.headroom);
        metrics.memory.set(headroom.memory() as f64);
        metrics.memory_max.set(headroom.memory_max().unwrap_or(0) as f64);
        metrics.shedding.set(f64::from(u8::from(headroom.is_shedding())));
        let overall = board.overall();
        shared.metrics.gateways.set(overall.gateways as f64);
        let mut now = counts(shared, &overall);
        let mut shown = self.shown.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for label in &*shown {
            now.entry(label.clone()).or_insert_with(|| left(shared, label));
        }
        *shown = now.keys().cloned().collect();
        now
    }
}

type Read = fn(&Counts) -> u64;

/// The families of one number an agent.
const NUMBERS: [(Family, Read); 6] = [
    (families::LOAD, |counts| counts.load),
    (families::IN_FLIGHT, |counts| counts.in_flight),
    (families::QUEUED, |counts| counts.queued),
    (families::QUEUED_BYTES, |counts| counts.queued_bytes),
    (families::HELD, |counts| counts.held),
    (families::PARKED, |counts| counts.parked),
];

fn write_workers(text: &mut Text, shared: &Shared) {
    text.family(&families::WORKER_CONNECTIONS, |series| {
        for (worker, load) in shared.loads.iter().enumerate() {
            series.add(&[("worker", &worker.to_string())], load.connections());
        }
    });
}

fn write(text: &mut Text, agents: &BTreeMap<String, Counts>) {
    for (family, number) in NUMBERS {
        text.family(&family, |series| {
            for (label, counts) in agents {
                series.add(&[("agent", label)], number(counts));
            }
        });
    }
    text.family(&families::ENDPOINTS, |series| {
        for (label, counts) in agents {
            for (state, count) in EndpointState::ALL.iter().zip(counts.endpoints) {
                series.add(&[("agent", label), ("state", state.as_str())], count);
            }
        }
    });
}

/// The agents in force, by label.
fn counts(shared: &Shared, overall: &Loads) -> BTreeMap<String, Counts> {
    let (snapshot, now_ms) = (shared.tables.current(), now_ms());
    let mut counts = BTreeMap::<String, Counts>::new();
    for agent in &snapshot.agents {
        let counts = counts.entry(agent.metrics.label.clone()).or_default();
        counts.add_agent(agent, now_ms);
        counts.load += overall.agents.get(&agent.settings.name).map_or(0, AgentLoad::load);
    }
    counts
}

/// What an agent that left the table has not finished yet.
fn left(shared: &Shared, label: &str) -> Counts {
    let mut counts = Counts::default();
    if let Some(state) = shared.tables.state(label) {
        counts.add(&state.admission);
        counts.add_draining(state.draining(std::iter::empty()).len());
    }
    counts
}

#[derive(Default)]
struct Counts {
    /// Over all gateways.
    load: u64,
    in_flight: u64,
    queued: u64,
    queued_bytes: u64,
    held: u64,
    parked: u64,
    endpoints: [u64; EndpointState::ALL.len()],
}

impl Counts {
    fn add_agent(&mut self, agent: &Agent, now_ms: u64) {
        self.add(&agent.state.admission);
        self.parked += u64::from(agent.is_parked());
        for place in agent.places() {
            let state = place.state(now_ms);
            let counted = EndpointState::ALL.iter().zip(&mut self.endpoints);
            counted.filter(|(of, _)| **of == state).for_each(|(_, count)| *count += 1);
        }
        self.add_draining(agent.draining().len());
    }

    fn add_draining(&mut self, places: usize) {
        let counted = EndpointState::ALL.iter().zip(&mut self.endpoints);
        let draining = counted.filter(|(of, _)| **of == EndpointState::Draining);
        draining.for_each(|(_, count)| *count += places as u64);
    }

    fn add(&mut self, admission: &Admission) {
        self.in_flight += u64::from(admission.in_flight());
        self.queued += admission.queued() as u64;
        self.queued_bytes += admission.queued_bytes();
        self.held += u64::from(admission.held());
    }
}
