//! Heads as they go out. The framing's fields are written from the [`Encoder`]; those that stand in
//! the map are for others to read, and left out where they would say something else.

use std::io::Write as _;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri, Version};

use super::encode::Encoder;

/// Appends a request's head, of HTTP/1.1. Of `target`, path and query are written.
pub fn request(
    method: &Method,
    target: &Uri,
    headers: &HeaderMap,
    encoder: &Encoder,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    let target = target.path_and_query().map_or("/", |target| target.as_str());
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    fields(headers, encoder, false, out);
    out.extend_from_slice(b"\r\n");
}

/// Appends a response's head. We speak HTTP/1.1 also to who speaks HTTP/1.0 (RFC 9110, section
/// 6.2), unless `version` says otherwise.
pub fn response(
    version: Version,
    status: StatusCode,
    headers: &HeaderMap,
    encoder: &Encoder,
    out: &mut Vec<u8>,
) {
    let version = if version < Version::HTTP_11 { "HTTP/1.0 " } else { "HTTP/1.1 " };
    out.extend_from_slice(version.as_bytes());
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("-").as_bytes());
    out.extend_from_slice(b"\r\n");
    // Of another message's length nothing may be said here (RFC 9110, section 8.6).
    let keep_length = !status.is_informational() && status != StatusCode::NO_CONTENT;
    fields(headers, encoder, keep_length, out);
    out.extend_from_slice(b"\r\n");
}

/// `keep_length`: a `content-length` beside no body stays.
fn fields(headers: &HeaderMap, encoder: &Encoder, keep_length: bool, out: &mut Vec<u8>) {
    let keep_length = keep_length && *encoder == Encoder::Nothing;
    for (name, value) in headers {
        let is_length = name == header::CONTENT_LENGTH && !keep_length;
        if !is_length && name != header::TRANSFER_ENCODING {
            field(name, value, out);
        }
    }
    match encoder {
        Encoder::Length(length) => {
            write!(out, "content-length: {length}\r\n").expect("a vector takes all");
        }
        Encoder::Chunked(_) => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Encoder::Nothing | Encoder::UntilClose => {}
    }
}

/// Appends one field.
pub fn field(name: &HeaderName, value: &HeaderValue, out: &mut Vec<u8>) {
    let name = name.as_str().as_bytes();
    // Once, instead of at each of the four parts.
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}
