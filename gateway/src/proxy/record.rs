//! What is noted of one request: counted and logged once, when its body has ended.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Uri};
use tokio::time::Instant;

use super::worker::{Busy, Client, Worker};
use crate::admission::rates::Told;
use crate::admission::tenants::Tenant;
use crate::body::Source;
use crate::error::{Code, Error};
use crate::metrics::Outcome;
use crate::pool::Endpoint;
use crate::request_id::RequestId;
use crate::table::AgentRef;

/// Less than that is no waiting: it is how long it takes to find that there is a place.
const WAITING: Duration = Duration::from_micros(500);

/// Counts and logs a head that is refused: there is no request to tell of.
pub(super) fn refused(worker: &Worker, client: &Client, id: &RequestId, error: &Error) {
    worker.metrics.unrouted(error.code);
    if worker.view.current().table.gateway.access_log {
        tracing::info!(
            target: "switchyard::access",
            request_id = id.as_str(),
            client = %client.peer.ip(),
            status = error.code.status().as_u16(),
            outcome = error.code.as_str(),
            error = error.detail.as_str(),
            "request"
        );
    }
}

/// One request's record; dropped, it is written.
pub struct Record {
    worker: Rc<Worker>,
    client: Rc<Client>,
    /// Dropped with the record; the request's body has its own.
    pub busy: Busy,
    /// When its head was there.
    pub begun: Instant,
    method: Method,
    /// What the client asked for.
    pub uri: Uri,
    access_log: bool,
    /// The id that goes with the request from end to end.
    pub request_id: RequestId,
    /// The agent, once it is known.
    pub agent: Option<AgentRef>,
    /// Whose it is, where callers are told apart or limited.
    pub tenant: Option<Arc<Tenant>>,
    /// What the client is told of its limits.
    pub told: Option<Box<Told>>,
    /// Who answered, or was asked last.
    pub endpoint: Option<Arc<Endpoint>>,
    /// The request's body.
    pub source: Option<Source>,
    /// The status that the client got.
    pub status: u16,
    /// Attempts after the first.
    pub retries: u32,
    /// Time in the queue.
    queued: Duration,
    /// Request sent to response head.
    pub first_byte: Option<Duration>,
    /// Bytes of the response's body.
    pub sent: u64,
    /// The error, for the log.
    pub cause: Option<String>,
    outcome: Option<Outcome>,
    /// When it ended, where that is known before the record is written.
    pub ended: Option<Instant>,
}

impl Record {
    /// Begins with the request's head.
    #[must_use]
    pub fn new(
        worker: &Rc<Worker>,
        client: &Rc<Client>,
        (method, uri): (Method, Uri),
        request_id: RequestId,
        access_log: bool,
    ) -> Self {
        Self {
            worker: Rc::clone(worker),
            busy: client.busy(),
            client: Rc::clone(client),
            begun: Instant::now(),
            method,
            uri,
            access_log,
            request_id,
            agent: None,
            tenant: None,
            told: None,
            endpoint: None,
            source: None,
            status: 0,
            retries: 0,
            queued: Duration::ZERO,
            first_byte: None,
            sent: 0,
            cause: None,
            outcome: None,
            ended: None,
        }
    }

    /// The id as text.
    #[must_use]
    pub fn id(&self) -> &str {
        self.request_id.as_str()
    }

    /// The agent's type, once it is known.
    #[must_use]
    pub fn agent_name(&self) -> Option<&str> {
        self.agent.as_ref().map(|agent| agent.settings.name.as_str())
    }

    /// It was in its agent's line for so long.
    pub fn waited(&mut self, time: Duration) {
        let Some(agent) = self.agent.as_ref().filter(|_| time > WAITING) else { return };
        self.queued += time;
        agent.metrics.queue.record(time);
    }

    /// The agent has answered to the end.
    pub fn done(&mut self) {
        let failed = self.status >= 500 && self.agent.is_some();
        let outcome = if failed { Outcome::UpstreamError } else { Outcome::Ok };
        self.outcome.get_or_insert(outcome);
    }

    /// It went wrong.
    pub fn failed(&mut self, error: &Error) {
        self.outcome.get_or_insert(Outcome::Failed(error.code));
        let mut text = error.detail.clone();
        let mut next: Option<&dyn std::error::Error> = std::error::Error::source(error);
        while let Some(cause) = next {
            text = format!("{text}: {cause}");
            next = cause.source();
        }
        self.cause.get_or_insert(text);
    }

    /// Nobody said how it ended: the connection did.
    fn cut(&self) -> Outcome {
        let draining = self.worker.cut.get().then_some(Code::Draining);
        Outcome::Failed(self.client.cause.get().or(draining).unwrap_or(Code::ClientGone))
    }

    fn log(&self, outcome: Outcome, duration: Duration) {
        let ms = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        tracing::info!(
            target: "switchyard::access",
            request_id = self.id(),
            client = %self.client.peer.ip(),
            method = self.method.as_str(),
            path = self.uri.path(),
            agent = self.agent_name(),
            tenant = self.tenant.as_ref().map(|of| &*of.name).filter(|name| !name.is_empty()),
            status = self.status,
            outcome = outcome.as_str(),
            endpoint = self.endpoint.as_ref().map(|e| e.authority.as_str()),
            retries = self.retries,
            queue_ms = ms(self.queued),
            first_byte_ms = self.first_byte.map(ms),
            duration_ms = ms(duration),
            bytes_in = self.source.as_ref().map_or(0, Source::received),
            bytes_out = self.sent,
            error = self.cause.as_deref(),
            "request"
        );
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let outcome = self.outcome.unwrap_or_else(|| self.cut());
        if let (0, Outcome::Failed(code)) = (self.status, outcome) {
            self.status = code.status().as_u16();
        }
        let duration = self.ended.map_or_else(|| self.begun.elapsed(), |ended| ended - self.begun);
        match (&self.agent, outcome) {
            (Some(agent), outcome) => {
                agent.metrics.ended(outcome, duration);
                agent.metrics.response_bytes.increment(self.sent);
                let received = self.source.as_ref().map_or(0, Source::received);
                agent.metrics.request_bytes.increment(received);
            }
            (None, Outcome::Failed(code)) => self.worker.metrics.unrouted(code),
            (None, _) => {}
        }
        if self.access_log {
            self.log(outcome, duration);
        }
    }
}
