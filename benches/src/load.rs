//! Load of a known size: closed loops, bounded in number and in time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::client::{Ask, Client, Http, Reply};
use crate::wire::Wire;

/// No load goes on longer than this, whatever its number.
pub const LOAD_MAX: Duration = Duration::from_secs(8);

/// Connections that stay open between the rounds of a closed loop.
pub struct Loop {
    wires: Vec<Wire>,
    request: Arc<Vec<u8>>,
}

impl Loop {
    /// Opens `n` connections.
    ///
    /// # Errors
    /// When one is refused.
    pub async fn new(address: SocketAddr, n: usize, ask: &Ask) -> io::Result<Self> {
        let mut wires = Vec::new();
        for _ in 0..n {
            wires.push(Wire::connect(address).await?);
        }
        Ok(Self { wires, request: Arc::new(ask.bytes()) })
    }

    /// Has `requests` requests answered, each connection one after the other. Returns how many
    /// it came to within [`LOAD_MAX`].
    pub async fn run(&mut self, requests: usize) -> io::Result<usize> {
        let (begun, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let due = Instant::now() + LOAD_MAX;
        let mut tasks = JoinSet::new();
        for mut wire in self.wires.drain(..) {
            let (begun, done) = (Arc::clone(&begun), Arc::clone(&done));
            let request = Arc::clone(&self.request);
            tasks.spawn(async move {
                while begun.fetch_add(1, Relaxed) < requests && Instant::now() < due {
                    exchange(&mut wire, &request).await?;
                    done.fetch_add(1, Relaxed);
                }
                Ok::<_, io::Error>(wire)
            });
        }
        while let Some(wire) = tasks.join_next().await {
            self.wires.push(wire??);
        }
        Ok(done.load(Relaxed))
    }
}

/// One request and its whole reply, which has to be a 200. Returns the body's length.
pub async fn exchange(wire: &mut Wire, request: &[u8]) -> io::Result<u64> {
    wire.write(request).await?;
    let head = wire.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let length = wire.whole(head.left).await?;
    match head.second() {
        "200" => Ok(length),
        _ => Err(io::Error::other(format!("answered {:?}", head.first))),
    }
}

/// Open replies, their heads and first pieces read: HTTP/1.1 one a connection, HTTP/2
/// `streams` a connection.
pub async fn open(
    http: Http,
    address: SocketAddr,
    n: usize,
    streams: usize,
    ask: &Ask,
) -> io::Result<Vec<(Client, Reply)>> {
    let mut open: Vec<(Client, Reply)> = Vec::new();
    for i in 0..n {
        let mut client = match open.last() {
            Some((last, _)) if i % streams != 0 => last.another(address).await?,
            _ => Client::connect(http, address).await?,
        };
        let mut reply = client.ask(ask).await?;
        client.piece(&mut reply).await?;
        open.push((client, reply));
    }
    Ok(open)
}

/// As [`open`], but each reply is read to its end while the others are asked for. Returns how
/// many bytes they were.
pub async fn read_out(http: Http, address: SocketAddr, n: usize, ask: &Ask) -> io::Result<u64> {
    let first = Client::connect(http, address).await?;
    let mut tasks = JoinSet::new();
    for _ in 0..n {
        let (mut client, ask) = (first.another(address).await?, ask.clone());
        tasks.spawn(async move {
            let reply = client.ask(&ask).await?;
            client.whole(reply).await
        });
    }
    let mut bytes = 0;
    while let Some(done) = tasks.join_next().await {
        bytes += done??;
    }
    Ok(bytes)
}
