//! Sockets: listening, accepting, and one client connection from its first byte to its close.

mod connection;
mod date;
pub mod handover;
mod http1;
mod work;

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::SocketFlags;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use self::handover::{Arrival, Handover, Outward};
use crate::error::{Code, Error};
use crate::headroom;
use crate::proxy::worker::{Client, Worker};
use crate::shared::{Phase, Shared};
use crate::table::View;
use crate::wire::Wire;

/// Connections that the kernel holds for a listener; it may cut this down (`somaxconn`).
const BACKLOG: i32 = 4096;
/// After `accept` failed for want of descriptors or memory: it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// While the listener closes: how often, and how far apart, the accept queue is looked at again.
const HANDSHAKE_LOOKS: usize = 20;
const HANDSHAKE_PAUSE: Duration = Duration::from_millis(10);
/// Classic BPF, as in the kernel's `linux/filter.h`.
const BPF_LOAD_BYTE: u16 = 0x30;
const BPF_JUMP_IF_SET: u16 = 0x45;
const BPF_RETURN: u16 = 0x06;
const TCP_SYN: u32 = 0x02;
/// How often old upstream connections are closed.
const SWEEP: Duration = Duration::from_secs(1);

/// Opens one listener a worker on the same address (`SO_REUSEPORT`), so that each worker accepts
/// for itself. Port 0 becomes a free one. `beside`: also where another gateway listens.
///
/// # Errors
/// When the address can't be had: taken, not ours, or not allowed.
pub fn listen(
    mut address: SocketAddr,
    workers: usize,
    beside: bool,
) -> io::Result<Vec<TcpListener>> {
    // Without the option at first: a listener of somebody else's that also has it would not
    // be noticed otherwise.
    if !beside || address.port() == 0 {
        address = open(address, false)?.local_addr()?;
    }
    (0..workers).map(|_| open(address, true)).collect()
}

fn open(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if shared {
        socket.listen(BACKLOG)?;
    }
    Ok(socket.into())
}

/// Runs one worker on this thread until it is drained or cut. Returns how much was cut.
///
/// # Errors
/// When the runtime can't be made.
pub fn worker(
    listener: TcpListener,
    handover: Handover,
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
) -> io::Result<usize> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(async {
        #[expect(deprecated, reason = "what replaces it is unsafe, for types that change their fd")]
        let listener = AsyncFd::with_interest(listener, Interest::READABLE)?;
        let view = View::new(Arc::clone(&shared.tables));
        let worker = Worker::new(view, Arc::clone(&shared.metrics), Arc::clone(&shared.headroom));
        let Handover { outward, inward } = handover;
        Ok(run(listener, inward, Entrance { worker, shared, outward }, phase).await)
    })
}

async fn run(
    listener: AsyncFd<TcpListener>,
    mut inward: mpsc::Receiver<Arrival>,
    entrance: Entrance,
    mut phase: watch::Receiver<Phase>,
) -> usize {
    let worker = &entrance.worker;
    let sweeper = tokio::task::spawn_local(sweep(Rc::clone(worker)));
    let accepting = async {
        let mut fails = false;
        loop {
            match listener.async_io(Interest::READABLE, accept).await {
                Ok((stream, peer)) => {
                    fails = false;
                    entrance.admit(stream, peer, entrance.outward.choose());
                }
                Err(error) => fails = pause(&error, fails, worker).await,
            }
        }
    };
    {
        let mut accepting = std::pin::pin!(accepting);
        let mut starting = *phase.borrow() == Phase::Starting;
        loop {
            tokio::select! {
                () = &mut accepting, if !starting => {}
                Some(arrival) = inward.recv() => entrance.serve(arrival),
                changed = phase.changed() => {
                    if changed.is_err() {
                        // Killed: nobody waits for this thread any more.
                        return 0;
                    }
                    let now = *phase.borrow_and_update();
                    starting = now == Phase::Starting;
                    worker.closing.set(now >= Phase::Closing);
                    if now >= Phase::Draining {
                        break;
                    }
                }
            }
        }
    }
    // From here on the others keep what they accept; what they have handed over by now is taken.
    inward.close();
    while let Some(arrival) = inward.recv().await {
        entrance.serve(arrival);
    }
    close(listener.into_inner(), &entrance).await;
    worker.draining.set(true);
    worker.changed.notify_waiters();
    let cut = drained(worker, phase).await;
    sweeper.abort();
    cut
}

/// Where a worker's connections come in.
struct Entrance {
    worker: Rc<Worker>,
    shared: Arc<Shared>,
    outward: Outward,
}

impl Entrance {
    /// Admits a connection: `chosen` serves it, or this worker, where there is none.
    fn admit(&self, stream: std::net::TcpStream, peer: SocketAddr, chosen: Option<usize>) {
        let arrival = Arrival { stream, peer, connected: self.outward.connected(chosen) };
        if self.shared.is_crowded() {
            let text = "the gateway has as many connections as it can hold";
            return shed(&arrival.stream, &self.worker, text);
        }
        if !self.shared.headroom.has(&arrival.stream) {
            self.worker.lacks_descriptors();
            let text = "the gateway has no descriptor left for a connection";
            return shed(&arrival.stream, &self.worker, text);
        }
        let Some(chosen) = chosen else { return self.serve(arrival) };
        if let Err(back) = self.outward.send(chosen, arrival) {
            self.serve(Arrival { connected: self.outward.connected(None), ..back });
        }
    }

    /// Serves a connection here.
    fn serve(&self, Arrival { stream, peer, connected }: Arrival) {
        let stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => return tracing::warn!(%error, "a connection can't be served"),
        };
        let (worker, open) = (Rc::clone(&self.worker), self.worker.open());
        let client = Client::new(peer, Wire::new(stream), connected);
        tokio::task::spawn_local(async move {
            let _until_the_end = open;
            connection::run(worker, client).await;
        });
    }
}

/// Accepts a connection, but leaves it to who serves it to wait for what comes on it.
fn accept(listener: &TcpListener) -> io::Result<(std::net::TcpStream, SocketAddr)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (socket, peer) = rustix::net::acceptfrom_with(listener, flags)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    // It has none when it was reset meanwhile.
    Ok((socket.into(), peer.ok_or(io::ErrorKind::ConnectionAborted)?))
}

/// Takes what sits in the accept queue, which closing the listener would reset, and closes it.
async fn close(listener: TcpListener, entrance: &Entrance) {
    refuse_new(&listener);
    let mut empty = false;
    // Handshakes that were under way end within a round trip; a moment without any is enough.
    for _ in 0..HANDSHAKE_LOOKS {
        let before = entrance.worker.opened();
        while let Ok((stream, peer)) = accept(&listener) {
            entrance.admit(stream, peer, None);
        }
        if empty && entrance.worker.opened() == before {
            return;
        }
        empty = entrance.worker.opened() == before;
        tokio::time::sleep(HANDSHAKE_PAUSE).await;
    }
}

/// Drops new SYNs from here on, so that no handshake is completed that nobody will accept; clients
/// repeat theirs after a second, and find the port closed or another gateway.
fn refuse_new(listener: &TcpListener) {
    // The filter sees the TCP header: byte 13 holds the flags (RFC 9293, section 3.1).
    let drop_syn = [
        SockFilter::new(BPF_LOAD_BYTE, 0, 0, 13),
        SockFilter::new(BPF_JUMP_IF_SET, 0, 1, TCP_SYN),
        SockFilter::new(BPF_RETURN, 0, 0, 0),
        SockFilter::new(BPF_RETURN, 0, 0, u32::MAX),
    ];
    if let Err(error) = socket2::SockRef::from(listener).attach_filter(&drop_syn) {
        tracing::debug!(%error, "new connections can't be held off while the listener closes");
    }
}

/// Ends when nothing is open, or when what is open has to be cut. Returns how much that was.
async fn drained(worker: &Rc<Worker>, mut phase: watch::Receiver<Phase>) -> usize {
    loop {
        let changed = worker.changed.notified();
        if worker.opened() == 0 {
            return 0;
        }
        if *phase.borrow_and_update() == Phase::Cut {
            break;
        }
        tokio::select! {
            () = changed => {}
            changed = phase.changed() => if changed.is_err() { return 0 },
        }
    }
    let cut = worker.opened() - worker.lingering.get();
    worker.cut.set(true);
    worker.changed.notify_waiters();
    while worker.opened() > 0 {
        let changed = worker.changed.notified();
        // The tasks only have to be polled once more.
        if tokio::time::timeout(Duration::from_millis(200), changed).await.is_err() {
            break;
        }
    }
    cut
}

async fn sweep(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(SWEEP);
    let mut misses = worker.headroom.misses();
    loop {
        ticks.tick().await;
        let current = worker.view.current();
        worker.connections.sweep(|id| current.has_endpoint(id));
        // Another worker's may be missing because we have them.
        if std::mem::replace(&mut misses, worker.headroom.misses()) != misses {
            worker.connections.give_up_idle();
        }
    }
}

/// After `accept` failed, until it may work again. Says whether it is likely to fail again, which
/// is logged `once`.
async fn pause(error: &io::Error, once: bool, worker: &Worker) -> bool {
    let theirs =
        matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset);
    if theirs {
        return once;
    }
    if !once {
        tracing::warn!(%error, "cannot accept; who connects waits");
    }
    if headroom::is_descriptor(error) {
        worker.lacks_descriptors();
    }
    tokio::time::sleep(ACCEPT_PAUSE).await;
    true
}

/// Answers one connection too many before it has said anything.
fn shed(stream: &std::net::TcpStream, worker: &Worker, why: &str) {
    let error = Error::new(Code::Overloaded, why);
    worker.metrics.unrouted(Code::Overloaded);
    let id = crate::request_id::RequestId::fresh();
    let id = id.as_str();
    let response = error.response(id, None);
    let mut text = format!(
        "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n{}: {id}\r\n",
        config::names::REQUEST_ID
    );
    for (name, value) in response.headers() {
        text += &format!("{name}: {}\r\n", value.to_str().unwrap_or(""));
    }
    let body = String::from_utf8_lossy(response.body());
    text += &format!("content-length: {}\r\n\r\n{body}", body.len());
    // A socket that takes not even this is not worth waiting for.
    let _ = (&mut &*stream).write(text.as_bytes());
    let _ = stream.shutdown(Shutdown::Write);
}
