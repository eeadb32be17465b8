//! One exchange with one endpoint: a connection, the clocks until the response's head, and what a
//! failure means for a further attempt and for the endpoint's health.

mod agent_body;
mod clock;
pub mod connections;
pub mod headers;
pub mod http1;
pub mod location;

use std::error::Error as StdError;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Request, Uri, Version};
use hyper::client::conn::TrySendError;
use tokio::time::Instant;

use crate::body::{RequestBody, Source, while_reading};
use crate::error::{Code, Error};
use crate::message::{OutgoingHead, ResponseHead};
use crate::pool::Endpoint;
pub use agent_body::AgentBody;
use clock::Clock;
use connections::{ConnectError, Connection, Connections, Http2};
use http1::{Http1, SendError};

/// What one exchange needs besides its request.
pub struct Terms<'a> {
    /// The worker's connections.
    pub connections: &'a Rc<Connections>,
    /// Where to.
    pub endpoint: &'a Endpoint,
    /// The agent's clocks.
    pub settings: &'a config::Agent,
    /// The request's body, for its end and its faults.
    pub source: &'a Source,
    /// When the total clock fires.
    pub deadline: Instant,
    /// Whether the body may be read while a connection is made: not when its client waits for a go.
    pub read_ahead: bool,
    /// Not on a connection that is idle: one has just died.
    pub fresh: bool,
}

/// A response whose head is there.
pub struct Answer {
    /// The head.
    pub head: ResponseHead,
    /// The body.
    pub body: AgentBody,
    /// From the request's first byte to here.
    pub first_byte: Duration,
    /// When that was.
    pub at: Instant,
}

/// What a failed attempt leaves possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chance {
    /// The agent cannot have begun: any request may go elsewhere.
    NotBegun,
    /// A reused connection died before the first response byte: only what is idempotent
    /// (RFC 9110, section 9.2.2) or carries an `Idempotency-Key`.
    Unknown,
    /// The agent may have begun, or the answer is final.
    None,
}

/// What a failure says about the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// Nothing.
    None,
    /// It failed.
    Failed,
    /// It refused or reset the connection: it is out at once.
    Refused,
}

/// An exchange without an answer.
pub struct Failure {
    /// What the client is told, if it stays at that.
    pub error: Error,
    /// What may be tried.
    pub chance: Chance,
    /// What health is told.
    pub blame: Blame,
    /// Nothing of the request was sent, nor taken from its body.
    pub unsent: bool,
}

impl Failure {
    fn new(error: Error, chance: Chance, blame: Blame) -> Self {
        Self { error, chance, blame, unsent: false }
    }

    fn unsent(mut self) -> Self {
        self.unsent = true;
        self
    }
}

/// Sends the request with the body of [`Terms::source`], and waits for the response's head. Dropping
/// the future cancels it.
///
/// # Errors
/// Which clock fired or what broke, and what may be tried then.
pub async fn exchange(terms: &Terms<'_>, head: &OutgoingHead) -> Result<Answer, Failure> {
    loop {
        let mut begun = Instant::now();
        let keepalive = &terms.settings.keepalive;
        let idle = (!terms.fresh).then(|| terms.connections.idle(terms.endpoint, keepalive, begun));
        let connection = match idle.flatten() {
            Some(connection) => connection,
            // On the heap: few requests need one, and every request's future would be that large.
            None => match Box::pin(connect(terms)).await {
                Ok(connection) => connection,
                Err(failure) => return Err(failure.unsent()),
            },
        };
        let reused = connection.is_reused();
        if !reused {
            begun = Instant::now();
        }
        match send(terms, connection, head, begun).await {
            // An idle connection was closed before anything was sent on it: take another.
            Err(Failure { unsent: true, chance: Chance::NotBegun, .. }) if reused => {}
            done => return done,
        }
        if Instant::now() >= terms.deadline {
            return Err(total_timeout(terms).unsent());
        }
    }
}

async fn connect(terms: &Terms<'_>) -> Result<Connection, Failure> {
    let Terms { endpoint, settings, .. } = terms;
    let due = terms.deadline.min(Instant::now() + settings.connect_timeout);
    let connecting = terms.connections.connect(endpoint, &settings.keepalive);
    let mut connecting = pin!(tokio::time::timeout_at(due, connecting));
    let made = match terms.read_ahead {
        false => connecting.await,
        true => while_reading(connecting.as_mut(), terms.source, |_| true)
            .await
            .map_err(|fault| Failure::new(fault, Chance::None, Blame::None))?,
    };
    match made {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(connect_failure(endpoint, error)),
        Err(_) if Instant::now() >= terms.deadline => Err(total_timeout(terms)),
        Err(_) => {
            let text = format!("no connection to a replica within {:?}", settings.connect_timeout);
            let error = Error::new(Code::ConnectTimeout, text);
            Err(Failure::new(error, Chance::NotBegun, Blame::Failed))
        }
    }
}

fn connect_failure(endpoint: &Endpoint, error: ConnectError) -> Failure {
    match error {
        ConnectError::Dns(cause) => {
            let text = "a replica's host name does not resolve; see the table's endpoints";
            let cause = format!("{}: {cause}", endpoint.address);
            let error = Error::new(Code::DnsFailed, text).because(cause);
            Failure::new(error, Chance::NotBegun, Blame::Failed)
        }
        ConnectError::Io(cause) if is_ours(&cause) => {
            let text = "the gateway has no descriptor or port left for a connection";
            let error = Error::new(Code::Overloaded, text).because(cause);
            Failure::new(error, Chance::None, Blame::None)
        }
        ConnectError::Io(cause) => {
            let blame = match cause.kind() {
                ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Blame::Refused,
                _ => Blame::Failed,
            };
            let error = Error::new(Code::ConnectFailed, "no replica took the connection");
            Failure::new(error.because(cause), Chance::NotBegun, blame)
        }
        ConnectError::Handshake(cause) => {
            let error = Error::new(Code::ConnectFailed, "a replica does not speak the protocol");
            Failure::new(error.because(cause), Chance::NotBegun, Blame::Failed)
        }
    }
}

/// Whether a connection failed for want of something that the gateway itself lacks.
fn is_ours(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let wanting = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| wanting.iter().any(|e| e.raw_os_error() == code))
}

fn total_timeout(terms: &Terms<'_>) -> Failure {
    let text = format!("not answered within {:?}", terms.settings.timeout);
    Failure::new(Error::new(Code::TotalTimeout, text), Chance::None, Blame::Failed)
}

async fn send(
    terms: &Terms<'_>,
    connection: Connection,
    head: &OutgoingHead,
    begun: Instant,
) -> Result<Answer, Failure> {
    let (head, body) = match connection {
        Connection::Http1(http1) => send1(terms, http1, head, begun).await?,
        // On the heap: few agents speak it, and every request's future would be that large.
        Connection::Http2(http2) => Box::pin(send2(terms, http2, head, begun)).await?,
    };
    let at = Instant::now();
    Ok(Answer { head, body, first_byte: at - begun, at })
}

async fn send1(
    terms: &Terms<'_>,
    mut http1: Box<Http1>,
    head: &OutgoingHead,
    begun: Instant,
) -> Result<(ResponseHead, AgentBody), Failure> {
    let before = http1.received();
    let mut clock = std::mem::take(&mut http1.clock);
    let sent = {
        let sending = pin!(http1.send(head, terms.endpoint.host(), terms.source.attempt()));
        before_first_byte(terms, begun, &mut clock, sending).await?
    };
    http1.clock = clock;
    match sent {
        Ok((read, upload)) => {
            let (head, body) = http1.response(read, upload);
            Ok((head, AgentBody::Http1(body)))
        }
        Err(error) => {
            let died_idle = http1.reused && http1.received() == before;
            Err(send1_failure(terms, error, died_idle))
        }
    }
}

async fn send2(
    terms: &Terms<'_>,
    http2: Http2,
    head: &OutgoingHead,
    begun: Instant,
) -> Result<(ResponseHead, AgentBody), Failure> {
    let mut stream = http2.stream();
    let sending = pin!(stream.connection.sender.try_send_request(for_http2(head, terms)));
    match before_first_byte(terms, begun, &mut Clock::default(), sending).await? {
        Ok(response) => {
            let (head, body) = ResponseHead::of(response);
            Ok((head, AgentBody::Http2(body, stream)))
        }
        Err(failed) => Err(send2_failure(terms, failed, stream.connection.reused)),
    }
}

/// The first-byte clock runs from the request's last byte; until then only the total one does.
async fn before_first_byte<T>(
    terms: &Terms<'_>,
    begun: Instant,
    clock: &mut Clock,
    mut sending: Pin<&mut impl Future<Output = T>>,
) -> Result<T, Failure> {
    let timeout = terms.settings.first_byte_timeout;
    let mut due = begun + timeout;
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(done) = sending.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            ready!(clock.poll(due.min(terms.deadline), cx));
            let now = Instant::now();
            if now >= terms.deadline {
                return Poll::Ready(Err(total_timeout(terms)));
            }
            due = terms.source.ended_at().unwrap_or(now).max(begun) + timeout;
            if due <= now {
                return Poll::Ready(Err(first_byte_timeout(timeout)));
            }
        }
    })
    .await
}

fn first_byte_timeout(timeout: Duration) -> Failure {
    let text = format!("no answer within {timeout:?} of the request");
    Failure::new(Error::new(Code::FirstByteTimeout, text), Chance::None, Blame::Failed)
}

/// `died_idle`: the connection had served before, and nothing came on it for this request.
fn send1_failure(terms: &Terms<'_>, error: SendError, died_idle: bool) -> Failure {
    if let Some(fault) = terms.source.fault() {
        return Failure::new(fault, Chance::None, Blame::None);
    }
    match error {
        // What was taken of the body for this attempt is taken again for the next.
        SendError::Unsent(cause) => {
            let is_reset = cause.kind() == ErrorKind::ConnectionReset;
            let failure = unsent_failure(cause, died_idle, is_reset);
            if terms.source.can_repeat() { failure.unsent() } else { failure }
        }
        SendError::Refused(cause) => bad_response(cause),
        cause => {
            let is_reset = cause.is_reset();
            closed_before_answer(cause, died_idle, is_reset)
        }
    }
}

/// `died_idle`: as for HTTP/1, as far as can be known.
fn send2_failure(
    terms: &Terms<'_>,
    mut failed: TrySendError<Request<RequestBody>>,
    died_idle: bool,
) -> Failure {
    if let Some(fault) = terms.source.fault() {
        return Failure::new(fault, Chance::None, Blame::None);
    }
    let unsent = failed.take_message().is_some();
    let cause = failed.into_error();
    if unsent {
        let is_reset = is_reset(&cause);
        return unsent_failure(cause, died_idle, is_reset).unsent();
    }
    if is_refused_stream(&cause) {
        let error = Error::new(Code::UpstreamReset, "the replica refused the request");
        return Failure::new(error.because(cause), Chance::NotBegun, Blame::None);
    }
    if cause.is_parse() || cause.is_parse_too_large() {
        return bad_response(cause);
    }
    let is_reset = is_reset(&cause);
    closed_before_answer(cause, died_idle, is_reset)
}

type Cause = Box<dyn StdError + Send + Sync>;

fn unsent_failure(cause: impl Into<Cause>, died_idle: bool, is_reset: bool) -> Failure {
    let error = Error::new(Code::UpstreamReset, "the replica closed the connection");
    Failure::new(error.because(cause), Chance::NotBegun, blame(died_idle, is_reset))
}

fn bad_response(cause: impl Into<Cause>) -> Failure {
    let error = Error::new(Code::BadResponse, "a replica sent no valid response head");
    Failure::new(error.because(cause), Chance::None, Blame::Failed)
}

fn closed_before_answer(cause: impl Into<Cause>, died_idle: bool, is_reset: bool) -> Failure {
    let text = "the replica closed the connection before it answered; it may have begun the work";
    let chance = if died_idle { Chance::Unknown } else { Chance::None };
    let error = Error::new(Code::UpstreamReset, text).because(cause);
    Failure::new(error, chance, blame(died_idle, is_reset))
}

/// What a connection that was closed says about its endpoint.
fn blame(died_idle: bool, is_reset: bool) -> Blame {
    match (died_idle, is_reset) {
        (true, _) => Blame::None,
        (false, true) => Blame::Refused,
        (false, false) => Blame::Failed,
    }
}

fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn is_reset(error: &hyper::Error) -> bool {
    find::<std::io::Error>(error).is_some_and(|io| io.kind() == ErrorKind::ConnectionReset)
}

/// RFC 9113, sections 8.7 and 6.8: REFUSED_STREAM, or GOAWAY with a lower last stream, promise
/// that the request was not processed.
fn is_refused_stream(error: &hyper::Error) -> bool {
    find::<h2::Error>(error).is_some_and(|error| {
        let reason = error.reason();
        reason == Some(h2::Reason::REFUSED_STREAM)
            || (error.is_go_away() && error.is_remote() && reason == Some(h2::Reason::NO_ERROR))
    })
}

fn for_http2(head: &OutgoingHead, terms: &Terms<'_>) -> Request<RequestBody> {
    let mut request = Request::new(terms.source.attempt());
    *request.method_mut() = head.method.clone();
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = HeaderMap::from(&head.fields);
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(terms.endpoint.authority.clone());
    parts.path_and_query = PathAndQuery::try_from(&*head.target).ok();
    *request.uri_mut() = Uri::from_parts(parts).expect("scheme, authority and path are all there");
    request
}
