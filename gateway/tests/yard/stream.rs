//! A reply in server-sent events, read as it comes.

use std::collections::VecDeque;

use serde_json::Value;

use crate::harness::soon;

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub name: String,
    pub data: Value,
}

/// How a stream ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// As HTTP has it that a reply ends.
    Whole,
    /// The connection broke before that.
    Broken,
}

/// A reply whose events are read one by one.
pub struct Stream {
    reply: reqwest::Response,
    unread: Vec<u8>,
    events: VecDeque<Event>,
}

impl Stream {
    pub fn new(reply: reqwest::Response) -> Stream {
        Stream { reply, unread: Vec::new(), events: VecDeque::new() }
    }

    /// The next event, or the end.
    pub async fn next(&mut self) -> Result<Event, End> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            match soon("something comes on the stream", self.reply.chunk()).await {
                Ok(Some(piece)) => self.take(&piece),
                Ok(None) => return Err(End::Whole),
                Err(_) => return Err(End::Broken),
            }
        }
    }

    fn take(&mut self, piece: &[u8]) {
        self.unread.extend_from_slice(piece);
        while let Some(at) = self.unread.windows(2).position(|two| two == b"\n\n") {
            let block: Vec<_> = self.unread.drain(..at + 2).collect();
            let block = String::from_utf8(block).unwrap();
            let field = |name| block.lines().find_map(|line| line.strip_prefix(name));
            // Comments keep a silent stream alive, and are no events.
            let Some(data) = field("data: ") else { continue };
            let name = field("event: ").unwrap_or("message").to_owned();
            let data = serde_json::from_str(data).unwrap_or_else(|_| data.into());
            self.events.push_back(Event { name, data });
        }
    }

    /// Reads to the first event of that name; gives all up to and with it.
    pub async fn until(&mut self, name: &str) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            match self.next().await {
                Ok(event) => events.push(event),
                Err(end) => panic!("{end:?} before {name}: {events:?}"),
            }
            if events.last().is_some_and(|event| event.name == name) {
                return events;
            }
        }
    }

    /// Everything that is still to come.
    pub async fn rest(&mut self) -> (Vec<Event>, End) {
        let mut events = Vec::new();
        loop {
            match self.next().await {
                Ok(event) => events.push(event),
                Err(end) => return (events, end),
            }
        }
    }

    /// Reads a good reply to its end and checks what holds for each: nothing after `final`, which
    /// repeats the tokens. Gives the events, `final` last.
    pub async fn good(&mut self, mut before: Vec<Event>) -> Vec<Event> {
        let (rest, end) = self.rest().await;
        before.extend(rest);
        let finals = before.iter().filter(|event| event.name == "final").count();
        let last = before.last().expect("a good reply has events");
        assert_eq!((end, finals, last.name.as_str()), (End::Whole, 1, "final"), "{before:?}");
        assert_eq!(tokens(&before), last.data["output"].as_str().unwrap());
        before
    }
}

/// The tokens put together.
pub fn tokens(events: &[Event]) -> String {
    let tokens = events.iter().filter(|event| event.name == "token");
    tokens.map(|token| token.data["text"].as_str().unwrap()).collect()
}
