//! Agents that do as they are told: HTTP/1.1 servers on real sockets, at whose wire a test sits.
//!
//! [`Agent::manual`] hands every request to the test as a [`Call`]; [`Agent::with`] answers each by a
//! function. Both keep what they received and count connections.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::wire::{End, Framing, Head, Link, Reader, eventually, soon};

type Handler = Arc<dyn Fn(Call) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// One request that an agent got and has to answer, or not. Dropping it closes the connection.
pub struct Call {
    /// The connection.
    pub link: Link,
    /// The request's head, as it stood on the wire.
    pub head: Head,
    /// How much of the request's body is unread.
    pub framing: Framing,
    /// Which of the agent's connections this is, from 0.
    pub connection: usize,
    /// Which of this connection's requests this is, from 0.
    pub nth: usize,
    back: oneshot::Sender<Link>,
}

/// What all of an agent's connections share.
#[derive(Default)]
struct Shared {
    seen: Mutex<Vec<Head>>,
    accepts: AtomicUsize,
    open: AtomicUsize,
}

/// A running agent; dropping it closes its port and its connections.
pub struct Agent {
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    calls: mpsc::UnboundedReceiver<Call>,
    close_idle: watch::Sender<u32>,
    task: JoinHandle<()>,
}

impl Agent {
    /// An agent whose requests the test answers by hand: see [`Agent::call`].
    pub async fn manual() -> Agent {
        Agent::manual_on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    /// As [`Agent::manual`], on a listener that is there.
    pub fn manual_on(listener: TcpListener) -> Agent {
        let (sender, calls) = mpsc::unbounded_channel();
        let hand_over: Handler = Arc::new(move |call| {
            let _ = sender.send(call);
            Box::pin(async {})
        });
        Agent::on(listener, hand_over, calls)
    }

    /// An agent that answers each request by `answer`.
    pub async fn with<F>(answer: impl Fn(Call) -> F + Send + Sync + 'static) -> Agent
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Agent::with_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), answer)
    }

    /// As [`Agent::with`], on a listener that is there.
    pub fn with_on<F>(
        listener: TcpListener,
        answer: impl Fn(Call) -> F + Send + Sync + 'static,
    ) -> Agent
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (_, calls) = mpsc::unbounded_channel();
        Agent::on(listener, Arc::new(move |call| Box::pin(answer(call))), calls)
    }

    fn on(listener: TcpListener, handler: Handler, calls: mpsc::UnboundedReceiver<Call>) -> Agent {
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let (close_idle, closing) = watch::channel(0);
        let task = tokio::spawn(accept(listener, handler, Arc::clone(&shared), closing));
        Agent { addr, shared, calls, close_idle, task }
    }

    /// The next request of a manual agent.
    pub async fn call(&mut self) -> Call {
        soon("the agent is asked", self.calls.recv()).await.expect("a manual agent")
    }

    /// The next request of a manual agent, if it is there already.
    pub fn try_call(&mut self) -> Option<Call> {
        self.calls.try_recv().ok()
    }

    /// The heads of all requests so far.
    pub fn seen(&self) -> Vec<Head> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// How many requests came so far.
    pub fn count(&self) -> usize {
        self.shared.seen.lock().unwrap().len()
    }

    /// How many connections were accepted so far.
    pub fn accepts(&self) -> usize {
        self.shared.accepts.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Waits until `n` connections are open.
    pub async fn until_open(&self, n: usize) {
        eventually("the agent's connections are opened or closed", || async { self.open() == n })
            .await;
    }

    /// Closes the connections that wait for a request, and waits until they are.
    pub async fn close_idle(&self) {
        self.close_idle.send_modify(|n| *n += 1);
        self.until_open(0).await;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    handler: Handler,
    shared: Arc<Shared>,
    closing: watch::Receiver<u32>,
) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        while connections.try_join_next().is_some() {}
        let connection = shared.accepts.fetch_add(1, Ordering::SeqCst);
        shared.open.fetch_add(1, Ordering::SeqCst);
        let (handler, shared, closing) =
            (Arc::clone(&handler), Arc::clone(&shared), closing.clone());
        connections.spawn(async move {
            let open = Open(Arc::clone(&shared));
            serve(stream, connection, handler, &shared, closing).await;
            drop(open);
        });
    }
}

/// A connection is counted as open until this is dropped.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn serve(
    stream: TcpStream,
    connection: usize,
    handler: Handler,
    shared: &Shared,
    mut closing: watch::Receiver<u32>,
) {
    let mut link = Link::new(stream);
    closing.mark_unchanged();
    for nth in 0.. {
        let head = tokio::select! {
            head = link.reader.head() => head,
            _ = closing.changed() => return,
        };
        let Ok(head) = head else { return };
        shared.seen.lock().unwrap().push(head.clone());
        let framing = Framing::of(&head.headers, Framing::Done);
        let (back, returned) = oneshot::channel();
        handler(Call { link, head, framing, connection, nth, back }).await;
        match returned.await {
            Ok(again) => link = again,
            Err(_) => return,
        }
    }
}

impl Call {
    /// The method.
    pub fn method(&self) -> &str {
        self.head.word(0)
    }

    /// The path and query, as they stood on the wire.
    pub fn target(&self) -> &str {
        self.head.word(1)
    }

    /// A request header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)
    }

    /// Reads the rest of the request's body; fails the test if it breaks off.
    pub async fn body(&mut self) -> Vec<u8> {
        let (body, end) =
            soon("the request's body ends", self.link.reader.rest(&mut self.framing)).await;
        assert_eq!(end, End::Complete, "the request's body breaks off");
        body
    }

    /// The next piece of the request's body.
    pub async fn piece(&mut self) -> Result<bytes::Bytes, End> {
        soon("a piece of the request's body", self.link.reader.piece(&mut self.framing)).await
    }

    /// Fields after the body's last chunk.
    pub fn trailers(&self) -> &crate::wire::Headers {
        &self.link.reader.trailers
    }

    /// Sends bytes as they are. That the other side is gone is no failure here.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.link.writer.send(bytes).await;
    }

    /// Begins a chunked reply: `head` is the status line's end and further fields, `"200 OK\r\n…"`.
    pub async fn begin(&mut self, head: &str) {
        let head = head.trim_end();
        self.send(format!("HTTP/1.1 {head}\r\ntransfer-encoding: chunked\r\n\r\n")).await;
    }

    /// Begins an SSE reply.
    pub async fn begin_sse(&mut self) {
        self.begin("200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache").await;
    }

    /// Sends one chunk of a chunked reply.
    pub async fn chunk(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.link.writer.chunk(bytes).await;
    }

    /// Sends one SSE event as one chunk.
    pub async fn event(&mut self, data: &str) {
        self.chunk(format!("data: {data}\n\n")).await;
    }

    /// Ends a chunked reply; the connection goes on.
    pub async fn end(mut self) {
        let _ = self.link.writer.last_chunk().await;
        self.done().await;
    }

    /// Gives the connection back to wait for its next request, once this one's body was read.
    pub async fn done(mut self) {
        let _ = self.link.reader.rest(&mut self.framing).await;
        let _ = self.back.send(self.link);
    }

    /// Sends a whole reply with a length; the connection goes on.
    pub async fn reply(mut self, head: &str, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        let head = head.trim_end();
        let mut bytes =
            format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
        if self.method() != "HEAD" {
            bytes.extend_from_slice(body);
        }
        self.send(bytes).await;
        self.done().await;
    }

    /// Sends a whole JSON reply; the connection goes on.
    pub async fn json(self, body: &str) {
        self.reply("200 OK\r\ncontent-type: application/json", body).await;
    }

    /// Answers that this request was not begun, before reading its body.
    pub async fn not_begun(self) {
        self.reply("503 Service Unavailable\r\nx-switchyard-not-begun: 1", "not begun").await;
    }

    /// Waits until the gateway has left.
    pub async fn gone(&mut self) -> End {
        soon("the gateway leaves the agent", self.link.reader.gone()).await
    }

    /// The reading half, to watch it while something else is under way.
    pub fn reader(&mut self) -> &mut Reader {
        &mut self.link.reader
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        self.link.reset();
    }
}

/// Answers with the request's body, piece by piece as it comes.
pub async fn echo(mut call: Call) {
    let kind = call.header("content-type").unwrap_or("application/octet-stream").to_owned();
    call.begin(&format!("200 OK\r\ncontent-type: {kind}")).await;
    while let Ok(piece) = call.link.reader.piece(&mut call.framing).await {
        call.chunk(piece).await;
    }
    if call.framing == Framing::Done {
        call.end().await;
    }
}

/// An agent that answers every request with this JSON, after having read its body.
pub async fn answers(json: &'static str) -> Agent {
    Agent::with(move |mut call| async move {
        let _ = call.link.reader.rest(&mut call.framing).await;
        call.json(json).await;
    })
    .await
}

/// An agent that echoes.
pub async fn echoes() -> Agent {
    Agent::with(echo).await
}

/// A port that is taken but refuses connections, until it is told to listen.
pub struct Refusing {
    /// The address.
    pub addr: SocketAddr,
    socket: socket2::Socket,
}

impl Refusing {
    /// Takes a port. (Bound but not listening: no other test can get it, and a connect is refused.)
    pub fn new() -> Refusing {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        Refusing { addr, socket }
    }

    /// Accepts connections from now on.
    pub fn listen(self) -> TcpListener {
        self.socket.listen(128).unwrap();
        self.socket.set_nonblocking(true).unwrap();
        TcpListener::from_std(self.socket.into()).unwrap()
    }
}

/// A port whose accept queue is full: a connect is neither taken nor refused.
pub struct Full {
    /// The address.
    pub addr: SocketAddr,
    _held: (socket2::Socket, Vec<TcpStream>),
}

impl Full {
    /// Fills a port's queue.
    pub async fn new() -> Full {
        let refusing = Refusing::new();
        refusing.socket.listen(1).unwrap();
        let mut held = Vec::new();
        // A connect that works takes microseconds; one that is dropped is tried again after 1 s.
        while let Ok(stream) =
            tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(refusing.addr))
                .await
        {
            held.push(stream.unwrap());
            assert!(held.len() < 64, "the queue never fills");
        }
        Full { addr: refusing.addr, _held: (refusing.socket, held) }
    }
}
