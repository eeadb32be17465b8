//! The life of one request: [`respond`] never fails (it counts, logs and answers) around
//! `handle`, which uses `?`.

mod admit;
mod attempts;
mod record;
pub mod reply;
mod tunnel;
pub mod worker;

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode, Uri, Version};
use tokio::time::Instant;

use self::admit::{Wants, admit_body};
use self::attempts::Attempts;
use self::record::Record;
use self::reply::{Exchange, Reply, Shape};
use self::worker::{Client, Worker};
use crate::admin;
use crate::body::{ClientBody, Limits, Source, sse};
use crate::error::{Code, Error};
use crate::forward::{headers, location};
use crate::message::{Name, OutgoingHead, RequestHead, ResponseHead};
use crate::request_id::RequestId;
use crate::router::type_of_body::{BodyError, Scanner};
use crate::router::{Door, Route, RouteError, Target};
use crate::table::{Agent, Current, Snapshot};

/// Answers one request, whatever happens. Only a client's single, valid id is taken over; a reply of
/// whatever kind has the id that its request has.
pub async fn respond(
    worker: Rc<Worker>,
    client: Rc<Client>,
    (mut head, body): (Box<RequestHead>, ClientBody),
) -> (ResponseHead, Reply) {
    let current = worker.view.current();
    let (id, version) = (RequestId::of(&head.fields), head.version);
    let access_log = current.table.gateway.access_log;
    let asked = (head.method.clone(), std::mem::take(&mut head.uri));
    let mut record = Record::new(&worker, &client, asked, id.clone(), access_log);
    let call = Call { worker, client, current };
    let handled = unless_cut(&call, pin!(handle(&call, (head, body), &mut record))).await;
    let told = record.told.take();
    let (mut head, reply) = match handled {
        Ok(Handled::Own(response)) => {
            record.status = response.status().as_u16();
            record.done();
            linger(version, &record);
            whole(response)
        }
        Ok(Handled::Agent(head, exchange, shape)) => {
            record.status = head.status.as_u16();
            let call = (&call.worker, &call.client);
            (head, Reply::of(exchange, record, call, shape))
        }
        Ok(Handled::Tunnel(head, tunnel)) => {
            record.status = head.status.as_u16();
            call.client.upgraded.set(true);
            tunnel.start(&call.worker, &call.client, record);
            (head, Reply::Whole(None))
        }
        Err(error) => {
            record.failed(&error);
            linger(version, &record);
            record.status = error.code.status().as_u16();
            whole(error.response(record.id(), record.agent_name()))
        }
    };
    if call.worker.closing.get()
        && version <= Version::HTTP_11
        && !head.fields.contains(Name::Connection)
    {
        head.fields.push(Name::Connection, b"close");
    }
    head.fields.set(Name::RequestId, id.as_bytes());
    if let Some(told) = told {
        head.fields.push(Name::RateLimitPolicy, told.policy.as_bytes());
        head.fields.push(Name::RateLimit, told.left.as_bytes());
    }
    (head, reply)
}

/// An answer of the gateway's own.
fn whole(response: Response<Bytes>) -> (ResponseHead, Reply) {
    let (head, bytes) = ResponseHead::of(response);
    (head, Reply::Whole(Some(bytes)))
}

/// Answers a head that no request came of.
pub fn refuse(worker: &Worker, client: &Client, error: &Error) -> (ResponseHead, Reply) {
    let id = RequestId::fresh();
    record::refused(worker, client, &id, error);
    let (mut head, reply) = whole(error.response(id.as_str(), None));
    head.fields.set(Name::RequestId, id.as_bytes());
    (head, reply)
}

/// What has no answer when `drain_timeout` is over is told so. Over HTTP/1 that wakes the
/// connection, and with it us.
async fn unless_cut(
    call: &Call,
    mut handling: Pin<&mut impl Future<Output = Result<Handled, Error>>>,
) -> Result<Handled, Error> {
    let mut cut = pin!(call.worker.until_cut());
    std::future::poll_fn(|cx| {
        if let Poll::Ready(handled) = handling.as_mut().poll(cx) {
            return Poll::Ready(handled);
        }
        let is_cut = match call.client.is_http1.get() {
            true => call.worker.cut.get(),
            false => cut.as_mut().poll(cx).is_ready(),
        };
        if !is_cut {
            return Poll::Pending;
        }
        let text = "the gateway shuts down before there was an answer";
        Poll::Ready(Err(Error::new(Code::Draining, text)))
    })
    .await
}

/// What every step of one request has at hand.
struct Call {
    worker: Rc<Worker>,
    client: Rc<Client>,
    current: Current,
}

/// What a request comes to.
enum Handled {
    /// The gateway's own answer.
    Own(Response<Bytes>),
    /// The agent's.
    Agent(ResponseHead, Exchange, Shape),
    /// The agent's, and from then on the connection is a tunnel.
    Tunnel(ResponseHead, tunnel::Tunnel),
}

/// The head's target stands in the record.
async fn handle(
    call: &Call,
    (head, incoming): (Box<RequestHead>, ClientBody),
    record: &mut Record,
) -> Result<Handled, Error> {
    let upgrade = headers::upgrade(head.version, &head.fields);
    let version = head.version;
    well_formed(&head)?;
    let source = Source::new(incoming, limits(&call.current), headers::trailers, record.begun);
    if source.ended_at().is_none() {
        source.hold(record.busy.clone());
    }
    record.source = Some(source.clone());
    let Target { index, path, door } = match find(call, (&head, &record.uri), &source).await? {
        Route::Agent(target) => target,
        other => return Ok(Handled::Own(own_answer(&call.current, &other))),
    };
    let agent = call.current.agent(index);
    agent.look_ahead();
    record.agent = Some(agent.clone());
    has_memory(&call.worker)?;
    admit_body(&agent, &source)?;
    let ahead = !head.fields.contains(Name::Expect);
    let (wants, granted) = Wants::of(call, &agent, &head.fields, (&source, ahead), record).await?;
    let mut permit = wants.enter(&agent, &call.worker.view, &source, record).await?;
    permit.granted = granted;
    let agent = agent.latest(&call.worker.view);
    let deadline = Instant::now() + agent.settings.timeout;
    let head = outgoing(call, &agent, (head, path), door, record, upgrade);
    let prefix = foreign_prefix(call, &head);
    let attempts = Attempts {
        agent,
        permit: Some(permit),
        source,
        head,
        wants,
        deadline,
        read_ahead: ahead,
        fresh: false,
    };
    let (exchange, response) = attempts.run(call, record).await?;
    answer(response, exchange, door, version, prefix.as_deref(), upgrade)
}

/// How long the rest of a body is read for nobody.
const LINGER: Duration = Duration::from_secs(2);

/// HTTP/2: who is answered before all of its body has come goes on sending for a moment, and some
/// clients take the reset that they get for it for a broken answer (curl 7). (An HTTP/1 connection
/// lingers as a whole.)
fn linger(version: Version, record: &Record) {
    let unread = record.source.as_ref().filter(|source| source.ended_at().is_none());
    if let Some(source) = unread.filter(|_| version == Version::HTTP_2) {
        tokio::task::spawn_local(tokio::time::timeout(LINGER, source.clone().discard()));
    }
}

/// What no parser asks for and RFC 9112 (section 3.2) does: a request of HTTP/1.1 names its host
/// once.
fn well_formed(head: &RequestHead) -> Result<(), Error> {
    if head.version != Version::HTTP_11 {
        return Ok(());
    }
    let mut hosts = head.fields.all(Name::Host);
    if hosts.next().is_some_and(is_authority) && hosts.next().is_none() {
        return Ok(());
    }
    let text = "a request of HTTP/1.1 has exactly one host field, and a host in it";
    Err(Error::new(Code::BadRequest, text))
}

/// Whether these may be the characters of a host and a port (RFC 3986, section 3.2.2).
fn is_authority(host: &[u8]) -> bool {
    const KNOWN: [bool; 256] = {
        let (mut known, mut b) = ([false; 256], 0);
        while b < known.len() {
            known[b] = (b as u8).is_ascii_alphanumeric();
            b += 1;
        }
        let (others, mut at) = (b"-._~!$&'()*+,;=:[]%", 0);
        while at < others.len() {
            known[others[at] as usize] = true;
            at += 1;
        }
        known
    };
    host.iter().all(|b| KNOWN[usize::from(*b)])
}

/// What is allowed of a body before its agent is known; the agent's own bound follows.
fn limits(current: &Snapshot) -> Limits {
    Limits { max: u64::MAX, timeout: current.table.gateway.body_timeout, keep: 0 }
}

/// Which agent, from the head or, where that names none, from the body.
async fn find(
    call: &Call,
    (head, uri): (&RequestHead, &Uri),
    source: &Source,
) -> Result<Route, Error> {
    let routes = &call.current.routes;
    match routes.route(&head.method, uri, &head.fields).map_err(|error| route_error(&error))? {
        Route::NeedsBody => {
            has_memory(&call.worker)?;
            let name = name_in_body(source, call.current.table.gateway.route_body_max).await?;
            routes.named(&name, uri).map_err(|error| route_error(&error))
        }
        route => Ok(route),
    }
}

/// Reads as much of the body as it takes, at most `max` bytes and one piece.
async fn name_in_body(source: &Source, max: usize) -> Result<String, Error> {
    let mut scanner = Scanner::new();
    let mut left = max;
    while let Some(piece) = source.peek().await? {
        let looked_at = &piece[..piece.len().min(left)];
        scanner.feed(looked_at).map_err(|error| route_error(&RouteError::Body(error)))?;
        left -= looked_at.len();
        if left == 0 {
            return scanner.cut().map_err(|error| route_error(&RouteError::Body(error)));
        }
    }
    scanner.finish().map_err(|error| route_error(&RouteError::Body(error)))
}

fn route_error(error: &RouteError) -> Error {
    let code = match error {
        RouteError::BadPath(_) => Code::BadPath,
        RouteError::Ambiguous { .. } | RouteError::Body(BodyError::Twice) => Code::AmbiguousAgent,
        RouteError::UnknownAgent(_) => Code::UnknownAgent,
        RouteError::NotFound => Code::NotFound,
        RouteError::NotImplemented => Code::NotImplemented,
        RouteError::Body(BodyError::Invalid | BodyError::TooDeep) => Code::BadRequest,
        RouteError::Body(_) => Code::NoAgent,
        RouteError::MethodNotAllowed { allow } => {
            return Error::new(Code::MethodNotAllowed, error.to_string()).allow(allow);
        }
    };
    Error::new(code, error.to_string())
}

/// What the gateway answers by itself on the clients' port.
fn own_answer(current: &Snapshot, route: &Route) -> Response<Bytes> {
    let (status, json) = match route {
        Route::Health => admin::health::of(current),
        _ => (StatusCode::OK, admin::agents::list(current)),
    };
    let mut response = Response::new(Bytes::from(json.to_string()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// Refuses what is new while there is too much in memory: what is under way would not end well.
fn has_memory(worker: &Worker) -> Result<(), Error> {
    match worker.headroom.is_shedding() {
        false => Ok(()),
        true => Err(Error::new(
            Code::Overloaded,
            "the gateway has more in memory than `gateway.max_memory` of its table allows (by default \
             nine tenths of its cgroup's limit), and takes no requests until there is less",
        )),
    }
}

/// The head of what the agent is sent, but for the endpoint's authority.
fn outgoing(
    call: &Call,
    agent: &Agent,
    (head, target): (Box<RequestHead>, Box<str>),
    door: Door,
    record: &Record,
    upgrade: bool,
) -> OutgoingHead {
    let RequestHead { method, version, mut fields, .. } = *head;
    let context = headers::RequestContext {
        agent: &agent.headers,
        mounted: door.is_mount(),
        peer: &call.client.peer,
        trusted: is_trusted(call),
        version,
        uri: &record.uri,
        request_id: record.request_id.as_bytes(),
        upgrade,
    };
    if let Some(tenants) = call.current.table.tenants.as_ref().filter(|_| !context.trusted) {
        // Some servers read an underscore as a dash.
        let plain = |b: &u8| if *b == b'_' { b'-' } else { b.to_ascii_lowercase() };
        let named = tenants.header.as_bytes();
        fields.retain(|line| !line.name.iter().map(plain).eq(named.iter().map(plain)));
    }
    headers::request(&mut fields, &context);
    OutgoingHead { method, target, fields }
}

/// Whether what the client's connection says of others is believed.
fn is_trusted(call: &Call) -> bool {
    call.current.trusted.contains(call.client.peer.ip())
}

/// The prefix that the agent was told, where a proxy before us may have one of its own.
fn foreign_prefix(call: &Call, head: &OutgoingHead) -> Option<Bytes> {
    let prefix = if is_trusted(call) { head.fields.get(Name::ForwardedPrefix) } else { None };
    prefix.map(Bytes::copy_from_slice)
}

/// Turns the agent's response into the client's.
fn answer(
    mut response: ResponseHead,
    exchange: Exchange,
    door: Door,
    asked: Version,
    prefix: Option<&[u8]>,
    upgrade: bool,
) -> Result<Handled, Error> {
    let upgraded = response.status == StatusCode::SWITCHING_PROTOCOLS;
    let context = headers::ResponseContext { version: response.version, upgraded };
    headers::response(&mut response.fields, context);
    let place = location::Place {
        mount: exchange.agent.headers.mount(),
        prefix,
        authority: exchange.lease.endpoint().authority.as_str(),
        mounted: door.is_mount(),
        bare: door == Door::BareMount,
    };
    location::relocate(&mut response.fields, &place);
    if upgraded {
        if !upgrade {
            let text = "the agent switched protocols though nobody had asked for it";
            return Err(Error::new(Code::BadResponse, text));
        }
        return Ok(Handled::Tunnel(response, tunnel::Tunnel { exchange }));
    }
    let shape = Shape {
        events: sse::may_be_added_to(&response.fields),
        until_close: asked < Version::HTTP_11 && !response.fields.contains(Name::ContentLength),
    };
    Ok(Handled::Agent(response, exchange, shape))
}
