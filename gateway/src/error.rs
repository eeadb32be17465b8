//! Everything that can go wrong with a request: its status, its stable code and its two texts.
//!
//! What the client is told ([`Error::detail`]) and what the log is told ([`Error::cause`]) differ.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

/// `x-switchyard-error`: the code of an error that the gateway itself made.
pub const ERROR_HEADER: HeaderName = HeaderName::from_static(config::names::ERROR);
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
/// RFC 9457, section 3.
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Stable names of what can go wrong: header, metric label, log field and row of the docs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request can't be understood.
    BadRequest,
    /// The path could mean another agent to a lenient server.
    BadPath,
    /// Nothing names an agent.
    NoAgent,
    /// Two places name different agents.
    AmbiguousAgent,
    /// Only who proves who it is may ask that.
    Unauthorized,
    /// There is no such agent type.
    UnknownAgent,
    /// There is no such path.
    NotFound,
    /// The path exists, the method doesn't.
    MethodNotAllowed,
    /// The request's head was not complete in time.
    HeaderTimeout,
    /// The request's body stopped coming.
    BodyTimeout,
    /// The request's body is larger than the agent takes.
    BodyTooLarge,
    /// Its caller has asked for as much as it may.
    RateLimited,
    /// The target of the request line is longer than a head may be.
    TargetTooLong,
    /// The request's head is longer than a head may be, or has too many fields.
    HeadTooLarge,
    /// The gateway doesn't do that.
    NotImplemented,
    /// No connection to the replica could be made.
    ConnectFailed,
    /// The replica closed the connection before its answer was whole.
    UpstreamReset,
    /// What the replica sent is not HTTP.
    BadResponse,
    /// The replica's name could not be resolved.
    DnsFailed,
    /// The agent has no replica that is ready.
    NoEndpoint,
    /// Every replica is full and so is the queue.
    QueueFull,
    /// It waited for a place as long as the queue allows.
    QueueTimeout,
    /// The gateway itself is at a limit.
    Overloaded,
    /// The gateway is shutting down.
    Draining,
    /// No connection within `connect_timeout`.
    ConnectTimeout,
    /// No response head within `first_byte_timeout`.
    FirstByteTimeout,
    /// Not done within `timeout`.
    TotalTimeout,
    /// The client went away. Logs and metrics only.
    ClientGone,
    /// The response stopped coming for `idle_timeout`. Logs and metrics only.
    IdleTimeout,
    /// The request is of no version of HTTP that the gateway speaks.
    VersionNotSupported,
    /// A fault in the gateway. Logs, metrics and a 500.
    Internal,
}

impl Code {
    /// Every code, in the order of the documentation.
    pub const ALL: [Self; 31] = [
        Self::BadRequest,
        Self::BadPath,
        Self::NoAgent,
        Self::AmbiguousAgent,
        Self::Unauthorized,
        Self::UnknownAgent,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::HeaderTimeout,
        Self::BodyTimeout,
        Self::BodyTooLarge,
        Self::RateLimited,
        Self::TargetTooLong,
        Self::HeadTooLarge,
        Self::NotImplemented,
        Self::ConnectFailed,
        Self::UpstreamReset,
        Self::BadResponse,
        Self::DnsFailed,
        Self::NoEndpoint,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::Overloaded,
        Self::Draining,
        Self::ConnectTimeout,
        Self::FirstByteTimeout,
        Self::TotalTimeout,
        Self::ClientGone,
        Self::IdleTimeout,
        Self::VersionNotSupported,
        Self::Internal,
    ];

    /// The code as it stands in headers, labels and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.facts().1
    }

    /// The HTTP status of a reply with this code (499 is never sent).
    #[must_use]
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.facts().0).expect("the table of facts holds valid statuses")
    }

    /// The error type of RFC 9209, section 2.3.
    #[must_use]
    pub const fn proxy_error(self) -> &'static str {
        self.facts().2
    }

    /// A few words for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.facts().3
    }

    /// Where this code stands in [`Code::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    #[rustfmt::skip]
    const fn facts(self) -> (u16, &'static str, &'static str, &'static str) {
        match self {
            Self::BadRequest => (400, "bad-request", "http_request_error", "Bad request"),
            Self::BadPath => (400, "bad-path", "http_request_error", "Unsafe path"),
            Self::NoAgent => (400, "no-agent", "http_request_error", "No agent named"),
            Self::AmbiguousAgent => (400, "ambiguous-agent", "http_request_error", "More than one agent named"),
            Self::Unauthorized => (401, "unauthorized", "http_request_denied", "Not authorized"),
            Self::UnknownAgent => (404, "unknown-agent", "destination_not_found", "Unknown agent"),
            Self::NotFound => (404, "not-found", "destination_not_found", "Not found"),
            Self::MethodNotAllowed => (405, "method-not-allowed", "http_request_error", "Method not allowed"),
            Self::HeaderTimeout => (408, "header-timeout", "http_request_error", "The request's head did not come in time"),
            Self::BodyTimeout => (408, "body-timeout", "http_request_error", "The request's body stopped coming"),
            Self::BodyTooLarge => (413, "body-too-large", "http_request_error", "The request's body is too large"),
            Self::RateLimited => (429, "rate-limited", "http_request_denied", "Asked for more than allowed"),
            Self::TargetTooLong => (414, "target-too-long", "http_request_error", "The request's target is too long"),
            Self::HeadTooLarge => (431, "head-too-large", "http_request_error", "The request's head is too large"),
            Self::NotImplemented => (501, "not-implemented", "http_request_error", "Not implemented"),
            Self::ConnectFailed => (502, "connect-failed", "connection_refused", "No connection to the agent"),
            Self::UpstreamReset => (502, "upstream-reset", "connection_terminated", "The agent broke off"),
            Self::BadResponse => (502, "bad-response", "http_protocol_error", "The agent's answer is not HTTP"),
            Self::DnsFailed => (502, "dns-failed", "dns_error", "The agent's name could not be resolved"),
            Self::NoEndpoint => (503, "no-endpoint", "destination_unavailable", "The agent has no ready replica"),
            Self::QueueFull => (503, "queue-full", "connection_limit_reached", "The agent's queue is full"),
            Self::QueueTimeout => (503, "queue-timeout", "connection_limit_reached", "Waited too long in the agent's queue"),
            Self::Overloaded => (503, "overloaded", "proxy_internal_response", "The gateway is at its limit"),
            Self::Draining => (503, "draining", "proxy_internal_response", "The gateway is shutting down"),
            Self::ConnectTimeout => (504, "connect-timeout", "connection_timeout", "The agent could not be reached in time"),
            Self::FirstByteTimeout => (504, "first-byte-timeout", "http_response_timeout", "The agent did not begin to answer in time"),
            Self::TotalTimeout => (504, "total-timeout", "http_response_timeout", "The agent did not finish in time"),
            Self::ClientGone => (499, "client-gone", "http_request_error", "The client went away"),
            Self::IdleTimeout => (504, "idle-timeout", "http_response_timeout", "The agent's answer stopped coming"),
            Self::VersionNotSupported => (505, "version-not-supported", "http_request_error", "HTTP version not supported"),
            Self::Internal => (500, "internal", "proxy_internal_error", "A fault in the gateway"),
        }
    }
}

/// One failure of one request.
#[derive(Debug)]
pub struct Error {
    /// What kind of failure.
    pub code: Code,
    /// For the client: what was wrong and what to do about it.
    pub detail: String,
    /// For the log: the underlying failure, where there is one.
    pub cause: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// For `Retry-After`; rounded up to whole seconds, at least 1.
    pub retry_after: Option<Duration>,
    /// For `Allow` of a 405.
    pub allow: Option<&'static str>,
}

impl Error {
    /// A failure with what the client is told.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), cause: None, retry_after: None, allow: None }
    }

    /// Adds what the log is told.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Adds `Retry-After`.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Adds `Allow`.
    #[must_use]
    pub fn allow(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }

    /// The problem document of RFC 9457.
    #[must_use]
    pub fn problem(&self, request_id: &str, agent: Option<&str>) -> String {
        let code = self.code.as_str();
        let mut problem = serde_json::json!({
            "type": format!("urn:switchyard:error:{code}"),
            "title": self.code.title(),
            "status": self.code.status().as_u16(),
            "detail": self.detail,
            "code": code,
            "request_id": request_id,
        });
        if let Some(agent) = agent {
            problem["agent"] = agent.into();
        }
        problem.to_string()
    }

    /// The reply that tells the client.
    #[must_use]
    pub fn response(&self, request_id: &str, agent: Option<&str>) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from(self.problem(request_id, agent)));
        *response.status_mut() = self.code.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(ERROR_HEADER, HeaderValue::from_static(self.code.as_str()));
        let status = format!("switchyard; error={}", self.code.proxy_error());
        headers.insert(PROXY_STATUS, HeaderValue::try_from(status).expect("tokens are ASCII"));
        if let Some(wait) = self.wait() {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }

    /// Whole seconds for `Retry-After`: always with a 503, else where it was asked for.
    fn wait(&self) -> Option<u64> {
        let wait = match self.retry_after {
            Some(wait) => wait,
            None if self.code.status() == StatusCode::SERVICE_UNAVAILABLE => Duration::from_secs(1),
            None => return None,
        };
        Some(wait.as_secs_f64().ceil().max(1.0) as u64)
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_own_place_and_name() {
        for (index, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code.index(), index);
            assert_eq!(Code::ALL.iter().filter(|other| other.as_str() == code.as_str()).count(), 1);
        }
    }

    #[test]
    fn a_503_always_says_when_to_come_back() {
        let reply = Error::new(Code::NoEndpoint, "none").response("r", Some("qa"));
        assert_eq!(reply.headers()[RETRY_AFTER], "1");
        let reply = Error::new(Code::QueueFull, "full").retry_after(Duration::from_millis(2100));
        assert_eq!(reply.response("r", None).headers()[RETRY_AFTER], "3");
    }

    #[test]
    fn a_problem_names_what_the_contract_names() {
        let reply = Error::new(Code::UnknownAgent, "no \"x\"").response("id-1", Some("x"));
        assert_eq!(reply.headers()[ERROR_HEADER], "unknown-agent");
        assert_eq!(reply.headers()[PROXY_STATUS], "switchyard; error=destination_not_found");
        let problem: serde_json::Value = serde_json::from_slice(reply.body()).expect("JSON");
        assert_eq!(problem["type"], "urn:switchyard:error:unknown-agent");
        assert_eq!(problem["request_id"], "id-1");
        assert_eq!(problem["agent"], "x");
        assert_eq!(problem["status"], 404);
    }
}
