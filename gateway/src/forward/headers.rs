//! Headers on their way through, in both directions: what goes no further, what the agent is told
//! about the client, and what of the agent's stays behind.
//!
//! Pure, and without allocation for a request that has nothing unusual: what can be known before is
//! built once an agent ([`AgentHeaders`]) or once a connection ([`Peer`]).

mod connection;
mod trusted;

use std::net::IpAddr;

use http::header::HeaderMap;
use http::{Uri, Version};

pub use self::connection::upgrade;
pub use self::trusted::TrustedProxies;
use crate::message::{Fields, Line, Name, Names};

/// What the headers of this gateway's own begin with. Those of the other side mean nothing here and
/// go no further in either direction.
const OWN: &[u8] = b"x-switchyard-";

/// What is the same in every request to an agent. Built once a table.
#[derive(Debug, Clone)]
pub struct AgentHeaders {
    /// `/agents/<type>`; the type stands behind [`MOUNTS`].
    mount: Box<str>,
}

/// Where the agents are mounted.
const MOUNTS: &str = "/agents/";

impl AgentHeaders {
    /// For an agent type, a DNS-1123 label.
    #[must_use]
    pub fn new(agent_type: &str) -> Self {
        AgentHeaders { mount: format!("{MOUNTS}{agent_type}").into() }
    }

    /// The mount, `/agents/<type>`, for what comes back.
    #[must_use]
    pub fn mount(&self) -> &str {
        &self.mount
    }

    fn agent_type(&self) -> &str {
        &self.mount[MOUNTS.len()..]
    }
}

/// Who is at the other end of a client's connection. Built once a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    ip: IpAddr,
    shown: Box<str>,
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
        Peer { ip, shown: ip.to_string().into(), scheme }
    }

    /// Its address, IPv4 where it is one.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    fn proto(&self) -> &'static str {
        match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
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
    pub request_id: &'a [u8],
    /// Whether an upgrade is passed on: what [`upgrade`] said of the same headers.
    pub upgrade: bool,
}

/// Turns a client's headers into those for the agent. `host` is taken out, since each endpoint that
/// is tried is asked under its own name, and `traceparent`, `tracestate` and `baggage` are left as
/// they are.
///
/// Beyond what the contract names, a client that isn't trusted also loses every other
/// `x-forwarded-…`, `x-real-ip`, and spellings of them with underscores, which CGI-like servers
/// read as the same names. `expect` goes no further: we answer it ourselves. Cookies that came as
/// several lines, as HTTP/2 allows, become one (RFC 9113, 8.2.3).
pub fn request(fields: &mut Fields, context: &RequestContext<'_>) {
    connection::remove_hop_by_hop(fields, context.upgrade);
    let trusted = context.trusted;
    if !trusted {
        fields.remove_all(CLAIMS);
    }
    fields.retain(|line| !claims_too_much(line, trusted));
    set_forwarded(fields, context);
    fields.remove_all(SAID_ANEW);
    set_prefix(fields, context);
    join_cookies(fields);
    fields.push(Name::AgentType, context.agent.agent_type().as_bytes());
    fields.push(Name::RequestId, context.request_id);
    fields.push(Name::Via, via(context.version));
}

/// What a client can't say, trusted or not: we do.
const SAID_ANEW: Names = Names::of(&[Name::Host, Name::Expect, Name::AgentType, Name::RequestId]);
/// What only a trusted proxy can say.
const CLAIMS: Names =
    Names::of(&[Name::Forwarded, Name::ForwardedHost, Name::ForwardedPrefix, Name::RealIp]);

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
pub fn response(fields: &mut Fields, context: ResponseContext) {
    connection::remove_hop_by_hop(fields, context.upgraded);
    fields.remove_all(Names::of(&[Name::AltSvc, Name::RequestId, Name::NotBegun]));
    fields.retain(|line| line.known.is_some() || !line.name.starts_with(OWN));
    fields.push(Name::Via, via(context.version));
}

/// Takes out of trailers, in either direction, what must not stand there (RFC 9110, 6.5.1): framing,
/// routing, and what belongs to a connection or to the gateway.
pub fn trailers(trailers: &mut HeaderMap) {
    let mut fields = Fields::from(&*trailers);
    connection::remove_hop_by_hop(&mut fields, false);
    fields.remove_all(NO_TRAILERS);
    fields.retain(|line| match line.name {
        b"authorization" | b"content-range" => false,
        _ => !claims_too_much(line, false) && !is_ours(line.name),
    });
    *trailers = HeaderMap::from(&fields);
}

const NO_TRAILERS: Names = Names::of(&[
    Name::ContentEncoding,
    Name::ContentLength,
    Name::ContentType,
    Name::Expect,
    Name::Host,
    Name::SetCookie,
    Name::Te,
    Name::Trailer,
    Name::Via,
]);

/// `via`'s element for a message that came in this version.
fn via(version: Version) -> &'static [u8] {
    match version {
        Version::HTTP_10 => b"1.0 switchyard",
        Version::HTTP_2 => b"2 switchyard",
        _ => b"1.1 switchyard",
    }
}

/// Whether a client may not say to an agent what we have no name for.
fn claims_too_much(line: Line<'_>, trusted: bool) -> bool {
    match line.known {
        Some(Name::NotBegun) => true,
        Some(_) => false,
        None if line.name.starts_with(FORWARDED) => !trusted,
        None if line.name.starts_with(OWN) => true,
        None => line.name.contains(&b'_') && is_ours(&with_hyphens(line.name)),
    }
}

const FORWARDED: &[u8] = b"x-forwarded-";

fn with_hyphens(name: &[u8]) -> Vec<u8> {
    name.iter().map(|b| if *b == b'_' { b'-' } else { *b }).collect()
}

/// Whether the agent takes our word for it.
fn is_ours(name: &[u8]) -> bool {
    let ours = [Name::AgentType, Name::RequestId, Name::Forwarded, Name::RealIp];
    ours.iter().any(|ours| ours.as_str().as_bytes() == name)
        || name.starts_with(FORWARDED)
        || name.starts_with(OWN)
}

/// `x-forwarded-for`, `-proto`, `-host`, and `forwarded` where a trusted proxy uses it: told anew,
/// or, by a trusted proxy, believed and continued.
fn set_forwarded(fields: &mut Fields, context: &RequestContext<'_>) {
    let peer = context.peer;
    if context.trusted {
        let chain = appended(fields, Name::ForwardedFor, peer.shown.as_bytes());
        fields.set(Name::ForwardedFor, &chain);
        if fields.contains(Name::Forwarded) {
            let chain = appended(fields, Name::Forwarded, element(peer).as_bytes());
            fields.set(Name::Forwarded, &chain);
        }
        if !fields.contains(Name::ForwardedProto) {
            fields.push(Name::ForwardedProto, peer.proto().as_bytes());
        }
    } else {
        fields.set(Name::ForwardedFor, peer.shown.as_bytes());
        fields.set(Name::ForwardedProto, peer.proto().as_bytes());
    }
    if !fields.contains(Name::ForwardedHost) {
        set_forwarded_host(fields, context.uri);
    }
}

/// The host that the client asked for: the target's authority, without user and password, where it
/// has one (RFC 9112, 3.2.2), else the `host` header.
fn set_forwarded_host(fields: &mut Fields, uri: &Uri) {
    let Some(authority) = uri.authority() else {
        return fields.copy(Name::Host, Name::ForwardedHost);
    };
    let authority = authority.as_str();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    fields.push(Name::ForwardedHost, host.as_bytes());
}

/// `x-forwarded-prefix`: where the client sees the agent's root. A trusted proxy's own prefix comes
/// before ours. Nothing is said of a request that did not come by the mount.
fn set_prefix(fields: &mut Fields, context: &RequestContext<'_>) {
    if !context.mounted {
        return;
    }
    let mount = context.agent.mount.as_bytes();
    match fields.get(Name::ForwardedPrefix).map(<[u8]>::trim_ascii) {
        Some(outer @ [b'/', ..]) if outer != b"/" => {
            let outer = outer.strip_suffix(b"/").unwrap_or(outer);
            let prefix = [outer, mount].concat();
            fields.set(Name::ForwardedPrefix, &prefix);
        }
        _ => fields.set(Name::ForwardedPrefix, mount),
    }
}

/// `forwarded`'s element for a client (RFC 7239, 4).
fn element(peer: &Peer) -> String {
    let proto = peer.proto();
    match peer.ip {
        IpAddr::V4(ip) => format!("for={ip};proto={proto}"),
        IpAddr::V6(ip) => format!("for=\"[{ip}]\";proto={proto}"),
    }
}

/// A list header with one more element, as one line.
fn appended(fields: &Fields, name: Name, element: &[u8]) -> Vec<u8> {
    let before = fields.all(name).filter(|value| !value.is_empty());
    joined(before.chain([element]), b", ")
}

fn join_cookies(fields: &mut Fields) {
    if fields.all(Name::Cookie).nth(1).is_some() {
        let cookie = joined(fields.all(Name::Cookie), b"; ");
        fields.set(Name::Cookie, &cookie);
    }
}

fn joined<'a>(parts: impl Iterator<Item = &'a [u8]>, between: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    for part in parts {
        if !whole.is_empty() {
            whole.extend_from_slice(between);
        }
        whole.extend_from_slice(part);
    }
    whole
}

#[cfg(test)]
mod tests;
