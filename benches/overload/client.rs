//! The open loop: each request is sent when it is due, whether or not those before are answered, on
//! a kept connection or on a new one.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use benches::wire::{Head, Wire};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::arrivals::{Arrival, Source};
use super::replica::{BEGUN, ENDED, PEAK, clock_ns};

/// No request is waited for any longer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Before the first one, so that none is late.
const LEAD: Duration = Duration::from_millis(50);

/// The header by which a tenant is known.
pub(crate) const TENANT: &str = "x-tenant-id";

/// What became of one request.
pub(crate) struct Outcome {
    pub(crate) arrival: Arrival,
    /// 0: it was not answered at all.
    pub(crate) status: u16,
    /// The gateway's code; `None` where the replica answered.
    pub(crate) code: Option<String>,
    pub(crate) retry_after_s: Option<f64>,
    /// From when it was due to the whole answer, in milliseconds.
    pub(crate) took_ms: f64,
    pub(crate) served: Option<Served>,
}

/// What the replica says of one that it served.
#[derive(Clone, Copy)]
pub(crate) struct Served {
    /// Since the run's begin, in seconds.
    pub(crate) begun: f64,
    pub(crate) ended: f64,
    /// The most that its replica had had resident by then.
    pub(crate) peak_kib: f64,
}

struct Loop {
    address: SocketAddr,
    idle: Mutex<Vec<Wire>>,
    began: Instant,
    began_ns: u64,
}

/// Sends them all, and waits for what becomes of them; in the order in which they were due.
pub(crate) async fn ask(
    address: SocketAddr,
    sources: &[Source],
    arrivals: &[Arrival],
) -> io::Result<Vec<Outcome>> {
    let (began, began_ns) = (Instant::now() + LEAD, clock_ns() + LEAD.as_nanos() as u64);
    let own = Arc::new(Loop { address, idle: Mutex::default(), began, began_ns });
    let mut tasks = JoinSet::new();
    for arrival in arrivals.iter().copied() {
        tokio::time::sleep_until(began + arrival.due).await;
        let (own, name) = (Arc::clone(&own), sources[arrival.source].name);
        tasks.spawn(async move { own.one(arrival, name).await });
    }
    let mut outcomes = Vec::with_capacity(arrivals.len());
    while let Some(outcome) = tasks.join_next().await {
        outcomes.push(outcome?);
    }
    outcomes.sort_by_key(|outcome| outcome.arrival.due);
    Ok(outcomes)
}

/// What one of the replicas says of itself.
pub(crate) async fn resident_bytes(address: SocketAddr) -> io::Result<f64> {
    let mut wire = Wire::connect(address).await?;
    wire.write(b"GET /agents/work/metrics HTTP/1.1\r\nhost: bench\r\n\r\n").await?;
    let mut left = wire.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?.left;
    let mut text = Vec::new();
    while let Some(piece) = wire.piece(&mut left).await? {
        text.extend_from_slice(&piece);
    }
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    line.and_then(|bytes| bytes.parse().ok()).ok_or_else(|| io::Error::other("no metrics"))
}

impl Loop {
    async fn one(&self, arrival: Arrival, name: &str) -> Outcome {
        let answer = tokio::time::timeout(PATIENCE, self.exchange(&arrival, name)).await;
        let took = (self.began + arrival.due).elapsed();
        // One that is cut off is lost, however.
        let head = answer.ok().and_then(Result::ok);
        let field = |name| head.as_ref().and_then(|head| head.field(name)).map(str::to_owned);
        let number = |name| field(name).and_then(|value| value.parse::<f64>().ok());
        let status = head.as_ref().and_then(|head| head.second().parse().ok()).unwrap_or(0);
        let since = |ns: f64| (ns - self.began_ns as f64) / 1e9;
        let served = || {
            let (begun, ended) = (since(number(BEGUN)?), since(number(ENDED)?));
            Some(Served { begun, ended, peak_kib: number(PEAK)? })
        };
        Outcome {
            arrival,
            status,
            code: field("x-switchyard-error"),
            retry_after_s: number("retry-after"),
            took_ms: took.as_secs_f64() * 1e3,
            served: served().filter(|_| status == 200),
        }
    }

    async fn exchange(&self, arrival: &Arrival, name: &str) -> io::Result<Head> {
        let kept = self.idle().pop();
        let mut wire = match kept {
            Some(wire) => wire,
            None => Wire::connect(self.address).await?,
        };
        let all_sent = wire.write_unless_answered(&request(arrival, name)).await;
        let head = wire.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        wire.whole(head.left).await?;
        let closes = head.field("connection").is_some_and(|value| value.contains("close"));
        if all_sent && !closes {
            self.idle().push(wire);
        }
        Ok(head)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Wire>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn request(arrival: &Arrival, name: &str) -> Vec<u8> {
    let (ms, length) = (arrival.hold.as_millis(), arrival.body);
    let mut request = format!(
        "POST /agents/work/work?ms={ms} HTTP/1.1\r\nhost: bench\r\n{TENANT}: {name}\r\n\
         content-length: {length}\r\n\r\n"
    )
    .into_bytes();
    request.resize(request.len() + length, b'x');
    request
}
