//! The probes: alive, ready, healthy, and the metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::Mutex;

use super::App;

/// How long a look at the dependencies is good for: probes of several kubelets and gateways cost one.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// The last look.
#[derive(Default)]
pub(crate) struct Cache(Mutex<Option<(Instant, BTreeMap<&'static str, bool>)>>);

impl Cache {
    /// The checks, looked at no longer than a second ago. Who comes while a look is under way waits for it:
    /// the lock is an async one and is held for that purpose.
    async fn checks(&self, app: &App) -> BTreeMap<&'static str, bool> {
        let mut last = self.0.lock().await;
        if let Some((at, checks)) = &*last
            && at.elapsed() < GOOD_FOR
        {
            return checks.clone();
        }
        let checks = app.agent.check().await;
        *last = Some((Instant::now(), checks.clone()));
        checks
    }
}

/// `/livez`: the process answers. Looks at nothing else.
pub(crate) async fn livez() -> &'static str {
    "ok\n"
}

/// `/readyz`: 503 until the agent can work, from SIGTERM on, and while a dependency is down that this agent is told not to work without.
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, String) {
    if app.door.is_closed() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned());
    }
    if !app.agent.is_ready() {
        return (StatusCode::SERVICE_UNAVAILABLE, "indexing\n".to_owned());
    }
    match missing(&app).await {
        Some(name) => (StatusCode::SERVICE_UNAVAILABLE, format!("{name} is down\n")),
        None => (StatusCode::OK, "ok\n".to_owned()),
    }
}

/// The required dependency that is down, if one is. Looks at none when none is required.
pub(crate) async fn missing(app: &App) -> Option<&'static str> {
    if app.require.is_empty() {
        return None;
    }
    let checks = app.health.checks(app).await;
    let mut required = app.require.iter().map(|dependency| dependency.name());
    required.find(|name| checks.get(name) == Some(&false))
}

/// `/health`: each dependency.
pub(crate) async fn health(State(app): State<Arc<App>>) -> Response {
    let checks = app.health.checks(&app).await;
    let works = checks.values().all(|works| *works);
    let status = if works { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let checks: BTreeMap<_, _> =
        checks.into_iter().map(|(name, works)| (name, if works { "ok" } else { "down" })).collect();
    let word = if works { "ok" } else { "degraded" };
    (status, Json(json!({ "status": word, "checks": checks }))).into_response()
}

/// `/metrics`: Prometheus text.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.metrics.render()).into_response()
}
