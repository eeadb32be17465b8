//! Request bodies on their way to an agent, bounded in size and in pauses, and kept for a while
//! so that they can be sent again. They are never collected whole.

pub mod sse;

use std::any::Any;
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::error::{Code, Error};
use crate::h1::BodyError;
use crate::h1::upload::Upload;

/// How much of a body is read while its request waits for a place or a connection. With what the
/// kernel holds, a leaving client is seen behind at least 1 MiB of unread body.
pub const AHEAD_MAX: usize = 1024 * 1024;

/// A request's body, straight from its client's connection.
pub enum ClientBody {
    /// There is none.
    None,
    /// All of it is here.
    Whole(Bytes),
    /// Over HTTP/1.
    Http1(Upload),
    /// Over HTTP/2.
    Http2(Incoming),
}

/// Why a client's body does not end as it should.
type Cause = Box<dyn std::error::Error + Send + Sync>;

impl Body for ClientBody {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        match self.get_mut() {
            Self::None => Poll::Ready(None),
            whole @ Self::Whole(_) => match std::mem::replace(whole, Self::None) {
                Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                _ => Poll::Ready(None),
            },
            Self::Http1(body) => Pin::new(body).poll_frame(cx).map_err(Cause::from),
            Self::Http2(body) => Pin::new(body).poll_frame(cx).map_err(Cause::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::None => true,
            Self::Whole(_) => false,
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::None => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}

/// Whether a body that broke was sent wrong, or not to its end.
fn blame(cause: &Cause) -> Code {
    match cause.downcast_ref() {
        Some(BodyError::Malformed(_)) => Code::BadRequest,
        _ => Code::ClientGone,
    }
}

/// What is allowed of one request's body.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most bytes.
    pub max: u64,
    /// Longest pause while the agent wants more.
    pub timeout: Duration,
    /// How many bytes are kept to send them again.
    pub keep: usize,
}

/// A request's body as it comes from the client, shared by the attempts to send it.
#[derive(Clone)]
pub struct Source(Rc<RefCell<Inner>>);

struct Inner {
    incoming: Option<ClientBody>,
    limits: Limits,
    received: u64,
    /// The client said how long it is; else we don't either, though all of it may be here.
    declared: bool,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    /// Attempts so far: only the latest gets anything.
    attempts: u32,
    /// Who waits for more in the latest attempt.
    waiting: Option<Waker>,
    /// Pieces of `kept` that were looked at before any attempt.
    peeked: usize,
    /// Pieces of `kept` that the latest attempt has taken.
    sent: usize,
    /// Something passed that was not kept.
    lost: bool,
    trailers: Option<HeaderMap>,
    clean_trailers: fn(&mut HeaderMap),
    ended_at: Option<Instant>,
    fault: Option<Code>,
    pause: Option<Pin<Box<Sleep>>>,
    last: Instant,
    /// See [`Source::hold`].
    held: Option<Box<dyn Any>>,
}

impl Source {
    /// Takes the body over. `clean_trailers` takes out of its trailers what must not pass. `now`:
    /// when its head was there.
    #[must_use]
    pub fn new(
        incoming: ClientBody,
        limits: Limits,
        clean_trailers: fn(&mut HeaderMap),
        now: Instant,
    ) -> Self {
        let declared = incoming.size_hint().exact().is_some();
        // What came with the head is here anyway.
        let (incoming, kept) = match incoming {
            ClientBody::Whole(bytes) => (None, vec![bytes]),
            incoming => (Some(incoming), Vec::new()),
        };
        let ended_at = incoming.as_ref().is_none_or(Body::is_end_stream).then_some(now);
        let kept_bytes = kept.iter().map(Bytes::len).sum();
        Self(Rc::new(RefCell::new(Inner {
            incoming,
            limits,
            received: kept_bytes as u64,
            declared,
            kept,
            kept_bytes,
            attempts: 0,
            waiting: None,
            peeked: 0,
            sent: 0,
            lost: false,
            trailers: None,
            clean_trailers,
            ended_at,
            fault: None,
            pause: None,
            last: now,
            held: None,
        })))
    }

    /// Drops `guard` when nobody reads the body any more, which may be long after the answer.
    pub fn hold(&self, guard: impl Any) {
        self.0.borrow_mut().held = Some(Box::new(guard));
    }

    /// One attempt's view, from the first byte on. That of an earlier attempt breaks off: over
    /// HTTP/2 it may still be being sent to an agent that has declined already.
    #[must_use]
    pub fn attempt(&self) -> RequestBody {
        let mut inner = self.0.borrow_mut();
        inner.attempts += 1;
        inner.waiting.take().into_iter().for_each(Waker::wake);
        let attempt = inner.attempts;
        RequestBody { source: self.clone(), attempt, next: 0, trailers_sent: false }
    }

    /// Whether another attempt would send all of it.
    #[must_use]
    pub fn can_repeat(&self) -> bool {
        let inner = self.0.borrow();
        !inner.lost && inner.fault.is_none()
    }

    /// Sets the agent's bounds, now that it is known: most bytes, and how many are kept.
    pub fn admit(&self, max: u64, keep: usize) {
        let limits = &mut self.0.borrow_mut().limits;
        (limits.max, limits.keep) = (max, keep);
    }

    /// Stops keeping: there will be no other attempt.
    pub fn settle(&self) {
        let mut inner = self.0.borrow_mut();
        inner.limits.keep = 0;
        inner.lost = true;
        // What this attempt has not sent yet must stay.
        let sent = inner.sent.min(inner.kept.len());
        inner.kept[..sent].fill(Bytes::new());
    }

    /// Reads the rest for nobody.
    pub async fn discard(self) {
        self.settle();
        let mut body = self.attempt();
        while let Some(Ok(_)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await
        {
        }
    }

    /// When the last byte had come, if it has.
    #[must_use]
    pub fn ended_at(&self) -> Option<Instant> {
        self.0.borrow().ended_at
    }

    /// How long it is, where the client said so.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        let inner = self.0.borrow();
        inner.rest().filter(|_| inner.declared).map(|rest| inner.received + rest)
    }

    /// Bytes received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.0.borrow().received
    }

    /// What the client did wrong with its body, if it did.
    #[must_use]
    pub fn fault(&self) -> Option<Error> {
        let inner = self.0.borrow();
        Some(match inner.fault? {
            Code::BodyTooLarge => too_large(inner.limits.max),
            Code::BodyTimeout => Error::new(
                Code::BodyTimeout,
                format!("no byte of the body came for {:?}", inner.limits.timeout),
            ),
            Code::BadRequest => Error::new(Code::BadRequest, "the body's chunks are no chunks"),
            code => Error::new(code, "the client broke off its request"),
        })
    }

    /// Bytes that are kept here.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.0.borrow().kept_bytes as u64
    }

    /// Reads ahead, for as long as the caller waits for something else and at most
    /// [`AHEAD_MAX`]: a client's FIN stands behind its body, and who does not read one does not see
    /// the other. Ends when there is nothing more to read ahead, or when `more`, which is told how much
    /// is kept, doesn't allow it.
    ///
    /// # Errors
    /// As [`Source::fault`].
    pub async fn read_ahead(&self, mut more: impl FnMut(u64) -> bool) -> Result<(), Error> {
        while more(self.kept()) && self.0.borrow().kept_bytes < AHEAD_MAX {
            if self.peek().await?.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Reads the next piece for a reader who looks before any attempt; it is kept whatever its
    /// size. `None` at the end.
    ///
    /// # Errors
    /// As [`Source::fault`].
    pub async fn peek(&self) -> Result<Option<Bytes>, Error> {
        let piece = std::future::poll_fn(|cx| self.0.borrow_mut().poll_peek(cx)).await;
        match piece {
            Some(Ok(Piece::Data(data))) => Ok(Some(data)),
            Some(Ok(Piece::Trailers)) | None => Ok(None),
            Some(Err(code)) => {
                Err(self.fault().unwrap_or_else(|| Error::new(code, "the body broke off")))
            }
        }
    }
}

/// Waits for something while a body is read ahead, as far as `more` allows.
///
/// # Errors
/// When the body turns out bad meanwhile.
pub async fn while_reading<T>(
    mut waiting: Pin<&mut impl Future<Output = T>>,
    source: &Source,
    more: impl FnMut(u64) -> bool,
) -> Result<T, Error> {
    let mut ahead = std::pin::pin!(source.read_ahead(more));
    let mut reading = true;
    std::future::poll_fn(|cx| {
        if let Poll::Ready(done) = waiting.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        if reading && let Poll::Ready(read) = ahead.as_mut().poll(cx) {
            reading = false;
            if let Err(error) = read {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Pending
    })
    .await
}

/// The 413 with its numbers.
#[must_use]
pub fn too_large(max: u64) -> Error {
    Error::new(Code::BodyTooLarge, format!("this agent takes bodies of at most {max} bytes"))
}

enum Piece {
    Data(Bytes),
    Trailers,
}

impl Inner {
    /// The next piece for who looks: what is here, then what comes.
    fn poll_peek(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, Code>>> {
        let polled = match self.kept.get(self.peeked) {
            Some(piece) => Poll::Ready(Some(Ok(Piece::Data(piece.clone())))),
            None => self.poll_receive(cx, true),
        };
        if let Poll::Ready(Some(Ok(Piece::Data(_)))) = polled {
            self.peeked += 1;
        }
        polled
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        keep_all: bool,
    ) -> Poll<Option<Result<Piece, Code>>> {
        if let Some(fault) = self.fault {
            return Poll::Ready(Some(Err(fault)));
        }
        let Some(incoming) = self.incoming.as_mut().filter(|body| !body.is_end_stream()) else {
            self.ended_at.get_or_insert_with(Instant::now);
            return Poll::Ready(None);
        };
        let frame = match Pin::new(incoming).poll_frame(cx) {
            Poll::Pending => return self.poll_pause(cx).map(|code| Some(Err(code))),
            Poll::Ready(frame) => frame,
        };
        let Some(frame) = frame else {
            self.incoming = None;
            self.ended_at.get_or_insert_with(Instant::now);
            return Poll::Ready(None);
        };
        self.last = Instant::now();
        Poll::Ready(Some(match frame.map(Frame::into_data) {
            Ok(Ok(data)) => self.take(data, keep_all).map(Piece::Data),
            Ok(Err(other)) => {
                self.trailers = other.into_trailers().ok().map(|mut trailers| {
                    (self.clean_trailers)(&mut trailers);
                    trailers
                });
                Ok(Piece::Trailers)
            }
            Err(cause) => Err(self.fail(blame(&cause))),
        }))
    }

    fn take(&mut self, data: Bytes, keep_all: bool) -> Result<Bytes, Code> {
        self.received += data.len() as u64;
        if self.received > self.limits.max {
            return Err(self.fail(Code::BodyTooLarge));
        }
        // Over HTTP/2 the end comes apart from the last byte, and after a declared length
        // nobody asks for it.
        let whole = |body: &ClientBody| body.is_end_stream() || body.size_hint().exact() == Some(0);
        if self.incoming.as_ref().is_some_and(whole) {
            self.ended_at = Some(self.last);
        }
        if keep_all || (!self.lost && self.kept_bytes + data.len() <= self.limits.keep) {
            self.kept_bytes += data.len();
            self.kept.push(data.clone());
        } else {
            self.lost = true;
        }
        Ok(data)
    }

    /// The client's pause clock; it runs only while somebody waits for the client.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<Code> {
        let timeout = self.limits.timeout;
        let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        loop {
            ready!(pause.as_mut().poll(cx));
            let due = self.last + timeout;
            if due <= Instant::now() {
                return Poll::Ready(self.fail(Code::BodyTimeout));
            }
            pause.as_mut().reset(due);
        }
    }

    fn fail(&mut self, code: Code) -> Code {
        self.incoming = None;
        self.fault = Some(code);
        code
    }

    /// Bytes still to come after what was received, if the client said.
    fn rest(&self) -> Option<u64> {
        match &self.incoming {
            Some(incoming) => incoming.size_hint().exact(),
            None => Some(0),
        }
    }
}

/// One attempt's view of a request's body: what was kept, then what comes.
pub struct RequestBody {
    source: Source,
    attempt: u32,
    next: usize,
    trailers_sent: bool,
}

/// The body can't be sent to its end; [`Source::fault`] says why.
#[derive(Debug, thiserror::Error)]
#[error("the request's body broke off: {}", .0.as_str())]
pub struct Broken(Code);

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        let mut inner = this.source.0.borrow_mut();
        if this.attempt != inner.attempts {
            return Poll::Ready(Some(Err(Broken(Code::UpstreamReset))));
        }
        if let Some(data) = inner.kept.get(this.next).cloned() {
            this.next += 1;
            inner.sent = this.next;
            if inner.lost {
                inner.kept[this.next - 1] = Bytes::new();
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let kept = inner.kept.len();
        let Poll::Ready(piece) = inner.poll_receive(cx, false) else {
            inner.waiting.get_or_insert_with(|| cx.waker().clone()).clone_from(cx.waker());
            return Poll::Pending;
        };
        this.next += inner.kept.len() - kept;
        inner.sent = this.next;
        Poll::Ready(match piece {
            Some(Ok(Piece::Data(data))) => Some(Ok(Frame::data(data))),
            Some(Err(code)) => Some(Err(Broken(code))),
            Some(Ok(Piece::Trailers)) | None => {
                let trailers = inner.trailers.clone().filter(|_| !this.trailers_sent);
                this.trailers_sent = true;
                trailers.map(|trailers| Ok(Frame::trailers(trailers)))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        let inner = self.source.0.borrow();
        let ended = inner.incoming.as_ref().is_none_or(Body::is_end_stream);
        let trailers_due = inner.trailers.is_some() && !self.trailers_sent;
        ended && inner.fault.is_none() && self.next == inner.kept.len() && !trailers_due
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.source.0.borrow();
        let kept: usize = inner.kept.iter().skip(self.next).map(Bytes::len).sum();
        match inner.rest() {
            Some(rest) if inner.declared && inner.fault.is_none() => {
                SizeHint::with_exact(rest + kept as u64)
            }
            _ => SizeHint::new(),
        }
    }
}
