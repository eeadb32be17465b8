//! Reads server-sent events from bytes that may be split anywhere: within a line, a CRLF or a character.

/// Largest event that is taken, bytes. A model's chunk is a few hundred; this leaves room for a whole tool
/// call in one piece.
const MAX_EVENT: usize = 1 << 20;

/// An event larger than [`MAX_EVENT`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// The state between two pieces.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    data: Option<Vec<u8>>,
    after_cr: bool,
}

impl Parser {
    /// Takes the next piece and appends the data of each event that it completes to `events`.
    ///
    /// # Errors
    /// When an event exceeds 1 MiB; the stream is then to be given up.
    pub(crate) fn push(&mut self, piece: &[u8], events: &mut Vec<String>) -> Result<(), TooLarge> {
        for &byte in piece {
            let second_of_crlf = self.after_cr && byte == b'\n';
            self.after_cr = byte == b'\r';
            if second_of_crlf {
                continue;
            }
            if byte == b'\n' || byte == b'\r' {
                self.end_line(events);
            } else {
                self.line.push(byte);
            }
            if self.line.len() + self.data.as_ref().map_or(0, Vec::len) > MAX_EVENT {
                return Err(TooLarge);
            }
        }
        Ok(())
    }

    fn end_line(&mut self, events: &mut Vec<String>) {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line);
        if line.is_empty() {
            if let Some(data) = self.data.take() {
                events.push(String::from_utf8_lossy(&data).into_owned());
            }
            return;
        }
        // Comments, and fields other than data, mean nothing here.
        let Some(rest) = line.strip_prefix(b"data") else { return };
        let value = match rest {
            [] => rest,
            [b':', b' ', value @ ..] | [b':', value @ ..] => value,
            _ => return,
        };
        match &mut self.data {
            Some(data) => {
                data.push(b'\n');
                data.extend_from_slice(value);
            }
            None => self.data = Some(value.to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&[u8]], expected: &[&str]) {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for piece in pieces {
            parser.push(piece, &mut events).unwrap();
        }
        assert_eq!(events, expected);
    }

    #[test]
    fn every_line_ending_ends_a_line() {
        check(&[b"data: a\n\ndata: b\r\n\r\ndata: c\r\r"], &["a", "b", "c"]);
    }

    #[test]
    fn a_stream_may_be_split_at_any_byte() {
        let stream = "\u{feff}: hello\r\ndata: {\"é\":\"🦀\"}\r\n\r\nevent: x\r\ndata:one\r\ndata: two\r\n\r\ndata: [DONE]\n\n";
        let expected = ["{\"é\":\"🦀\"}", "one\ntwo", "[DONE]"];
        for at in 0..=stream.len() {
            let (left, right) = stream.as_bytes().split_at(at);
            check(&[left, right], &expected);
        }
        let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
        check(&bytes, &expected);
    }

    #[test]
    fn an_event_that_never_ended_is_none() {
        check(&[b"data: a\n\ndata: b"], &["a"]);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut parser = Parser::default();
        assert_eq!(parser.push(&vec![b'a'; MAX_EVENT + 1], &mut Vec::new()), Err(TooLarge));
    }
}
