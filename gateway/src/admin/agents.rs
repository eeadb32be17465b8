//! The agents and their state as JSON.

use serde_json::{Value, json};

use crate::table::Snapshot;

/// `GET /agents` on the clients' port: what there is to call.
#[must_use]
pub fn list(snapshot: &Snapshot) -> Value {
    let agent = |agent: &crate::table::Agent| {
        json!({
            "type": agent.settings.name,
            "description": agent.settings.description,
            "ready": agent.ready() > 0,
        })
    };
    json!({ "agents": snapshot.agents.iter().map(agent).collect::<Vec<_>>() })
}
