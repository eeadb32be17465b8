//! `POST /invoke`: from the request's head to the reply's last byte, as JSON or as server-sent events.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use config::names;
use futures_util::{StreamExt, stream};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::timeout_at;

use super::App;
use super::door::Pass;
use super::replays::{self, Begun};
use super::{health, input};
use crate::agent::{Ask, Event, Events};
use crate::error::Error;

/// Events that may wait for a slow client before the work does.
const EVENTS_AHEAD: usize = 16;
/// A stream that is silent for this long gets a comment. The model's and the sandbox's clocks bound the silence; the
/// idle clocks of those in between (60 s with most) would cut it sooner.
const HEARTBEAT: Duration = Duration::from_secs(15);
const SESSION_ID: &str = "x-session-id";
const KEY: &str = "idempotency-key";
/// What goes on to the model server.
const ONWARD: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// What is known from the head.
struct Head {
    agent: String,
    request_id: String,
    session_id: Option<String>,
    key: Option<String>,
    onward: HeaderMap,
    wants_events: bool,
}

/// One request's account: its place, and the line and the counts when it ends, however it ends.
struct Record {
    app: Arc<App>,
    pass: Option<Pass>,
    started: Instant,
    request_id: String,
    agent: String,
    outcome: &'static str,
}

/// Answers a request; never fails.
pub(crate) async fn invoke(State(app): State<Arc<App>>, request: Request) -> Response {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let head = Head::of(&app, &parts.headers);
    let (agent, request_id) = (head.agent.clone(), head.request_id.clone());
    let mut record = Record {
        app: Arc::clone(&app),
        pass: None,
        started,
        request_id: request_id.clone(),
        agent: agent.clone(),
        outcome: "client-gone",
    };
    let pass = match enter(&app).await {
        Ok(pass) => pass,
        Err(error) => {
            tokio::spawn(input::let_pass(body.into_data_stream()));
            return record.refuse(&error);
        }
    };
    app.metrics.in_flight.set(app.door.in_flight());
    record.pass = Some(pass);
    let mut response = match ask(head, &parts.headers, body).await {
        Ok((ask, true)) => in_events(app, ask, record),
        Ok((ask, false)) => in_one_piece(&app, ask, record).await,
        Err(error) => record.refuse(&error),
    };
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(names::REQUEST_ID, id);
    }
    response
}

async fn enter(app: &App) -> Result<Pass, Error> {
    match health::missing(app).await {
        Some(name) => Err(Error::DependencyDown(name)),
        None => app.door.enter(),
    }
}

async fn ask(head: Head, headers: &HeaderMap, body: Body) -> Result<(Ask, bool), Error> {
    let body = input::read(headers, body).await?;
    let input = input::parse(&body, head.session_id)?;
    let key = head.key.as_deref().map(replays::key).transpose()?.map(str::to_owned);
    let wants_events = head.wants_events || input.stream == Some(true);
    let ask = Ask {
        input: input.input,
        session_id: input.session_id,
        schema: input.schema,
        past: Vec::new(),
        agent: head.agent,
        key,
        request_id: head.request_id,
        onward: head.onward,
    };
    Ok((ask, wants_events))
}

/// The reply, made now or kept from when the same was asked before.
async fn reply(app: &App, mut ask: Ask, events: &Events) -> Result<Value, Error> {
    let deadline = tokio::time::Instant::now() + app.timeout;
    let begun = match &ask.key {
        Some(key) => timeout_at(deadline, app.replays.begin(key, &ask))
            .await
            .unwrap_or(Err(Error::KeyInUse))?,
        None => Begun::Unclaimed,
    };
    let in_time = Error::Timeout(app.timeout);
    match begun {
        Begun::Again(reply) => Ok(again(app, reply, &ask, events).await),
        Begun::Unclaimed => {
            let answer = timeout_at(deadline, app.agent.work(&mut ask, events)).await;
            Ok(app.agent.reply(&ask, answer.unwrap_or(Err(in_time))?))
        }
        Begun::First(claim) => {
            let work = claim.alive(app.agent.work(&mut ask, events));
            let answer = timeout_at(deadline, work).await.unwrap_or(Err(in_time))?;
            let reply = app.agent.reply(&ask, answer);
            claim.keep(&reply).await;
            Ok(reply)
        }
    }
}

/// A reply that was made before, as an answer to this request.
async fn again(app: &App, mut reply: Value, ask: &Ask, events: &Events) -> Value {
    app.metrics.replay();
    events.words(reply["output"].as_str().unwrap_or_default()).await;
    let metadata = &mut reply["metadata"];
    metadata["replay_of"] = metadata["request_id"].take();
    metadata["request_id"] = Value::from(ask.request_id.as_str());
    reply
}

async fn in_one_piece(app: &App, ask: Ask, mut record: Record) -> Response {
    match reply(app, ask, &Events::nowhere()).await {
        Ok(reply) => {
            record.outcome = "ok";
            let body = Body::from(reply.to_string());
            let mut response = Response::new(Body::new(Held { body, _record: record }));
            let kind = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Err(error) => record.refuse(&error),
    }
}

/// The work is done by the body's stream itself: when the client goes, hyper drops the body, and with it the work.
fn in_events(app: Arc<App>, ask: Ask, record: Record) -> Response {
    let (channel, waiting) = mpsc::channel(EVENTS_AHEAD);
    let work = Box::pin(async move {
        let events = Events::into(channel);
        reply(&app, ask, &events).await
    });
    let stage = Stage::Working { work, waiting, record };
    let frames = stream::unfold(stage, Stage::next).map(Ok::<_, std::convert::Infallible>);
    let mut response = Response::new(Body::from_stream(frames));
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Where a reply in events stands.
enum Stage<W> {
    Working { work: Pin<Box<W>>, waiting: mpsc::Receiver<Event>, record: Record },
    Emptying { result: Result<Value, Error>, waiting: mpsc::Receiver<Event>, record: Record },
    Done { _record: Record },
}

impl<W: Future<Output = Result<Value, Error>>> Stage<W> {
    async fn next(self) -> Option<(Bytes, Self)> {
        let mut stage = self;
        loop {
            stage = match stage {
                Self::Working { mut work, mut waiting, record } => {
                    let done = tokio::select! {
                        biased;
                        Some(event) = waiting.recv() => {
                            let (name, data) = event.parts();
                            return Some((frame(name, &data), Self::Working { work, waiting, record }));
                        }
                        result = &mut work => result,
                        () = tokio::time::sleep(HEARTBEAT) => {
                            let comment = Bytes::from_static(b": at work\n\n");
                            return Some((comment, Self::Working { work, waiting, record }));
                        }
                    };
                    Self::Emptying { result: done, waiting, record }
                }
                Self::Emptying { result, mut waiting, mut record } => {
                    // The work has ended and dropped its sender: this never waits.
                    if let Some(event) = waiting.recv().await {
                        let (name, data) = event.parts();
                        let stage = Self::Emptying { result, waiting, record };
                        return Some((frame(name, &data), stage));
                    }
                    let last = match result {
                        Ok(reply) => {
                            record.outcome = "ok";
                            frame("final", &reply)
                        }
                        Err(error) => {
                            record.failed(&error);
                            frame("error", &error.problem(&record.agent, &record.request_id))
                        }
                    };
                    return Some((last, Self::Done { _record: record }));
                }
                Self::Done { .. } => return None,
            }
        }
    }
}

fn frame(name: &str, data: &Value) -> Bytes {
    // JSON has no raw line breaks, so that one data line holds it.
    format!("event: {name}\ndata: {data}\n\n").into()
}

impl Head {
    fn of(app: &App, headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let request_id = text(names::REQUEST_ID)
            .filter(|id| is_request_id(id))
            .map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned);
        let mut onward = HeaderMap::new();
        if let Ok(id) = HeaderValue::from_str(&request_id) {
            onward.insert(names::REQUEST_ID, id);
        }
        for name in ONWARD {
            for value in headers.get_all(name) {
                onward.append(name, value.clone());
            }
        }
        let agent =
            text(names::AGENT_TYPE).filter(|agent| is_label(agent)).unwrap_or(app.kind.name());
        Self {
            agent: agent.to_owned(),
            request_id,
            session_id: text(SESSION_ID).map(str::to_owned),
            // One that is no text is as wrong as an empty one.
            key: headers.contains_key(KEY).then(|| text(KEY).unwrap_or_default().to_owned()),
            onward,
            wants_events: headers.get_all(header::ACCEPT).iter().any(accepts_events),
        }
    }
}

fn accepts_events(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else { return false };
    text.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_events = parts.next().is_some_and(|t| t.eq_ignore_ascii_case("text/event-stream"));
        let refused = |q: &str| q.parse::<f32>().is_ok_and(|q| q == 0.0);
        is_events && !parts.any(|part| part.strip_prefix("q=").is_some_and(refused))
    })
}

fn is_request_id(id: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._:/+=-".contains(c);
    (1..=128).contains(&id.len()) && id.chars().all(allowed)
}

fn is_label(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len()) && name.chars().all(allowed)
}

impl Record {
    fn failed(&mut self, error: &Error) {
        self.outcome = error.code();
        if !error.status().is_client_error() && !error.not_begun() {
            tracing::warn!(
                request_id = self.request_id,
                code = error.code(),
                error = error as &dyn std::error::Error,
                "request failed"
            );
        }
    }

    fn refuse(mut self, error: &Error) -> Response {
        self.failed(error);
        let response = error.response(&self.agent, &self.request_id);
        response.map(|body| Body::new(Held { body, _record: self }))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        drop(self.pass.take());
        self.app.metrics.in_flight.set(self.app.door.in_flight());
        self.app.metrics.finished(self.outcome, took);
        tracing::info!(
            request_id = self.request_id,
            agent = self.agent,
            outcome = self.outcome,
            duration_ms = took.as_millis() as u64,
            "request"
        );
    }
}

/// A body that keeps the request's account open until its last byte.
struct Held {
    body: Body,
    _record: Record,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_sent_to_those_who_accept_them() {
        let check = |accept, expected| {
            assert_eq!(accepts_events(&HeaderValue::from_static(accept)), expected, "{accept}");
        };
        check("text/event-stream", true);
        check("application/json, Text/Event-Stream; q=0.5", true);
        check("text/event-stream;q=0", false);
        check("*/*", false);
        check("application/json", false);
    }
}
