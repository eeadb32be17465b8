//! An agent with the contract's surface whose behaviour the request says. It counts what it does,
//! and tells it in every answer.

mod door;
mod order;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use door::{Door, Pass};
pub(crate) use order::{Order, Said};

/// A body that is sent as it is, or as it comes.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Most of a request's body that is read.
const BODY_MAX: usize = 1 << 20;
/// How long connections that the system has already let in may bring a request, to be refused politely.
const LAST_CALL: Duration = Duration::from_millis(100);
/// How long the last answers may take to leave.
const LAST_BYTES: Duration = Duration::from_secs(5);

/// What `e2e agent` takes, mostly from the environment that `render` gives a pod.
#[derive(Args)]
pub(crate) struct Settings {
    /// Where it listens
    #[arg(long, env = "HOST", default_value = "127.0.0.1")]
    host: IpAddr,
    /// And on which port
    #[arg(long, env = "PORT", default_value_t = 8000)]
    port: u16,
    /// Most requests at once; 0 is no limit
    #[arg(long, env = "AGENT_MAX_IN_FLIGHT", default_value_t = 0)]
    max_in_flight: u32,
    /// What it is called in its answers: a pod's name
    #[arg(long, env = "HOSTNAME", default_value = "agent")]
    name: String,
    /// What SIGTERM does
    #[arg(long, env = "E2E_DRAIN", default_value = "finish")]
    drain: Drain,
    /// Seconds that what is open may go on after SIGTERM
    #[arg(long, env = "AGENT_DRAIN_TIMEOUT", default_value = "60s", value_parser = seconds)]
    drain_timeout: Duration,
    /// Milliseconds from its start to its port being open
    #[arg(long, env = "E2E_START_MS", default_value_t = 0)]
    start_ms: u64,
}

/// How it ends.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Drain {
    /// Unready, finishes what it has, refuses what is new
    Finish,
    /// At once
    None,
}

/// Seconds, with or without their unit.
fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    number.parse().map(Duration::from_secs).map_err(|_| format!("{text}: not whole seconds"))
}

/// What every request sees.
struct App {
    name: String,
    door: Arc<Door>,
}

/// Serves until SIGTERM and what that does.
///
/// # Errors
/// When the port can't be had.
pub(crate) async fn serve(settings: Settings) -> io::Result<()> {
    let mut end = signal(SignalKind::terminate())?;
    tokio::time::sleep(Duration::from_millis(settings.start_ms)).await;
    let listener = TcpListener::bind(SocketAddr::new(settings.host, settings.port)).await?;
    let app =
        Arc::new(App { name: settings.name, door: Arc::new(Door::new(settings.max_in_flight)) });
    let connections = GracefulShutdown::new();
    let drained = async {
        end.recv().await;
        if settings.drain == Drain::None {
            std::process::exit(0);
        }
        app.door.close();
        let _ = tokio::time::timeout(settings.drain_timeout, app.door.empty()).await;
        tokio::time::sleep(LAST_CALL).await;
    };
    tokio::pin!(drained);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                let app = Arc::clone(&app);
                let service = service_fn(move |request| answer(Arc::clone(&app), request));
                let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connections.watch(connection));
            }
            () = &mut drained => break,
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(LAST_BYTES, connections.shutdown()).await;
    Ok(())
}

async fn answer(app: Arc<App>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    Ok(match request.uri().path() {
        "/invoke" => match app.door.enter() {
            Ok(pass) => invoke(&app, pass, request).await,
            Err(why) => not_begun(why),
        },
        "/livez" | "/metrics" => json_answer(StatusCode::OK, &json!({})),
        "/readyz" | "/health" if app.door.is_closed() => not_begun("draining"),
        "/readyz" | "/health" => {
            json_answer(StatusCode::OK, &json!({ "status": "ok", "checks": {} }))
        }
        _ => json_answer(StatusCode::NOT_FOUND, &json!({})),
    })
}

async fn invoke(app: &Arc<App>, pass: Pass, request: Request<Incoming>) -> Response<Body> {
    let kind = request.headers().get("x-agent-type").and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().to_owned();
    let body = Limited::new(request.into_body(), BODY_MAX).collect().await;
    let order = body.ok().and_then(|body| serde_json::from_slice::<Order>(&body.to_bytes()).ok());
    match order {
        Some(order) => order.carry_out(&app.name, &kind, pass).await,
        None => json_answer(StatusCode::BAD_REQUEST, &json!({ "error": "no order" })),
    }
}

/// The contract's refusal: nothing was begun, so the gateway may ask another replica.
fn not_begun(why: &str) -> Response<Body> {
    let mut answer = json_answer(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": why }));
    answer.headers_mut().insert("x-switchyard-not-begun", "1".parse().expect("a plain value"));
    answer
}

/// A whole answer.
fn json_answer(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    let mut answer = Response::new(Full::from(value.to_string()).boxed_unsync());
    *answer.status_mut() = status;
    let json = "application/json".parse().expect("a plain value");
    answer.headers_mut().insert("content-type", json);
    answer
}
