//! What a connection has received and nobody has used yet: mostly nothing.
//!
//! Reads go into one buffer of the thread's. Heads are taken apart and bodies unframed right there,
//! and only what is passed on is copied, into exactly as much memory as it takes. A large piece
//! is not copied: it takes the buffer with it.

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::Method;
use http_body::Frame;

use super::decode::{Decoder, Malformed};
use super::head::{self, Found, Framing, Read, Refused};
use crate::message::{RequestHead, ResponseHead};
use crate::wire::Wire;

/// One read: enough for a large body to cost few calls, and to stay in a core's cache.
pub const READ: usize = 128 * 1024;
/// From here on a piece keeps the buffer that it was read into instead of being copied out of it:
/// what is pinned is at most four times what is needed.
const COPIED_MAX: u64 = 32 * 1024;
/// Least room for the rest of something of which a part is here.
const ROOM_MIN: usize = 4 * 1024;

thread_local! {
    static BUFFER: RefCell<BytesMut> = RefCell::default();
}

/// A head that does not come.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// What came is none.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The peer closed in the middle of it.
    #[error("the connection was closed in the middle of a head")]
    Cut,
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A body that breaks off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Its framing is broken.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The peer closed before its end.
    #[error("the connection was closed in the middle of a body")]
    Cut,
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Bytes of a connection that are here and not used.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: BytesMut,
    /// Of a head that is not whole: so many bytes were looked at.
    looked_at: usize,
}

impl Inbox {
    /// With bytes that were read before.
    #[must_use]
    pub fn new(begun: &[u8]) -> Self {
        Self { bytes: BytesMut::from(begun), looked_at: 0 }
    }

    /// Whether nothing is here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What is here; it is for somebody else from now on.
    #[must_use]
    pub fn take(&mut self) -> Bytes {
        self.looked_at = 0;
        std::mem::take(&mut self.bytes).freeze()
    }

    /// The next request's head, of at most `max` bytes. `None`: the client closed instead.
    ///
    /// # Errors
    /// See [`HeadError`]. Nothing can be read after one.
    pub fn poll_request(
        &mut self,
        wire: &Wire,
        max: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Read<Box<RequestHead>>>, HeadError>> {
        self.poll_head(wire, max, cx, |bytes| head::request(bytes, max))
    }

    /// The next response's head, of at most `max` bytes, 1xx ones among them. `None`: the server
    /// closed instead.
    ///
    /// # Errors
    /// See [`HeadError`]. Nothing can be read after one.
    pub fn poll_response(
        &mut self,
        wire: &Wire,
        (asked, max): (&Method, usize),
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Read<ResponseHead>>, HeadError>> {
        self.poll_head(wire, max, cx, |bytes| head::response(bytes, asked, max))
    }

    fn poll_head<H>(
        &mut self,
        wire: &Wire,
        max: usize,
        cx: &mut Context<'_>,
        parse: impl Fn(&[u8]) -> Found<H>,
    ) -> Poll<Result<Option<Read<H>>, HeadError>> {
        let mut bytes = std::mem::take(&mut self.bytes);
        let mut found = self.head_in(&mut bytes, max, &parse)?;
        self.keep(bytes);
        while found.is_none() {
            let looked_at = self.looked_at;
            let read = ready!(self.poll_read(wire, cx, |this, bytes, n| {
                if n == 0 { Ok(None) } else { this.head_in(bytes, max, &parse).map(Some) }
            }))?;
            match read? {
                Some(read) => found = read,
                None if looked_at == 0 => return Poll::Ready(Ok(None)),
                None => return Poll::Ready(Err(HeadError::Cut)),
            }
        }
        Poll::Ready(Ok(found))
    }

    /// Takes a head off the front of `bytes`, if all of it is there; and its body, if that is small
    /// and all of it there, too.
    fn head_in<H>(
        &mut self,
        bytes: &mut BytesMut,
        max: usize,
        parse: impl Fn(&[u8]) -> Found<H>,
    ) -> Result<Option<Read<H>>, Refused> {
        // An end of up to three bytes may have begun in what was looked at.
        let news = &bytes[self.looked_at.saturating_sub(3)..];
        let soon = bytes.len() <= max && bytes.len() < look_again(self.looked_at);
        if bytes.is_empty() || (self.looked_at > 0 && soon && !head::may_end(news)) {
            return Ok(None);
        }
        let Some((mut read, length)) = parse(bytes)? else {
            self.looked_at = bytes.len();
            return Ok(None);
        };
        self.looked_at = 0;
        bytes.advance(length);
        if let Framing::Length(length @ 1..COPIED_MAX) = read.framing
            && let Some(body) = bytes.get(..length as usize)
        {
            read.whole = Some(Bytes::copy_from_slice(body));
            read.framing = Framing::Length(0);
            bytes.advance(length as usize);
        }
        Ok(Some(read))
    }

    /// The next piece of a body: all data that one read brings; then its trailers, where there are
    /// some. It reads only when it is polled, and never beyond the body's end but for what came in
    /// the same read.
    ///
    /// # Errors
    /// See [`BodyError`]. Nothing can be read after one.
    pub fn poll_piece(
        &mut self,
        wire: &Wire,
        decoder: &mut Decoder,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if decoder.is_done() {
                let trailers = decoder.trailers().map_err(BodyError::from).transpose();
                return Poll::Ready(trailers.map(|read| read.map(Frame::trailers)));
            }
            let piece = match self.bytes.is_empty() {
                true => ready!(self.poll_read(wire, cx, |_, bytes, n| match n {
                    0 if decoder.close() => Ok(Bytes::new()),
                    0 => Err(BodyError::Cut),
                    _ => Ok(unframe(decoder, bytes)?),
                }))?,
                false => {
                    let mut bytes = std::mem::take(&mut self.bytes);
                    let piece = unframe_all(decoder, &mut bytes).map_err(BodyError::from);
                    self.keep(bytes);
                    piece
                }
            }?;
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
        }
    }

    /// Reads once, behind what is here, and lets `look` take what it wants off the front. `look` is
    /// also told how much was read: nothing, when the peer has closed.
    fn poll_read<T>(
        &mut self,
        wire: &Wire,
        cx: &mut Context<'_>,
        look: impl FnOnce(&mut Self, &mut BytesMut, usize) -> T,
    ) -> Poll<io::Result<T>> {
        if !self.bytes.is_empty() {
            self.bytes.reserve(self.bytes.len().clamp(ROOM_MIN, READ));
            let n = ready!(wire.poll_read(cx, &mut self.bytes))?;
            let mut bytes = std::mem::take(&mut self.bytes);
            let looked = look(self, &mut bytes, n);
            self.keep(bytes);
            return Poll::Ready(Ok(looked));
        }
        BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            buffer.reserve(READ);
            let n = ready!(wire.poll_read(cx, buffer))?;
            let looked = look(self, buffer, n);
            if !buffer.is_empty() {
                let rest = buffer.len();
                let rest = carve(buffer, 0..rest, rest);
                self.bytes = rest;
            }
            Poll::Ready(Ok(looked))
        })
    }

    /// Keeps what was not used, and no memory when all was.
    fn keep(&mut self, bytes: BytesMut) {
        self.bytes = if bytes.is_empty() { BytesMut::new() } else { bytes };
    }
}

/// A head that comes in small pieces is not parsed at each of them, but when its end may be there
/// or when it has doubled, so that what is no HTTP at all is noticed.
fn look_again(looked_at: usize) -> usize {
    looked_at.saturating_mul(2).max(512)
}

fn unframe(decoder: &mut Decoder, bytes: &mut BytesMut) -> Result<Bytes, Malformed> {
    let (data, used) = decoder.decode(bytes)?;
    if (data.len() as u64) < COPIED_MAX {
        let piece = Bytes::copy_from_slice(&bytes[data]);
        bytes.advance(used);
        return Ok(piece);
    }
    Ok(carve(bytes, data, used).freeze())
}

/// The same from memory of our own, which goes on with the piece where all of it is data.
fn unframe_all(decoder: &mut Decoder, bytes: &mut BytesMut) -> Result<Bytes, Malformed> {
    match decoder {
        Decoder::Length(left) if *left >= bytes.len() as u64 => {
            *left -= bytes.len() as u64;
            Ok(std::mem::take(bytes).freeze())
        }
        decoder => unframe(decoder, bytes),
    }
}

/// Takes `used` bytes off the front, of which `part` is kept.
fn carve(bytes: &mut BytesMut, part: std::ops::Range<usize>, used: usize) -> BytesMut {
    if (part.len() as u64) < COPIED_MAX {
        let kept = BytesMut::from(&bytes[part]);
        bytes.advance(used);
        return kept;
    }
    let mut kept = bytes.split_to(used);
    kept.truncate(part.end);
    kept.advance(part.start);
    kept
}
