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
            let parts = self.parts();
            let n = match parts {
                [front, [], []] => ready!(wire.poll_write(cx, front))?,
                parts => ready!(wire.poll_write_vectored(cx, &parts.map(IoSlice::new)))?,
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(n);
        }
        Poll::Ready(Ok(()))
    }

    fn parts(&self) -> [&[u8]; 3] {
        [&self.front[self.sent..], &self.piece, &self.behind]
    }

    /// So many bytes are gone.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What goes out if the kernel takes so many bytes at once.
    fn flushed(mut outbox: Outbox, mut takes: impl FnMut() -> usize) -> Vec<u8> {
        let mut out = Vec::new();
        while !outbox.is_empty() {
            let waiting = outbox.parts().concat();
            assert_eq!(waiting.len(), outbox.len());
            let n = takes().min(waiting.len());
            out.extend_from_slice(&waiting[..n]);
            outbox.advance(n);
        }
        out
    }

    #[test]
    fn what_is_put_in_comes_out_in_order_however_the_kernel_takes_it() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..200 {
            let (mut outbox, mut expected) = (Outbox::default(), b"head".to_vec());
            let mut encoder = Encoder::Chunked(Vec::new());
            outbox.out().extend_from_slice(b"head");
            for _ in 0..random.usize(..4) {
                let length = [1, 100, COPIED_MAX - 1, COPIED_MAX, 50_000][random.usize(..5)];
                let data = vec![random.u8(..); length];
                expected.extend_from_slice(format!("{length:x}\r\n").as_bytes());
                expected.extend_from_slice(&data);
                expected.extend_from_slice(b"\r\n");
                outbox.data(&mut encoder, data.into());
            }
            expected.extend_from_slice(b"0\r\n\r\n");
            outbox.end(&encoder, None);
            assert_eq!(flushed(outbox, || random.usize(1..60_000)), expected);
        }
    }

    #[test]
    fn a_buffer_serves_one_connection_after_another() {
        let mut first = Outbox::default();
        first.out().extend_from_slice(&[0; 1000]);
        let capacity = first.out().capacity();
        flushed(first, || 300);
        let mut next = Outbox::default();
        assert_eq!((next.out().capacity(), next.len()), (capacity, 0));
    }
}
