//! `/api/table`: the table in force, the last edit that was not taken, and how old what is known is.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Admin;

/// The table in force, without the values of environment variables and where secrets come from.
pub(super) async fn in_force(State(admin): State<Arc<Admin>>) -> Json<Value> {
    let snapshot = admin.current();
    Json(json!({
        "generation": snapshot.generation,
        "hash": snapshot.table.hash,
        "table": config::render_json(&snapshot.table),
        "refused": refused(&admin),
        "discovery": discovery(&admin),
        "config_map": config_map(&admin),
    }))
}

/// Who says where the replicas are, and how old that is.
pub(super) fn discovery(admin: &Admin) -> Value {
    let status = &admin.discovery;
    json!({
        "source": status.source(),
        "age_seconds": status.age().as_secs_f64(),
        "error": status.error().as_deref(),
    })
}

/// The ConfigMap that is followed for edits, or null.
pub(super) fn config_map(admin: &Admin) -> Value {
    admin.config_map.as_ref().map_or(Value::Null, |status| status.json())
}

/// The last edit that was not taken, or null.
pub(super) fn refused(admin: &Admin) -> Value {
    match admin.shared.tables.refused().as_ref() {
        Some(refused) => json!({ "problems": refused.problems, "hash": refused.hash }),
        None => Value::Null,
    }
}
