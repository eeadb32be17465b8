//! The agents and their state as JSON.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde_json::{Map, Value, json};

use super::Admin;
use super::answer::Refused;
use crate::admission::tenants::{Caller, Callers};
use crate::cluster::load::AgentLoad;
use crate::discovery::managed::Fleet;
use crate::error::{Code, Error};
use crate::pool::{Place, State as EndpointState, now_ms};
use crate::table::{Agent, Snapshot};

/// `GET /agents` on the clients' port: what there is to call.
#[must_use]
pub fn list(snapshot: &Snapshot) -> Value {
    let agent = |agent: &Agent| {
        json!({
            "type": agent.settings.name,
            "description": agent.settings.description,
            "ready": agent.ready() > 0,
        })
    };
    json!({ "agents": snapshot.agents.iter().map(agent).collect::<Vec<_>>() })
}

/// `/api/agents`.
pub(super) async fn all(State(admin): State<Arc<Admin>>) -> Json<Value> {
    let (snapshot, run) = (admin.current(), Run::of(admin.fleet()));
    let agents: Vec<_> = snapshot.agents.iter().map(|agent| state(&admin, agent, &run)).collect();
    Json(json!({ "agents": agents }))
}

/// `/api/agents/<type>`.
pub(super) async fn one(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Refused> {
    let snapshot = admin.current();
    let Some(index) = snapshot.routes.lookup(&name) else {
        let unknown = snapshot.routes.unknown(name.as_bytes());
        return Err(Refused(Error::new(Code::UnknownAgent, unknown.to_string())));
    };
    let agent = &snapshot.agents[index as usize];
    Ok(Json(state(&admin, agent, &Run::of(admin.fleet()))))
}

/// `/api/load`: what autoscalers ask. `scope=self` is this gateway; without peers so is all.
pub(super) async fn load(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Json<Value>, Refused> {
    if let Some(scope) = query.get("scope").filter(|scope| *scope != "self") {
        let text = format!("scope takes self, or is left out for all gateways, not {scope:?}");
        return Err(Refused(Error::new(Code::BadRequest, text)));
    }
    let loads = match query.contains_key("scope") {
        true => admin.board.own(),
        false => admin.board.overall(),
    };
    let agents: Map<_, _> = loads
        .agents
        .iter()
        .map(|(name, load)| (name.clone(), Value::Object(counts(load))))
        .collect();
    Ok(Json(json!({ "agents": agents, "replicas": loads.gateways })))
}

/// `in_flight`, `queued`, `held`, their sum as `load`, and `capacity`, null without a limit.
fn counts(load: &AgentLoad) -> Map<String, Value> {
    [
        ("in_flight", json!(load.in_flight)),
        ("queued", json!(load.queued)),
        ("held", json!(load.held)),
        ("load", json!(load.load())),
        ("capacity", json!(load.capacity)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into_iter()
    .collect()
}

fn state(admin: &Admin, agent: &Agent, run: &Run) -> Value {
    let recent = admin.shared.metrics.summary(&agent.metrics);
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let now = now_ms();
    let (mut endpoints, mut memory) = (Vec::new(), None);
    let draining = agent.draining();
    let leaving = draining.iter().map(|place| (place, EndpointState::Draining));
    let pooled = agent.places().map(|place| (place, place.state(now)));
    for (place, state) in pooled.chain(leaving) {
        let bytes = run.memory_of(&place.endpoint.address);
        memory = bytes.map_or(memory, |bytes| Some(memory.unwrap_or(0) + bytes));
        let mut endpoint = json!({
            "address": place.endpoint.address.to_string(),
            "state": state.as_str(),
            "in_flight": place.in_flight(),
            "memory_bytes": bytes,
        });
        if agent.settings.memory.is_some() {
            endpoint["memory"] = room(place);
        }
        endpoints.push(endpoint);
    }
    let mut state = Map::new();
    state.insert("type".into(), json!(agent.settings.name));
    state.insert("description".into(), json!(agent.settings.description));
    state.append(&mut counts(&AgentLoad::of(agent)));
    state.extend(
        [
            ("queued_bytes", json!(agent.state.admission.queued_bytes())),
            ("tenants", json!(tenants(agent, now))),
            ("ready", json!(agent.ready())),
            ("parked", json!(agent.is_parked())),
            ("scaled_to_zero_by_hand", json!(agent.is_kept_at_zero())),
            ("desired", json!(run.desired(&agent.settings))),
            ("requests", json!(recent.requests)),
            ("errors", json!(recent.errors)),
            ("rate", json!(recent.rate)),
            ("p50_ms", json!(recent.p50.map(ms))),
            ("p99_ms", json!(recent.p99.map(ms))),
            ("memory_bytes", json!(memory)),
            ("endpoints", json!(endpoints)),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    Value::Object(state)
}

/// What requests need of a replica's memory, and may need together, bytes; what it takes at rest; and by
/// what the table's estimates are multiplied.
fn room(place: &Place) -> Value {
    let memory = &place.endpoint.memory;
    json!({
        "needed": memory.needed(),
        "most": memory.whole(place.room()),
        "rest": memory.rest(),
        "factor": memory.factor(),
    })
}

/// Who asks, where callers are told apart: what they have running and waiting, and the seconds of places
/// that they were given lately.
fn tenants(agent: &Agent, now: u64) -> Vec<Value> {
    let callers = agent.state.callers_seen().map(Callers::all).unwrap_or_default();
    let tenant = |caller: &Arc<Caller>| {
        let service = &caller.account.service;
        json!({
            "tenant": caller.tenant.name,
            "in_flight": service.running(),
            "queued": agent.state.admission.queued_of(&caller.account),
            "service_seconds": service.received(now) as f64 / 1000.0,
        })
    };
    callers.iter().map(tenant).collect()
}

/// What `up` runs, by address.
struct Run {
    fleet: Option<Arc<Fleet>>,
    memory: HashMap<config::Endpoint, u64>,
}

impl Run {
    fn of(fleet: Option<Arc<Fleet>>) -> Self {
        let replicas = fleet.iter().flat_map(|fleet| fleet.values()).flat_map(|run| &run.replicas);
        let memory = replicas
            .map(|replica| (replica.endpoint.clone(), replica.memory_bytes.load(Relaxed)))
            .filter(|(_, bytes)| *bytes > 0)
            .collect();
        Self { fleet, memory }
    }

    fn memory_of(&self, address: &config::Endpoint) -> Option<u64> {
        self.memory.get(address).copied()
    }

    /// How many replicas there shall be: of the agent in whose Deployment it runs.
    fn desired(&self, agent: &config::Agent) -> Option<u32> {
        let owner = agent.shares.as_ref().unwrap_or(&agent.name);
        Some(self.fleet.as_ref()?.get(owner)?.desired)
    }
}
