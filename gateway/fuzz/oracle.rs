//! What holds of the HTTP/1 codec whatever the bytes are. Asked by the fuzz targets beside this file, and
//! by `gateway/tests/codec.rs` of the corpus and of a bounded number of damaged messages.
#![allow(dead_code, reason = "each target asks one of the two questions")]

use std::fmt::Debug;

use http::Method;
use switchyard::h1::{Decoder, Encoder, Framing, Malformed, Outbox, Refused, head};

/// Most bytes of a head: small, so that inputs reach it.
const HEAD_MAX: usize = 2048;
/// Cuts of one body.
const CUTS_MAX: usize = 16;

/// A head is found in the same way whatever has come of it and whatever follows.
///
/// # Panics
/// When it isn't.
pub(crate) fn head(bytes: &[u8]) {
    same_head(bytes, |bytes| {
        let found = head::request(bytes, HEAD_MAX)?;
        Ok(found.map(|(head, length)| (head.framing, length, format!("{head:?}"))))
    });
    for asked in [Method::GET, Method::HEAD] {
        same_head(bytes, |bytes| {
            let found = head::response(bytes, &asked, HEAD_MAX)?;
            Ok(found.map(|(head, length)| (head.framing, length, format!("{head:?}"))))
        });
    }
    if let Ok(Some((head, length))) = head::request(bytes, HEAD_MAX) {
        assert_ne!(head.framing, Framing::UntilClose, "a request's end has to be known");
        assert_eq!(head.framing, framing(&bytes[..length]), "a simple reader sees another body");
    }
}

/// How its body ends, how long it is, and all of it as text.
type Head = (Framing, usize, String);

fn same_head(bytes: &[u8], read: impl Fn(&[u8]) -> Result<Option<Head>, Refused>) {
    let whole = read(bytes);
    for end in 0..bytes.len() {
        match read(&bytes[..end]) {
            Ok(None) => {}
            Ok(found) => assert_eq!(Ok(found), whole, "what follows a head changes it"),
            Err(_) => assert!(whole.is_err(), "what is refused is taken when more comes"),
        }
    }
    if let Ok(Some((_, length, _))) = whole {
        assert!(length <= bytes.len() && length <= HEAD_MAX);
        assert!(head::may_end(&bytes[..length]), "a cheap look does not see a head's end");
        assert_eq!(read(&bytes[..length - 1]), Ok(None), "a head ends before its end");
    }
}

/// The framing of a request's head that was taken, by a reader that knows lines and colons.
fn framing(head: &[u8]) -> Framing {
    let values = |wanted: &str| -> Vec<String> {
        let lines = head.split(|b| *b == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
        let fields = lines.filter_map(|line| line.split_once(':'));
        let named = fields.filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        named.map(|(_, value)| value.trim_ascii().to_ascii_lowercase()).collect()
    };
    let (codings, lengths) = (values("transfer-encoding"), values("content-length"));
    match (codings.as_slice(), lengths.first()) {
        ([], None) => Framing::Length(0),
        ([coding], None) if coding == "chunked" => Framing::Chunked,
        ([], Some(length)) if is_number(length) && same(&lengths) => {
            Framing::Length(length.parse().expect("a length that was taken is not too large"))
        }
        _ => panic!("taken, with the codings {codings:?} and the lengths {lengths:?}"),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Leading zeros make no difference.
fn same(numbers: &[String]) -> bool {
    let digits = |number: &String| number.trim_start_matches('0').to_owned();
    numbers.windows(2).all(|pair| is_number(&pair[1]) && digits(&pair[0]) == digits(&pair[1]))
}

/// A body comes out of its framing in the same way wherever it is cut, and what is put into chunks
/// comes out of them as it was.
///
/// # Panics
/// When it doesn't.
pub(crate) fn body(bytes: &[u8]) {
    let cuts = cuts(bytes);
    let everywhere: Vec<_> = (0..bytes.len()).collect();
    let half = bytes.len() as u64 / 2;
    for framing in [Framing::Chunked, Framing::Length(half), Framing::UntilClose] {
        let whole = decoded(framing, bytes, &[]);
        assert_eq!(decoded(framing, bytes, &cuts), whole, "{framing:?}, cut at {cuts:?}");
        assert_eq!(decoded(framing, bytes, &everywhere), whole, "{framing:?}, byte by byte");
    }
    let mut written = chunks(bytes, &cuts);
    let length = written.len();
    written.extend_from_slice(b"GET ");
    for cuts in [cuts.as_slice(), &[]] {
        let read = decoded(Framing::Chunked, &written, cuts).expect("our own chunks are chunks");
        assert_eq!((read.data.as_slice(), read.used, read.done), (bytes, length, true));
    }
}

/// A body that was read.
#[derive(Debug, PartialEq)]
struct Decoded {
    data: Vec<u8>,
    used: usize,
    done: bool,
    trailers: String,
}

fn decoded(framing: Framing, bytes: &[u8], cuts: &[usize]) -> Result<Decoded, Malformed> {
    let mut decoder = Decoder::new(framing);
    let (mut data, mut used, mut at) = (Vec::new(), 0, 0);
    for end in cuts.iter().copied().chain([bytes.len()]) {
        let mut piece = bytes[at..end].to_vec();
        let (range, taken) = decoder.decode(&mut piece)?;
        assert!(taken == piece.len() || decoder.is_done(), "not all was used");
        assert!(range.end <= taken, "data beyond what was used");
        data.extend_from_slice(&piece[range]);
        used += taken;
        at = end;
    }
    let trailers = text(decoder.trailers()?);
    Ok(Decoded { data, used, done: decoder.is_done(), trailers })
}

fn text(value: impl Debug) -> String {
    format!("{value:?}")
}

/// Pieces as they come from an agent, in chunks.
fn chunks(bytes: &[u8], cuts: &[usize]) -> Vec<u8> {
    let (mut encoder, mut outbox, mut at) = (Encoder::Chunked(Vec::new()), Outbox::default(), 0);
    let mut written = Vec::new();
    for end in cuts.iter().copied().chain([bytes.len()]) {
        outbox.data(&mut encoder, bytes[at..end].to_vec().into());
        written.append(outbox.out());
        at = end;
    }
    outbox.end(&encoder, None);
    written.append(outbox.out());
    written
}

/// Where to cut, in order; the same for the same bytes.
fn cuts(bytes: &[u8]) -> Vec<usize> {
    // FNV-1a, then xorshift.
    let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let mut state = bytes.iter().fold(0xcbf2_9ce4_8422_2325, hash) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    let mut cuts: Vec<_> = (0..next() % CUTS_MAX).map(|_| next() % (bytes.len() + 1)).collect();
    cuts.sort_unstable();
    cuts
}
