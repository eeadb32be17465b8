//! A whole reply, and what must hold for every one that the gateway gives.

use std::time::Duration;

use serde_json::Value;

use crate::wire::{End, Headers};

/// A reply, read to its end.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Over which protocol it came.
    pub http: Http,
    /// The status.
    pub status: u16,
    /// The fields.
    pub headers: Headers,
    /// The body, as far as it came.
    pub body: Vec<u8>,
    /// Fields after the body.
    pub trailers: Headers,
    /// How it ended.
    pub end: End,
}

/// The protocols that clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http {
    /// HTTP/1.1.
    One,
    /// HTTP/2 with prior knowledge.
    Two,
}

/// Both protocols, for tests of what holds for each.
pub const BOTH: [Http; 2] = [Http::One, Http::Two];

/// Code, status, RFC 9209 token, and whether `Retry-After` is due: the contract's table.
const ERRORS: [(&str, u16, &str, bool); 28] = [
    ("bad-request", 400, "http_request_error", false),
    ("bad-path", 400, "http_request_error", false),
    ("no-agent", 400, "http_request_error", false),
    ("ambiguous-agent", 400, "http_request_error", false),
    ("unauthenticated", 401, "http_request_denied", false),
    ("forbidden", 403, "http_request_denied", false),
    ("unknown-agent", 404, "destination_not_found", false),
    ("not-found", 404, "destination_not_found", false),
    ("method-not-allowed", 405, "http_request_error", false),
    ("header-timeout", 408, "http_request_error", false),
    ("body-timeout", 408, "http_request_error", false),
    ("body-too-large", 413, "http_request_error", false),
    ("target-too-long", 414, "http_request_error", false),
    ("head-too-large", 431, "http_request_error", false),
    ("version-not-supported", 505, "http_request_error", false),
    ("not-implemented", 501, "http_request_error", false),
    ("rate-limited", 429, "http_request_denied", true),
    ("connect-failed", 502, "connection_refused", false),
    ("upstream-reset", 502, "connection_terminated", false),
    ("bad-response", 502, "http_protocol_error", false),
    ("dns-failed", 502, "dns_error", false),
    ("no-endpoint", 503, "destination_unavailable", true),
    ("queue-full", 503, "connection_limit_reached", true),
    ("queue-timeout", 503, "connection_limit_reached", true),
    ("overloaded", 503, "proxy_internal_response", true),
    ("draining", 503, "proxy_internal_response", true),
    ("connect-timeout", 504, "connection_timeout", false),
    ("first-byte-timeout", 504, "http_response_timeout", false),
];

impl Reply {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("the body is no JSON ({e}): {}", self.text()))
    }

    /// A field's first value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// The gateway's error code, when it made this reply itself.
    pub fn code(&self) -> Option<&str> {
        self.header("x-switchyard-error")
    }

    /// The request's id.
    pub fn request_id(&self) -> &str {
        self.header("x-request-id").expect("every reply has a request id")
    }

    /// Fails the test unless this is a 200 that ended as it should.
    #[track_caller]
    pub fn ok(self) -> Reply {
        assert_eq!((self.status, self.end), (200, End::Complete), "{self:#?}\n{}", self.text());
        self
    }

    /// Fails the test unless this is the gateway's error `code`; gives its problem.
    #[track_caller]
    pub fn error(&self, code: &str) -> Value {
        assert_eq!(self.code(), Some(code), "status {}: {}", self.status, self.text());
        self.json()
    }

    /// What a parser that refuses a head may answer: no more than a status, and a close.
    pub fn is_bare(&self) -> bool {
        matches!(self.status, 400 | 414 | 431) && self.body.is_empty() && self.code().is_none()
    }
}

/// Asserts what holds for the head of every reply of the gateway.
#[track_caller]
pub fn check_head(reply: &Reply) {
    if reply.is_bare() && !reply.headers.has("x-request-id") {
        assert!(reply.headers.lists("connection", "close"), "a bare {} closes", reply.status);
        return;
    }
    let headers = &reply.headers;
    assert_eq!(headers.all("x-request-id").len(), 1, "one request id: {headers:?}");
    assert_ne!(headers.get("x-request-id"), Some(""), "a request id that says something");
    for name in ["keep-alive", "proxy-connection", "te", "x-switchyard-not-begun"] {
        assert!(!headers.has(name), "{name} goes no further: {headers:?}");
    }
    let hops = ["connection", "upgrade", "transfer-encoding"];
    match reply.http {
        Http::Two => hops.iter().for_each(|h| assert!(!headers.has(h), "{h} in HTTP/2")),
        Http::One => check_hops(reply),
    }
    assert!(headers.all("content-length").len() <= 1, "one length at most: {headers:?}");
    assert!(headers.all("date").len() <= 1, "one date at most: {headers:?}");
    check_code(reply);
}

#[track_caller]
fn check_hops(reply: &Reply) {
    let headers = &reply.headers;
    if let Some(coding) = headers.get("transfer-encoding") {
        assert_eq!(coding, "chunked");
        assert!(!headers.has("content-length"), "two framings: {headers:?}");
    }
    let named = headers.all("connection").join(",").to_ascii_lowercase();
    for option in named.split(',').map(str::trim).filter(|o| !o.is_empty()) {
        assert!(["close", "keep-alive", "upgrade"].contains(&option), "connection: {option}");
    }
    if headers.has("upgrade") {
        assert_eq!(reply.status, 101, "an upgrade is offered: {headers:?}");
    }
}

#[track_caller]
fn check_code(reply: &Reply) {
    let headers = &reply.headers;
    let Some(code) = reply.code() else {
        assert_ne!(headers.get("content-type"), Some("application/problem+json"), "no code");
        return;
    };
    let total = ("total-timeout", 504, "http_response_timeout", false);
    let row = ERRORS.iter().chain([&total]).find(|row| row.0 == code);
    let (_, status, token, retry_after) = row.expect("the code stands in the contract");
    assert_eq!(reply.status, *status, "{code}");
    assert_eq!(headers.get("content-type"), Some("application/problem+json"), "{code}");
    let expected = format!("switchyard; error={token}");
    assert_eq!(headers.get("proxy-status"), Some(expected.as_str()), "{code}");
    match headers.get("retry-after") {
        Some(seconds) => assert!(seconds.parse::<u32>().unwrap() >= 1, "retry-after: {seconds}"),
        None => assert!(!retry_after, "{code} says when to come back"),
    }
}

/// Asserts what holds for every whole reply of the gateway.
#[track_caller]
pub fn check(reply: &Reply) {
    check_head(reply);
    if [204, 304].contains(&reply.status) {
        assert!(reply.body.is_empty(), "{} has no body", reply.status);
    }
    let Some(code) = reply.code() else { return };
    if reply.body.is_empty() {
        // The answer to HEAD; its length, if any, is that of the problem.
        return;
    }
    assert_eq!(reply.end, End::Complete, "{code} is whole");
    let problem = reply.json();
    assert_eq!(problem["type"], format!("urn:switchyard:error:{code}"));
    assert_eq!(problem["code"], code);
    assert_eq!(problem["status"], reply.status);
    assert_eq!(problem["request_id"], reply.request_id());
    for member in ["title", "detail"] {
        let text = problem[member].as_str().unwrap_or_default();
        assert!(!text.is_empty(), "{code} has a {member}: {problem}");
    }
    let agent = problem.get("agent");
    assert!(agent.is_none_or(Value::is_string), "an agent is a name or absent: {problem}");
}

/// The events of an SSE body: `(event, data)`; comments are left out.
pub fn events(body: &str) -> Vec<(String, String)> {
    let blocks = body.split("\n\n").filter(|b| !b.trim().is_empty());
    let event = |block: &str| {
        let mut event = ("message".to_owned(), Vec::new());
        for line in block.lines() {
            match line.split_once(':') {
                Some(("event", name)) => event.0 = name.trim().to_owned(),
                Some(("data", data)) => event.1.push(data.trim_start_matches(' ').to_owned()),
                _ => {}
            }
        }
        (!event.1.is_empty()).then(|| (event.0, event.1.join("\n")))
    };
    blocks.filter_map(event).collect()
}

/// The problem that the last event of an SSE body, an `error` event, carries.
#[track_caller]
pub fn error_event(body: &str) -> Value {
    let events = events(body);
    let (name, data) = events.last().unwrap_or_else(|| panic!("no event in {body:?}"));
    assert_eq!(name, "error", "the last event of {body:?}");
    serde_json::from_str(data).unwrap_or_else(|e| panic!("no problem ({e}) in {data:?}"))
}

/// How long a reply's `Retry-After` asks to wait.
pub fn retry_after(reply: &Reply) -> Option<Duration> {
    reply.header("retry-after").map(|s| Duration::from_secs(s.parse().unwrap()))
}
