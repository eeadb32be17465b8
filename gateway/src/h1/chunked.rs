//! The chunked coding, read byte by byte wherever it is cut (RFC 9112, section 7.1).

use std::ops::Range;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::decode::Malformed;

/// Bytes of a body's chunk extensions, in all: nobody uses them, so they are skipped, but not for
/// ever (CVE-2023-39326 was that).
const EXTENSIONS_MAX: usize = 16 * 1024;
/// Bytes of the trailers.
const TRAILERS_MAX: usize = 16 * 1024;
/// Fields in the trailers.
const TRAILER_FIELDS_MAX: usize = 64;
/// Digits of a size: as many as anybody writes, with leading zeros.
const SIZE_DIGITS_MAX: u8 = 32;

/// Where in the coding the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// The size, of which so many digits were read.
    Size(u8),
    /// After the size: blanks, then an extension or the line's end.
    Blank,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// The first byte of a trailer's line, or of the last line.
    TrailerStart,
    Trailer,
    TrailerLf,
    LastLf,
    End,
}

/// Takes the coding off a body.
#[derive(Debug)]
pub struct Chunked {
    at: At,
    /// Of the chunk under way.
    left: u64,
    extensions: usize,
    trailers: Vec<u8>,
}

impl Default for Chunked {
    fn default() -> Self {
        Self { at: At::Size(0), left: 0, extensions: 0, trailers: Vec::new() }
    }
}

impl Chunked {
    /// Whether the last line was read.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.at == At::End
    }

    /// Whether there is nothing more to take, trailers neither.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_done() && self.trailers.is_empty()
    }

    /// Moves the data in `input` together, and says where it is and how many bytes were used:
    /// all of them, unless the body ended before.
    ///
    /// # Errors
    /// What is wrong with the coding.
    pub fn decode(&mut self, input: &mut [u8]) -> Result<(Range<usize>, usize), Malformed> {
        let mut data = 0..0;
        let mut used = 0;
        while used < input.len() && self.at != At::End {
            if self.at == At::Data {
                let n = (input.len() - used).min(usize::try_from(self.left).unwrap_or(usize::MAX));
                data = join(input, data, used..used + n);
                used += n;
                self.left -= n as u64;
                if self.left == 0 {
                    self.at = At::DataCr;
                }
            } else {
                self.at = self.step(input[used])?;
                used += 1;
            }
        }
        Ok((data, used))
    }

    /// One byte that is not data.
    fn step(&mut self, byte: u8) -> Result<At, Malformed> {
        Ok(match (self.at, byte) {
            (At::Size(digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                self.digit(byte)?;
                At::Size(digits.checked_add(1).filter(|n| *n <= SIZE_DIGITS_MAX).ok_or(SIZE)?)
            }
            (At::Size(0), _) => return Err(SIZE),
            (At::Size(_) | At::Blank | At::Extension, b'\r') => At::SizeLf,
            (At::Size(_) | At::Blank, b' ' | b'\t') => self.skipped(At::Blank)?,
            (At::Size(_) | At::Blank, b';') => self.skipped(At::Extension)?,
            (At::Size(_) | At::Blank, _) => return Err(SIZE),
            (At::Extension, b'\t' | b' '..=b'~' | 0x80..) => self.skipped(At::Extension)?,
            (At::SizeLf, b'\n') if self.left == 0 => At::TrailerStart,
            (At::SizeLf, b'\n') => At::Data,
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size(0),
            (At::TrailerStart, b'\r') => At::LastLf,
            (At::TrailerStart | At::Trailer, b'\n' | 0) => return Err(TRAILERS),
            (At::TrailerStart | At::Trailer, _) => self.trailer(byte)?,
            (At::TrailerLf, b'\n') => {
                self.trailers.push(byte);
                At::TrailerStart
            }
            (At::LastLf, b'\n') => At::End,
            _ => return Err(Malformed("a chunk's line does not end as it must")),
        })
    }

    fn digit(&mut self, byte: u8) -> Result<(), Malformed> {
        let digit = char::from(byte).to_digit(16).ok_or(SIZE)?;
        let shifted = self.left.checked_mul(16).ok_or(SIZE)?;
        self.left = shifted.checked_add(u64::from(digit)).ok_or(SIZE)?;
        Ok(())
    }

    fn skipped(&mut self, next: At) -> Result<At, Malformed> {
        self.extensions += 1;
        let fits = self.extensions <= EXTENSIONS_MAX;
        fits.then_some(next).ok_or(Malformed("the chunk extensions are too long"))
    }

    fn trailer(&mut self, byte: u8) -> Result<At, Malformed> {
        if self.trailers.len() >= TRAILERS_MAX {
            return Err(Malformed("the trailers are too long"));
        }
        self.trailers.push(byte);
        Ok(if byte == b'\r' { At::TrailerLf } else { At::Trailer })
    }

    /// The trailers of a body that has ended, once.
    ///
    /// # Errors
    /// When they are no fields.
    pub fn trailers(&mut self) -> Result<Option<HeaderMap>, Malformed> {
        if self.trailers.is_empty() || !self.is_done() {
            return Ok(None);
        }
        let mut text = std::mem::take(&mut self.trailers);
        text.extend_from_slice(b"\r\n");
        let mut fields = [httparse::EMPTY_HEADER; TRAILER_FIELDS_MAX];
        let parsed = httparse::parse_headers(&text, &mut fields).map_err(|_| TRAILERS)?;
        let httparse::Status::Complete((_, fields)) = parsed else { return Err(TRAILERS) };
        let mut trailers = HeaderMap::with_capacity(fields.len());
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| TRAILERS)?;
            let value = HeaderValue::from_bytes(field.value).map_err(|_| TRAILERS)?;
            trailers.append(name, value);
        }
        Ok(Some(trailers))
    }
}

const SIZE: Malformed = Malformed("a chunk's size is not a number");
const TRAILERS: Malformed = Malformed("the trailers are not fields");

/// Moves `more` behind `data`; where there is no data yet, nothing has to move.
fn join(input: &mut [u8], data: Range<usize>, more: Range<usize>) -> Range<usize> {
    if data.is_empty() {
        return more;
    }
    let end = data.end + more.len();
    input.copy_within(more, data.end);
    data.start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> Result<(String, Option<HeaderMap>, usize), Malformed> {
        let mut bytes = text.as_bytes().to_vec();
        let mut chunked = Chunked::default();
        let (data, used) = chunked.decode(&mut bytes)?;
        let data = String::from_utf8(bytes[data].to_vec()).unwrap();
        if !chunked.is_done() {
            return Err(Malformed("not done"));
        }
        Ok((data, chunked.trailers()?, used))
    }

    #[test]
    fn chunks_become_one_piece() {
        let body = "5\r\nhello\r\n00A;x=\"y\" \r\n, world!!!\r\n0 \r\n\r\n";
        let (data, trailers, used) = decode(&format!("{body}GET /")).unwrap();
        assert_eq!((data.as_str(), trailers, used), ("hello, world!!!", None, body.len()));
    }

    #[test]
    fn trailers_are_fields() {
        let (_, trailers, _) = decode("0\r\nA: 1\r\nb:2 \r\na: 3\r\n\r\n").unwrap();
        let trailers = trailers.unwrap();
        let a: Vec<_> = trailers.get_all("a").iter().map(|value| value.as_bytes()).collect();
        assert_eq!((a, trailers["b"].as_bytes()), (vec![&b"1"[..], b"3"], &b"2"[..]));
    }

    #[test]
    fn what_two_readers_could_take_for_two_bodies_is_refused() {
        let bad = [
            "\r\n",
            ";x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "g\r\n",
            "1 2\r\n",
            "1\n",
            "1;x\n",
            "1\r\r\n",
            "1;x\r\r\n",
            "1;\0\r\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            "1\r\na\r\r\n",
            "0\r\n\n",
            "0\r\n\r\r\n",
            "0\r\na\r\n\r\n",
            "0\r\na: b\n\r\n",
            "0\r\na : b\r\n\r\n",
            "0\r\n a: b\r\n\r\n",
            "0\r\na: b\r\n c\r\n\r\n",
            "0\r\na: b\0\r\n\r\n",
            "10000000000000000\r\n",
            "ffffffffffffffffff\r\n",
            "000000000000000000000000000000000\r\n",
        ];
        for text in bad {
            assert!(decode(text).is_err_and(|e| e.0 != "not done"), "{text:?}");
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let long = "x".repeat(EXTENSIONS_MAX);
        assert!(decode(&format!("1;{long}\r\na\r\n0\r\n\r\n")).is_err());
        let many = format!("1;{}\r\na\r\n", "x".repeat(EXTENSIONS_MAX / 8)).repeat(9);
        assert!(decode(&format!("{many}0\r\n\r\n")).is_err());
        assert!(decode(&format!("0\r\na: {}\r\n\r\n", "x".repeat(TRAILERS_MAX))).is_err());
        assert!(decode(&format!("0\r\n{}\r\n", "a: b\r\n".repeat(65))).is_err());
    }
}
