//! Which agent a JSON body names: the top-level string member `agent`, read a piece at a time.
//!
//! A small resumable JSON reader that keeps nothing of the document but its own place in it. It is
//! strict (RFC 8259), so that no two readers of what it takes can disagree about who is named.

mod grammar;

use std::fmt;

use self::grammar::{Number, Text, is_plain, unescaped, utf8};

/// Deepest nesting that is read: one bit each. Common JSON readers stop at the same depth.
pub const MAX_DEPTH: u32 = 128;

/// How much of a name is kept, bytes: more than any type is long, so that a longer one is unknown.
const NAME_KEPT: usize = 128;

const MEMBER: &[u8] = b"agent";

/// Why a body names no agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// 400 `no-agent`: it is empty or something other than a JSON object.
    NotAnObject,
    /// 400 `bad-request`: it begins as a JSON object, but isn't a valid one.
    Invalid,
    /// 400 `bad-request`: it is nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// 400 `no-agent`: an object that has no `agent`, or not in the part that is read.
    Missing,
    /// 400 `no-agent`: its `agent` isn't a string.
    NotAString,
    /// 400 `ambiguous-agent`: it has `agent` twice, with whatever values.
    Twice,
}

impl std::error::Error for BodyError {}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BodyError::NotAnObject => {
                "no agent is named: there is neither the header x-agent-type nor the query \
                 parameter agent, and the body is not a JSON object"
            }
            BodyError::Invalid => "the body, which has to name the agent, is not valid JSON",
            BodyError::TooDeep => "the body, which has to name the agent, is nested too deep",
            BodyError::Missing => {
                "no agent is named: there is neither the header x-agent-type nor the query \
                 parameter agent, and the part of the body that is read for it has no top-level \
                 member \"agent\""
            }
            BodyError::NotAString => "the body's member \"agent\" is not a string",
            BodyError::Twice => "the body has the member \"agent\" twice",
        })
    }
}

/// Reads a body for its agent. Feed it the body as it comes; then [`finish`](Self::finish) when it
/// ended, or [`cut`](Self::cut) when as much as the table allows was read and more follows.
///
/// The whole body is read when it fits, since only its end shows that the agent isn't named twice;
/// of a longer one, the agent that was named once by then is taken.
#[derive(Debug)]
pub struct Scanner {
    state: State,
    /// What is open, innermost in the lowest bit: 1 for an object, 0 for an array.
    open: u128,
    depth: u32,
    /// Whether the string that is being read is a key.
    in_key: bool,
    /// How far that key is the top-level `agent`; `None` when it isn't.
    matched: Option<usize>,
    name: Name,
    failed: Option<BodyError>,
}

/// What is known of the agent.
#[derive(Debug)]
enum Name {
    Unseen,
    /// Its key was read, its value comes next or is being read.
    Reading(Vec<u8>),
    Known(String),
}

/// What comes next.
#[derive(Debug, Clone, Copy)]
enum State {
    /// The body's object.
    Start,
    /// A key, or the end of an object that has none yet.
    KeyOrEnd,
    Key,
    Colon,
    Value,
    /// A value, or the end of an array that has none yet.
    ValueOrEnd,
    /// A comma or the end of what is open.
    AfterValue,
    /// More of a string.
    Text(Text),
    /// More of a number.
    Number(Number),
    /// The rest of `true`, `false` or `null`.
    Literal(&'static [u8]),
    /// Nothing but white space.
    End,
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    /// Before a body.
    #[must_use]
    pub fn new() -> Self {
        Scanner {
            state: State::Start,
            open: 0,
            depth: 0,
            in_key: false,
            matched: None,
            name: Name::Unseen,
            failed: None,
        }
    }

    /// Reads on.
    ///
    /// # Errors
    /// As soon as the body cannot become a good one any more, and from then on.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), BodyError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut rest = piece;
        while let [byte, after @ ..] = rest {
            rest = if matches!(self.state, State::Text(Text::Plain)) && is_plain(*byte) {
                self.skip_plain(rest)
            } else {
                self.step(*byte).inspect_err(|&error| self.failed = Some(error))?;
                after
            };
        }
        Ok(())
    }

    /// The body ended.
    ///
    /// # Errors
    /// When it names no agent.
    pub fn finish(self) -> Result<String, BodyError> {
        match (self.failed, self.state, self.name) {
            (Some(error), ..) => Err(error),
            (None, State::End, Name::Known(name)) => Ok(name),
            (None, State::End, _) => Err(BodyError::Missing),
            (None, State::Start, _) => Err(BodyError::NotAnObject),
            _ => Err(BodyError::Invalid),
        }
    }

    /// The body goes on, but no more of it is read.
    ///
    /// # Errors
    /// When no agent was named so far.
    pub fn cut(self) -> Result<String, BodyError> {
        match (self.failed, self.name) {
            (Some(error), _) => Err(error),
            (None, Name::Known(name)) => Ok(name),
            (None, _) => Err(BodyError::Missing),
        }
    }

    fn step(&mut self, byte: u8) -> Result<(), BodyError> {
        match self.state {
            State::Text(text) => return self.text(text, byte),
            State::Number(number) => match number.next(byte) {
                Some(next) => {
                    self.state = State::Number(next);
                    return Ok(());
                }
                None if number.may_end() => self.state = State::AfterValue,
                None => return Err(BodyError::Invalid),
            },
            State::Literal(rest) => return self.literal(rest, byte),
            _ => {}
        }
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') { Ok(()) } else { self.token(byte) }
    }

    /// A byte that isn't white space, outside of strings, numbers and literals.
    fn token(&mut self, byte: u8) -> Result<(), BodyError> {
        match (self.state, byte) {
            (State::Start, b'{') => self.enter(true),
            (State::Start, _) => Err(BodyError::NotAnObject),
            (State::KeyOrEnd | State::Key, b'"') => {
                self.in_key = true;
                self.matched = (self.depth == 1).then_some(0);
                self.then(State::Text(Text::Plain))
            }
            (State::Colon, b':') => self.then(State::Value),
            (State::ValueOrEnd, b']') | (State::KeyOrEnd, b'}') => self.leave(byte),
            (State::Value | State::ValueOrEnd, _) => self.value(byte),
            (State::AfterValue, b',') if self.in_object() => self.then(State::Key),
            (State::AfterValue, b',') => self.then(State::Value),
            (State::AfterValue, b'}' | b']') => self.leave(byte),
            _ => Err(BodyError::Invalid),
        }
    }

    /// The first byte of a value.
    fn value(&mut self, byte: u8) -> Result<(), BodyError> {
        if self.depth == 1 && matches!(self.name, Name::Reading(_)) && byte != b'"' {
            return Err(BodyError::NotAString);
        }
        match byte {
            b'"' => self.then(State::Text(Text::Plain)),
            b'{' => self.enter(true),
            b'[' => self.enter(false),
            b't' => self.then(State::Literal(b"rue")),
            b'f' => self.then(State::Literal(b"alse")),
            b'n' => self.then(State::Literal(b"ull")),
            b'-' => self.then(State::Number(Number::Minus)),
            b'0' => self.then(State::Number(Number::Zero)),
            b'1'..=b'9' => self.then(State::Number(Number::Digit)),
            _ => Err(BodyError::Invalid),
        }
    }

    fn literal(&mut self, rest: &'static [u8], byte: u8) -> Result<(), BodyError> {
        match rest {
            [last] if *last == byte => self.then(State::AfterValue),
            [next, rest @ ..] if *next == byte => self.then(State::Literal(rest)),
            _ => Err(BodyError::Invalid),
        }
    }

    /// A byte of a string.
    fn text(&mut self, text: Text, byte: u8) -> Result<(), BodyError> {
        let next = match (text, byte) {
            (Text::Plain, b'"') => return self.end_text(),
            (Text::Plain, b'\\') => Text::Escape,
            (Text::Plain, 0..=0x1f) => return Err(BodyError::Invalid),
            (Text::Escape, b'u') => Text::Hex(4, 0),
            (Text::Escape, _) => {
                self.keep(&[unescaped(byte).ok_or(BodyError::Invalid)?]);
                Text::Plain
            }
            (Text::Hex(missing, value), _) => {
                let digit = char::from(byte).to_digit(16).ok_or(BodyError::Invalid)?;
                let value = value << 4 | digit as u16;
                if missing > 1 { Text::Hex(missing - 1, value) } else { self.keep_unit(value) }
            }
            (Text::Plain, _) => {
                self.keep(&[byte]);
                utf8(byte).ok_or(BodyError::Invalid)?
            }
            (Text::Utf8(missing, low, high), _) if (low..=high).contains(&byte) => {
                self.keep(&[byte]);
                if missing > 1 { Text::Utf8(missing - 1, 0x80, 0xbf) } else { Text::Plain }
            }
            (Text::Utf8(..), _) => return Err(BodyError::Invalid),
        };
        self.then(State::Text(next))
    }

    /// The end of a key, of the agent's name, or of any other string.
    fn end_text(&mut self) -> Result<(), BodyError> {
        if self.in_key {
            if self.matched.take() == Some(MEMBER.len()) {
                match self.name {
                    Name::Unseen => self.name = Name::Reading(Vec::new()),
                    _ => return Err(BodyError::Twice),
                }
            }
            self.in_key = false;
            return self.then(State::Colon);
        }
        if let (1, Name::Reading(name)) = (self.depth, &self.name) {
            self.name = Name::Known(String::from_utf8_lossy(name).into_owned());
        }
        self.then(State::AfterValue)
    }

    fn enter(&mut self, object: bool) -> Result<(), BodyError> {
        if self.depth == MAX_DEPTH {
            return Err(BodyError::TooDeep);
        }
        self.depth += 1;
        self.open = self.open << 1 | u128::from(object);
        self.then(if object { State::KeyOrEnd } else { State::ValueOrEnd })
    }

    fn leave(&mut self, byte: u8) -> Result<(), BodyError> {
        if self.in_object() != (byte == b'}') {
            return Err(BodyError::Invalid);
        }
        self.depth -= 1;
        self.open >>= 1;
        self.then(if self.depth == 0 { State::End } else { State::AfterValue })
    }
}

impl Scanner {
    /// Goes on with what comes next; never fails.
    fn then(&mut self, state: State) -> Result<(), BodyError> {
        self.state = state;
        Ok(())
    }

    fn in_object(&self) -> bool {
        self.open & 1 == 1
    }

    /// Takes the characters of a string that stand for themselves, and returns what follows them.
    fn skip_plain<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let end = rest.iter().position(|&byte| !is_plain(byte)).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        self.keep(run);
        after
    }

    /// Notes a part of a string, unescaped, where it may be `agent` or its value.
    fn keep(&mut self, part: &[u8]) {
        if self.in_key {
            self.matched = self.matched.and_then(|matched| {
                let end = matched + part.len();
                (MEMBER.get(matched..end) == Some(part)).then_some(end)
            });
        } else if let (1, Name::Reading(name)) = (self.depth, &mut self.name) {
            let room = NAME_KEPT - name.len();
            name.extend_from_slice(&part[..part.len().min(room)]);
        }
    }

    /// The same for one `\uXXXX`. Half a surrogate pair is no character, and in no type.
    fn keep_unit(&mut self, unit: u16) -> Text {
        let c = char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER);
        self.keep(c.encode_utf8(&mut [0; 4]).as_bytes());
        Text::Plain
    }
}

#[cfg(test)]
mod tests;
