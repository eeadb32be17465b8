//! A client of the gateway, or of the agent itself: HTTP/1.1 by hand, HTTP/2 by `h2`.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use tokio::net::TcpStream;

use crate::wire::{Left, Wire};

/// How long a body that nobody reads is pushed into the sockets.
const PUSH: Duration = Duration::from_millis(50);
/// What hyper's clients offer. (`h2` takes a connection of its default, 64 KiB, for an attack
/// when a hundred small pieces wait on it.)
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 5 * 1024 * 1024;

/// Which HTTP a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http {
    /// HTTP/1.1.
    One,
    /// HTTP/2, with prior knowledge.
    Two,
}

/// Each of them.
pub const BOTH: [Http; 2] = [Http::One, Http::Two];

impl Http {
    /// As it stands in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::One => "HTTP/1.1",
            Self::Two => "HTTP/2",
        }
    }
}

/// A request.
#[derive(Clone)]
pub struct Ask {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Path and query.
    pub target: String,
    /// Empty: none.
    pub body: Bytes,
}

impl Ask {
    /// Without a body.
    pub fn get(target: impl Into<String>) -> Self {
        Self { method: "GET", target: target.into(), body: Bytes::new() }
    }

    /// With a body of JSON.
    pub fn post(target: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { method: "POST", target: target.into(), body: body.into() }
    }

    /// As HTTP/1.1 has it.
    pub fn bytes(&self) -> Vec<u8> {
        let Self { method, target, body } = self;
        let mut head = format!("{method} {target} HTTP/1.1\r\nhost: bench\r\n");
        if !body.is_empty() {
            head += "content-type: application/json\r\n";
            head += &format!("content-length: {}\r\n", body.len());
        }
        head += "\r\n";
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }
}

/// One connection.
pub enum Client {
    /// HTTP/1.1.
    One(Wire),
    /// HTTP/2: a stream of a connection.
    Two(SendRequest<Bytes>),
}

/// A request that was sent.
pub enum Sent {
    /// HTTP/1.1.
    One,
    /// HTTP/2.
    Two(ResponseFuture, SendStream<Bytes>),
}

/// A response whose head is there.
pub struct Reply {
    /// Its status.
    pub status: u16,
    body: Body,
}

enum Body {
    One(Left),
    /// The stream stays open as long as its sending half is held.
    Two(RecvStream, SendStream<Bytes>),
}

impl Client {
    /// Opens a connection.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn connect(http: Http, address: SocketAddr) -> io::Result<Self> {
        if http == Http::One {
            return Ok(Self::One(Wire::connect(address).await?));
        }
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(stream)
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self::Two(sender))
    }

    /// Another client on the same HTTP/2 connection; a new connection where it is HTTP/1.1.
    pub async fn another(&self, address: SocketAddr) -> io::Result<Self> {
        match self {
            Self::One(_) => Self::connect(Http::One, address).await,
            Self::Two(sender) => Ok(Self::Two(sender.clone())),
        }
    }

    /// Sends a request; what the sockets don't take at once of a body that nobody reads stays out.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn send(&mut self, ask: &Ask) -> io::Result<Sent> {
        match self {
            Self::One(wire) => {
                // What does not fit into the sockets while nobody reads stays out.
                let written = tokio::time::timeout(PUSH, wire.write(&ask.bytes())).await;
                written.unwrap_or(Ok(())).map(|()| Sent::One)
            }
            Self::Two(sender) => {
                let uri = format!("http://bench{}", ask.target);
                let request = http::Request::builder().method(ask.method).uri(uri);
                let request = request.body(()).map_err(io::Error::other)?;
                let mut ready = sender.clone().ready().await.map_err(io::Error::other)?;
                let ends = ask.body.is_empty();
                let (response, mut stream) =
                    ready.send_request(request, ends).map_err(io::Error::other)?;
                if !ends {
                    stream.send_data(ask.body.clone(), true).map_err(io::Error::other)?;
                }
                Ok(Sent::Two(response, stream))
            }
        }
    }

    /// The head of the reply to what was sent.
    pub async fn reply(&mut self, sent: Sent) -> io::Result<Reply> {
        match (self, sent) {
            (Self::One(wire), Sent::One) => {
                let head = wire.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
                let status = head.second().parse().map_err(io::Error::other)?;
                Ok(Reply { status, body: Body::One(head.left) })
            }
            (_, Sent::Two(response, stream)) => {
                let response = response.await.map_err(io::Error::other)?;
                let status = response.status().as_u16();
                Ok(Reply { status, body: Body::Two(response.into_body(), stream) })
            }
            (Self::Two(_), Sent::One) => Err(io::Error::other("sent on another connection")),
        }
    }

    /// Sends and waits for the head, which has to be 200.
    pub async fn ask(&mut self, ask: &Ask) -> io::Result<Reply> {
        let sent = self.send(ask).await?;
        let reply = self.reply(sent).await?;
        match reply.status {
            200 => Ok(reply),
            status => Err(io::Error::other(format!("{} answered {status}", ask.target))),
        }
    }

    /// The next piece of a reply's body; `None` at its end.
    pub async fn piece(&mut self, reply: &mut Reply) -> io::Result<Option<Bytes>> {
        match (self, &mut reply.body) {
            (Self::One(wire), Body::One(left)) => wire.piece(left).await,
            (_, Body::Two(body, _)) => {
                let Some(piece) = body.data().await else { return Ok(None) };
                let piece = piece.map_err(io::Error::other)?;
                body.flow_control().release_capacity(piece.len()).map_err(io::Error::other)?;
                Ok(Some(piece))
            }
            (Self::Two(_), Body::One(_)) => Err(io::Error::other("a reply of another connection")),
        }
    }

    /// Reads a reply to its end; how long its body was.
    pub async fn whole(&mut self, mut reply: Reply) -> io::Result<u64> {
        let mut length = 0;
        while let Some(piece) = self.piece(&mut reply).await? {
            length += piece.len() as u64;
        }
        Ok(length)
    }
}

/// Where a client stands when it leaves.
pub enum Stage {
    /// Its request is sent, its reply is not there.
    Sent(Sent),
    /// Amid its reply.
    Reading(Reply),
}

/// Leaves a request: HTTP/1.1 closes the connection, HTTP/2 resets the stream.
pub fn leave(client: Client, stage: Stage) -> Option<Client> {
    match (client, stage) {
        (Client::One(_), _) => None,
        (
            client,
            Stage::Sent(Sent::Two(_, mut stream))
            | Stage::Reading(Reply { body: Body::Two(_, mut stream), .. }),
        ) => {
            stream.send_reset(Reason::CANCEL);
            Some(client)
        }
        (client, _) => Some(client),
    }
}
