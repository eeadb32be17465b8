//! HTTP/1.1 on a socket, byte by byte: what both the test's clients and its agents stand on.
//!
//! Nothing here is lenient or helpful: what is sent is what the test says, and what is read is
//! kept as it stood on the wire.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Longer than anything that works takes, even on a busy machine.
pub const CEILING: Duration = Duration::from_secs(20);

/// Waits for `future`, or fails the test with `what` did not happen.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(CEILING, future).await {
        Ok(output) => output,
        Err(_) => panic!("did not happen within {CEILING:?}: {what}"),
    }
}

/// Asks until the answer is yes, or fails the test with `what` did not come true.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    soon(what, async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Header fields in the order in which they came, names in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The first value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Every value of `name`.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect()
    }

    /// Whether `name` is there.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether one of the comma-separated members of `name` is `member`.
    pub fn lists(&self, name: &str, member: &str) -> bool {
        self.all(name)
            .iter()
            .flat_map(|v| v.split(','))
            .any(|m| m.trim().eq_ignore_ascii_case(member))
    }
}

/// A request's or a reply's head.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// Exactly what stood on the wire, blank line included (empty for HTTP/2).
    pub raw: Bytes,
    /// The request line or the status line.
    pub start: String,
    /// The fields.
    pub headers: Headers,
}

impl Head {
    /// Reads a head's bytes. Values are taken as Latin-1, so that no byte is lost.
    fn parse(raw: Bytes) -> Head {
        let text: String = raw.iter().map(|b| char::from(*b)).collect();
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines.take_while(|l| !l.is_empty()).map(|line| {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            (name.to_ascii_lowercase(), value.trim().to_owned())
        });
        let headers = Headers(fields.collect());
        Head { raw, start, headers }
    }

    /// The `n`th word of the first line.
    pub fn word(&self, n: usize) -> &str {
        self.start.split(' ').nth(n).unwrap_or_default()
    }
}

/// How a message's end is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    /// Chunks; so many bytes of the present one are still to come.
    Chunked(u64),
    /// Until the connection closes.
    Close,
    /// All was read.
    Done,
}

impl Framing {
    /// The framing that a head's fields announce; `otherwise` where they announce none.
    pub fn of(headers: &Headers, otherwise: Framing) -> Framing {
        if headers.lists("transfer-encoding", "chunked") {
            return Framing::Chunked(0);
        }
        match headers.get("content-length").map(str::parse) {
            Some(Ok(length)) => Framing::Length(length),
            Some(Err(_)) => panic!("content-length is no number: {headers:?}"),
            None => otherwise,
        }
    }
}

/// How a message, or a connection, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As its framing says that it must.
    Complete,
    /// The connection was closed before that.
    Cut,
    /// The connection was reset before that.
    Reset,
    /// The HTTP/2 stream was reset before that, with this code.
    Stream(u32),
}

/// The reading half of a connection.
pub struct Reader {
    half: OwnedReadHalf,
    buf: BytesMut,
    /// Fields after the last chunk, once it was read.
    pub trailers: Headers,
}

/// The writing half of a connection.
pub struct Writer {
    half: OwnedWriteHalf,
}

/// Both halves; public, so that a test can use them at the same time.
pub struct Link {
    /// What comes in.
    pub reader: Reader,
    /// What goes out.
    pub writer: Writer,
}

impl Link {
    /// A connection's two halves. Small writes go out at once.
    pub fn new(stream: TcpStream) -> Link {
        stream.set_nodelay(true).unwrap();
        let (read, write) = stream.into_split();
        let reader = Reader { half: read, buf: BytesMut::new(), trailers: Headers::default() };
        Link { reader, writer: Writer { half: write } }
    }

    /// Ends the connection with a reset instead of a close.
    pub fn reset(self) {
        reset(self.reader, self.writer);
    }
}

/// Ends a connection with a reset (a lingering time of zero; forgetting the writing half keeps it
/// from sending a FIN first).
pub fn reset(reader: Reader, writer: Writer) {
    let stream: &TcpStream = writer.half.as_ref();
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
    writer.half.forget();
    drop(reader);
}

impl Writer {
    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        self.half.as_ref()
    }

    /// Sends all of `bytes`.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.half.write_all(bytes.as_ref()).await
    }

    /// Sends one chunk.
    pub async fn chunk(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let bytes = bytes.as_ref();
        let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
        framed.extend_from_slice(bytes);
        framed.extend_from_slice(b"\r\n");
        self.send(framed).await
    }

    /// Sends the last chunk, without trailers.
    pub async fn last_chunk(&mut self) -> io::Result<()> {
        self.send("0\r\n\r\n").await
    }
}

impl Reader {
    /// Reads more; `Ok(0)` at the connection's end.
    async fn fill(&mut self) -> io::Result<usize> {
        self.buf.reserve(64 * 1024);
        self.half.read_buf(&mut self.buf).await
    }

    /// Waits until something is here that nobody has taken, and leaves it.
    pub async fn begun(&mut self) {
        if self.buf.is_empty() {
            self.fill().await.expect("a live connection");
        }
    }

    /// The next head; the way in which the connection ended if it ended before one was complete.
    pub async fn head(&mut self) -> Result<Head, End> {
        loop {
            if let Some(at) = find(&self.buf, b"\r\n\r\n") {
                return Ok(Head::parse(self.buf.split_to(at + 4).freeze()));
            }
            match self.fill().await {
                Ok(0) if self.buf.is_empty() => return Err(End::Complete),
                Ok(0) => return Err(End::Cut),
                Ok(_) => {}
                Err(_) => return Err(End::Reset),
            }
        }
    }

    /// The next piece of a body, or how it ended.
    pub async fn piece(&mut self, framing: &mut Framing) -> Result<Bytes, End> {
        match *framing {
            Framing::Done => Err(End::Complete),
            Framing::Length(0) => {
                *framing = Framing::Done;
                Err(End::Complete)
            }
            Framing::Length(left) => {
                let piece = self.some(left).await?;
                *framing = Framing::Length(left - piece.len() as u64);
                Ok(piece)
            }
            Framing::Close => match self.some(u64::MAX).await {
                Err(End::Cut) => {
                    *framing = Framing::Done;
                    Err(End::Complete)
                }
                other => other,
            },
            Framing::Chunked(0) => {
                let size = self.line().await?;
                let digits = size.split(';').next().unwrap_or_default().trim();
                match u64::from_str_radix(digits, 16).expect("a chunk's size is a number") {
                    0 => {
                        self.read_trailers().await?;
                        *framing = Framing::Done;
                        Err(End::Complete)
                    }
                    size => self.in_chunk(size, framing).await,
                }
            }
            Framing::Chunked(left) => self.in_chunk(left, framing).await,
        }
    }

    /// The rest of a body and how it ended.
    pub async fn rest(&mut self, framing: &mut Framing) -> (Vec<u8>, End) {
        let mut body = Vec::new();
        loop {
            match self.piece(framing).await {
                Ok(piece) => body.extend_from_slice(&piece),
                Err(end) => return (body, end),
            }
        }
    }

    /// Waits for the connection's end, throwing away what comes before it.
    pub async fn gone(&mut self) -> End {
        loop {
            self.buf.clear();
            match self.fill().await {
                Ok(0) => return End::Complete,
                Ok(_) => {}
                Err(_) => return End::Reset,
            }
        }
    }

    /// Whatever comes next, of any protocol, or how the connection ended.
    pub async fn raw(&mut self) -> Result<Bytes, End> {
        self.some(u64::MAX).await
    }

    async fn in_chunk(&mut self, left: u64, framing: &mut Framing) -> Result<Bytes, End> {
        let piece = self.some(left).await?;
        let left = left - piece.len() as u64;
        *framing = Framing::Chunked(left);
        if left == 0 {
            assert_eq!(self.line().await?, "", "a chunk ends with a line end");
        }
        Ok(piece)
    }

    /// At least one and at most `most` bytes.
    async fn some(&mut self, most: u64) -> Result<Bytes, End> {
        while self.buf.is_empty() {
            match self.fill().await {
                Ok(0) => return Err(End::Cut),
                Ok(_) => {}
                Err(_) => return Err(End::Reset),
            }
        }
        let n = most.min(self.buf.len() as u64);
        Ok(self.buf.split_to(usize::try_from(n).unwrap()).freeze())
    }

    async fn line(&mut self) -> Result<String, End> {
        loop {
            if let Some(at) = find(&self.buf, b"\r\n") {
                let line = self.buf.split_to(at + 2);
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            match self.fill().await {
                Ok(0) => return Err(End::Cut),
                Ok(_) => {}
                Err(_) => return Err(End::Reset),
            }
        }
    }

    async fn read_trailers(&mut self) -> Result<(), End> {
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(':') else { return Ok(()) };
            self.trailers.0.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
}

/// Where `needle` begins in `hay`.
pub fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|w| w == needle)
}
