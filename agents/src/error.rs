//! Everything that can go wrong with a request to an agent, with its status, its stable code and what
//! the client is told, as `application/problem+json` (RFC 9457).

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use config::names;
use serde_json::{Value, json};

use crate::model::ModelError;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The body is not what `/invoke` takes; says what to send instead.
    #[error("{0}")]
    BadRequest(String),
    /// The path is none of an agent's.
    #[error(
        "this agent has no such path; it serves POST /invoke, and GET /livez, /readyz, /health and /metrics"
    )]
    NotFound,
    /// The path is there, but not for this method.
    #[error("this path takes {0} only")]
    MethodNotAllowed(&'static str),
    /// The body is larger than an agent reads.
    #[error("the body is larger than {limit} bytes; send a shorter input")]
    BodyTooLarge {
        /// Most bytes that are read.
        limit: usize,
    },
    /// The body did not arrive in time.
    #[error("the body was not complete within {} s", .0.as_secs())]
    BodyTimeout(Duration),
    /// As many requests as allowed are in flight.
    #[error("this replica already works on {0} requests, its limit; try again")]
    AtLimit(u32),
    /// SIGTERM has come.
    #[error("this replica is shutting down; try again")]
    Draining,
    /// As many sessions as allowed are in use.
    #[error("all {0} workspaces are in use; try again, or use a session that is open")]
    NoWorkspace(usize),
    /// The documents are not indexed yet.
    #[error("the documents are still being indexed; try again")]
    Indexing,
    /// The request took longer than its time.
    #[error("not done within {} ms, the longest time for one request", .0.as_millis())]
    Timeout(Duration),
    /// The input and what has to stay beside it are longer than the model reads.
    #[error(
        "the input is about {tokens} tokens, and the model reads {most} at most beside its answer; send a shorter input, or raise AGENT_CONTEXT_TOKENS if the model reads more"
    )]
    InputTooLong {
        /// About how many tokens it is.
        tokens: u64,
        /// Most that fit.
        most: u64,
    },
    /// The model's answer did not keep the schema, asked again and again.
    #[error("the model's answer does not keep `output_schema`: {0}")]
    OutputInvalid(String),
    /// The idempotency key was used for another request.
    #[error("this Idempotency-Key was used for another request; use a new key for each")]
    KeyReused,
    /// The request with this key is still under way.
    #[error(
        "the request with this Idempotency-Key is still under way; ask again later with the same key"
    )]
    KeyInUse,
    /// A dependency that the table requires is away.
    #[error("{0} is away, and this agent is told not to work without; try again")]
    DependencyDown(&'static str),
    /// The language model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The agent's own machinery failed.
    #[error("the agent failed: {what}")]
    Internal {
        /// What it was doing.
        what: &'static str,
        /// Why that failed; for the log.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// The agent's own failure at `what`.
    pub fn internal(
        what: &'static str,
    ) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> Self {
        move |source| Self::Internal { what, source }
    }

    /// The stable code: in the problem, the log and the metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad-request",
            Self::NotFound => "not-found",
            Self::MethodNotAllowed(_) => "method-not-allowed",
            Self::BodyTooLarge { .. } => "body-too-large",
            Self::BodyTimeout(_) => "body-timeout",
            Self::AtLimit(_) => "at-limit",
            Self::Draining => "draining",
            Self::NoWorkspace(_) => "no-workspace",
            Self::Indexing => "indexing",
            Self::Timeout(_) => "timeout",
            Self::InputTooLong { .. } => "input-too-long",
            Self::OutputInvalid(_) => "output-invalid",
            Self::KeyReused => "idempotency-key-reused",
            Self::KeyInUse => "idempotency-key-in-use",
            Self::DependencyDown(_) => "dependency-down",
            Self::Model(error) => error.code(),
            Self::Internal { .. } => "internal",
        }
    }

    /// The status that it is answered with.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge { .. } | Self::InputTooLong { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::OutputInvalid(_) => StatusCode::BAD_GATEWAY,
            Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::KeyInUse => StatusCode::CONFLICT,
            Self::BodyTimeout(_) => StatusCode::REQUEST_TIMEOUT,
            Self::AtLimit(_)
            | Self::Draining
            | Self::NoWorkspace(_)
            | Self::Indexing
            | Self::DependencyDown(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Model(error) => error.status(),
            Self::Internal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether the request may be sent to another replica because nothing of it was begun.
    pub fn not_begun(&self) -> bool {
        matches!(self, Self::AtLimit(_) | Self::Draining | Self::DependencyDown(_))
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::AtLimit(_)
            | Self::Draining
            | Self::NoWorkspace(_)
            | Self::Indexing
            | Self::DependencyDown(_)
            | Self::KeyInUse => Some(Duration::from_secs(1)),
            Self::Model(error) => error.retry_after(),
            _ => None,
        }
    }

    /// The problem, as a reply's body or an `error` event's data.
    pub fn problem(&self, agent: &str, request_id: &str) -> Value {
        let status = self.status();
        json!({
            "type": format!("urn:switchyard:agent:{}", self.code()),
            "title": status.canonical_reason().unwrap_or("Error"),
            "status": status.as_u16(),
            "detail": self.to_string(),
            "code": self.code(),
            "request_id": request_id,
            "agent": agent,
        })
    }

    /// The reply that tells a client.
    pub fn response(&self, agent: &str, request_id: &str) -> Response {
        let mut response = Response::new(Body::from(self.problem(agent, request_id).to_string()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(after) = self.retry_after() {
            let seconds = after.as_secs_f64().ceil().max(1.0) as u64;
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.not_begun() {
            headers.insert(names::NOT_BEGUN, HeaderValue::from_static("1"));
        }
        if matches!(self, Self::Draining) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Self::MethodNotAllowed(allowed) = self {
            headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
        }
        response
    }
}
