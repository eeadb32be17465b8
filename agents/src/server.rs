//! Serving one agent: bind first, then serve; SIGTERM closes the door, and what is in finishes.

mod door;
mod health;
mod input;
mod invoke;
mod replays;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use config::names;
use futures_util::FutureExt;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::agent::Agent;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::settings::{Dependency, Kind, Settings};
use door::Door;
use replays::Replays;

/// Most connections at once: far more than a gateway's pool, and few enough for the usual descriptor limit of 1,024.
const MAX_CONNECTIONS: usize = 900;
/// For a request's head, and for an idle connection: longer than the gateway keeps one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// How long connections that were just accepted may still bring a request, to be refused politely, before they are closed.
const LAST_CALL: Duration = Duration::from_millis(100);
/// How long the last replies may take to reach their clients.
const LAST_BYTES: Duration = Duration::from_secs(5);
/// How often the metrics' samples are folded.
const FOLD: Duration = Duration::from_secs(5);

/// What every request sees.
pub(crate) struct App {
    pub(crate) agent: Agent,
    pub(crate) kind: Kind,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) door: Door,
    pub(crate) health: health::Cache,
    pub(crate) timeout: Duration,
    pub(crate) require: Vec<Dependency>,
    pub(crate) replays: Replays,
}

/// An agent that has its address, and does not serve yet.
pub struct Server {
    listener: TcpListener,
    app: Arc<App>,
    drain_timeout: Duration,
}

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Everything that was begun was finished.
    Drained,
    /// That many requests were cut off at the drain timeout.
    Cut(u32),
}

impl Server {
    /// Takes the address.
    ///
    /// # Errors
    /// When it cannot be had.
    pub async fn bind(
        settings: &Settings,
        agent: Agent,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((settings.host, settings.port)).await?;
        let store = agent.store();
        let app = App {
            agent,
            kind: settings.kind,
            metrics,
            door: Door::new(settings.max_in_flight),
            health: health::Cache::default(),
            timeout: settings.timeout,
            require: settings.require.clone(),
            replays: Replays::new(store, settings.memory.idempotency_ttl),
        };
        Ok(Self { listener, app: Arc::new(app), drain_timeout: settings.drain_timeout })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is done, then drains.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> End {
        let Self { listener, app, drain_timeout } = self;
        let connections = Connections::new(router(Arc::clone(&app)));
        let mut fold = tokio::time::interval(FOLD);
        let drained = async {
            stop.await;
            app.door.close();
            tracing::info!(in_flight = app.door.in_flight(), "draining");
            tokio::time::timeout(drain_timeout, app.door.idle()).await
        };
        tokio::pin!(drained);
        let end = loop {
            tokio::select! {
                () = connections.accept(&listener) => {}
                _ = fold.tick() => app.metrics.fold(),
                in_time = &mut drained => break match in_time {
                    Ok(()) => End::Drained,
                    Err(_) => End::Cut(app.door.in_flight()),
                },
            }
        };
        // Those whom the system has already let in are told, not reset.
        while connections.accept(&listener).now_or_never().is_some() {}
        drop(listener);
        if end == End::Drained {
            tokio::time::sleep(LAST_CALL).await;
            let _ = tokio::time::timeout(LAST_BYTES, connections.graceful.shutdown()).await;
        }
        end
    }
}

/// The open connections.
struct Connections {
    router: Router,
    graceful: GracefulShutdown,
    places: Arc<Semaphore>,
}

impl Connections {
    fn new(router: Router) -> Self {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Self { router, graceful: GracefulShutdown::new(), places }
    }

    /// Accepts one and serves it on a task of its own.
    async fn accept(&self, listener: &TcpListener) {
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => self.serve(stream, place),
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                // Out of descriptors: without a pause this would spin.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    fn serve(&self, stream: TcpStream, place: OwnedSemaphorePermit) {
        // Events are small and each should leave at once.
        let _ = stream.set_nodelay(true);
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        builder.http2().timer(TokioTimer::new()).keep_alive_interval(HEAD_TIMEOUT);
        let service = TowerToHyperService::new(self.router.clone());
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = self.graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = &*error, "connection ended");
            }
            drop(place);
        });
    }
}

fn router(app: Arc<App>) -> Router {
    let only = |allowed: &'static str| {
        move |state: State<Arc<App>>, request: Request| {
            refuse(state, request, Error::MethodNotAllowed(allowed))
        }
    };
    let elsewhere =
        |state: State<Arc<App>>, request: Request| refuse(state, request, Error::NotFound);
    Router::new()
        .route("/invoke", post(invoke::invoke).fallback(only("POST")))
        .route("/livez", get(health::livez).fallback(only("GET,HEAD")))
        .route("/readyz", get(health::readyz).fallback(only("GET,HEAD")))
        .route("/health", get(health::health).fallback(only("GET,HEAD")))
        .route("/metrics", get(health::metrics).fallback(only("GET,HEAD")))
        .fallback(elsewhere)
        .with_state(app)
}

async fn refuse(State(app): State<Arc<App>>, request: Request, error: Error) -> Response {
    let id = request.headers().get(names::REQUEST_ID).and_then(|id| id.to_str().ok());
    error.response(app.kind.name(), id.unwrap_or_default())
}
