//! The codec as a whole: malicious heads, and the same result wherever the bytes are cut.

use bytes::Bytes;
use http::{Method, StatusCode};

use super::head::{self, Framing, Refused};
use super::{Decoder, Encoder, Malformed, Outbox, write};
use crate::message::{Fields, Name, OutgoingHead, RequestHead, ResponseHead};

const MAX: usize = 4096;

fn request(text: &str) -> Result<Option<Framing>, Refused> {
    let found = head::request(text.as_bytes(), MAX)?;
    Ok(found.map(|(head, length)| {
        assert_eq!(length, text.len(), "{text:?}");
        head.framing
    }))
}

fn with(fields: &str) -> String {
    format!("POST /x HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n")
}

#[test]
fn a_request_that_two_servers_could_read_as_two_is_refused() {
    let bad = [
        ("content-length: 5\r\ntransfer-encoding: chunked", Refused::TwoFramings),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0", Refused::TwoFramings),
        ("content-length: 5\r\ncontent-length: 6", Refused::Length),
        ("content-length: 5, 5", Refused::Length),
        ("content-length: 5,6", Refused::Length),
        ("content-length: +5", Refused::Length),
        ("content-length: -5", Refused::Length),
        ("content-length: 0x5", Refused::Length),
        ("content-length: 5 6", Refused::Length),
        ("content-length:", Refused::Length),
        ("content-length: 18446744073709551616", Refused::Length),
        ("transfer-encoding: gzip", Refused::Coding),
        ("transfer-encoding: gzip, chunked", Refused::Coding),
        ("transfer-encoding: chunked, identity", Refused::Coding),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked", Refused::Coding),
        ("transfer-encoding: chunked\r\ntransfer-encoding: identity", Refused::Coding),
        ("transfer-encoding: xchunked", Refused::Coding),
        ("transfer-encoding: \x0bchunked", Refused::Syntax("a field's value")),
        ("transfer-encoding:", Refused::Coding),
        ("transfer-encoding : chunked", Refused::Syntax("a field's name")),
        ("content-length : 5", Refused::Syntax("a field's name")),
        (" content-length: 5", Refused::Syntax("a field's name")),
        ("a: b\r\n content-length: 5", Refused::Syntax("a field's name")),
        ("a: b\r\n\tcontent-length: 5", Refused::Syntax("a field's name")),
        ("a: b\rcontent-length: 5", Refused::Syntax("a field's value")),
        ("a: b\0", Refused::Syntax("a field's value")),
        ("a\0: b", Refused::Syntax("a field's name")),
        ("a b: c", Refused::Syntax("a field's name")),
        (": b", Refused::Syntax("a field's name")),
        ("no colon", Refused::Syntax("a field's name")),
    ];
    for (fields, why) in bad {
        assert_eq!(request(&with(fields)).unwrap_err(), why, "{fields:?}");
    }
    let old = "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n";
    assert_eq!(request(old), Err(Refused::CodingOfOld));
}

#[test]
fn a_first_line_is_as_the_rfc_has_it() {
    let bad = [
        ("GET  / HTTP/1.1\r\n\r\n", 400),
        ("GET /a b HTTP/1.1\r\n\r\n", 400),
        ("GET /\r\n\r\n", 400),
        ("G\0T / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1 \r\n\r\n", 400),
        ("GET / http/1.1\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\n\r\n", 505),
        ("GET / HTTP/1.2\r\n\r\n", 505),
        ("GET / HTTP/1.10\r\n\r\n", 400),
        ("\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n", 400),
    ];
    for (text, status) in bad {
        let refused = request(text).unwrap_err();
        assert_eq!(refused.status().as_u16(), status, "{text:?}: {refused}");
    }
}

#[test]
fn a_head_is_bounded() {
    let status = |text: &str| request(text).unwrap_err().status().as_u16();
    assert_eq!(status(&with(&format!("a: {}", "b".repeat(MAX)))), 431);
    assert_eq!(status(&format!("GET / HTTP/1.1\r\na: {}", "b".repeat(MAX))), 431);
    assert_eq!(status(&format!("GET /{}", "b".repeat(MAX))), 414);
    assert_eq!(status(&format!("GET /{} HTTP/1.1\r\n\r\n", "b".repeat(MAX))), 414);
    assert_eq!(status(&with(&"a: b\r\n".repeat(256))), 431);
    assert_eq!(request(&with("a: b")[..20]), Ok(None));
}

#[test]
fn framings_that_are_one_pass() {
    let good = [
        ("a: b", Framing::Length(0)),
        ("content-length: 5", Framing::Length(5)),
        ("content-length: 5\r\nContent-Length: 5", Framing::Length(5)),
        ("content-length: 18446744073709551615", Framing::Length(u64::MAX)),
        ("transfer-encoding:  Chunked ", Framing::Chunked),
    ];
    for (fields, framing) in good {
        assert_eq!(request(&with(fields)), Ok(Some(framing)), "{fields:?}");
    }
    let twice = with("content-length: 5\r\ncontent-length: 5");
    let (head, _) = head::request(twice.as_bytes(), MAX).unwrap().unwrap();
    assert_eq!(head.head.fields.all(Name::ContentLength).count(), 1);
}

#[test]
fn a_response_is_framed_by_what_was_asked_and_its_head() {
    let framing = |asked: Method, line: &str, fields: &str| {
        let text = format!("HTTP/1.{line}\r\n{fields}\r\n\r\n");
        let found = head::response(text.as_bytes(), &asked, MAX).map_err(|_| "refused")?;
        found.map(|(head, _)| (head.framing, head.keep_alive)).ok_or("not whole")
    };
    let (get, head) = (Method::GET, Method::HEAD);
    let five = "content-length: 5";
    assert_eq!(framing(get.clone(), "1 200 OK", five), Ok((Framing::Length(5), true)));
    assert_eq!(framing(get.clone(), "0 200 OK", five), Ok((Framing::Length(5), false)));
    let kept = "connection: x, Keep-Alive\r\ncontent-length: 5";
    assert_eq!(framing(get.clone(), "0 200 OK", kept), Ok((Framing::Length(5), true)));
    let closed = "connection: Close\r\ncontent-length: 5";
    assert_eq!(framing(get.clone(), "1 200", closed), Ok((Framing::Length(5), false)));
    assert_eq!(framing(get.clone(), "1 200 OK", "a: b"), Ok((Framing::UntilClose, false)));
    assert_eq!(framing(head, "1 200 OK", five), Ok((Framing::Length(0), true)));
    assert_eq!(framing(get.clone(), "1 304 X", five), Ok((Framing::Length(0), true)));
    assert_eq!(framing(get.clone(), "1 204 X", "a: b"), Ok((Framing::Length(0), true)));
    let chunked = "transfer-encoding: chunked";
    assert_eq!(framing(get.clone(), "1 200 OK", chunked), Ok((Framing::Chunked, true)));
    for bad in
        ["transfer-encoding: gzip", "content-length: x", "content-length: 1\r\ncontent-length: 2"]
    {
        assert_eq!(framing(get.clone(), "1 200 OK", bad), Err("refused"), "{bad}");
    }
    let both = "content-length: 5\r\ntransfer-encoding: chunked";
    assert_eq!(framing(get.clone(), "1 200 OK", both), Err("refused"));
    assert_eq!(framing(get.clone(), "0 200 OK", chunked), Err("refused"));
    assert_eq!(framing(get, "1 99 OK", "a: b"), Err("refused"));
}

/// A body in each framing, and what must come out of it.
fn bodies(random: &mut fastrand::Rng) -> Vec<(Framing, Vec<u8>, Vec<u8>)> {
    let data: Vec<u8> = (0..random.usize(..3000)).map(|_| random.u8(..)).collect();
    let mut chunks = Vec::new();
    let mut rest = &data[..];
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(random.usize(1..=rest.len()));
        chunks.extend_from_slice(format!("{:x};é=\"1\"\r\n", chunk.len()).as_bytes());
        chunks.extend_from_slice(chunk);
        chunks.extend_from_slice(b"\r\n");
        rest = after;
    }
    chunks.extend_from_slice(b"000\r\nA: 1\r\nb: 2\r\n\r\n");
    let length = Framing::Length(data.len() as u64);
    vec![
        (length, data.clone(), data.clone()),
        (Framing::UntilClose, data.clone(), data.clone()),
        (Framing::Chunked, chunks, data),
    ]
}

fn decode(framing: Framing, mut bytes: Vec<u8>, cuts: &[usize]) -> Result<Vec<u8>, Malformed> {
    let mut decoder = Decoder::new(framing);
    let (mut out, mut at) = (Vec::new(), 0);
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        let piece = &mut bytes[at..cut];
        let (data, used) = decoder.decode(piece)?;
        assert!(used == piece.len() || decoder.is_done());
        out.extend_from_slice(&piece[data]);
        at = cut;
    }
    assert!(decoder.close() || framing != Framing::UntilClose);
    let trailers = decoder.trailers()?;
    assert_eq!(trailers.map(|t| t.len()), (framing == Framing::Chunked).then_some(2));
    Ok(out)
}

#[test]
fn a_body_is_the_same_wherever_it_is_cut() {
    let mut random = fastrand::Rng::with_seed(20);
    for _ in 0..300 {
        for (framing, bytes, data) in bodies(&mut random) {
            let mut cuts: Vec<_> =
                (0..random.usize(..40)).map(|_| random.usize(..=bytes.len())).collect();
            cuts.sort_unstable();
            assert_eq!(decode(framing, bytes.clone(), &cuts).as_ref(), Ok(&data));
            let everywhere: Vec<_> = (0..bytes.len()).collect();
            assert_eq!(decode(framing, bytes, &everywhere).as_ref(), Ok(&data));
        }
    }
}

#[test]
fn a_head_is_the_same_wherever_it_is_cut() {
    let text = with("Content-Length: 5\r\nx: y\r\nX: éz");
    for cut in 0..text.len() {
        assert_eq!(request(&text[..if text.is_char_boundary(cut) { cut } else { 0 }]), Ok(None));
    }
    assert_eq!(request(&text), Ok(Some(Framing::Length(5))));
}

/// What we write, we read as the same; and what breaks it, breaks it without a panic.
#[test]
fn no_bytes_make_the_codec_panic() {
    let mut random = fastrand::Rng::with_seed(7);
    let seeds = [
        with("content-length: 5"),
        with("transfer-encoding: chunked") + "5\r\nhello\r\n0\r\na: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello".to_owned(),
        "HTTP/1.0 304\r\n\r\n".to_owned(),
    ];
    for _ in 0..50_000 {
        let mut bytes = seeds[random.usize(..seeds.len())].clone().into_bytes();
        for _ in 0..random.usize(1..6) {
            let (at, byte) =
                (random.usize(..bytes.len()), b"\r\n\0 :;,0aZ\t\x80"[random.usize(..12)]);
            match random.u8(..3) {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        let framed = match head::request(&bytes, MAX) {
            Ok(Some((head, used))) => Some((head.framing, used)),
            _ => match head::response(&bytes, &Method::GET, MAX) {
                Ok(Some((head, used))) => Some((head.framing, used)),
                _ => None,
            },
        };
        if let Some((framing, used)) = framed {
            let mut decoder = Decoder::new(framing);
            if decoder.decode(&mut bytes[used..]).is_ok() {
                let _ = decoder.trailers();
            }
        }
    }
}

#[test]
fn what_is_written_reads_as_the_same() {
    let text = "POST /a%2fb?c HTTP/1.1\r\nhost: a\r\nX-A: 1\r\nx-a: 2\r\ntrailer: t\r\n\r\n";
    let (read, _) = head::request(text.as_bytes(), MAX).unwrap().unwrap();
    let RequestHead { method, uri, mut fields, .. } = *read.head;
    fields.remove(Name::Host);
    let head = OutgoingHead { method, target: uri.to_string().into(), fields };
    for exact in [None, Some(5)] {
        let mut encoder = Encoder::for_request(&head.method, &head.fields, exact);
        let mut outbox = Outbox::default();
        write::request(&head, b"b", &encoder, outbox.out());
        outbox.data(&mut encoder, Bytes::from_static(b"hello"));
        let trailers = [("t", "1"), ("u", "2")]
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        outbox.end(&encoder, Some(&trailers.into_iter().collect()));
        assert!(encoder.may_end());
        let bytes = std::mem::take(outbox.out());
        let (again, used) = head::request(&bytes, MAX).unwrap().unwrap();
        assert_eq!((&again.head.uri, again.head.fields.get(Name::Host)), (&uri, Some(&b"b"[..])));
        assert_eq!(again.head.fields.lines().filter(|line| line.name == b"x-a").count(), 2);
        let body = String::from_utf8(bytes[used..].to_vec()).unwrap();
        match exact {
            Some(_) => assert_eq!((again.framing, body.as_str()), (Framing::Length(5), "hello")),
            None => assert_eq!(body, "5\r\nhello\r\n0\r\nt: 1\r\n\r\n"),
        }
    }
}

#[test]
fn a_status_without_a_name_keeps_its_line() {
    let mut out = Vec::new();
    let status = StatusCode::from_u16(299).unwrap();
    let version = http::Version::HTTP_11;
    let head = ResponseHead { status, version, fields: Fields::default() };
    write::response(version, &head, &Encoder::Length(0), &mut out);
    assert_eq!(out, b"HTTP/1.1 299 -\r\ncontent-length: 0\r\n\r\n");
}
