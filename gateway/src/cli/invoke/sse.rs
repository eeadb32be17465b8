//! Server-sent events out of bytes as they arrive, as the WHATWG HTML standard (9.2.6) reads them.

/// The largest event that is kept, in bytes: far above any reply of an agent, far below memory.
const MAX_EVENT: usize = 16 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// Its type; `message` when the stream names none.
    pub(super) name: String,
    /// Its data lines, joined by line feeds.
    pub(super) data: String,
}

/// An event grew beyond what is kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// A reader of one stream.
#[derive(Default)]
pub(super) struct Reader {
    line: Vec<u8>,
    after_return: bool,
    name: String,
    data: String,
    has_data: bool,
}

impl Reader {
    /// Takes the next bytes and gives the events that they complete.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLarge> {
        let mut events = Vec::new();
        for &byte in bytes {
            let after_return = std::mem::replace(&mut self.after_return, byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\n' | b'\r' => events.extend(self.end_line()),
                _ => self.line.push(byte),
            }
            if self.line.len() + self.data.len() > MAX_EVENT {
                return Err(TooLarge);
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        if line.is_empty() {
            return self.end_event();
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.data.push_str(value);
                self.has_data = true;
            }
            _ => {}
        }
        None
    }

    fn end_event(&mut self) -> Option<Event> {
        let name = std::mem::take(&mut self.name);
        let data = std::mem::take(&mut self.data);
        let name = if name.is_empty() { "message".to_owned() } else { name };
        std::mem::take(&mut self.has_data).then_some(Event { name, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&str], expected: &[(&str, &str)]) {
        let mut reader = Reader::default();
        let events = pieces.iter().flat_map(|piece| reader.read(piece.as_bytes()).unwrap());
        let events: Vec<_> = events.map(|event| (event.name, event.data)).collect();
        let expected: Vec<_> =
            expected.iter().map(|(name, data)| (name.to_string(), data.to_string())).collect();
        assert_eq!(events, expected);
    }

    #[test]
    fn events_end_at_blank_lines_wherever_the_pieces_are_cut() {
        check(&["event: tok", "en\nda", "ta: {}\n", "\n"], &[("token", "{}")]);
        check(&["data: a\r", "\ndata: b\r\n\r\n"], &[("message", "a\nb")]);
        check(&["data:a\r\rdata:b\r\r"], &[("message", "a"), ("message", "b")]);
    }

    #[test]
    fn comments_and_events_without_data_are_passed_over() {
        check(&[": beat\n\nevent: step\n\nid: 1\ndata\n\n"], &[("message", "")]);
    }

    #[test]
    fn an_unfinished_event_does_not_count() {
        check(&["event: final\ndata: {}\n"], &[]);
    }

    #[test]
    fn an_endless_line_is_given_up() {
        let mut reader = Reader::default();
        assert_eq!(reader.read(&vec![b'x'; MAX_EVENT + 1]), Err(TooLarge));
    }
}
