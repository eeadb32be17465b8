//! The operators' port: probes, metrics, state. HTTP/1.1 on the control runtime, away from the
//! workers.

pub mod agents;
pub mod health;

mod answer;
mod gauges;
mod peer;
mod probes;
mod table;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::header::{CACHE_CONTROL, HeaderValue};
use http::{Request, StatusCode};
use tokio::sync::watch;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::request_id::PropagateRequestIdLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;

use self::gauges::Gauges;
use crate::cluster::config_map;
use crate::cluster::load::Board;
use crate::cluster::peers::PATH as PEER_PATH;
use crate::connections;
use crate::discovery::Status;
use crate::discovery::managed::{Fleet, Managed};
use crate::request_id;
use crate::shared::{Phase, Shared};
use crate::table::Snapshot;

/// For one answer: all of them are made from memory.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Nothing here reads a body; a small one may come and is ignored.
const BODY_MAX: usize = 64 << 10;

/// What the operators' port shows.
pub struct Admin {
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
    managed: Option<Managed>,
    discovery: Arc<Status>,
    board: Board,
    config_map: Option<Arc<config_map::Status>>,
    gauges: Gauges,
}

impl Admin {
    /// A view of these.
    #[must_use]
    pub fn new(
        shared: Arc<Shared>,
        phase: watch::Receiver<Phase>,
        managed: Option<Managed>,
        discovery: Arc<Status>,
        board: Board,
        config_map: Option<Arc<config_map::Status>>,
    ) -> Self {
        Self { shared, phase, managed, discovery, board, config_map, gauges: Gauges::default() }
    }

    fn current(&self) -> Arc<Snapshot> {
        self.shared.tables.current()
    }

    fn fleet(&self) -> Option<Arc<Fleet>> {
        self.managed.as_ref().map(|managed| Arc::clone(&managed.borrow()))
    }
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, admin: Admin) {
    let router = router(Arc::new(admin));
    let open = |stream| async { Some(stream) };
    if let Err(error) = connections::serve(listener, "admin", open, router).await {
        tracing::error!(%error, "the admin port cannot be served");
    }
}

fn router(admin: Arc<Admin>) -> Router {
    let layers = ServiceBuilder::new()
        .map_response(answer::explained)
        .map_request(with_id)
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(SetResponseHeaderLayer::if_not_present(
            CACHE_CONTROL,
            HeaderValue::from_static("no-store"),
        ))
        .layer(CatchPanicLayer::new())
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, TIMEOUT))
        .layer(RequestBodyLimitLayer::new(BODY_MAX));
    Router::new()
        .route("/livez", get(probes::livez))
        .route("/readyz", get(probes::readyz))
        .route("/health", get(probes::health))
        .route("/metrics", get(gauges::metrics))
        .route("/api/agents", get(agents::all))
        .route("/api/agents/{type}", get(agents::one))
        .route("/api/table", get(table::in_force))
        .route("/api/load", get(agents::load))
        .route(PEER_PATH, get(peer::answer))
        .layer(layers)
        .with_state(admin)
}

fn with_id(mut request: Request<Body>) -> Request<Body> {
    request_id::settle(request.headers_mut());
    request
}

#[cfg(test)]
mod tests;
