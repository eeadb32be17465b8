//! Agents that speak HTTP/2 with prior knowledge: each stream is handed to the test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use crate::wire::soon;

/// A running HTTP/2 agent; dropping it closes its port and its connections.
pub struct H2Agent {
    /// Where it listens.
    pub addr: SocketAddr,
    calls: mpsc::UnboundedReceiver<H2Call>,
    accepts: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

/// One stream that was opened.
pub struct H2Call {
    /// The request's head.
    pub request: Request<()>,
    /// The request's body.
    pub body: RecvStream,
    /// Which of the agent's connections this is, from 0.
    pub connection: usize,
    respond: SendResponse<Bytes>,
}

/// A reply that was begun.
pub struct H2Reply {
    stream: SendStream<Bytes>,
}

impl H2Agent {
    /// An agent whose streams the test answers by hand.
    pub async fn manual() -> H2Agent {
        H2Agent::start(None).await
    }

    /// As [`H2Agent::manual`], but its first connection answers the first request by a GOAWAY.
    pub async fn leaving_first() -> H2Agent {
        H2Agent::start(Some(0)).await
    }

    /// As [`H2Agent::leaving_first`], but the GOAWAY names the stream as begun; then the connection
    /// dies.
    pub async fn dying_first() -> H2Agent {
        H2Agent::start(Some(1)).await
    }

    /// `goaway_of_first`: the last stream that the first connection says it has begun.
    async fn start(goaway_of_first: Option<u8>) -> H2Agent {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, calls) = mpsc::unbounded_channel();
        let accepts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&accepts);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let connection = counted.fetch_add(1, Ordering::SeqCst);
                let sender = sender.clone();
                connections.spawn(async move {
                    match goaway_of_first.filter(|_| connection == 0) {
                        Some(last) => drop(goaway(stream, last).await),
                        None => serve(stream, connection, sender).await,
                    }
                });
            }
        });
        H2Agent { addr, calls, accepts, task }
    }

    /// The next stream.
    pub async fn call(&mut self) -> H2Call {
        soon("the HTTP/2 agent is asked", self.calls.recv()).await.expect("the agent runs")
    }

    /// How many connections were accepted so far.
    pub fn accepts(&self) -> usize {
        self.accepts.load(Ordering::SeqCst)
    }
}

impl Drop for H2Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, connection: usize, sender: mpsc::UnboundedSender<H2Call>) {
    let Ok(mut h2) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = h2.accept().await {
        let (parts, body) = request.into_parts();
        let request = Request::from_parts(parts, ());
        let _ = sender.send(H2Call { request, body, connection, respond });
    }
}

/// Answers the first request of a connection by a GOAWAY that says: no stream after `last` was
/// begun. (Frame by frame, for h2 itself would name the stream as begun and go on.)
async fn goaway(mut stream: TcpStream, last: u8) -> std::io::Result<()> {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const HEADERS: u8 = 1;
    let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, last, 0, 0, 0, 0];
    stream.read_exact(&mut [0; 24]).await?;
    stream.write_all(&SETTINGS).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        stream.read_exact(&mut vec![0; usize::try_from(length).unwrap()]).await?;
        if head[3] == HEADERS {
            return stream.write_all(&goaway).await;
        }
    }
}

impl H2Call {
    /// The path and query.
    pub fn target(&self) -> &str {
        self.request.uri().path_and_query().map_or("", |p| p.as_str())
    }

    /// A request header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.request.headers().get(name).and_then(|v| v.to_str().ok())
    }

    /// The next piece of the request's body that is not empty; `None` at its end.
    pub async fn piece(&mut self) -> Option<Result<Bytes, h2::Error>> {
        loop {
            let piece = soon("a piece of the request's body", self.body.data()).await;
            let Some(Ok(piece)) = piece else { return piece };
            let _ = self.body.flow_control().release_capacity(piece.len());
            if !piece.is_empty() {
                return Some(Ok(piece));
            }
        }
    }

    /// Reads the rest of the request's body.
    pub async fn whole(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(piece) = self.piece().await {
            all.extend_from_slice(&piece.expect("the request's body breaks off"));
        }
        all
    }

    /// Begins a reply.
    pub fn begin(&mut self, status: u16, headers: &[(&str, &str)]) -> H2Reply {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let stream = self.respond.send_response(response.body(()).unwrap(), false).unwrap();
        H2Reply { stream }
    }

    /// Sends a whole JSON reply.
    pub fn json(mut self, body: &str) {
        let headers = [("content-type", "application/json")];
        self.begin(200, &headers).end(body.to_owned());
    }

    /// Refuses the stream: nothing of it was begun.
    pub fn refuse(mut self) {
        self.respond.send_reset(Reason::REFUSED_STREAM);
    }

    /// Resets the stream.
    pub fn reset(mut self, reason: Reason) {
        self.respond.send_reset(reason);
    }

    /// Waits until the gateway has reset the stream.
    pub async fn gone(&mut self) -> Reason {
        let reset = std::future::poll_fn(|cx| self.respond.poll_reset(cx));
        soon("the gateway resets the stream", reset).await.unwrap_or(Reason::CANCEL)
    }
}

impl H2Reply {
    /// Sends a piece.
    pub fn send(&mut self, piece: impl Into<Bytes>) {
        self.stream.send_data(piece.into(), false).unwrap();
    }

    /// Sends the last piece.
    pub fn end(mut self, piece: impl Into<Bytes>) {
        self.stream.send_data(piece.into(), true).unwrap();
    }

    /// Ends with trailers.
    pub fn trailers(mut self, trailers: HeaderMap) {
        self.stream.send_trailers(trailers).unwrap();
    }

    /// Resets the stream.
    pub fn reset(mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }

    /// Waits until the gateway has reset the stream.
    pub async fn gone(&mut self) -> Reason {
        let reset = std::future::poll_fn(|cx| self.stream.poll_reset(cx));
        soon("the gateway resets the stream", reset).await.unwrap_or(Reason::CANCEL)
    }
}
