//! Whether a path could mean another place to some server behind us. A safe one passes byte for
//! byte: nothing is decoded, merged or cleaned on the way.

/// In a path that is worth a second look.
const NOTE: u8 = 1;
/// Begins an escape.
const ESCAPE: u8 = 2;

static CLASS: [u8; 256] = classes();

const DOTS: &str = "has a dot segment (as written, or once it is decoded)";
const CONTROL: &str = "has a control character (as written, or once it is decoded)";
const NO_SLASH: &str = "does not begin with a slash";

/// Refuses what a lenient server could take for another path: control characters, and dot
/// segments as the most lenient reader would find them. That reader decodes escapes twice
/// (`%252e`; also `%u002e` and overlong UTF-8 such as `%c0%ae`), takes a backslash for a slash, and
/// cuts segments at `;`, and at a `?` or `#` that was encoded.
///
/// # Errors
/// What is wrong with it, to be put behind "the path".
pub(super) fn check(path: &str) -> Result<(), &'static str> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(NO_SLASH);
    }
    match bytes.iter().fold(0, |seen, &b| seen | CLASS[b as usize]) {
        0 => Ok(()),
        NOTE => verdict(bytes),
        _ => {
            let mut decoded = bytes.to_vec();
            for _ in 0..2 {
                replace(&mut decoded, lenient_escape);
                replace(&mut decoded, overlong);
            }
            verdict(&decoded)
        }
    }
}

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'%' => ESCAPE,
            b'.' | b'\\' | 0..=0x1f | 0x7f => NOTE,
            _ => 0,
        };
        byte += 1;
    }
    table
}

/// Looks at a path in which nothing is hidden any more. Decoding never hides what could be seen
/// before it (no character that matters here is part of an escape), so the last look is enough.
fn verdict(path: &[u8]) -> Result<(), &'static str> {
    if path.iter().any(u8::is_ascii_control) {
        return Err(CONTROL);
    }
    let mut segments = path.split(|b| matches!(b, b'/' | b'\\'));
    if segments.any(|segment| matches!(cut(segment), b"." | b"..")) {
        return Err(DOTS);
    }
    Ok(())
}

/// A segment without its parameters.
fn cut(segment: &[u8]) -> &[u8] {
    let end = segment.iter().position(|b| matches!(b, b';' | b'?' | b'#'));
    &segment[..end.unwrap_or(segment.len())]
}

/// Replaces each `%XX` by its byte, once and in place; what is no escape stays.
pub(super) fn percent_decode(bytes: &mut Vec<u8>) {
    replace(bytes, escape);
}

/// Replaces, in place, whatever `form` recognises at the start of its argument by the byte that it
/// stands for; it also says how wide that was.
fn replace(bytes: &mut Vec<u8>, form: impl Fn(&[u8]) -> Option<(u8, usize)>) {
    let (mut from, mut to) = (0, 0);
    while from < bytes.len() {
        let (byte, width) = form(&bytes[from..]).unwrap_or((bytes[from], 1));
        bytes[to] = byte;
        from += width;
        to += 1;
    }
    bytes.truncate(to);
}

/// `%XX`.
fn escape(at: &[u8]) -> Option<(u8, usize)> {
    match *at {
        [b'%', high, low, ..] => Some((hex(high)? << 4 | hex(low)?, 3)),
        _ => None,
    }
}

/// `%XX`, and `%u00XX` as some servers read it.
fn lenient_escape(at: &[u8]) -> Option<(u8, usize)> {
    match *at {
        [b'%', b'u' | b'U', b'0', b'0', high, low, ..] => Some((hex(high)? << 4 | hex(low)?, 6)),
        _ => escape(at),
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// An ASCII character in an overlong UTF-8 form. Well-formed UTF-8 has none.
fn overlong(at: &[u8]) -> Option<(u8, usize)> {
    match *at {
        [lead @ 0xc0..=0xc1, last @ 0x80..=0xbf, ..] => Some((ascii(lead, last), 2)),
        [0xe0, lead @ 0x80..=0x81, last @ 0x80..=0xbf, ..] => Some((ascii(lead, last), 3)),
        [0xf0, 0x80, lead @ 0x80..=0x81, last @ 0x80..=0xbf, ..] => Some((ascii(lead, last), 4)),
        _ => None,
    }
}

/// Seven bits: the lowest of the byte before, and six of the last.
fn ascii(before: u8, last: u8) -> u8 {
    (before & 1) << 6 | (last & 0x3f)
}

#[cfg(test)]
mod tests;
