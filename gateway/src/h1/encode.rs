//! How a body goes out: its framing, chosen when the head is written.

use http::header::{HeaderMap, HeaderName};
use http::{Method, Version};

use super::head::has_no_body;
use crate::message::{Fields, Name, ResponseHead};

/// Puts a body into its framing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encoder {
    /// There is no body, and no framing field of ours; `content-length` in the head, if it is
    /// there, tells of another message's (RFC 9110, section 8.6: HEAD, 304).
    Nothing,
    /// So many bytes are still to go.
    Length(u64),
    /// Chunks; then the trailers of these names, which the head announced.
    Chunked(Vec<HeaderName>),
    /// Everything until the close; only for a peer that speaks HTTP/1.0.
    UntilClose,
}

impl Encoder {
    /// For a request of HTTP/1.1. `exact`: the body's length, where it is known.
    #[must_use]
    pub fn for_request(method: &Method, fields: &Fields, exact: Option<u64>) -> Self {
        match exact {
            Some(0) if !needs_length(method) && !fields.contains(Name::ContentLength) => {
                Self::Nothing
            }
            Some(length) => Self::Length(length),
            None => Self::Chunked(announced(fields)),
        }
    }

    /// For a response to a request of method `asked` by a peer of `version`.
    #[must_use]
    pub fn for_response(
        asked: &Method,
        version: Version,
        head: &ResponseHead,
        exact: Option<u64>,
    ) -> Self {
        match exact {
            _ if has_no_body(asked, head.status) => Self::Nothing,
            Some(length) => Self::Length(length),
            None if version < Version::HTTP_11 => Self::UntilClose,
            None => Self::Chunked(announced(&head.fields)),
        }
    }

    /// Appends what stands before `length` bytes of data.
    pub(super) fn before(&self, length: usize, out: &mut Vec<u8>) {
        if let Self::Chunked(_) = self {
            hex(length, out);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Appends what stands behind data.
    pub(super) fn behind(&self, out: &mut Vec<u8>) {
        if let Self::Chunked(_) = self {
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Counts data in; says how much of it may go.
    pub(super) fn admit(&mut self, length: usize) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Length(left) => {
                let n = length.min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= n as u64;
                n
            }
            Self::Chunked(_) | Self::UntilClose => length,
        }
    }

    /// Whether the peer can tell that the body is whole, were it to end now.
    #[must_use]
    pub fn may_end(&self) -> bool {
        !matches!(self, Self::Length(left) if *left > 0)
    }

    /// Appends the body's end. Trailers go only where they were announced.
    pub(super) fn end(&self, trailers: Option<&HeaderMap>, out: &mut Vec<u8>) {
        let Self::Chunked(announced) = self else { return };
        out.extend_from_slice(b"0\r\n");
        for (name, value) in trailers.into_iter().flatten() {
            if announced.contains(name) {
                super::write::field(name.as_str().as_bytes(), value.as_bytes(), out);
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Methods whose request without a body says so (RFC 9110, section 8.6).
fn needs_length(method: &Method) -> bool {
    ![Method::GET, Method::HEAD, Method::DELETE, Method::OPTIONS, Method::TRACE, Method::CONNECT]
        .contains(method)
}

/// RFC 9110, section 6.6.2.
fn announced(fields: &Fields) -> Vec<HeaderName> {
    let lines = fields.all(Name::Trailer);
    let names = lines.flat_map(|line| line.split(|b| *b == b','));
    names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).collect()
}

fn hex(number: usize, out: &mut Vec<u8>) {
    let digits = (usize::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(number >> (digit * 4)) & 15]);
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn a_size_is_written_as_others_do() {
        for number in [0, 1, 9, 10, 15, 16, 255, 256, 0xabc_def0, usize::MAX] {
            let mut out = Vec::new();
            hex(number, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{number:x}"));
        }
    }

    #[test]
    fn the_framing_is_the_shortest_that_is_true() {
        let none = Fields::default();
        let request = |method, exact| Encoder::for_request(&method, &none, exact);
        assert_eq!(request(Method::GET, Some(0)), Encoder::Nothing);
        assert_eq!(request(Method::POST, Some(0)), Encoder::Length(0));
        assert_eq!(request(Method::GET, Some(5)), Encoder::Length(5));
        assert_eq!(request(Method::POST, None), Encoder::Chunked(vec![]));
        let reply = |asked: Method, version, status: u16, exact| {
            let status = StatusCode::from_u16(status).unwrap();
            let head = ResponseHead { status, version, fields: Fields::default() };
            Encoder::for_response(&asked, version, &head, exact)
        };
        let (new, old) = (Version::HTTP_11, Version::HTTP_10);
        assert_eq!(reply(Method::HEAD, new, 200, Some(5)), Encoder::Nothing);
        assert_eq!(reply(Method::GET, new, 304, None), Encoder::Nothing);
        assert_eq!(reply(Method::GET, new, 200, Some(0)), Encoder::Length(0));
        assert_eq!(reply(Method::GET, new, 200, None), Encoder::Chunked(vec![]));
        assert_eq!(reply(Method::GET, old, 200, None), Encoder::UntilClose);
    }
}
