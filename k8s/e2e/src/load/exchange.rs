//! One request up to its answer's head, and what can be wrong with it.

use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response};

use super::Load;
use crate::agent::Order;
use crate::wire::{self, Connection};

/// For an answer's head, and for a whole one that isn't a stream.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How much of a failed answer's body is told.
const TOLD: usize = 240;
/// Most that an answer has.
pub(super) const ANSWER_MAX: usize = 64 << 10;

/// A failure: what it is counted as, and what happened.
pub(super) struct Fault {
    pub(super) kind: String,
    pub(super) detail: String,
}

impl Fault {
    #[expect(clippy::needless_pass_by_value, reason = "errors and literals are handed over alike")]
    pub(super) fn new(kind: &str, detail: impl ToString) -> Self {
        Self { kind: kind.to_owned(), detail: detail.to_string() }
    }
}

/// A kept connection that can still be used, or a new one; and whether it is new.
pub(super) async fn connection(
    load: &Load,
    kept: Option<Connection>,
) -> Result<(Connection, bool), Fault> {
    if let Some(mut kept) = kept
        && kept.ready().await.is_ok()
    {
        return Ok((kept, false));
    }
    let made = wire::connect(load.address).await;
    made.map(|made| (made, true)).map_err(|error| Fault::new("connect", error))
}

/// Sends an order to an agent, and waits for the head of a good answer.
pub(super) async fn ask(
    load: &Load,
    connection: &mut Connection,
    is_new: bool,
    (agent, order): (&str, &Order),
) -> Result<Response<Incoming>, Fault> {
    let mut request = build(load, agent, order)?;
    if !is_new {
        match head(connection, request).await {
            Err(Unsent::Whole(again)) => {
                load.tally().resent();
                request = *again;
                *connection = self::connection(load, None).await?.0;
            }
            Err(Unsent::Fault(fault)) => return Err(fault),
            Ok(answer) => return good(answer).await,
        }
    }
    match head(connection, request).await {
        Ok(answer) => good(answer).await,
        Err(Unsent::Fault(fault)) => Err(fault),
        Err(Unsent::Whole(_)) => Err(Fault::new("reset", "a new connection took nothing")),
    }
}

fn build(load: &Load, agent: &str, order: &Order) -> Result<Request<Full<Bytes>>, Fault> {
    let body = serde_json::to_vec(order).unwrap_or_default();
    Request::post(format!("/agents/{agent}/invoke"))
        .header("host", &load.host)
        .header("content-type", "application/json")
        .body(Full::from(body))
        .map_err(|error| Fault::new("request", error))
}

/// No head.
enum Unsent {
    /// The connection was closed before anything of the request was sent.
    Whole(Box<Request<Full<Bytes>>>),
    Fault(Fault),
}

async fn head(
    connection: &mut Connection,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, Unsent> {
    match tokio::time::timeout(ANSWER_TIMEOUT, connection.try_send_request(request)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(mut error)) => Err(match error.take_message() {
            Some(request) => Unsent::Whole(Box::new(request)),
            None => Unsent::Fault(Fault::new("reset", cause(error.error()))),
        }),
        Err(_) => Err(Unsent::Fault(Fault::new("timeout", "no answer in 60 s"))),
    }
}

/// Any status but 200 is a failure, told by the gateway's code for it.
async fn good(answer: Response<Incoming>) -> Result<Response<Incoming>, Fault> {
    let status = answer.status();
    if status == 200 {
        return Ok(answer);
    }
    let code = answer.headers().get("x-switchyard-error");
    let code = code.and_then(|code| code.to_str().ok()).unwrap_or("agent's own").to_owned();
    let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let told = String::from_utf8_lossy(&body[..body.len().min(TOLD)]).into_owned();
    Err(Fault { kind: format!("{} {code}", status.as_u16()), detail: told })
}

/// An error with what is behind it.
pub(super) fn cause(error: &hyper::Error) -> String {
    let mut told = error.to_string();
    let mut next = error.source();
    while let Some(inner) = next {
        told = format!("{told}: {inner}");
        next = inner.source();
    }
    told
}
