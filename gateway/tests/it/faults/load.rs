//! Clients that ask without a pause, and keep what came of each request.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::wire::{CEILING, End, Framing, Link, eventually, soon};

/// What came of one request.
#[derive(Debug, Clone, PartialEq)]
pub enum Came {
    /// A whole answer.
    Answer {
        /// Its status.
        status: u16,
        /// The gateway's own code, where it is its own.
        code: Option<String>,
        /// Its body.
        body: String,
    },
    /// None, or not all of it: why.
    Lost(String),
}

/// One request.
#[derive(Debug)]
pub struct Asked {
    /// Its id: `x-request-id`.
    pub id: String,
    /// What came of it.
    pub came: Came,
    /// When it was sent.
    pub at: Instant,
}

impl Asked {
    /// Whether it was answered as it should be.
    pub fn is_ok(&self) -> bool {
        matches!(self.came, Came::Answer { status: 200, .. })
    }

    /// The gateway's own code, where it answered.
    pub fn code(&self) -> Option<&str> {
        match &self.came {
            Came::Answer { code, .. } => code.as_deref(),
            Came::Lost(_) => None,
        }
    }
}

/// Clients under way.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: JoinSet<Vec<Asked>>,
}

impl Load {
    /// So many clients, each with a connection that it keeps as long as it may. `request` makes what
    /// is sent out of a client's number and the request's id.
    pub fn start(
        addr: SocketAddr,
        clients: usize,
        request: impl Fn(usize, &str) -> String + Send + Sync + 'static,
    ) -> Load {
        Load::pausing(addr, clients, 0..1, request)
    }

    /// As [`Load::start`], with pauses of so many microseconds between two requests.
    pub fn pausing(
        addr: SocketAddr,
        clients: usize,
        pauses: Range<u64>,
        request: impl Fn(usize, &str) -> String + Send + Sync + 'static,
    ) -> Load {
        let mut load =
            Load { stop: Arc::default(), answered: Arc::default(), clients: JoinSet::new() };
        let request = Arc::new(request);
        for client in 0..clients {
            let (stop, answered) = (Arc::clone(&load.stop), Arc::clone(&load.answered));
            let (request, pauses) = (Arc::clone(&request), pauses.clone());
            let mut random = fastrand::Rng::with_seed(client as u64);
            load.clients.spawn(async move {
                let (mut link, mut all) = (None, Vec::new());
                while !stop.load(Ordering::SeqCst) {
                    let id = format!("{client}-{}", all.len());
                    let at = Instant::now();
                    let came = ask(addr, &mut link, &request(client, &id)).await;
                    all.push(Asked { id, came, at });
                    answered.fetch_add(1, Ordering::SeqCst);
                    let pause = random.u64(pauses.clone());
                    if pause > 0 {
                        tokio::time::sleep(Duration::from_micros(pause)).await;
                    }
                }
                all
            });
        }
        load
    }

    /// Waits until so many more were answered.
    pub async fn more(&self, n: usize) {
        let answered = || self.answered.load(Ordering::SeqCst);
        let until = answered() + n;
        // A ceiling for each few of them: many may take long.
        while answered() < until {
            let next = until.min(answered() + 500);
            eventually("more answers come", || async { answered() >= next }).await;
        }
    }

    /// Asks for no more, and gives what came of all.
    pub async fn end(mut self) -> Vec<Asked> {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Vec::new();
        while let Some(asked) = soon("the clients end", self.clients.join_next()).await {
            all.extend(asked.expect("a client doesn't panic"));
        }
        all
    }
}

/// A request for an agent's path, with a body of its id.
pub fn post(path: &str, id: &str, more: &str) -> String {
    let length = id.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nx-request-id: {id}\r\ncontent-length: {length}\r\n{more}\r\n{id}"
    )
}

/// A request without a body.
pub fn get(path: &str, id: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nx-request-id: {id}\r\n\r\n")
}

/// Asks on the connection that is kept, or on a new one.
pub async fn ask(addr: SocketAddr, link: &mut Option<Link>, request: &str) -> Came {
    match tokio::time::timeout(CEILING, exchange(addr, link, request)).await {
        Ok(Ok(came)) => came,
        Ok(Err(why)) => Came::Lost(why),
        Err(_) => Came::Lost("no answer".to_owned()),
    }
}

async fn exchange(
    addr: SocketAddr,
    kept: &mut Option<Link>,
    request: &str,
) -> Result<Came, String> {
    let mut link = match kept.take() {
        Some(link) => link,
        None => Link::new(TcpStream::connect(addr).await.map_err(|e| format!("connect: {e}"))?),
    };
    link.writer.send(request).await.map_err(|e| format!("send: {e}"))?;
    let head = link.reader.head().await.map_err(|end| format!("no head: {end:?}"))?;
    let mut framing = Framing::of(&head.headers, Framing::Close);
    let (body, end) = link.reader.rest(&mut framing).await;
    if end != End::Complete {
        return Err(format!("{end:?} after {} bytes", body.len()));
    }
    if !head.headers.lists("connection", "close") {
        *kept = Some(link);
    }
    let status = head.word(1).parse().map_err(|_| format!("no status: {}", head.start))?;
    let code = head.headers.get("x-switchyard-error").map(str::to_owned);
    Ok(Came::Answer { status, code, body: String::from_utf8_lossy(&body).into_owned() })
}

/// Fails the test unless all were answered as they should be; says how many there were.
#[track_caller]
pub fn all_ok(asked: &[Asked]) -> usize {
    let failed: Vec<_> = asked.iter().filter(|asked| !asked.is_ok()).collect();
    assert!(failed.is_empty(), "{} of {} failed: {:?}", failed.len(), asked.len(), failed.first());
    asked.len()
}
