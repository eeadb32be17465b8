//! The agent behind the gateway: plain HTTP/1.1 on a thread of its own. What it does is in the path.
//!
//! | path | does |
//! | --- | --- |
//! | `/json` | reads the body, answers a small JSON object |
//! | `/up` | reads the body, answers its length |
//! | `/down?bytes=N` | answers N bytes |
//! | `/stream?n=N&gap=MS` | N events, each with the moment at which it was written |
//! | `/hang?tag=T` | never answers; reports that it has begun, and that it was left |
//! | `/hold?tag=T` | one event, then as `/hang` |

use std::io;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};

use crate::wire::{Head, Wire};

/// Connections that may wait to be accepted; the kernel may cut it down.
const BACKLOG: i32 = 4096;

/// What `/down` writes at once.
const PIECE: usize = 64 * 1024;
const SSE: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const ANSWER: &str = r#"{"output":"forty-two","metadata":{"agent":"bench","model":"none"}}"#;

/// A running agent; it ends with the process.
pub struct Agent {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Mutex<mpsc::UnboundedReceiver<Seen>>,
}

/// What the agent reports of a request with a tag.
enum Seen {
    Begun(u64),
    Left(u64, Instant),
}

type Report = mpsc::UnboundedSender<Seen>;

/// Nanoseconds since the bench first asked; the same clock on both sides.
pub fn now_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

impl Agent {
    /// Starts it on a thread of its own.
    ///
    /// # Errors
    /// When there is no port, or no thread.
    pub fn start() -> io::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        // A thousand connections at once would overflow std's queue, and wait a second for a second try.
        rustix::net::listen(&listener, BACKLOG)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (report, seen) = mpsc::unbounded_channel();
        thread::Builder::new().name("agent".to_owned()).spawn(move || {
            // Without a listener every row fails, and says so.
            let _ = runtime.block_on(accept(listener, report));
        })?;
        Ok(Self { address, seen: Mutex::new(seen) })
    }

    /// Ends when the request with this tag has reached the agent.
    pub async fn begun(&self, tag: u64) -> io::Result<()> {
        let mut seen = self.seen.lock().await;
        while let Some(seen) = seen.recv().await {
            if matches!(seen, Seen::Begun(of) if of == tag) {
                return Ok(());
            }
        }
        Err(io::Error::other("the agent has ended"))
    }

    /// When the agent saw that nobody waits for the request with this tag any more.
    pub async fn left(&self, tag: u64) -> io::Result<Instant> {
        let mut seen = self.seen.lock().await;
        while let Some(seen) = seen.recv().await {
            match seen {
                Seen::Left(of, at) if of == tag => return Ok(at),
                _ => {}
            }
        }
        Err(io::Error::other("the agent has ended"))
    }
}

async fn accept(listener: std::net::TcpListener, report: Report) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let report = report.clone();
        tokio::spawn(async move {
            // A broken connection is a client's leaving, which some rows are about.
            let _ = serve(stream, report).await;
        });
    }
}

async fn serve(stream: TcpStream, report: Report) -> io::Result<()> {
    let mut wire = Wire::new(stream)?;
    while let Some(head) = wire.head().await? {
        let length = wire.whole(head.left).await?;
        let number = |name, otherwise| number(&head, name).unwrap_or(otherwise);
        match path(&head) {
            "/json" => wire.write(&reply(ANSWER)).await?,
            "/up" => wire.write(&reply(&length.to_string())).await?,
            "/down" => down(&mut wire, number("bytes", 0)).await?,
            "/stream" => stream_events(&mut wire, number("n", 1), number("gap", 0)).await?,
            "/hang" => return wait(&mut wire, number("tag", 0), &report).await,
            "/hold" => {
                wire.write(format!("{SSE}{}", event()).as_bytes()).await?;
                return wait(&mut wire, number("tag", 0), &report).await;
            }
            _ => wire.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await?,
        }
    }
    Ok(())
}

async fn down(wire: &mut Wire, bytes: u64) -> io::Result<()> {
    wire.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n").as_bytes()).await?;
    let piece = [b'x'; PIECE];
    let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
    while left > 0 {
        let n = left.min(PIECE);
        wire.write(&piece[..n]).await?;
        left -= n;
    }
    Ok(())
}

/// The head and the first event in one write, every further event in one of its own.
async fn stream_events(wire: &mut Wire, n: u64, gap_ms: u64) -> io::Result<()> {
    wire.write(format!("{SSE}{}", event()).as_bytes()).await?;
    for _ in 1..n {
        tokio::time::sleep(Duration::from_millis(gap_ms)).await;
        wire.write(event().as_bytes()).await?;
    }
    wire.write(b"0\r\n\r\n").await
}

async fn wait(wire: &mut Wire, tag: u64, report: &Report) -> io::Result<()> {
    // Nobody listens any more at the very end only.
    let report = |seen| {
        if tag > 0 {
            drop(report.send(seen));
        }
    };
    report(Seen::Begun(tag));
    wire.closed().await;
    report(Seen::Left(tag, Instant::now()));
    Ok(())
}

/// An event that says when it was written, as a chunk.
fn event() -> String {
    let data = format!("data: {}\n\n", now_ns());
    format!("{:x}\r\n{data}\r\n", data.len())
}

fn reply(body: &str) -> Vec<u8> {
    let kind = "content-type: application/json";
    format!("HTTP/1.1 200 OK\r\n{kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// What is asked, whether or not the proxy has taken the mount off.
fn path(head: &Head) -> &str {
    let path = head.second().split('?').next().unwrap_or_default();
    let mounted =
        path.strip_prefix("/agents/").and_then(|rest| rest.find('/').map(|at| &rest[at..]));
    mounted.unwrap_or(path)
}

fn number(head: &Head, name: &str) -> Option<u64> {
    let query = head.second().split_once('?')?.1;
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name)?.1.parse().ok()
}
