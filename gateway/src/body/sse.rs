//! Server-sent events on their way through: where something may be put in between two of them, and
//! what is put in. The events themselves pass as they come.

use crate::message::{Fields, Name};
use bytes::Bytes;

/// A comment and a blank line: keeps what is between us and the client awake, and makes no event
/// wherever [`Boundaries`] allow it. (The blank line is for readers that split at `\n\n`.)
pub const HEARTBEAT: Bytes = Bytes::from_static(b": heartbeat\n\n");

/// An `error` event with a problem as its data, JSON of one or more lines.
#[must_use]
pub fn error_event(problem: &str) -> Bytes {
    let mut event = String::with_capacity(problem.len() + 32);
    event.push_str("event: error\n");
    for line in problem.split(['\n', '\r']).filter(|line| !line.is_empty()) {
        event.push_str("data: ");
        event.push_str(line);
        event.push('\n');
    }
    event.push('\n');
    Bytes::from(event)
}

/// Whether anything may be put into the body behind these response headers: it is an event stream,
/// neither encoded nor of a given length.
#[must_use]
pub fn may_be_added_to(fields: &Fields) -> bool {
    let kind = fields.get(Name::ContentType).unwrap_or_default();
    let kind = kind.split(|&b| b == b';').next().unwrap_or_default().trim_ascii();
    let is_plain = |encoding: &[u8]| encoding.eq_ignore_ascii_case(b"identity");
    kind.eq_ignore_ascii_case(b"text/event-stream")
        && !fields.contains(Name::ContentLength)
        && fields.all(Name::ContentEncoding).all(is_plain)
}

/// Follows an event stream and knows whether it stands between two events: at its start, or after a
/// blank line and nothing but comments. Lines end as in the specification (WHATWG HTML, 9.2.5):
/// LF, CR LF or CR.
///
/// After a single CR it waits for what follows, which may be the LF of the same line end; after two
/// it doesn't, for a stream that ends its lines so. At the very start, it cannot know of a byte
/// order mark to come, which would then no longer be first.
#[derive(Debug)]
pub struct Boundaries {
    line: Line,
    /// Whether no field of an event came since the last blank line.
    clean: bool,
    tail: Tail,
}

/// What the current line is, by its first character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// The stream's first, so far this much of a byte order mark.
    First(usize),
    Empty,
    Comment,
    Field,
}

/// The line ends that were read last, where an LF may belong to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    Other,
    Cr,
    CrCr,
}

const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

impl Default for Boundaries {
    fn default() -> Self {
        Self::new()
    }
}

impl Boundaries {
    /// At the start of a stream, which is a boundary.
    #[must_use]
    pub fn new() -> Self {
        Boundaries { line: Line::First(0), clean: true, tail: Tail::Other }
    }

    /// Whether what was read so far ends between two events.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.clean && matches!(self.line, Line::First(0) | Line::Empty) && self.tail != Tail::Cr
    }

    /// Reads on. Most pieces end with an event: of those, only the end is looked at.
    pub fn feed(&mut self, piece: &[u8]) {
        if piece.ends_with(b"\n\n") || piece.ends_with(b"\r\n\r\n") {
            *self = Boundaries { line: Line::Empty, clean: true, tail: Tail::Other };
            return;
        }
        let mut rest = piece;
        while !rest.is_empty() {
            rest = match self.line {
                Line::First(matched) => self.first(matched, rest),
                Line::Empty => self.line_start(rest),
                Line::Comment | Line::Field => self.line_rest(rest),
            };
        }
    }

    /// Reads a byte of the stream's first line, while it may be a byte order mark.
    fn first<'a>(&mut self, matched: usize, rest: &'a [u8]) -> &'a [u8] {
        match rest {
            [byte, after @ ..] if *byte == BYTE_ORDER_MARK[matched] => {
                let all = matched + 1 == BYTE_ORDER_MARK.len();
                self.line = if all { Line::Empty } else { Line::First(matched + 1) };
                after
            }
            _ => {
                self.line = if matched == 0 { Line::Empty } else { Line::Field };
                self.clean = matched == 0;
                rest
            }
        }
    }

    /// Reads the first byte of a line.
    fn line_start<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let Some((&byte, after)) = rest.split_first() else { return rest };
        match byte {
            b'\n' if self.tail != Tail::Other => self.tail = Tail::Other,
            b'\n' | b'\r' => {
                self.clean = true;
                self.end_line(byte);
            }
            b':' => (self.line, self.tail) = (Line::Comment, Tail::Other),
            _ => (self.line, self.tail, self.clean) = (Line::Field, Tail::Other, false),
        }
        after
    }

    /// Reads to the end of a line.
    fn line_rest<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let Some(end) = memchr::memchr2(b'\n', b'\r', rest) else { return &[] };
        self.end_line(rest[end]);
        &rest[end + 1..]
    }

    fn end_line(&mut self, byte: u8) {
        self.tail = match (byte, self.tail) {
            (b'\r', Tail::Other) => Tail::Cr,
            (b'\r', _) => Tail::CrCr,
            _ => Tail::Other,
        };
        self.line = Line::Empty;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pieces: &[&str]) -> bool {
        let mut boundaries = Boundaries::new();
        pieces.iter().for_each(|piece| boundaries.feed(piece.as_bytes()));
        boundaries.at_boundary()
    }

    #[test]
    fn between_events_something_may_be_put_in() {
        for stream in [
            "",
            "\u{feff}",
            "\n",
            "data: x\n\n",
            "data: x\r\n\r\n",
            "data: x\r\r",
            "data: x\n\r\n",
            "data: x\r\n\n",
            "data: x\r\n\r\r",
            "data: x\n\n: comment\n",
            "data: x\n\n:\r\n",
            ": comment\r\n: and one more\n",
            "\u{feff}data: x\n\n",
            "event: a\ndata: x\n\n\n\n",
        ] {
            assert!(after(&[stream]), "{stream:?}");
        }
    }

    #[test]
    fn within_an_event_nothing_may() {
        for stream in [
            "d",
            "data: x",
            "data: x\n",
            "data: x\r",
            "data: x\r\n",
            "data: x\n\r",
            "data: x\r\n\r",
            "data: x\n: comment\n",
            "data: x\n\n: comm",
            "data: x\n\nevent: y\n",
            "data: x\n\n: comment\r",
            ":",
            "\r",
            "x\u{feff}\n",
        ] {
            assert!(!after(&[stream]), "{stream:?}");
        }
    }

    #[test]
    fn a_line_end_may_come_in_two_pieces() {
        assert!(!after(&["data: x\r\n\r"]));
        assert!(after(&["data: x\r\n\r", "\n"]));
        assert!(!after(&["data: x\r", "\n"]));
        assert!(after(&["data: x\r", "\n\n"]));
        assert!(after(&["data: x\n", "\n"]));
        assert!(!after(&["data: x\n\n", "data: y\n"]));
    }

    /// The specification's words, over the whole stream.
    fn naive(stream: &[u8]) -> bool {
        if BYTE_ORDER_MARK.starts_with(stream) && !stream.is_empty() && stream.len() < 3 {
            return false;
        }
        let text = stream.strip_prefix(&BYTE_ORDER_MARK).unwrap_or(stream);
        let text: String = text.iter().map(|&b| char::from(b)).collect();
        if text.ends_with('\r') && !text.ends_with("\r\r") {
            return false;
        }
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let mut in_event = false;
        for line in text.split_inclusive('\n') {
            match line {
                "\n" => in_event = false,
                comment if comment.starts_with(':') => {}
                _ => in_event = true,
            }
        }
        !in_event && (text.is_empty() || text.ends_with('\n'))
    }

    #[test]
    fn it_agrees_with_the_specification_however_the_stream_is_cut() {
        let mut random = fastrand::Rng::with_seed(5);
        let parts: [&[u8]; 12] = [
            b"\n",
            b"\n",
            b"\r",
            b"\r",
            b"\r\n",
            b"data: x",
            b":",
            b": c",
            b"id",
            b"\n\n",
            b"\xef\xbb\xbf",
            b"\xef",
        ];
        let mut found = 0;
        for _ in 0..30_000 {
            let stream: Vec<u8> = (0..random.usize(0..10))
                .flat_map(|_| parts[random.usize(..parts.len())].iter().copied())
                .collect();
            let mut boundaries = Boundaries::new();
            let mut from = 0;
            while from < stream.len() {
                let to = random.usize(from + 1..=stream.len().min(from + 9));
                boundaries.feed(&stream[from..to]);
                from = to;
                let expected = naive(&stream[..to]);
                assert_eq!(
                    boundaries.at_boundary(),
                    expected,
                    "{:?}",
                    stream[..to].escape_ascii().to_string()
                );
                found += usize::from(expected);
            }
        }
        assert!(found > 5_000, "{found}");
    }

    #[test]
    fn what_is_put_in_ends_at_a_boundary_and_a_heartbeat_starts_no_event() {
        let mut boundaries = Boundaries::new();
        boundaries.feed(&HEARTBEAT[..HEARTBEAT.len() - 1]);
        assert!(boundaries.at_boundary());
        boundaries.feed(b"data: x\n\n");
        boundaries.feed(&error_event("{}"));
        assert!(boundaries.at_boundary());
    }

    #[test]
    fn an_error_event_carries_the_problem_whatever_its_lines() {
        assert_eq!(error_event(r#"{"a":1}"#), "event: error\ndata: {\"a\":1}\n\n");
        let lines = error_event("{\n  \"a\": 1\r\n}");
        assert_eq!(lines, "event: error\ndata: {\ndata:   \"a\": 1\ndata: }\n\n");
    }

    #[test]
    fn only_a_plain_event_stream_may_be_added_to() {
        let check = |lines: &[(&str, &str)], expected: bool| {
            let fields: Fields = lines.iter().copied().collect();
            assert_eq!(may_be_added_to(&fields), expected, "{lines:?}");
        };
        let sse = ("content-type", "text/event-stream");
        check(&[sse], true);
        check(&[("content-type", "Text/Event-Stream ; charset=utf-8")], true);
        check(&[sse, ("content-encoding", "identity")], true);
        check(&[sse, ("content-encoding", "gzip")], false);
        check(&[sse, ("content-length", "10")], false);
        check(&[("content-type", "application/json")], false);
        check(&[("content-type", "text/event-streams")], false);
        check(&[], false);
    }
}
