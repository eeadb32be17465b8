//! Heads as they go out. The framing's fields are written from the [`Encoder`]; those that stand in
//! the map are for others to read, and left out where they would say something else.

use http::{StatusCode, Version};

use super::encode::Encoder;
use crate::message::{Fields, Name, Names, OutgoingHead, ResponseHead};

/// Appends a request's head, of HTTP/1.1, to `host`.
pub fn request(head: &OutgoingHead, host: &[u8], encoder: &Encoder, out: &mut Vec<u8>) {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.target.as_bytes());
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
    fields.write(if keep_length { CODING } else { FRAMING }, out);
    match encoder {
        Encoder::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            decimal(*length, out);
            out.extend_from_slice(b"\r\n");
        }
        Encoder::Chunked(_) => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Encoder::Nothing | Encoder::UntilClose => {}
    }
}

const CODING: Names = Names::of(&[Name::TransferEncoding]);
const FRAMING: Names = Names::of(&[Name::TransferEncoding, Name::ContentLength]);

fn decimal(number: u64, out: &mut Vec<u8>) {
    let digits = number.checked_ilog10().unwrap_or(0) + 1;
    for digit in (0..digits).rev() {
        out.push(b'0' + (number / 10_u64.pow(digit) % 10) as u8);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_written_as_others_do() {
        for number in [0, 1, 9, 10, 99, 100, 1_234_567_890, u64::MAX] {
            let mut out = Vec::new();
            decimal(number, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }
}
