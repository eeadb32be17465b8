//! A body as it comes, out of its framing.

use std::ops::Range;

use http::HeaderMap;
use http_body::SizeHint;

use super::chunked::Chunked;
use super::head::Framing;

/// A body's framing is broken: nobody knows where the next message begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// Takes a body out of its framing.
#[derive(Debug)]
pub enum Decoder {
    /// So many bytes are still to come.
    Length(u64),
    /// Chunks. On the heap: few streams of a worker are at rest with a length to go.
    Chunked(Box<Chunked>),
    /// All that comes; `true` once the peer has closed.
    UntilClose(bool),
}

impl Decoder {
    /// For what follows a head.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Box::default()),
            Framing::UntilClose => Self::UntilClose(false),
        }
    }

    /// Moves the data in `input` together, and says where it is and how many bytes were used: all
    /// of them, unless the body ended before.
    ///
    /// # Errors
    /// When the framing is broken.
    pub fn decode(&mut self, input: &mut [u8]) -> Result<(Range<usize>, usize), Malformed> {
        match self {
            Self::Length(left) => {
                let n = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= n as u64;
                Ok((0..n, n))
            }
            Self::Chunked(chunked) => chunked.decode(input),
            Self::UntilClose(_) => Ok((0..input.len(), input.len())),
        }
    }

    /// The peer has closed. Whether the body is whole with that.
    #[must_use]
    pub fn close(&mut self) -> bool {
        if let Self::UntilClose(closed) = self {
            *closed = true;
        }
        self.is_done()
    }

    /// Whether the last byte was read. There may be trailers.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.is_done(),
            Self::UntilClose(closed) => *closed,
        }
    }

    /// Whether there is nothing more to take, trailers neither.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self {
            Self::Chunked(chunked) => chunked.is_over(),
            _ => self.is_done(),
        }
    }

    /// The trailers of a body that is done, once.
    ///
    /// # Errors
    /// When they are no fields.
    pub fn trailers(&mut self) -> Result<Option<HeaderMap>, Malformed> {
        match self {
            Self::Chunked(chunked) => chunked.trailers(),
            _ => Ok(None),
        }
    }

    /// How much is to come.
    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        match self {
            Self::Length(left) => SizeHint::with_exact(*left),
            Self::Chunked(chunked) if chunked.is_done() => SizeHint::with_exact(0),
            Self::UntilClose(true) => SizeHint::with_exact(0),
            _ => SizeHint::new(),
        }
    }
}
