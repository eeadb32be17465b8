//! Heads as they go out. The framing's fields are written from the [`Encoder`]; those that stand in
//! the map are for others to read, and left out where they would say something else.

use std::io::Write as _;

use http::{StatusCode, Version};

use super::encode::Encoder;
use crate::message::{Fields, Name, RequestHead, ResponseHead};

/// Appends a request's head, of HTTP/1.1, to `host`. Of its target, path and query are written.
pub fn request(head: &RequestHead, host: &[u8], encoder: &Encoder, out: &mut Vec<u8>) {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    field(b"host", host, out);
    fields(&head.fields, encoder, false, out);
    out.extend_from_slice(b"\r\n");
}

/// Appends a response's head. We speak HTTP/1.1 also to who speaks HTTP/1.0 (RFC 9110, section
/// 6.2), unless `version` says otherwise.
pub fn response(version: Version, head: &ResponseHead, encoder: &Encoder, out: &mut Vec<u8>) {
    let status = head.status;
    let version = if version < Version::HTTP_11 { "HTTP/1.0 " } else { "HTTP/1.1 " };
    out.extend_from_slice(version.as_bytes());
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("-").as_bytes());
    out.extend_from_slice(b"\r\n");
    // Of another message's length nothing may be said here (RFC 9110, section 8.6).
    let keep_length = !status.is_informational() && status != StatusCode::NO_CONTENT;
    fields(&head.fields, encoder, keep_length, out);
    out.extend_from_slice(b"\r\n");
}

/// `keep_length`: a `content-length` beside no body stays.
fn fields(fields: &Fields, encoder: &Encoder, keep_length: bool, out: &mut Vec<u8>) {
    let keep_length = keep_length && *encoder == Encoder::Nothing;
    for line in fields.lines() {
        let written = match line.known {
            Some(Name::ContentLength) => keep_length,
            Some(Name::TransferEncoding) => false,
            _ => true,
        };
        if written {
            field(line.name, line.value, out);
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
pub fn field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    // Once, instead of at each of the four parts.
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
