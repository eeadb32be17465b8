//! `/health`: every agent a check.

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::table::{Agent, Snapshot};

/// The JSON of the contract, and 503 when an agent that should run has no ready replica.
#[must_use]
pub fn of(snapshot: &Snapshot) -> (StatusCode, Value) {
    let checks: Map<_, _> = snapshot
        .agents
        .iter()
        .map(|agent| (agent.settings.name.clone(), check(snapshot, agent).into()))
        .collect();
    let down = checks.values().any(|state| state == "down");
    let (status, word) = match down {
        true => (StatusCode::SERVICE_UNAVAILABLE, "degraded"),
        false => (StatusCode::OK, "ok"),
    };
    (status, json!({ "status": word, "checks": checks }))
}

/// Without any replica an agent is `idle` where its Deployment may be parked at zero: the next
/// request wakes it. Replicas that are there and all out are `down` even so, and so is one that a
/// person keeps at zero.
fn check(snapshot: &Snapshot, agent: &Agent) -> &'static str {
    let owner = agent.settings.shares.as_ref().and_then(|owner| snapshot.table.agents.get(owner));
    let scale = owner.unwrap_or(&agent.settings).scale.as_ref();
    let parked = scale.is_some_and(|scale| scale.min == 0) && !agent.is_kept_at_zero();
    match (agent.ready(), agent.places().count()) {
        (0, 0) if parked => "idle",
        (0, _) => "down",
        _ => "ok",
    }
}
