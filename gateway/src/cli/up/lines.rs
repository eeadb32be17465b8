//! Lines out of what a replica prints, none longer than a bound.

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

use super::console::Stream;

/// The longest line that is passed on, in bytes; the rest of a longer one is left out. A log line
/// that holds more is no line for people.
const MAX_LINE: usize = 8 << 10;

/// What stands where a line was cut.
const CUT: &str = " … (cut)";

/// Passes every line on until the stream ends. Bytes that aren't UTF-8 are replaced.
pub(super) async fn forward(from: impl AsyncRead + Unpin, to: Stream) {
    let mut from = BufReader::new(from);
    let mut line = Line::default();
    while let Ok(piece) = from.fill_buf().await {
        if piece.is_empty() {
            break;
        }
        let taken = line.take(piece);
        from.consume(taken);
        if line.complete {
            to.line(&line.text()).await;
            line = Line::default();
        }
    }
    if !line.bytes.is_empty() {
        to.line(&line.text()).await;
    }
}

/// A line as it grows.
#[derive(Default)]
struct Line {
    bytes: Vec<u8>,
    cut: bool,
    complete: bool,
}

impl Line {
    /// Takes what belongs to this line off the start of `piece`; gives the bytes used.
    fn take(&mut self, piece: &[u8]) -> usize {
        let end = piece.iter().position(|byte| *byte == b'\n');
        let part = &piece[..end.unwrap_or(piece.len())];
        let room = MAX_LINE - self.bytes.len();
        self.bytes.extend_from_slice(&part[..part.len().min(room)]);
        self.cut |= part.len() > room;
        self.complete = end.is_some();
        part.len() + usize::from(self.complete)
    }

    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        format!("{}{}", text.trim_end_matches('\r'), if self.cut { CUT } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let (mut line, mut all) = (Line::default(), Vec::new());
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                rest = &rest[line.take(rest)..];
                if line.complete {
                    all.push(std::mem::take(&mut line).text());
                }
            }
        }
        all
    }

    #[test]
    fn lines_end_where_they_end_whatever_the_pieces() {
        assert_eq!(lines(&[b"a", b"b\nc\r\n", b"\n"]), ["ab", "c", ""]);
        assert_eq!(lines(&[b"\xff\n"]), ["\u{fffd}"]);
    }

    #[test]
    fn a_line_without_end_is_cut_and_the_next_is_whole() {
        let long = vec![b'x'; 3 * MAX_LINE];
        let all = lines(&[&long, b"tail\nnext\n"]);
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].len(), MAX_LINE + CUT.len());
        assert_eq!(all[1], "next");
    }
}
