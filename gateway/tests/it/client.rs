//! A client that sends exactly what the test asks for, over HTTP/1.1 or HTTP/2, and checks of every
//! reply what holds for every reply.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::ask::{Ask, Body};
use crate::open::Open;
use crate::reply::{Http, Reply, check, check_head};
use crate::wire::{End, Framing, Headers, Link, Reader, soon};

/// Where a client's connections go, and whether its replies must be as the gateway's are.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    /// The server.
    pub addr: SocketAddr,
    /// Whether what holds for the gateway's replies is asserted.
    pub checked: bool,
}

impl Client {
    /// A client of the gateway.
    pub fn of(addr: SocketAddr) -> Client {
        Client { addr, checked: true }
    }

    /// A client of some other server.
    pub fn unchecked(addr: SocketAddr) -> Client {
        Client { addr, checked: false }
    }

    /// An HTTP/1.1 connection.
    pub async fn connect(self) -> Conn {
        let stream = TcpStream::connect(self.addr).await.expect("the server accepts");
        Conn { link: Link::new(stream), client: self }
    }

    /// An HTTP/2 connection.
    pub async fn connect_h2(self) -> H2Conn {
        let stream = TcpStream::connect(self.addr).await.expect("the server accepts");
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let _ = connection.await;
        });
        H2Conn { sender, client: self, tasks }
    }

    /// Makes one request on a connection of its own and reads the reply to its end.
    pub async fn ask(self, http: Http, ask: Ask) -> Reply {
        self.open(http, ask).await.whole().await
    }

    /// Begins one request on a connection of its own.
    pub async fn open(self, http: Http, ask: Ask) -> Open {
        match http {
            Http::One => self.connect().await.open(ask).await,
            Http::Two => {
                let mut conn = self.connect_h2().await;
                let open = conn.open(ask).await;
                open.keeping(conn)
            }
        }
    }
}

/// An HTTP/1.1 connection.
pub struct Conn {
    /// The connection itself.
    pub link: Link,
    client: Client,
}

impl Conn {
    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon("the server reads", self.link.writer.send(bytes)).await.expect("a live connection");
    }

    /// Makes one request and reads the reply to its end.
    pub async fn ask(&mut self, ask: Ask) -> Reply {
        let head = ask.method == "HEAD";
        let mut bytes = ask.head(self.client.addr).into_bytes();
        bytes.extend_from_slice(&ask.body_bytes());
        self.send(bytes).await;
        self.reply_to(head).await
    }

    /// Waits until the next reply has begun.
    pub async fn begun(&mut self) {
        soon("a reply begins", self.link.reader.begun()).await;
    }

    /// Reads one reply to its end.
    pub async fn reply(&mut self) -> Reply {
        self.reply_to(false).await
    }

    async fn reply_to(&mut self, to_head: bool) -> Reply {
        let (mut reply, mut framing) = read_head(&mut self.link.reader, self.client, to_head).await;
        let (body, end) = soon("the reply ends", self.link.reader.rest(&mut framing)).await;
        reply.body = body;
        reply.end = end;
        reply.trailers = std::mem::take(&mut self.link.reader.trailers);
        if self.client.checked {
            check(&reply);
        }
        reply
    }

    /// Begins one request: its body goes out by itself while the reply is awaited.
    pub async fn open(mut self, ask: Ask) -> Open {
        self.send(ask.head(self.client.addr)).await;
        let Link { reader, mut writer } = self.link;
        let bytes = ask.body_bytes();
        let sending = tokio::spawn(async move {
            let _ = writer.send(bytes).await;
            writer
        });
        Open::one(self.client, ask.method == "HEAD", reader, sending)
    }

    /// Waits until the server has closed the connection.
    pub async fn gone(&mut self) -> End {
        soon("the server closes the connection", self.link.reader.gone()).await
    }
}

/// Reads heads until one that is no 1xx, except 101.
pub async fn read_head(reader: &mut Reader, client: Client, to_head: bool) -> (Reply, Framing) {
    loop {
        let head = soon("a reply begins", reader.head()).await;
        let head = head.unwrap_or_else(|end| panic!("no reply, but the connection's end: {end:?}"));
        let status: u16 = head.word(1).parse().expect("a status line");
        if (100..200).contains(&status) && status != 101 {
            continue;
        }
        let framing = match status {
            _ if to_head => Framing::Done,
            101 | 204 | 304 => Framing::Done,
            _ => Framing::of(&head.headers, Framing::Close),
        };
        let reply = empty(Http::One, status, head.headers);
        if client.checked {
            check_head(&reply);
        }
        return (reply, framing);
    }
}

/// A reply without a body.
pub fn empty(http: Http, status: u16, headers: Headers) -> Reply {
    let trailers = Headers::default();
    Reply { http, status, headers, body: Vec::new(), trailers, end: End::Complete }
}

/// An HTTP/2 connection.
pub struct H2Conn {
    sender: SendRequest<Bytes>,
    client: Client,
    tasks: JoinSet<()>,
}

impl H2Conn {
    /// Makes one request and reads the reply to its end.
    pub async fn ask(&mut self, ask: Ask) -> Reply {
        self.open(ask).await.whole().await
    }

    /// Begins one request: its body goes out by itself while the reply is awaited.
    pub async fn open(&mut self, ask: Ask) -> Open {
        self.try_open(ask).await.expect("a live connection")
    }

    /// As [`H2Conn::open`], on a connection that may be closing.
    pub async fn try_open(&mut self, ask: Ask) -> Result<Open, h2::Error> {
        let uri = format!("http://{}{}", self.client.addr, ask.target);
        let mut request = http::Request::builder().method(ask.method).uri(uri);
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        if let Body::Whole(body) = &ask.body {
            request = request.header("content-length", body.len());
        }
        let request = request.body(()).unwrap();
        let mut sender = soon("a stream may begin", self.sender.clone().ready()).await?;
        let ended = matches!(ask.body, Body::None);
        let (response, stream) = sender.send_request(request, ended)?;
        Ok(Open::two(self.client, ask, response, stream))
    }

    /// Waits until the server has closed the connection.
    pub async fn gone(&mut self) {
        soon("the server closes the connection", self.tasks.join_next()).await;
    }
}
