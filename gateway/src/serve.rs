//! Sockets: listening, accepting, and one client connection from its first byte to its close.

mod connection;
mod date;
mod http1;
mod work;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::error::{Code, Error};
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
/// for itself. Port 0 becomes a free one.
///
/// # Errors
/// When the address can't be had: taken, not ours, or not allowed.
pub fn listen(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    // Without the option at first: a listener of somebody else's that also has it would not
    // be noticed otherwise.
    let address = open(address, false)?.local_addr()?;
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
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
) -> io::Result<usize> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let view = View::new(Arc::clone(&shared.tables));
        let worker = Worker::new(view, Arc::clone(&shared.metrics));
        Ok(run(listener, shared, worker, phase).await)
    })
}

async fn run(
    listener: tokio::net::TcpListener,
    shared: Arc<Shared>,
    worker: Rc<Worker>,
    mut phase: watch::Receiver<Phase>,
) -> usize {
    let sweeper = tokio::task::spawn_local(sweep(Rc::clone(&worker)));
    let accepting = async {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => take(&shared, &worker, stream, peer),
                Err(error) => pause(&error).await,
            }
        }
    };
    {
        let mut accepting = std::pin::pin!(accepting);
        let mut starting = *phase.borrow() == Phase::Starting;
        loop {
            tokio::select! {
                () = &mut accepting, if !starting => {}
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
    close(listener, &shared, &worker).await;
    worker.draining.set(true);
    worker.changed.notify_waiters();
    let cut = drained(&worker, phase).await;
    sweeper.abort();
    cut
}

/// Takes what sits in the accept queue, which closing the listener would reset, and closes it.
async fn close(listener: tokio::net::TcpListener, shared: &Arc<Shared>, worker: &Rc<Worker>) {
    refuse_new(&listener);
    let Ok(listener) = listener.into_std() else { return };
    let mut empty = false;
    // Handshakes that were under way end within a round trip; a moment without any is enough.
    for _ in 0..HANDSHAKE_LOOKS {
        let before = worker.opened();
        while let Ok((stream, peer)) = listener.accept() {
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            let Ok(stream) = stream else { continue };
            take(shared, worker, stream, peer);
        }
        if empty && worker.opened() == before {
            return;
        }
        empty = worker.opened() == before;
        tokio::time::sleep(HANDSHAKE_PAUSE).await;
    }
}

/// Drops new SYNs from here on, so that no handshake is completed that nobody will accept; clients
/// repeat theirs after a second, and find the port closed or another gateway.
fn refuse_new(listener: &tokio::net::TcpListener) {
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
    loop {
        ticks.tick().await;
        let current = worker.view.current();
        worker.connections.sweep(|id| current.has_endpoint(id));
    }
}

async fn pause(error: &io::Error) {
    let own_fault =
        matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset);
    if !own_fault {
        tracing::warn!(%error, "cannot accept");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

fn take(shared: &Arc<Shared>, worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let connected = shared.connected();
    let wire = Wire::new(stream);
    if shared.is_crowded() {
        return shed(&wire, worker);
    }
    let (worker, open) = (Rc::clone(worker), worker.open());
    tokio::task::spawn_local(async move {
        let _until_the_end = open;
        connection::run(worker, Client::new(peer, wire, connected)).await;
    });
}

/// Answers one connection too many before it has said anything.
fn shed(wire: &Wire, worker: &Worker) {
    let error = Error::new(Code::Overloaded, "the gateway has as many connections as it can hold");
    worker.metrics.unrouted(Code::Overloaded);
    let id = crate::request_id::fresh();
    let id = id.to_str().unwrap_or_default();
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
    let _ = wire.stream().try_write(text.as_bytes());
    wire.close_write();
}
