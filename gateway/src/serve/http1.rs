//! One client's connection over HTTP/1: request after request, each answered before the next is
//! read. Its clocks, and what ends it from outside, are [`super::connection`]'s.
//!
//! Everything happens in the connection's one task. An answer's head goes out together with what is
//! there of its body. While nothing is under way the connection holds no bytes, and while an
//! answer streams nothing is left of the request but its record.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, Method, Version};
use http_body::Body;
use tokio::sync::oneshot;

use super::date;
use super::work::Work;
use crate::body::ClientBody;
use crate::error::{Code, Error};
use crate::h1::upload::{Rest, Uplink};
use crate::h1::{Encoder, HeadError, Outbox, Read, Refused, write};
use crate::message::{Fields, Name, RequestHead, ResponseHead};
use crate::proxy;
use crate::proxy::reply::Reply;
use crate::proxy::worker::{Client, Worker};
use crate::wire::Socket;

/// How much of a body is read for nobody, so that the connection can serve the next request. To
/// close it costs the client no more than to send so much.
const REST_MAX: usize = 256 * 1024;

/// The connection.
pub(super) struct Http1 {
    worker: Rc<Worker>,
    client: Rc<Client>,
    uplink: Uplink,
    outbox: Outbox,
    state: State,
    max_header_bytes: usize,
    /// There is no request after the one under way.
    last: bool,
}

enum State {
    /// A head is awaited.
    Idle,
    Working(Asked, Work),
    Answering(Answer),
    /// The answer is out; of the request's body so much may still be read.
    Tidying(usize),
    Over,
}

/// What an answer depends on of its request.
struct Asked {
    method: Method,
    version: Version,
    keep_alive: bool,
    takes_trailers: bool,
}

/// An answer whose head was written.
struct Answer {
    /// Until all of it was put into the outbox.
    body: Option<Reply>,
    encoder: Encoder,
    /// The body's end was written.
    ended: bool,
    takes_trailers: bool,
    then: Then,
}

/// What comes after an answer.
enum Then {
    NextRequest,
    Close,
    /// The connection is somebody else's.
    Tunnel(oneshot::Sender<Socket>),
}

impl Http1 {
    /// Of a connection of which `begun` was read before.
    pub(super) fn new(worker: &Rc<Worker>, client: &Rc<Client>, begun: &[u8]) -> Self {
        Self {
            worker: Rc::clone(worker),
            client: Rc::clone(client),
            uplink: Uplink::new(Arc::clone(&client.wire), begun),
            outbox: Outbox::default(),
            state: State::Idle,
            max_header_bytes: worker.view.current().table.gateway.max_header_bytes,
            last: false,
        }
    }

    /// Ready when everything was said, or an answer broke.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.state {
                State::Idle => ready!(self.poll_head(cx)),
                State::Working(..) => ready!(self.poll_work(cx)),
                State::Answering(_) => ready!(self.poll_answer(cx)),
                State::Tidying(_) => ready!(self.poll_rest(cx)),
                State::Over => return Poll::Ready(()),
            }
        }
    }

    /// Ends with the request under way; at once, where there is none.
    pub(super) fn shut_down(&mut self) {
        self.last = true;
        if matches!(self.state, State::Idle) {
            self.state = State::Over;
        }
    }

    /// Whether something of the next request is here.
    pub(super) fn has_begun(&self) -> bool {
        self.uplink.has_begun()
    }

    /// Whether nothing more is to come of the request under way that its agent should get.
    pub(super) fn is_read(&self) -> bool {
        !matches!(self.state, State::Working(..)) || self.uplink.is_read()
    }

    /// Whether nobody else reads from the socket: there is no body, or it was read.
    pub(super) fn reads_alone(&self) -> bool {
        self.uplink.is_read()
    }

    /// Says that the head that is awaited did not come in time, as far as the socket takes that at
    /// once. Nothing is to come after it.
    pub(super) fn refuse_late_head(&mut self, cx: &mut Context<'_>) {
        if matches!(self.state, State::Idle) {
            let text = "the request's head was not complete within header_timeout";
            self.refuse(&Error::new(Code::HeaderTimeout, text));
            let _ = self.poll_answer(cx);
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(self.uplink.poll_head(self.max_header_bytes, cx)) {
            Ok(Some(head)) => self.ask(head),
            Ok(None) | Err(HeadError::Cut | HeadError::Io(_)) => self.state = State::Over,
            Err(HeadError::Refused(refused)) => {
                self.refuse(&Error::new(code(refused), refused.to_string()));
            }
        }
        Poll::Ready(())
    }

    fn ask(&mut self, Read { head, framing, keep_alive, whole }: Read<Box<RequestHead>>) {
        let asked = Asked {
            method: head.method.clone(),
            version: head.version,
            keep_alive,
            takes_trailers: lists(&head.fields, Name::Te, b"trailers"),
        };
        let go_due =
            asked.version == Version::HTTP_11 && lists(&head.fields, Name::Expect, b"100-continue");
        let body = match (self.uplink.body(framing, go_due), whole) {
            (Some(body), _) => ClientBody::Http1(body),
            (None, Some(whole)) => ClientBody::Whole(whole),
            (None, None) => ClientBody::None,
        };
        let work = Work::begin(&self.worker, &self.client, (head, body));
        self.state = State::Working(asked, work);
    }

    /// Nobody knows where the next request begins, so this is the last.
    fn refuse(&mut self, error: &Error) {
        let response = proxy::refuse(&self.worker, &self.client, error);
        let asked = Asked {
            method: Method::GET,
            version: Version::HTTP_11,
            keep_alive: false,
            takes_trailers: false,
        };
        self.answer(&asked, response);
    }

    fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let State::Working(_, work) = &mut self.state else { return Poll::Ready(()) };
        let response = ready!(work.poll(cx));
        if response.0.status == Code::ClientGone.status() {
            self.state = State::Over;
            return Poll::Ready(());
        }
        if let State::Working(asked, _) = std::mem::replace(&mut self.state, State::Over) {
            self.answer(&asked, response);
        }
        Poll::Ready(())
    }

    /// Writes the head.
    fn answer(&mut self, asked: &Asked, (mut head, body): (ResponseHead, Reply)) {
        let exact = body.size_hint().exact();
        let encoder = Encoder::for_response(&asked.method, asked.version, &head, exact);
        let next_is_found = self.uplink.answered() && self.uplink.unwanted() <= REST_MAX as u64;
        let keep_alive = asked.keep_alive
            && next_is_found
            && !self.last
            && encoder != Encoder::UntilClose
            && !lists(&head.fields, Name::Connection, b"close");
        complete(&mut head, asked, keep_alive, exact);
        let version = asked.version.max(Version::HTTP_10);
        write::response(version, &head, &encoder, self.outbox.out());
        let then = match self.client.tunnel.take() {
            Some(tunnel) => Then::Tunnel(tunnel),
            None if keep_alive => Then::NextRequest,
            None => Then::Close,
        };
        let mut answer = Answer {
            encoder,
            body: Some(body),
            ended: false,
            takes_trailers: asked.takes_trailers,
            then,
        };
        if answer.body.as_ref().is_some_and(Body::is_end_stream) {
            answer.end(&mut self.outbox);
        }
        self.state = State::Answering(answer);
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let State::Answering(answer) = &mut self.state else { return Poll::Ready(()) };
        let mut pulled = Ok(());
        loop {
            let more = match answer.poll_pull(&mut self.outbox, cx) {
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(Broken)) => {
                    pulled = Err(Broken);
                    true
                }
                Poll::Pending => false,
            };
            let sent = poll_flush(&mut self.outbox, &self.client, cx);
            if pulled.is_err() || matches!(sent, Poll::Ready(Err(_))) {
                self.state = State::Over;
                return Poll::Ready(());
            }
            ready!(sent).ok();
            if answer.body.is_none() {
                break;
            }
            if !more {
                return Poll::Pending;
            }
        }
        self.answered();
        Poll::Ready(())
    }

    /// Everything is with the kernel.
    fn answered(&mut self) {
        let State::Answering(answer) = std::mem::replace(&mut self.state, State::Over) else {
            return;
        };
        match answer.then {
            Then::NextRequest if !self.last => self.state = State::Tidying(REST_MAX),
            Then::Tunnel(tunnel) if self.uplink.is_read() => {
                let socket = self.client.wire.half(self.uplink.take());
                // Nobody waits for it any more: then it is closed.
                drop(tunnel.send(socket));
            }
            Then::NextRequest | Then::Close | Then::Tunnel(_) => {}
        }
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let State::Tidying(left) = &mut self.state else { return Poll::Ready(()) };
        match ready!(self.uplink.poll_rest(cx)) {
            Rest::None if !self.last => self.state = State::Idle,
            Rest::Read(n) if n <= *left => *left -= n,
            Rest::None | Rest::Read(_) | Rest::Broken => self.state = State::Over,
        }
        Poll::Ready(())
    }
}

/// The body has no end.
struct Broken;

impl Answer {
    /// Takes of the body what is there, until the outbox is full or the body has ended.
    fn poll_pull(&mut self, outbox: &mut Outbox, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        while let Some(body) = &mut self.body {
            if !outbox.has_room() {
                return Poll::Ready(Ok(()));
            }
            let Some(frame) = ready!(Pin::new(&mut *body).poll_frame(cx)) else {
                self.end(outbox);
                return Poll::Ready(if self.encoder.may_end() { Ok(()) } else { Err(Broken) });
            };
            let Ok(frame) = frame else { return Poll::Ready(Err(Broken)) };
            match frame.into_data() {
                Ok(data) => outbox.data(&mut self.encoder, data),
                Err(other) => self.trailers(other.into_trailers().ok(), outbox),
            }
            if self.body.as_ref().is_some_and(Body::is_end_stream) && self.encoder.may_end() {
                self.end(outbox);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The end, and with it what a client that takes trailers was promised.
    fn trailers(&mut self, trailers: Option<HeaderMap>, outbox: &mut Outbox) {
        if !std::mem::replace(&mut self.ended, true) {
            let trailers = trailers.filter(|_| self.takes_trailers);
            outbox.end(&self.encoder, trailers.as_ref());
        }
    }

    fn end(&mut self, outbox: &mut Outbox) {
        self.body = None;
        if self.encoder.may_end() {
            self.trailers(None, outbox);
        }
    }
}

/// Hands what waits to the kernel, and tells who waits for that.
fn poll_flush(outbox: &mut Outbox, client: &Client, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    ready!(outbox.poll_flush(&client.wire, cx))?;
    client.wire.count_flush();
    Poll::Ready(Ok(()))
}

/// The fields that are the connection's to say.
fn complete(head: &mut ResponseHead, asked: &Asked, keep_alive: bool, exact: Option<u64>) {
    let fields = &mut head.fields;
    if !fields.contains(Name::Date) {
        date::tell(|now| fields.push(Name::Date, now.as_bytes()));
    }
    let option = match keep_alive {
        true => (asked.version < Version::HTTP_11).then_some("keep-alive"),
        false => Some("close"),
    };
    if let Some(option) = option
        && !fields.contains(Name::Connection)
    {
        fields.push(Name::Connection, option.as_bytes());
    }
    // What GET would get.
    if let Some(length @ 1..) = exact.filter(|_| asked.method == Method::HEAD) {
        fields.set(Name::ContentLength, length.to_string().as_bytes());
    }
}

/// Whether a list field has this member.
fn lists(fields: &Fields, name: Name, member: &[u8]) -> bool {
    let listed = fields.all(name).flat_map(|line| line.split(|b| *b == b','));
    listed.map(<[u8]>::trim_ascii).any(|listed| listed.eq_ignore_ascii_case(member))
}

/// What a head that is refused is counted as.
fn code(refused: Refused) -> Code {
    match refused.status().as_u16() {
        414 => Code::TargetTooLong,
        431 => Code::HeadTooLarge,
        501 => Code::NotImplemented,
        505 => Code::VersionNotSupported,
        _ => Code::BadRequest,
    }
}
