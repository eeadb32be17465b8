//! Headers on their way through, in both directions: what goes no further, what the agent is told
//! about the client, and what of the agent's stays behind.
//!
//! Pure, and without allocation for a request that has nothing unusual: what can be known before is
//! built once an agent ([`AgentHeaders`]) or once a connection ([`Peer`]) and only cloned here.

mod connection;
mod trusted;

use std::net::IpAddr;

use bytes::{BufMut, Bytes, BytesMut};
use config::Protocol;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Uri, Version};

pub use self::connection::upgrade;
pub use self::trusted::TrustedProxies;

static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static AGENT_TYPE: HeaderName = HeaderName::from_static(config::names::AGENT_TYPE);
static REQUEST_ID: HeaderName = HeaderName::from_static(config::names::REQUEST_ID);

/// What the headers of this gateway's own begin with. Those of the other side mean nothing here and
/// go no further in either direction.
const OWN: &str = "x-switchyard-";

/// What is the same in every request to an agent. Built once a table.
#[derive(Debug, Clone)]
pub struct AgentHeaders {
    agent_type: HeaderValue,
    mount: HeaderValue,
}

impl AgentHeaders {
    /// For an agent type, a DNS-1123 label.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn new(agent_type: &str) -> Self {
        // One buffer, which is shared from here on: the first request has nothing to allocate.
        let mount = Bytes::from(format!("/agents/{agent_type}"));
        let value = |text| HeaderValue::from_maybe_shared(text).expect("a label fits in a header");
        AgentHeaders {
            agent_type: value(mount.slice(mount.len() - agent_type.len()..)),
            mount: value(mount),
        }
    }

    /// The mount, `/agents/<type>`, for what comes back.
    #[must_use]
    pub fn mount(&self) -> &str {
        self.mount.to_str().expect("a label is ASCII")
    }
}

/// Who is at the other end of a client's connection. Built once a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    ip: IpAddr,
    shown: HeaderValue,
    scheme: Scheme,
}

/// What a client speaks to us, TLS or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Peer {
    /// The peer at `ip`. An IPv4 address in its IPv6 form is told as the IPv4 address.
    #[must_use]
    pub fn new(ip: IpAddr, scheme: Scheme) -> Self {
        let ip = ip.to_canonical();
        let shown = HeaderValue::try_from(ip.to_string()).expect("an address fits in a header");
        Peer { ip, shown, scheme }
    }

    /// Its address, IPv4 where it is one.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    fn proto(&self) -> HeaderValue {
        HeaderValue::from_static(match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        })
    }
}

/// What a request's headers depend on.
#[derive(Debug, Clone, Copy)]
pub struct RequestContext<'a> {
    /// The agent that it goes to.
    pub agent: &'a AgentHeaders,
    /// Whether it came by the agent's mount.
    pub mounted: bool,
    /// The client.
    pub peer: &'a Peer,
    /// Whether the client is one of the trusted proxies.
    pub trusted: bool,
    /// The version that the client spoke.
    pub version: Version,
    /// The request's target as the client sent it.
    pub uri: &'a Uri,
    /// The id of this request, valid.
    pub request_id: &'a HeaderValue,
    /// Whether an upgrade is passed on: what [`upgrade`] said of the same headers.
    pub upgrade: bool,
}

/// Turns a client's headers into those for the agent. `host` is left for [`set_host`], which needs
/// the endpoint, and `traceparent`, `tracestate` and `baggage` are left as they are.
///
/// Beyond what the contract names, a client that isn't trusted also loses every other
/// `x-forwarded-…`, `x-real-ip`, and spellings of them with underscores, which CGI-like servers
/// read as the same names. `expect` goes no further: we answer it ourselves. Cookies that came as
/// several lines, as HTTP/2 allows, become one (RFC 9113, 8.2.3).
pub fn request(headers: &mut HeaderMap, context: &RequestContext<'_>) {
    connection::remove_hop_by_hop(headers, context.upgrade);
    remove_all(headers, |name| claims_too_much(name, context.trusted));
    set_forwarded(headers, context);
    set_prefix(headers, context);
    join_cookies(headers);
    headers.insert(&AGENT_TYPE, context.agent.agent_type.clone());
    headers.insert(&REQUEST_ID, context.request_id.clone());
    headers.append(header::VIA, via(context.version));
}

/// Says to the agent under which name it is asked: `authority` is the endpoint's, `host:port`. In
/// HTTP/2 the request's URI carries it instead. To be called for each endpoint that is tried.
pub fn set_host(headers: &mut HeaderMap, protocol: Protocol, authority: &HeaderValue) {
    match protocol {
        Protocol::Http1 => headers.insert(header::HOST, authority.clone()),
        Protocol::H2c => headers.remove(header::HOST),
    };
}

/// What a response's headers depend on.
#[derive(Debug, Clone, Copy)]
pub struct ResponseContext {
    /// The version that the agent spoke.
    pub version: Version,
    /// Whether this is the 101 of an upgrade that is passed on.
    pub upgraded: bool,
}

/// Turns an agent's headers into those for the client. The agent's `x-request-id` is taken out, for
/// ours to be put in with every response; `x-switchyard-…` (read `x-switchyard-not-begun` before)
/// and `alt-svc`, which would speak for the gateway's port, stay behind. `proxy-status` passes: RFC
/// 9209 lists one member for each hop.
pub fn response(headers: &mut HeaderMap, context: ResponseContext) {
    connection::remove_hop_by_hop(headers, context.upgraded);
    remove_all(headers, |name| match name {
        "alt-svc" | config::names::REQUEST_ID => true,
        _ => name.starts_with(OWN),
    });
    headers.append(header::VIA, via(context.version));
}

/// Takes out of trailers, in either direction, what must not stand there (RFC 9110, 6.5.1): framing,
/// routing, and what belongs to a connection or to the gateway.
pub fn trailers(headers: &mut HeaderMap) {
    connection::remove_hop_by_hop(headers, false);
    remove_all(headers, |name| match name {
        "host" | "te" | "content-length" | "content-encoding" | "content-type"
        | "content-range" | "authorization" | "set-cookie" | "trailer" | "via" => true,
        _ => claims_too_much(name, false) || is_ours(name),
    });
}

/// `via`'s element for a message that came in this version.
fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_10 => "1.0 switchyard",
        Version::HTTP_2 => "2 switchyard",
        _ => "1.1 switchyard",
    })
}

/// Removes every header whose name is refused.
fn remove_all(headers: &mut HeaderMap, refused: impl Fn(&str) -> bool) {
    let names: Vec<HeaderName> =
        headers.keys().filter(|name| refused(name.as_str())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Whether a client may not say this to an agent.
fn claims_too_much(name: &str, trusted: bool) -> bool {
    match name {
        "expect" => true,
        "forwarded" | "x-real-ip" => !trusted,
        "x-forwarded-for" | "x-forwarded-proto" => false, // replaced or appended to
        _ if name.starts_with("x-forwarded-") => !trusted,
        _ if name.starts_with(OWN) => true,
        _ => name.contains('_') && is_ours(&name.replace('_', "-")),
    }
}

/// Whether the agent takes our word for it.
fn is_ours(name: &str) -> bool {
    matches!(
        name,
        config::names::AGENT_TYPE | config::names::REQUEST_ID | "forwarded" | "x-real-ip"
    ) || name.starts_with("x-forwarded-")
        || name.starts_with(OWN)
}

/// `x-forwarded-for`, `-proto`, `-host`, and `forwarded` where a trusted proxy uses it: told anew,
/// or, by a trusted proxy, believed and continued.
fn set_forwarded(headers: &mut HeaderMap, context: &RequestContext<'_>) {
    let peer = context.peer;
    if !context.trusted {
        headers.insert(&FORWARDED_FOR, peer.shown.clone());
        headers.insert(&FORWARDED_PROTO, peer.proto());
        if let Some(host) = host(headers, context.uri) {
            headers.insert(&FORWARDED_HOST, host);
        }
        return;
    }
    let chain = appended(headers, &FORWARDED_FOR, peer.shown.as_bytes());
    headers.insert(&FORWARDED_FOR, chain);
    if headers.contains_key(header::FORWARDED) {
        let chain = appended(headers, &header::FORWARDED, element(peer).as_bytes());
        headers.insert(header::FORWARDED, chain);
    }
    headers.entry(&FORWARDED_PROTO).or_insert_with(|| peer.proto());
    if !headers.contains_key(&FORWARDED_HOST)
        && let Some(host) = host(headers, context.uri)
    {
        headers.insert(&FORWARDED_HOST, host);
    }
}

/// `x-forwarded-prefix`: where the client sees the agent's root. A trusted proxy's own prefix comes
/// before ours. Nothing is said of a request that did not come by the mount.
fn set_prefix(headers: &mut HeaderMap, context: &RequestContext<'_>) {
    if !context.mounted {
        return;
    }
    let outer = headers.get(&FORWARDED_PREFIX).map(|value| value.as_bytes().trim_ascii());
    let prefix = match outer {
        Some(outer @ [b'/', ..]) if outer != b"/" => {
            let outer = outer.strip_suffix(b"/").unwrap_or(outer);
            concatenated(&[outer, context.agent.mount.as_bytes()])
        }
        _ => context.agent.mount.clone(),
    };
    headers.insert(&FORWARDED_PREFIX, prefix);
}

/// The host that the client asked for: the target's authority, without user and password, where it
/// has one (RFC 9112, 3.2.2), else the `host` header.
fn host(headers: &HeaderMap, uri: &Uri) -> Option<HeaderValue> {
    let Some(authority) = uri.authority() else { return headers.get(header::HOST).cloned() };
    let authority = authority.as_str();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    HeaderValue::try_from(host).ok()
}

/// `forwarded`'s element for a client (RFC 7239, 4).
fn element(peer: &Peer) -> String {
    let proto = if peer.scheme == Scheme::Https { "https" } else { "http" };
    match peer.ip {
        IpAddr::V4(ip) => format!("for={ip};proto={proto}"),
        IpAddr::V6(ip) => format!("for=\"[{ip}]\";proto={proto}"),
    }
}

/// A list header with one more element, as one line.
fn appended(headers: &HeaderMap, name: &HeaderName, element: &[u8]) -> HeaderValue {
    let before = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    joined(before.filter(|value| !value.is_empty()).chain([element]), b", ")
}

fn join_cookies(headers: &mut HeaderMap) {
    let cookies = headers.get_all(header::COOKIE);
    if cookies.iter().nth(1).is_some() {
        let cookie = joined(cookies.iter().map(HeaderValue::as_bytes), b"; ");
        headers.insert(header::COOKIE, cookie);
    }
}

fn joined<'a>(parts: impl Iterator<Item = &'a [u8]>, between: &[u8]) -> HeaderValue {
    let mut whole = BytesMut::new();
    for part in parts {
        if !whole.is_empty() {
            whole.put_slice(between);
        }
        whole.put_slice(part);
    }
    value(whole.freeze())
}

fn concatenated(parts: &[&[u8]]) -> HeaderValue {
    value(Bytes::from(parts.concat()))
}

fn value(bytes: Bytes) -> HeaderValue {
    HeaderValue::from_maybe_shared(bytes).expect("parts of header values make a header value")
}

#[cfg(test)]
mod tests;
