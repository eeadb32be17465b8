//! One worker's connections to endpoints: idle ones to use again, and how new ones are made.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::TokioTimer;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::http1::{Http1, Http1Body};
use crate::body::RequestBody;
use crate::headroom::{self, Headroom};
use crate::pool::Endpoint;
use crate::wire::Wire;

/// HTTP/2 window of one stream: what a slow client can make the gateway hold.
const STREAM_WINDOW: u32 = 256 * 1024;
/// HTTP/2 window of one upstream connection: no bound of its own, or clients that do not read would
/// hold up the other streams; [`STREAM_WINDOW`] bounds each.
const CONNECTION_WINDOW: u32 = i32::MAX as u32;
/// What one HTTP/2 stream may have buffered for sending.
const SEND_BUFFER: usize = 64 * 1024;
/// Largest response head that is read over HTTP/2.
const RESPONSE_HEAD_MAX: u32 = 256 * 1024;

/// An agent that closes idle connections closes none that was in use so lately; of others the kernel is
/// asked before they are used again, as a request that may not be sent twice would be lost.
const HOT: Duration = Duration::from_millis(1);

/// How a connection could not be made.
#[derive(Debug)]
pub enum ConnectError {
    /// The name did not resolve.
    Dns(io::Error),
    /// The connection was refused or failed.
    Io(io::Error),
    /// The handshake of HTTP failed.
    Handshake(hyper::Error),
}

/// Runs hyper's tasks on the worker's own thread.
#[derive(Clone, Copy)]
pub struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move {
            task.await;
        });
    }
}

/// A connection with room for one more request.
pub enum Connection {
    /// HTTP/1.1, this request's alone.
    Http1(Box<Http1>),
    /// HTTP/2, shared.
    Http2(Http2),
}

impl Connection {
    /// Whether it has served a request before.
    #[must_use]
    pub fn is_reused(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.reused,
            Self::Http2(connection) => connection.reused,
        }
    }
}

/// A share in an HTTP/2 connection.
#[derive(Clone)]
pub struct Http2 {
    /// Where requests go in.
    pub sender: http2::SendRequest<RequestBody>,
    /// Whether it has served a request before.
    pub reused: bool,
    streams: Rc<Cell<usize>>,
    /// As many as the peer allows at present.
    streams_max: Rc<Cell<usize>>,
    task: Rc<Task>,
    born: Instant,
}

/// hyper's connection task; dropped, the connection is cut.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Idle {
    connection: Box<Http1>,
    since: Instant,
}

#[derive(Default)]
struct Line {
    idle: Vec<Idle>,
    shared: Vec<Http2>,
    keepalive: Option<config::Keepalive>,
    /// Held while an HTTP/2 connection is made, so that a burst makes one and not hundreds.
    connecting: Rc<tokio::sync::Mutex<()>>,
}

/// One worker's connections, by endpoint.
pub struct Connections {
    headroom: Arc<Headroom>,
    /// By the endpoint's id, a number of ours that nobody can choose.
    lines: RefCell<HashMap<u64, Line, foldhash::fast::RandomState>>,
}

impl Connections {
    /// None yet.
    #[must_use]
    pub fn new(headroom: Arc<Headroom>) -> Self {
        Self { headroom, lines: RefCell::default() }
    }

    /// An idle connection, the latest used first; none that is too old or closed.
    pub fn idle(
        &self,
        endpoint: &Endpoint,
        keepalive: &config::Keepalive,
        now: Instant,
    ) -> Option<Connection> {
        let mut lines = self.lines.borrow_mut();
        let line = lines.get_mut(&endpoint.id)?;
        if endpoint.protocol == config::Protocol::H2c {
            return line.stream(keepalive, now).map(Connection::Http2);
        }
        while let Some(Idle { mut connection, since }) = line.idle.pop() {
            let fresh = now < since + keepalive.idle && now < connection.born + keepalive.age;
            let quiet = match now < since + HOT {
                true => connection.is_quiet(),
                false => connection.is_still_quiet(),
            };
            if fresh && quiet {
                connection.reused = true;
                return Some(Connection::Http1(connection));
            }
        }
        None
    }

    /// Makes a new connection; of HTTP/2 only when the ones there are full.
    ///
    /// # Errors
    /// When the name does not resolve, nobody answers or the handshake fails. It has no clock of
    /// its own: drop it.
    pub async fn connect(
        &self,
        endpoint: &Endpoint,
        keepalive: &config::Keepalive,
    ) -> Result<Connection, ConnectError> {
        if endpoint.protocol == config::Protocol::Http1 {
            return Ok(Connection::Http1(Box::new(Http1::new(self.dial(endpoint).await?))));
        }
        let connecting =
            Rc::clone(&self.lines.borrow_mut().entry(endpoint.id).or_default().connecting);
        let _one_at_a_time = connecting.lock().await;
        if let Some(connection) = self.idle(endpoint, keepalive, Instant::now()) {
            return Ok(connection);
        }
        let made = handshake2(self.dial(endpoint).await?).await?;
        let mut lines = self.lines.borrow_mut();
        let line = lines.entry(endpoint.id).or_default();
        line.keepalive = Some(*keepalive);
        line.shared.push(made.clone());
        Ok(Connection::Http2(made))
    }

    /// Where descriptors have run out, idle connections are given up for a new one.
    async fn dial(&self, endpoint: &Endpoint) -> Result<TcpStream, ConnectError> {
        match dial(&endpoint.address, &self.headroom).await {
            Err(ConnectError::Io(error)) if headroom::is_descriptor(&error) => {
                self.headroom.missed();
                match self.give_up_idle() {
                    0 => Err(ConnectError::Io(error)),
                    _ => dial(&endpoint.address, &self.headroom).await,
                }
            }
            dialled => dialled,
        }
    }

    /// Closes what nothing is under way on. Says how many that were.
    pub fn give_up_idle(&self) -> usize {
        let mut given_up = 0;
        for line in self.lines.borrow_mut().values_mut() {
            let before = line.idle.len() + line.shared.len();
            line.idle.clear();
            line.shared.retain(|shared| shared.streams.get() > 0);
            given_up += before - line.shared.len();
        }
        given_up
    }

    /// Keeps a connection whose response has ended, at `since`, for the next exchange, once the
    /// request's body has been sent, too.
    pub fn keep(
        self: &Rc<Self>,
        id: u64,
        (body, since): (Http1Body, Instant),
        keepalive: &config::Keepalive,
    ) {
        let Some(idling) = body.into_idle().filter(|_| keepalive.max > 0) else { return };
        let idling = match idling.now() {
            Ok(connection) => return self.put(id, Idle { connection, since }, keepalive),
            Err(idling) => idling,
        };
        let (this, keepalive) = (Rc::clone(self), *keepalive);
        tokio::task::spawn_local(async move {
            let settled = tokio::time::timeout(keepalive.idle, idling.settled());
            if let Ok(Some(connection)) = settled.await {
                this.put(id, Idle { connection, since: Instant::now() }, &keepalive);
            }
        });
    }

    fn put(&self, id: u64, idle: Idle, keepalive: &config::Keepalive) {
        let mut lines = self.lines.borrow_mut();
        let line = lines.entry(id).or_default();
        line.keepalive = Some(*keepalive);
        if line.idle.len() < keepalive.max {
            line.idle.push(idle);
        }
    }

    /// Closes what has been idle or alive too long, and what belongs to endpoints that are gone.
    pub fn sweep(&self, known: impl Fn(u64) -> bool) {
        let now = Instant::now();
        self.lines.borrow_mut().retain(|id, line| {
            let Some(keepalive) = line.keepalive.filter(|_| known(*id)) else {
                // Streams that are open hold the connection on their own.
                return Rc::strong_count(&line.connecting) > 1;
            };
            line.idle.retain_mut(|idle| {
                now < idle.since + keepalive.idle
                    && now < idle.connection.born + keepalive.age
                    && idle.connection.is_quiet()
            });
            line.shared.retain(|shared| shared.is_fresh(&keepalive, now));
            !line.idle.is_empty() || !line.shared.is_empty()
        });
    }
}

impl Line {
    fn stream(&mut self, keepalive: &config::Keepalive, now: Instant) -> Option<Http2> {
        self.shared.retain(|shared| shared.is_fresh(keepalive, now));
        let room = |shared: &&Http2| shared.streams.get() < shared.streams_max.get().max(1);
        let mut found = self.shared.iter().find(room)?.clone();
        found.reused = true;
        Some(found)
    }
}

impl Http2 {
    fn is_fresh(&self, keepalive: &config::Keepalive, now: Instant) -> bool {
        now < self.born + keepalive.age && !self.sender.is_closed()
    }

    /// Counts a stream until the guard is dropped.
    #[must_use]
    pub fn stream(self) -> Stream {
        self.streams.set(self.streams.get() + 1);
        Stream { connection: self }
    }
}

/// One stream of an HTTP/2 connection; it keeps the connection alive.
pub struct Stream {
    /// The connection.
    pub connection: Http2,
}

impl Drop for Stream {
    fn drop(&mut self) {
        let streams = &self.connection.streams;
        streams.set(streams.get() - 1);
        debug_assert!(Rc::strong_count(&self.connection.task) > 0);
    }
}

async fn dial(address: &config::Endpoint, headroom: &Headroom) -> Result<TcpStream, ConnectError> {
    if let Ok(ip) = address.host.parse::<std::net::IpAddr>() {
        return dial_at((ip, address.port).into(), headroom).await.map_err(ConnectError::Io);
    }
    let found = tokio::net::lookup_host((address.host.as_str(), address.port))
        .await
        .map_err(ConnectError::Dns)?;
    let mut last = ConnectError::Dns(io::Error::other("the name has no addresses"));
    for address in found {
        match dial_at(address, headroom).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = ConnectError::Io(error),
        }
    }
    Err(last)
}

async fn dial_at(address: SocketAddr, headroom: &Headroom) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if !headroom.has(&socket) {
        return Err(headroom::no_descriptor());
    }
    socket.connect(address).await
}

async fn handshake2(stream: TcpStream) -> Result<Http2, ConnectError> {
    let (sender, connection) = http2::Builder::new(Local)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(RESPONSE_HEAD_MAX)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .handshake(Wire::new(stream).socket(bytes::Bytes::new()))
        .await
        .map_err(ConnectError::Handshake)?;
    let streams_max = Rc::new(Cell::new(connection.current_max_send_streams()));
    let task = tokio::task::spawn_local(drive(connection, Rc::clone(&streams_max)));
    let (task, streams) = (Rc::new(Task(task.abort_handle())), Rc::default());
    Ok(Http2 { sender, reused: false, streams, streams_max, task, born: Instant::now() })
}

/// Runs an HTTP/2 connection and keeps up with how many streams the peer allows.
async fn drive<T>(
    mut connection: http2::Connection<T, RequestBody, Local>,
    streams_max: Rc<Cell<usize>>,
) where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    std::future::poll_fn(|cx| {
        let done = Pin::new(&mut connection).poll(cx).map(drop);
        streams_max.set(connection.current_max_send_streams());
        done
    })
    .await;
}
