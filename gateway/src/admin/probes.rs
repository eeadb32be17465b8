//! `/livez`, `/readyz` and `/health`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Admin, health, table};
use crate::shared::Phase;

/// 200 while the process works.
pub(super) async fn livez() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// 200 when it can take traffic; a refused edit doesn't change that, nor addresses that may be out
/// of date, but both are told.
pub(super) async fn readyz(State(admin): State<Arc<Admin>>) -> (StatusCode, Json<Value>) {
    let snapshot = admin.current();
    // Copied out, so that nobody who changes the phase waits for us.
    let phase = *admin.phase.borrow();
    let peers = admin.board.peers();
    let (status, word, reason) = match phase {
        Phase::Starting => {
            (StatusCode::SERVICE_UNAVAILABLE, "starting", "waits to be told where the replicas are")
        }
        Phase::Running if !peers.is_open() => {
            (StatusCode::SERVICE_UNAVAILABLE, "starting", "waits to hear the other gateways")
        }
        Phase::Running => (StatusCode::OK, "ready", "takes requests"),
        Phase::Closing => {
            (StatusCode::SERVICE_UNAVAILABLE, "draining", "shutting down: still accepts")
        }
        Phase::Draining | Phase::Cut => {
            (StatusCode::SERVICE_UNAVAILABLE, "draining", "shutting down: finishes what is open")
        }
    };
    let body = json!({
        "status": word,
        "reason": reason,
        "generation": snapshot.generation,
        "hash": snapshot.table.hash,
        "refused": table::refused(&admin),
        "discovery": table::discovery(&admin),
        "config_map": table::config_map(&admin),
        "cluster": { "gateways": peers.gateways(), "problem": peers.problem() },
    });
    (status, Json(body))
}

/// Every agent a check.
pub(super) async fn health(State(admin): State<Arc<Admin>>) -> (StatusCode, Json<Value>) {
    let (status, body) = health::of(&admin.current());
    (status, Json(body))
}
