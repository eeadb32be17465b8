//! A head as it comes: found, checked and taken apart. What follows it is a [`Framing`].

use std::mem::MaybeUninit;

use std::ops::Range;

use bytes::Bytes;
use http::{Method, StatusCode, Uri, Version};

use crate::message::{Fields, Name, RequestHead, ResponseHead};

/// Most fields of a head.
pub const FIELDS_MAX: usize = 256;

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It isn't HTTP/1, or there is a character where none may be.
    #[error("the head is not HTTP/1.1: {0}")]
    Syntax(&'static str),
    /// RFC 9112, section 6.3: two lengths are two messages for two readers.
    #[error("content-length stands beside transfer-encoding")]
    TwoFramings,
    /// RFC 9112, section 6.3: no number, or several that differ.
    #[error("content-length is not one number")]
    Length,
    /// RFC 9112, section 6.1: HTTP/1.0 knows no transfer codings.
    #[error("a message of HTTP/1.0 has no transfer-encoding")]
    CodingOfOld,
    /// RFC 9112, section 6.1: a transfer coding that we don't know.
    #[error("the only transfer coding taken is chunked")]
    Coding,
    /// A request line over the bound, or a target longer than 65,534 bytes.
    #[error("the request's target is too long")]
    TargetTooLong,
    /// More bytes than the bound.
    #[error("the head is too long")]
    TooLong,
    /// More fields than [`FIELDS_MAX`].
    #[error("the head has more than 256 fields")]
    TooManyFields,
    /// Neither HTTP/1.1 nor HTTP/1.0.
    #[error("the version is neither HTTP/1.1 nor HTTP/1.0")]
    Version,
}

impl Refused {
    /// What a server answers to it.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Syntax(_) | Self::TwoFramings | Self::Length | Self::CodingOfOld => {
                StatusCode::BAD_REQUEST
            }
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::TooLong | Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Coding => StatusCode::NOT_IMPLEMENTED,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }
}

/// What follows a head, and how its end is known (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes; none where there is no body.
    Length(u64),
    /// Chunks, then perhaps trailers.
    Chunked,
    /// Everything until the close; a response's only.
    UntilClose,
}

/// A head, and what it says of what follows.
#[derive(Debug)]
pub struct Read<H> {
    /// The head.
    pub head: H,
    /// Its body.
    pub framing: Framing,
    /// The other side means to go on with the connection (RFC 9112, section 9.3).
    pub keep_alive: bool,
    /// All of the body, where it came together with the head; nothing follows then.
    pub whole: Option<Bytes>,
}

/// A head, and how long it is; `None` while its end is not there.
pub type Found<H> = Result<Option<(Read<H>, usize)>, Refused>;

type Parsed<'a> = [MaybeUninit<httparse::Header<'a>>; FIELDS_MAX];

/// Reads a request's head from the front of `bytes`, and says how long it is. `None`: its end is
/// not there yet.
///
/// # Errors
/// When it can't become a valid one of at most `max` bytes. The connection is lost then: nobody
/// knows where the next request begins.
pub fn request(bytes: &[u8], max: usize) -> Found<Box<RequestHead>> {
    let mut fields: Parsed<'_> = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let status = parsed.parse_with_uninit_headers(bytes, &mut fields);
    let status = status.map_err(|error| refused_request(error, bytes))?;
    let httparse::Status::Complete(length) = status else {
        return too_long(bytes, max, true).map_or(Ok(None), Err);
    };
    if let Some(refused) = too_long(&bytes[..length], max, true) {
        return Err(refused);
    }
    let method = Method::from_bytes(parsed.method.unwrap_or_default().as_bytes())
        .map_err(|_| Refused::Syntax("the method"))?;
    let (uri, version) = (uri(parsed.path.unwrap_or_default())?, version(parsed.version));
    let mut fields = read_fields(&bytes[..length], parsed.headers);
    let framing = request_framing(version, &mut fields)?;
    let keep_alive = keeps_alive(version, &fields);
    let head = Box::new(RequestHead { method, uri, version, fields });
    Ok(Some((Read { head, framing, keep_alive, whole: None }, length)))
}

/// Reads a response's head to a request of method `asked`, as [`request`] does a request's.
///
/// # Errors
/// As for [`request`].
pub fn response(bytes: &[u8], asked: &Method, max: usize) -> Found<ResponseHead> {
    let mut fields: Parsed<'_> = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields)
        .map_err(refused)?;
    let httparse::Status::Complete(length) = status else {
        return too_long(bytes, max, false).map_or(Ok(None), Err);
    };
    if let Some(refused) = too_long(&bytes[..length], max, false) {
        return Err(refused);
    }
    let status = StatusCode::from_u16(parsed.code.unwrap_or_default())
        .map_err(|_| Refused::Syntax("the status"))?;
    let version = version(parsed.version);
    let mut fields = read_fields(&bytes[..length], parsed.headers);
    let framing = response_framing(asked, status, version, &mut fields)?;
    let keep_alive = framing != Framing::UntilClose && keeps_alive(version, &fields);
    let head = ResponseHead { status, version, fields };
    Ok(Some((Read { head, framing, keep_alive, whole: None }, length)))
}

/// Whether the end of a head may be among `bytes`: a cheap look, so that a head that comes byte
/// by byte is not parsed at every byte.
#[must_use]
pub fn may_end(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, b"\n\r\n").is_some()
        || memchr::memmem::find(bytes, b"\n\n").is_some()
}

/// httparse takes what follows a target with a blank in it for a version.
fn refused_request(error: httparse::Error, bytes: &[u8]) -> Refused {
    let line = bytes.trim_ascii_start().split(|b| *b == b'\n').next().unwrap_or_default();
    let mut parts = line.split(|b| *b == b' ').skip(2);
    let is_version = parts.next().is_some_and(|version| version.starts_with(b"HTTP/"));
    match refused(error) {
        Refused::Version if !is_version || parts.next().is_some() => {
            Refused::Syntax("the first line")
        }
        refused => refused,
    }
}

fn refused(error: httparse::Error) -> Refused {
    match error {
        httparse::Error::TooManyHeaders => Refused::TooManyFields,
        httparse::Error::Version => Refused::Version,
        httparse::Error::HeaderName => Refused::Syntax("a field's name"),
        httparse::Error::HeaderValue => Refused::Syntax("a field's value"),
        httparse::Error::NewLine => Refused::Syntax("the end of a line"),
        httparse::Error::Status => Refused::Syntax("the status"),
        httparse::Error::Token => Refused::Syntax("the first line"),
    }
}

/// `is_request`: a bound that the first line alone reaches is the target's fault.
fn too_long(bytes: &[u8], max: usize, is_request: bool) -> Option<Refused> {
    if bytes.len() <= max {
        return None;
    }
    let in_first_line = is_request && memchr::memchr(b'\n', &bytes[..max]).is_none();
    Some(if in_first_line { Refused::TargetTooLong } else { Refused::TooLong })
}

/// Where `part` of `whole` is in it.
fn place(whole: &[u8], part: &[u8]) -> Range<usize> {
    let begin = part.as_ptr() as usize - whole.as_ptr() as usize;
    begin..begin + part.len()
}

fn uri(target: &str) -> Result<Uri, Refused> {
    if target.len() > usize::from(u16::MAX) - 1 {
        return Err(Refused::TargetTooLong);
    }
    Uri::try_from(target).map_err(|_| Refused::Syntax("the target"))
}

fn version(minor: Option<u8>) -> Version {
    if minor == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 }
}

fn read_fields(head: &[u8], parsed: &[httparse::Header<'_>]) -> Fields {
    let mut fields = Fields::of_head(head);
    for field in parsed {
        fields.read(place(head, field.name.as_bytes()), place(head, field.value));
    }
    fields
}

fn request_framing(version: Version, fields: &mut Fields) -> Result<Framing, Refused> {
    if is_chunked(version, fields)? {
        return Ok(Framing::Chunked);
    }
    Ok(Framing::Length(declared(fields)?.unwrap_or(0)))
}

fn response_framing(
    asked: &Method,
    status: StatusCode,
    version: Version,
    fields: &mut Fields,
) -> Result<Framing, Refused> {
    let chunked = is_chunked(version, fields)?;
    let declared = declared(fields)?;
    Ok(match declared {
        _ if has_no_body(asked, status) => Framing::Length(0),
        _ if chunked => Framing::Chunked,
        Some(length) => Framing::Length(length),
        None => Framing::UntilClose,
    })
}

/// Whether no body follows a response, whatever its head says (RFC 9112, section 6.3).
#[must_use]
pub fn has_no_body(asked: &Method, status: StatusCode) -> bool {
    *asked == Method::HEAD
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}

/// RFC 9112, section 6.1. Two codings, or two lines of them, are none that we know.
fn is_chunked(version: Version, fields: &Fields) -> Result<bool, Refused> {
    let mut codings = fields.all(Name::TransferEncoding);
    let Some(coding) = codings.next() else { return Ok(false) };
    if version < Version::HTTP_11 {
        return Err(Refused::CodingOfOld);
    }
    if fields.contains(Name::ContentLength) {
        return Err(Refused::TwoFramings);
    }
    let is_known = coding.eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
    if is_known { Ok(true) } else { Err(Refused::Coding) }
}

/// The declared length. Lines that repeat the same number become one (RFC 9110, section 8.6).
fn declared(fields: &mut Fields) -> Result<Option<u64>, Refused> {
    let mut lines = fields.all(Name::ContentLength);
    let Some(first) = lines.next() else { return Ok(None) };
    let length = number(first).ok_or(Refused::Length)?;
    let mut repeated = false;
    for line in lines {
        if number(line) != Some(length) {
            return Err(Refused::Length);
        }
        repeated = true;
    }
    if repeated {
        fields.copy(Name::ContentLength, Name::ContentLength);
    }
    Ok(Some(length))
}

/// Digits and nothing else: no sign, no list, no overflow.
fn number(text: &[u8]) -> Option<u64> {
    let digit = |number: u64, b: &u8| {
        let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    };
    if text.is_empty() { None } else { text.iter().try_fold(0, digit) }
}

fn keeps_alive(version: Version, fields: &Fields) -> bool {
    let mut names = fields.all(Name::Connection).flat_map(options);
    match version {
        Version::HTTP_11 => !names.any(|name| name.eq_ignore_ascii_case(b"close")),
        _ => names.any(|name| name.eq_ignore_ascii_case(b"keep-alive")),
    }
}

fn options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii)
}
