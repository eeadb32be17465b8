//! What a connection has to send and could not yet: mostly nothing.
//!
//! Heads and small pieces are put together in one buffer, which comes from the thread and goes back
//! when it is empty; a large piece is sent from where it is. Either way it is one call.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;

use super::encode::Encoder;
use crate::wire::Wire;

/// From here on a piece is sent from where it is instead of being copied behind the head.
const COPIED_MAX: usize = 16 * 1024;
/// A buffer that has grown larger is not given back to the thread.
const BUFFER_MAX: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Bytes that are to go out, in this order: `front` from `sent` on, `piece`, `behind`.
#[derive(Debug, Default)]
pub struct Outbox {
    front: Vec<u8>,
    sent: usize,
    piece: Bytes,
    behind: Vec<u8>,
}

impl Outbox {
    /// Whether everything is with the kernel.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.front.is_empty() && self.piece.is_empty() && self.behind.is_empty()
    }

    /// How many bytes wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.front.len() - self.sent + self.piece.len() + self.behind.len()
    }

    /// Whether more would go out in the same call without being copied twice.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.piece.is_empty() && self.behind.is_empty() && self.front.len() < COPIED_MAX
    }

    /// Where the next bytes go: a head is written there.
    pub fn out(&mut self) -> &mut Vec<u8> {
        if !self.piece.is_empty() || !self.behind.is_empty() {
            return &mut self.behind;
        }
        if self.front.capacity() == 0 {
            self.front = BUFFER.take();
        }
        &mut self.front
    }

    /// Puts a piece of a body behind. What is more than was declared does not go.
    pub fn data(&mut self, encoder: &mut Encoder, mut data: Bytes) {
        data.truncate(encoder.admit(data.len()));
        if data.is_empty() {
            return;
        }
        encoder.before(data.len(), self.out());
        if data.len() < COPIED_MAX || !self.piece.is_empty() || !self.behind.is_empty() {
            self.out().extend_from_slice(&data);
        } else {
            self.piece = data;
        }
        encoder.behind(self.out());
    }

    /// Puts the body's end behind, with those of the trailers that were announced.
    pub fn end(&mut self, encoder: &Encoder, trailers: Option<&HeaderMap>) {
        if let Encoder::Chunked(_) = encoder {
            encoder.end(trailers, self.out());
        }
    }

    /// Hands all of it to the kernel.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn poll_flush(&mut self, wire: &Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let front = &self.front[self.sent..];
            let n = if self.piece.is_empty() && self.behind.is_empty() {
                ready!(wire.poll_write(cx, front))?
            } else {
                let all = [front, &self.piece, &self.behind].map(IoSlice::new);
                ready!(wire.poll_write_vectored(cx, &all))?
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(n);
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut n: usize) {
        let front = n.min(self.front.len() - self.sent);
        self.sent += front;
        n -= front;
        if self.sent == self.front.len() {
            self.give_back();
        }
        let piece = n.min(self.piece.len());
        self.piece.advance(piece);
        n -= piece;
        if self.piece.is_empty() {
            self.piece = Bytes::new();
            // What is left stands first now.
            if self.front.is_empty() && !self.behind.is_empty() {
                self.front = std::mem::take(&mut self.behind);
                self.sent = n;
                if self.sent == self.front.len() {
                    self.give_back();
                }
            }
        }
    }

    fn give_back(&mut self) {
        self.sent = 0;
        let mut buffer = std::mem::take(&mut self.front);
        if (1..=BUFFER_MAX).contains(&buffer.capacity()) {
            buffer.clear();
            BUFFER.set(buffer);
        }
    }
}
