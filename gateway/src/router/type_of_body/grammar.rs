//! The parts of JSON's grammar that end in the middle of a piece as often as not: strings and
//! numbers, as what may come next.

/// Within a string.
#[derive(Debug, Clone, Copy)]
pub(super) enum Text {
    Plain,
    /// After a backslash.
    Escape,
    /// After `\u` and some digits: how many are missing, and the value so far.
    Hex(u8, u16),
    /// Within a UTF-8 sequence: how many bytes are missing, and what the next may be.
    Utf8(u8, u8, u8),
}

/// Within a number, by what was read last.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    Minus,
    Zero,
    Digit,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
}

impl Number {
    /// What `byte` is after this, when it belongs to the number.
    pub(super) fn next(self, byte: u8) -> Option<Number> {
        match (self, byte) {
            (Number::Minus, b'0') => Some(Number::Zero),
            (Number::Minus | Number::Digit, b'0'..=b'9') => Some(Number::Digit),
            (Number::Zero | Number::Digit, b'.') => Some(Number::Point),
            (Number::Point | Number::Fraction, b'0'..=b'9') => Some(Number::Fraction),
            (Number::Zero | Number::Digit | Number::Fraction, b'e' | b'E') => Some(Number::E),
            (Number::E, b'+' | b'-') => Some(Number::Sign),
            (Number::E | Number::Sign | Number::Exponent, b'0'..=b'9') => Some(Number::Exponent),
            _ => None,
        }
    }

    pub(super) fn may_end(self) -> bool {
        matches!(self, Number::Zero | Number::Digit | Number::Fraction | Number::Exponent)
    }
}

/// Whether a byte within a string is a character that stands for itself.
pub(super) fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7f) && byte != b'"' && byte != b'\\'
}

/// The character after a backslash, unescaped.
pub(super) fn unescaped(byte: u8) -> Option<u8> {
    match byte {
        b'"' | b'\\' | b'/' => Some(byte),
        b'b' => Some(0x08),
        b'f' => Some(0x0c),
        b'n' => Some(b'\n'),
        b'r' => Some(b'\r'),
        b't' => Some(b'\t'),
        _ => None,
    }
}

/// What follows the first byte of a character that isn't ASCII (RFC 3629, 4).
pub(super) fn utf8(first: u8) -> Option<Text> {
    match first {
        0xc2..=0xdf => Some(Text::Utf8(1, 0x80, 0xbf)),
        0xe0 => Some(Text::Utf8(2, 0xa0, 0xbf)),
        0xed => Some(Text::Utf8(2, 0x80, 0x9f)),
        0xe1..=0xef => Some(Text::Utf8(2, 0x80, 0xbf)),
        0xf0 => Some(Text::Utf8(3, 0x90, 0xbf)),
        0xf1..=0xf3 => Some(Text::Utf8(3, 0x80, 0xbf)),
        0xf4 => Some(Text::Utf8(3, 0x80, 0x8f)),
        _ => None,
    }
}
