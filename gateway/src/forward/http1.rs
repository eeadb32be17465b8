//! One exchange over HTTP/1.1. A connection is a plain object: it belongs to the exchange, then to
//! the response's body, then to the line of idle ones. Dropped, it is closed, and what was under way
//! on it is cancelled.

mod upload;

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::upload::{Upload, UploadError};
use super::clock::Clock;
use crate::body::RequestBody;
use crate::h1::{BodyError, Decoder, HeadError, Inbox, Read};
use crate::message::{OutgoingHead, ResponseHead};
use crate::wire::{Socket, Wire};

/// Largest response head that is read.
const RESPONSE_HEAD_MAX: usize = 256 * 1024;

/// An HTTP/1.1 connection to an agent.
pub struct Http1 {
    wire: Arc<Wire>,
    inbox: Inbox,
    /// Whether it has served a request before.
    pub(super) reused: bool,
    pub(super) born: Instant,
    /// For what its requests wait for.
    pub(super) clock: Clock,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The connection was gone before anything of the request was sent.
    #[error("nothing could be sent: {0}")]
    Unsent(#[source] io::Error),
    /// The request's body broke off; its source knows why.
    #[error("the request's body broke off")]
    Body,
    /// What came is no response.
    #[error(transparent)]
    Refused(crate::h1::Refused),
    /// The agent closed the connection.
    #[error("the connection was closed")]
    Closed,
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl SendError {
    /// Whether the agent reset the connection.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::ConnectionReset)
    }
}

impl From<HeadError> for SendError {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::Refused(refused) => Self::Refused(refused),
            HeadError::Cut => Self::Closed,
            HeadError::Io(error) => Self::Io(error),
        }
    }
}

impl Http1 {
    /// A connection that was just made.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        let wire = Wire::new(stream);
        let (inbox, clock) = Default::default();
        Self { wire, inbox, reused: false, born: Instant::now(), clock }
    }

    /// Bytes that the agent has sent on it so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.wire.received()
    }

    /// Whether the agent has neither closed it nor sent what nobody asked for. No system call: the
    /// readiness of a socket that was read empty is that of what came since.
    #[must_use]
    pub fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        if self.wire.stream().poll_read_ready(&mut cx).is_pending() {
            return true;
        }
        // The last read may have been just full; one call tells that from news.
        let mut byte = [0];
        let looked = self.wire.poll_read(&mut cx, &mut &mut byte[..]);
        looked.is_pending()
    }

    /// As [`Http1::is_quiet`], but asks the kernel, which may know of a close that nobody has been
    /// told of yet: one call.
    #[must_use]
    pub fn is_still_quiet(&mut self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        self.is_quiet()
            && rustix::net::recv(self.wire.stream(), &mut [0; 1][..], flags) == Err(Errno::AGAIN)
    }

    /// Sends a request to `host` and waits for the response's head. Both ways are open at once: an answer may
    /// come before the request has ended, whose rest then goes on being sent on a task of its
    /// own, for as long as the response lives. The request's head and what is there of its
    /// body go out in one call.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(
        &mut self,
        head: &OutgoingHead,
        host: &[u8],
        body: RequestBody,
    ) -> Result<(Read<ResponseHead>, Option<Upload>), SendError> {
        let mut upload = Some(Upload::new(head, host, body));
        let mut broken = None;
        let read = std::future::poll_fn(|cx| {
            match upload.as_mut().map_or(Poll::Pending, |upload| upload.poll(&self.wire, cx)) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => upload = None,
                Poll::Ready(Err(UploadError::Body)) => return Poll::Ready(Err(SendError::Body)),
                Poll::Ready(Err(UploadError::Io(cause))) => {
                    if upload.take().is_some_and(|upload| !upload.has_begun()) {
                        return Poll::Ready(Err(SendError::Unsent(cause)));
                    }
                    // An agent may answer and close without reading all of a request.
                    broken = Some(cause);
                }
            }
            self.poll_head(&head.method, cx)
        });
        match (read.await, broken) {
            (Err(SendError::Closed | SendError::Io(_)), Some(cause)) => Err(cause.into()),
            (read, broken) => {
                let mut response = read?;
                response.keep_alive &= broken.is_none();
                Ok((response, upload))
            }
        }
    }

    /// The response's head; those before it (RFC 9110, section 15.2) are skipped.
    fn poll_head(
        &mut self,
        asked: &Method,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Read<ResponseHead>, SendError>> {
        loop {
            let polled = self.inbox.poll_response(&self.wire, (asked, RESPONSE_HEAD_MAX), cx);
            let Some(response) = std::task::ready!(polled)? else {
                return Poll::Ready(Err(SendError::Closed));
            };
            let status = response.head.status;
            if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                return Poll::Ready(Ok(response));
            }
        }
    }

    /// The response whose head was read, with its body.
    #[must_use]
    pub fn response(
        self: Box<Self>,
        read: Read<ResponseHead>,
        upload: Option<Upload>,
    ) -> (ResponseHead, Http1Body) {
        let Read { head, framing, keep_alive, whole } = read;
        let decoder = Decoder::new(framing);
        let upload = upload.map(|upload| Running::start(upload, Arc::clone(&self.wire)));
        (head, Http1Body { connection: self, whole, decoder, keep_alive, upload })
    }
}

/// A request's body that is still being sent though its response has begun.
struct Running {
    task: JoinHandle<()>,
    state: Rc<Cell<State>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    /// All of it was sent.
    Done,
    /// The connection broke, or the agent no longer reads: its response may still be whole.
    Unread,
    /// The request will never be whole, so its response must not be taken for whole either.
    BrokenOff,
}

impl Running {
    fn start(mut upload: Upload, wire: Arc<Wire>) -> Self {
        let state = Rc::new(Cell::new(State::Running));
        let told = Rc::clone(&state);
        let task = tokio::task::spawn_local(async move {
            let sent = std::future::poll_fn(|cx| upload.poll(&wire, cx)).await;
            told.set(match sent {
                Ok(()) => State::Done,
                Err(UploadError::Io(_)) => State::Unread,
                Err(UploadError::Body) => State::BrokenOff,
            });
            if told.get() == State::BrokenOff {
                // Both the agent and who reads its response are woken by that.
                wire.close();
            }
        });
        Self { task, state }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A response's body, read from the socket when it is polled. It owns the connection.
pub struct Http1Body {
    connection: Box<Http1>,
    /// All of it, where it came with the head, until it is taken.
    whole: Option<Bytes>,
    decoder: Decoder,
    keep_alive: bool,
    upload: Option<Running>,
}

impl Http1Body {
    /// The connection, where it may serve another request: now, or once the request's body has
    /// been sent.
    pub fn into_idle(self) -> Option<Idling> {
        let Self { connection, whole, decoder, keep_alive, upload } = self;
        let taken = whole.is_none() && decoder.is_over();
        let clean = keep_alive && taken && connection.inbox.is_empty();
        clean.then_some(Idling { connection, upload })
    }

    /// All of the body, if it is here; there may be none.
    pub fn take_whole(&mut self) -> Option<Bytes> {
        let is_here = self.decoder.is_over() && self.upload.is_none();
        is_here.then(|| self.whole.take().unwrap_or_default())
    }

    /// The connection, which is for another protocol from here on.
    #[must_use]
    pub fn into_socket(mut self) -> Socket {
        let begun = self.connection.inbox.take();
        self.connection.wire.half(begun)
    }

    fn is_broken_off(&self) -> bool {
        self.upload.as_ref().is_some_and(|upload| upload.state.get() == State::BrokenOff)
    }
}

/// A connection on its way to the idle ones.
pub struct Idling {
    connection: Box<Http1>,
    upload: Option<Running>,
}

impl Idling {
    /// The connection, if nothing is under way on it.
    ///
    /// # Errors
    /// With itself where something is: see [`Idling::settled`].
    pub fn now(self) -> Result<Box<Http1>, Self> {
        match &self.upload {
            None => Ok(self.connection),
            Some(upload) if upload.state.get() == State::Done => Ok(self.connection),
            Some(_) => Err(self),
        }
    }

    /// The connection once the request's body has been sent, if that ends well.
    pub async fn settled(mut self) -> Option<Box<Http1>> {
        if let Some(upload) = &mut self.upload {
            (&mut upload.task).await.ok()?;
        }
        self.now().ok()
    }
}

impl Body for Http1Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(whole) = this.whole.take() {
            return Poll::Ready(Some(Ok(Frame::data(whole))));
        }
        let connection = &mut this.connection;
        let polled = connection.inbox.poll_piece(&connection.wire, &mut this.decoder, cx);
        if this.is_broken_off() {
            return Poll::Ready(Some(Err(BodyError::Cut)));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.whole.is_none() && self.decoder.is_over() && !self.is_broken_off()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.whole {
            Some(whole) => SizeHint::with_exact(whole.len() as u64),
            None => self.decoder.size_hint(),
        }
    }
}
