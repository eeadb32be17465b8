//! `/api/table`: the table in force, and the last edit that was not taken.

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
    }))
}

/// The last edit that was not taken, or null.
pub(super) fn refused(admin: &Admin) -> Value {
    match admin.shared.tables.refused().as_ref() {
        Some(refused) => json!({ "problems": refused.problems, "hash": refused.hash }),
        None => Value::Null,
    }
}
