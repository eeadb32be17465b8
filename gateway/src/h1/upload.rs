//! A request's body, read straight from its client's socket by whoever has it, while the connection
//! waits; the two never read at the same time.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::decode::Decoder;
use super::head::{Framing, Read};
use super::inbox::{BodyError, HeadError, Inbox};
use crate::message::RequestHead;
use crate::wire::Wire;

/// RFC 9110, section 15.2.1.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What a client sends on one connection: heads, which the connection takes, and between them bodies.
#[derive(Clone)]
pub struct Uplink(Rc<RefCell<Side>>);

struct Side {
    wire: Arc<Wire>,
    inbox: Inbox,
    body: Decoder,
    state: State,
    /// Which body is the present one. Who still has an earlier one gets nothing more.
    turn: u64,
    /// The client waits for a go before it sends the body.
    go_due: bool,
    /// The connection, where it waits for the body to end.
    waiting: Option<Waker>,
}

/// Who has the present body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// An [`Upload`].
    Held,
    /// Nobody, or there is none.
    Free,
    /// Nobody can: where it ends, and the next head begins, is not known.
    Broken,
}

/// What became of a body that nobody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// All of it was read.
    None,
    /// So much of it came now.
    Read(usize),
    /// Where it ends is not known.
    Broken,
}

impl Uplink {
    /// Of a connection of which `begun` was read before.
    #[must_use]
    pub fn new(wire: Arc<Wire>, begun: &[u8]) -> Self {
        Self(Rc::new(RefCell::new(Side {
            wire,
            inbox: Inbox::new(begun),
            body: Decoder::Length(0),
            state: State::Free,
            turn: 0,
            go_due: false,
            waiting: None,
        })))
    }

    /// The next head, as [`Inbox::poll_request`] gives it. The body before it must have been read.
    ///
    /// # Errors
    /// As for [`Inbox::poll_request`].
    pub fn poll_head(
        &self,
        max: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Read<Box<RequestHead>>>, HeadError>> {
        let side = &mut *self.0.borrow_mut();
        side.inbox.poll_request(&side.wire, max, cx)
    }

    /// The body that follows the head just read; `None` where there is none. `go_due`: its client
    /// gets a "100 Continue" when the body is first asked for, unless some of it is here already.
    #[must_use]
    pub fn body(&self, framing: Framing, go_due: bool) -> Option<Upload> {
        let side = &mut *self.0.borrow_mut();
        side.turn += 1;
        side.body = Decoder::new(framing);
        if side.body.is_done() {
            return None;
        }
        (side.state, side.go_due) = (State::Held, go_due && side.inbox.is_empty());
        Some(Upload { uplink: self.clone(), turn: side.turn })
    }

    /// The answer begins: who has got no go until now gets none. Whether the next request can be
    /// told from the rest of this one's body.
    pub fn answered(&self) -> bool {
        let side = &mut *self.0.borrow_mut();
        if std::mem::take(&mut side.go_due) {
            // It may send the body nevertheless, or not (RFC 9110, section 10.1.1).
            side.state = State::Broken;
        }
        side.state != State::Broken
    }

    /// Whether all of the present body was read.
    #[must_use]
    pub fn is_read(&self) -> bool {
        let side = self.0.borrow();
        side.state != State::Broken && side.body.is_done()
    }

    /// Least number of bytes of the present body that are to come and that nobody wants.
    #[must_use]
    pub fn unwanted(&self) -> u64 {
        let side = self.0.borrow();
        if side.state == State::Free { side.body.size_hint().lower() } else { 0 }
    }

    /// Whether something is here of the next request.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        !self.0.borrow().inbox.is_empty()
    }

    /// Waits for who has the body, and then reads the rest of it for nobody.
    pub fn poll_rest(&self, cx: &mut Context<'_>) -> Poll<Rest> {
        let side = &mut *self.0.borrow_mut();
        match side.state {
            State::Broken => return Poll::Ready(Rest::Broken),
            _ if side.body.is_done() => return Poll::Ready(Rest::None),
            State::Held => {
                side.waiting = Some(cx.waker().clone());
                return Poll::Pending;
            }
            State::Free => {}
        }
        side.poll_piece(cx).map(|piece| match piece {
            Some(Ok(frame)) => Rest::Read(frame.data_ref().map_or(0, Bytes::len)),
            Some(Err(_)) => Rest::Broken,
            None => Rest::None,
        })
    }

    /// What was read and not used: for whom the connection is handed over to.
    #[must_use]
    pub fn take(&self) -> Bytes {
        self.0.borrow_mut().inbox.take()
    }
}

impl Side {
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = self.inbox.poll_piece(&self.wire, &mut self.body, cx);
        if let Poll::Ready(Some(Err(_))) = polled {
            self.state = State::Broken;
        }
        if self.state == State::Broken || self.body.is_done() {
            self.wake();
        }
        polled
    }

    /// The go, where one is due. Nothing else is being sent on the connection meanwhile, and it is
    /// little: a socket that takes only a part of it is broken.
    fn poll_go(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.go_due {
            let n = ready!(self.wire.poll_write(cx, CONTINUE))?;
            self.go_due = false;
            if n < CONTINUE.len() {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    fn wake(&mut self) {
        if let Some(connection) = self.waiting.take() {
            connection.wake();
        }
    }
}

/// One request's body. Dropped early, the rest of it belongs to the connection.
pub struct Upload {
    uplink: Uplink,
    turn: u64,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let side = &mut *self.uplink.0.borrow_mut();
        if side.turn != self.turn {
            return Poll::Ready(None);
        }
        if side.state == State::Broken {
            return Poll::Ready(Some(Err(BodyError::Cut)));
        }
        if let Err(error) = ready!(side.poll_go(cx)) {
            side.state = State::Broken;
            return Poll::Ready(Some(Err(error.into())));
        }
        side.poll_piece(cx)
    }

    fn is_end_stream(&self) -> bool {
        let side = self.uplink.0.borrow();
        let whole = side.state != State::Broken && side.body.is_over();
        side.turn != self.turn || whole
    }

    fn size_hint(&self) -> SizeHint {
        let side = self.uplink.0.borrow();
        if side.turn == self.turn { side.body.size_hint() } else { SizeHint::with_exact(0) }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let side = &mut *self.uplink.0.borrow_mut();
        if side.turn != self.turn {
            return;
        }
        if side.state == State::Held {
            side.state = State::Free;
        }
        side.wake();
    }
}
