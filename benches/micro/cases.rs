//! One step of a request each: what the gateway's own code does between a parsed head and a byte
//! passed on. The same cases by the clock (`main.rs`) and by instructions (`count.rs`).

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::sync::Arc;

use http::{Method, Uri, Version};
use switchyard::body::sse::Boundaries;
use switchyard::forward::headers::{
    self, AgentHeaders, Peer, RequestContext, ResponseContext, Scheme,
};
use switchyard::message::{Fields, Name};
use switchyard::pool::{Endpoint, Place, Pool};
use switchyard::router::Routes;

/// A step that can be taken any number of times.
pub(crate) type Step = Box<dyn FnMut()>;

/// A step's name, and what prepares it.
pub(crate) type Case = (&'static str, fn() -> Step);

pub(crate) const ALL: &[Case] = &[
    ("route, 10 types", || route(10)),
    ("route, 10000 types", || route(10_000)),
    ("route by header, 10 types", route_by_header),
    ("pick, 1 endpoint", || pick(1)),
    ("pick, 8 endpoints", || pick(8)),
    ("pick by session, 8 endpoints", pick_by_session),
    ("request headers", request_headers),
    ("response headers", response_headers),
    ("sse, whole events", || scan(b"data: {\"text\":\"forty\"}\n\n")),
    ("sse, events in pieces", || scan(b"event: token\ndata: {\"text\":\"forty\"}\n\nevent: to")),
];

/// Paths of different types that are asked in turn; a divisor of both tables' sizes would ask few.
const ASKED: usize = 97;
/// What random choices begin with: counts must not differ from run to run.
const SEED: u64 = 5;

const REQUEST: &[(&str, &str)] = &[
    ("host", "agents.example.com"),
    ("user-agent", "python-httpx/0.28.1"),
    ("accept", "text/event-stream"),
    ("accept-encoding", "gzip, deflate"),
    ("connection", "keep-alive"),
    ("content-type", "application/json"),
    ("content-length", "118"),
    ("authorization", "Bearer 0123456789abcdef0123456789abcdef"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("x-forwarded-for", "203.0.113.9"),
];

const RESPONSE: &[(&str, &str)] = &[
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache, no-transform"),
    ("connection", "keep-alive"),
    ("transfer-encoding", "chunked"),
    ("date", "Sat, 28 Nov 2026 20:00:00 GMT"),
    ("server", "uvicorn"),
    ("x-request-id", "01JDTZ0000000000000000000"),
];

fn routes(types: usize) -> Routes {
    let (names, paths): (Vec<_>, _) =
        ((0..types).map(|n| format!("type-{n}")).collect(), BTreeMap::new());
    let agents = names.iter().map(|name: &String| (name.as_str(), &paths));
    Routes::new(agents).expect("there are no renames")
}

fn route(types: usize) -> Step {
    let (routes, fields) = (routes(types), fields(REQUEST));
    let uri = |n: usize| format!("/agents/type-{}/invoke?stream=1", n * types / ASKED);
    let uris: Vec<Uri> = (0..ASKED).map(|n| uri(n).parse().expect("a path")).collect();
    let mut next = (0..ASKED).cycle();
    Box::new(move || {
        let uri = &uris[next.next().unwrap_or_default()];
        let _ = black_box(routes.route(&Method::POST, black_box(uri), &fields));
    })
}

fn route_by_header() -> Step {
    let (routes, mut fields) = (routes(10), fields(REQUEST));
    fields.push(Name::AgentType, b"type-7");
    let uri = Uri::from_static("/invoke");
    Box::new(move || {
        let _ = black_box(routes.route(&Method::POST, black_box(&uri), &fields));
    })
}

fn pool(endpoints: u16) -> Pool {
    let place = |port| {
        let address = config::Endpoint { host: "127.0.0.1".into(), port };
        let endpoint = Endpoint::new(address, config::Protocol::Http1);
        Arc::new(Place::new(Arc::new(endpoint), Arc::default()))
    };
    Pool::new((1..=endpoints).map(place).collect::<Vec<_>>())
}

/// A place is taken and given back.
fn pick(endpoints: u16) -> Step {
    fastrand::seed(SEED);
    let pool = pool(endpoints);
    Box::new(move || drop(black_box(pool.pick(None, &[], 0))))
}

fn pick_by_session() -> Step {
    let pool = pool(8);
    Box::new(move || drop(black_box(pool.pick(Some(black_box(b"session-0123456789")), &[], 0))))
}

/// That they are read, from places that are known, is part of it.
fn request_headers() -> Step {
    let (head, agent) = (head(REQUEST), AgentHeaders::new("coding"));
    let peer = Peer::new(IpAddr::V4(Ipv4Addr::LOCALHOST), Scheme::Http);
    let request_id = b"01939d4c-5e3a-7000-8000-0123456789ab";
    let uri = Uri::from_static("/agents/coding/invoke");
    Box::new(move || {
        let context = RequestContext {
            agent: &agent,
            mounted: true,
            peer: &peer,
            trusted: false,
            version: Version::HTTP_11,
            uri: &uri,
            request_id,
            upgrade: false,
        };
        let mut fields = read(black_box(&head));
        headers::request(&mut fields, &context);
        black_box(fields);
    })
}

/// That they are read, from places that are known, is part of it.
fn response_headers() -> Step {
    let head = head(RESPONSE);
    Box::new(move || {
        let mut fields = read(black_box(&head));
        headers::response(
            &mut fields,
            ResponseContext { version: Version::HTTP_11, upgraded: false },
        );
        black_box(fields);
    })
}

fn scan(piece: &'static [u8]) -> Step {
    let mut boundaries = Boundaries::new();
    Box::new(move || {
        boundaries.feed(black_box(piece));
        black_box(boundaries.at_boundary());
    })
}

fn fields(lines: &[(&str, &str)]) -> Fields {
    lines.iter().copied().collect()
}

/// A head's bytes, and where names and values are.
type Head = (Vec<u8>, Vec<(Range<usize>, Range<usize>)>);

fn head(lines: &[(&str, &str)]) -> Head {
    let (mut bytes, mut places) = (Vec::new(), Vec::new());
    for (name, value) in lines {
        let begin = bytes.len();
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        let colon = begin + name.len();
        places.push((begin..colon, colon + 2..colon + 2 + value.len()));
    }
    (bytes, places)
}

fn read((bytes, places): &Head) -> Fields {
    let mut fields = Fields::of_head(bytes);
    for (name, value) in places {
        fields.read(name.clone(), value.clone());
    }
    fields
}
