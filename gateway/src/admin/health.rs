//! `/health`: every agent a check.

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::table::Snapshot;

/// The JSON of the contract, and 503 when an agent that should run has no ready replica.
#[must_use]
pub fn of(snapshot: &Snapshot) -> (StatusCode, Value) {
    let mut checks = Map::new();
    for agent in &snapshot.agents {
        let parked = agent.settings.scale.as_ref().is_some_and(|scale| scale.min == 0);
        let state = match (agent.ready(), agent.places().count()) {
            (0, 0) if parked => "idle",
            (0, _) => "down",
            _ => "ok",
        };
        checks.insert(agent.settings.name.clone(), state.into());
    }
    let down = checks.values().any(|state| state == "down");
    let (status, word) = match down {
        true => (StatusCode::SERVICE_UNAVAILABLE, "degraded"),
        false => (StatusCode::OK, "ok"),
    };
    (status, json!({ "status": word, "checks": checks }))
}
