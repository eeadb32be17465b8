//! `/metrics`: the registry as Prometheus text, with gauges read from the live counts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;
use metrics::Gauge;

use super::Admin;
use crate::admission::Admission;
use crate::cluster::load::{AgentLoad, Board, Loads};
use crate::discovery::Status;
use crate::metrics::Metrics;
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
        admin.gauges.read(&admin.shared, &admin.discovery, &admin.board);
        admin.shared.metrics.render()
    });
    ([(CONTENT_TYPE, TEXT)], text.await.expect("rendering doesn't panic"))
}

/// The gauges of every agent that was ever shown: one that has left the table goes to 0, as its
/// series can't be forgotten.
#[derive(Default)]
pub(super) struct Gauges {
    shown: Mutex<BTreeMap<String, AgentGauges>>,
}

impl Gauges {
    /// Sets all gauges from the live counts.
    pub(super) fn read(&self, shared: &Shared, discovery: &Status, board: &Board) {
        shared.metrics.discovery_age.set(discovery.age().as_secs_f64());
        shared.metrics.connections.set(shared.connections() as f64);
        for (worker, load) in shared.loads.iter().enumerate() {
            shared.metrics.worker_connections(worker).set(load.connections() as f64);
        }
        let overall = board.overall();
        shared.metrics.gateways.set(overall.gateways as f64);
        let now = counts(shared, &overall);
        let mut shown = self.shown.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for label in now.keys().filter(|label| !shown.contains_key(*label)).collect::<Vec<_>>() {
            shown.insert(label.clone(), AgentGauges::new(&shared.metrics, label));
        }
        for (label, gauges) in &*shown {
            match now.get(label) {
                Some(counts) => gauges.set(counts),
                None => gauges.set(&left(shared, label)),
            }
        }
    }
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
        self.held += u64::from(admission.held());
    }
}

struct AgentGauges {
    load: Gauge,
    in_flight: Gauge,
    queued: Gauge,
    held: Gauge,
    parked: Gauge,
    endpoints: [Gauge; EndpointState::ALL.len()],
}

impl AgentGauges {
    fn new(metrics: &Metrics, label: &str) -> Self {
        Self {
            load: metrics.agent_gauge("switchyard_load", label),
            in_flight: metrics.agent_gauge("switchyard_in_flight", label),
            queued: metrics.agent_gauge("switchyard_queued", label),
            held: metrics.agent_gauge("switchyard_held", label),
            parked: metrics.agent_gauge("switchyard_parked", label),
            endpoints: EndpointState::ALL.map(|state| metrics.endpoints(label, state.as_str())),
        }
    }

    fn set(&self, counts: &Counts) {
        self.load.set(counts.load as f64);
        self.in_flight.set(counts.in_flight as f64);
        self.queued.set(counts.queued as f64);
        self.held.set(counts.held as f64);
        self.parked.set(counts.parked as f64);
        for (gauge, count) in self.endpoints.iter().zip(counts.endpoints) {
            gauge.set(count as f64);
        }
    }
}
