//! The load: so many requests a second and so many streams at once, each answer checked whole,
//! every failure counted by its kind. It mends nothing, so that zero means zero.

mod exchange;
pub(crate) mod report;
mod requests;
mod streams;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use hyper::Uri;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::wire;
use report::Tally;

/// Where `e2e stop` knocks, inside of the pod.
const STOP: &str = "127.0.0.1:7001";
/// How often it says how far it has come, and asks how old the gateway's knowledge is.
const TELL: Duration = Duration::from_secs(1);

/// What `e2e load` takes.
#[derive(Args, Clone)]
pub(crate) struct Settings {
    /// The gateway: `http://host`
    #[arg(long, default_value = "http://switchyard")]
    url: String,
    /// The types that are asked, in turn
    #[arg(long, value_delimiter = ',', default_value = "coding")]
    agents: Vec<String>,
    /// Requests a second, half of them on new connections
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// Streams that are open at any time, half of them on new connections
    #[arg(long, default_value_t = 0)]
    streams: u32,
    /// Events of a stream
    #[arg(long, default_value_t = 20)]
    events: u64,
    /// Milliseconds between two of them
    #[arg(long, default_value_t = 500)]
    every_ms: u64,
    /// Milliseconds that an agent holds a request
    #[arg(long, default_value_t = 0)]
    hold_ms: u64,
    /// When it ends, unless `e2e stop` comes first; what is open is read to its end
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The gateway's `/readyz`, to learn how old its knowledge of the replicas gets
    #[arg(long)]
    readyz: Option<String>,
    /// The agents are fake ones, whose answers are text that says `pod=NAME`
    #[arg(long)]
    plain: bool,
}

/// What all tasks share.
struct Load {
    settings: Settings,
    host: String,
    address: SocketAddr,
    tally: Mutex<Tally>,
    stop: watch::Receiver<bool>,
}

impl Load {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose turn it is.
    fn agent(&self, turn: u64) -> &str {
        let agents = &self.settings.agents;
        &agents[usize::try_from(turn).unwrap_or_default() % agents.len()]
    }

    fn stopped(&self) -> bool {
        *self.stop.borrow()
    }
}

/// Runs to its end and prints the report as the last line.
///
/// # Errors
/// When the gateway's name isn't found. Failed requests are in the report.
pub(crate) async fn run(settings: Settings) -> io::Result<()> {
    let uri: Uri = settings.url.parse().map_err(io::Error::other)?;
    let address = wire::resolve(&uri).await?;
    let (stopper, stop) = watch::channel(false);
    let host = uri.authority().map_or_else(String::new, ToString::to_string);
    let seconds = Duration::from_secs(settings.seconds);
    let tally = Mutex::new(Tally::new(Instant::now()));
    let load = Arc::new(Load { settings, host, address, tally, stop });

    let knock = TcpListener::bind(STOP).await?;
    tokio::spawn(async move {
        let _ = tokio::time::timeout(seconds, knock.accept()).await;
        stopper.send_replace(true);
        // Whoever waits for the end still holds a receiver.
        stopper.closed().await;
    });
    let mut stopped = load.stop.clone();
    let marking = Arc::clone(&load);
    tokio::spawn(async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
        marking.tally().stopped();
    });
    let telling = tokio::spawn(tell(Arc::clone(&load)));
    let mut tasks = JoinSet::new();
    tasks.spawn(requests::run(Arc::clone(&load)));
    for number in 0..load.settings.streams {
        tasks.spawn(streams::run(Arc::clone(&load), number));
    }
    while tasks.join_next().await.is_some() {}
    telling.abort();
    let report = load.tally().report();
    print(&serde_json::to_string(&report).map_err(io::Error::other)?)
}

/// Tells the load of this pod to end.
///
/// # Errors
/// When there is none.
pub(crate) async fn stop() -> io::Result<()> {
    TcpStream::connect(STOP).await.map(drop)
}

async fn tell(load: Arc<Load>) {
    loop {
        tokio::time::sleep(TELL).await;
        if let Some(readyz) = &load.settings.readyz
            && let Ok(answer) = wire::ask(readyz, None).await
        {
            load.tally().aged(answer.body.as_bytes());
        }
        let progress = load.tally().progress();
        let _ = print(&serde_json::to_string(&progress).unwrap_or_default());
    }
}

fn print(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
