//! HTTP/1.1 on a socket, as much as the bench speaks on either side: heads, lengths and chunks.

use std::io;
use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest head that either side of the bench sends.
const HEAD_MAX: usize = 64 * 1024;
/// Room for one read.
const READ: usize = 64 * 1024;

/// A connection and what was read ahead of it.
pub struct Wire {
    stream: TcpStream,
    buffer: BytesMut,
}

/// A head: its first line, its fields, and how its body ends.
pub struct Head {
    /// What stands before the headers.
    pub first: String,
    /// How its body ends.
    pub left: Left,
    fields: String,
}

/// How much of a body is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// That many bytes.
    Length(u64),
    /// That many bytes of the current chunk; 0: a size line is next.
    Chunk(u64),
    /// The line end behind a chunk.
    ChunkEnd,
    /// The line ends behind the last chunk.
    Last,
}

impl Wire {
    /// Connects.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        Self::new(TcpStream::connect(address).await?)
    }

    /// On a connection that is there.
    ///
    /// # Errors
    /// When it is no more.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: BytesMut::new() })
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// When the peer has gone.
    pub async fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.stream.write_all(data).await
    }

    /// Writes all of it, unless the peer says something first, which is then read next. Whether all
    /// of it was written: an answer may come amid a request's body.
    pub async fn write_unless_answered(&mut self, data: &[u8]) -> bool {
        let Self { stream, buffer } = self;
        let (mut read, mut write) = stream.split();
        buffer.reserve(READ);
        tokio::select! {
            biased;
            // Where the peer has gone, its last words may still be read.
            written = write.write_all(data) => written.is_ok(),
            _ = read.read_buf(buffer) => false,
        }
    }

    /// Ends when the peer closes or resets; what it still says is thrown away.
    pub async fn closed(&mut self) {
        self.buffer.clear();
        while let Ok(1..) = self.stream.read_buf(&mut self.buffer).await {
            self.buffer.clear();
        }
    }

    /// The next head; `None` when the peer has closed instead.
    pub async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let text = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.advance(end + 4);
                return Ok(Some(Head::parse(&text)));
            }
            if self.buffer.len() > HEAD_MAX {
                return Err(io::Error::other("a head without an end"));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// The next piece of a body as it came in; `None` at its end.
    pub async fn piece(&mut self, left: &mut Left) -> io::Result<Option<Bytes>> {
        loop {
            match *left {
                Left::Length(0) => return Ok(None),
                Left::Length(rest) if !self.buffer.is_empty() => {
                    let piece = self.take(rest);
                    *left = Left::Length(rest - piece.len() as u64);
                    return Ok(Some(piece));
                }
                Left::Chunk(rest @ 1..) if !self.buffer.is_empty() => {
                    let piece = self.take(rest);
                    let rest = rest - piece.len() as u64;
                    *left = if rest == 0 { Left::ChunkEnd } else { Left::Chunk(rest) };
                    return Ok(Some(piece));
                }
                Left::Chunk(0) | Left::ChunkEnd | Left::Last => {
                    if let Some(line) = self.line() {
                        *left = after(*left, &line)?;
                        continue;
                    }
                }
                Left::Length(_) | Left::Chunk(_) => {}
            }
            if !self.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads a body to its end; how long it was.
    pub async fn whole(&mut self, mut left: Left) -> io::Result<u64> {
        let mut length = 0;
        while let Some(piece) = self.piece(&mut left).await? {
            length += piece.len() as u64;
        }
        Ok(length)
    }

    async fn fill(&mut self) -> io::Result<bool> {
        self.buffer.reserve(READ);
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    fn take(&mut self, most: u64) -> Bytes {
        let n = usize::try_from(most).unwrap_or(usize::MAX).min(self.buffer.len());
        self.buffer.split_to(n).freeze()
    }

    fn line(&mut self) -> Option<String> {
        let end = find(&self.buffer, b"\r\n")?;
        let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.advance(end + 2);
        Some(line)
    }
}

/// What comes behind a line of the chunked coding.
fn after(left: Left, line: &str) -> io::Result<Left> {
    match left {
        Left::ChunkEnd => Ok(Left::Chunk(0)),
        Left::Last if line.is_empty() => Ok(Left::Length(0)),
        Left::Last => Ok(Left::Last),
        _ => match u64::from_str_radix(line, 16).map_err(io::Error::other)? {
            0 => Ok(Left::Last),
            size => Ok(Left::Chunk(size)),
        },
    }
}

impl Head {
    fn parse(text: &str) -> Self {
        let (first, fields) = text.split_once("\r\n").unwrap_or((text, ""));
        let (first, fields) = (first.to_owned(), fields.to_owned());
        let mut left = Left::Length(0);
        for (name, value) in pairs(&fields) {
            if name.eq_ignore_ascii_case("content-length") {
                left = Left::Length(value.parse().unwrap_or(0));
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                left = Left::Chunk(0);
            }
        }
        Self { first, left, fields }
    }

    /// The value of a header field.
    pub fn field(&self, name: &str) -> Option<&str> {
        pairs(&self.fields).find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The second word of the first line: a response's status, a request's target.
    pub fn second(&self) -> &str {
        self.first.split(' ').nth(1).unwrap_or_default()
    }
}

fn pairs(fields: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = fields.split("\r\n").filter_map(|line| line.split_once(':'));
    lines.map(|(name, value)| (name, value.trim()))
}

fn find(data: &[u8], what: &[u8]) -> Option<usize> {
    data.windows(what.len()).position(|window| window == what)
}
