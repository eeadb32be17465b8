//! The replica: a process of its own, this same program, which `switchyard up` runs. A request holds one
//! of its places, and as much memory as it is said to need, for as long as its query says; the time
//! is slept, so that a replica's capacity doesn't depend on the machine.
//!
//! | path | does |
//! | --- | --- |
//! | `/readyz` | answers 200 |
//! | `/metrics` | what the process has resident, and when it began, in Prometheus' text |
//! | `/work?ms=N` | reads the body, holds memory for N ms, answers |

use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use benches::procfs;
use benches::wire::{Head, Wire};
use rustix::time::{ClockId, clock_gettime};
use tokio::net::{TcpListener, TcpStream};

/// How the bench calls it.
const FLAG: &str = "--replica";
/// What one write makes resident.
const PAGE: usize = 4096;
/// Threads that fill memory, beside the one that serves: their stacks are resident, too.
const FILLERS: usize = 2;
const STACK: usize = 256 * 1024;

/// What it says on its stderr, which is `up`'s log, when the gateway sends it too much.
pub(crate) const OVER: &str = "over-admitted";

/// When a request was here, by [`clock_ns`]; and the most that the process ever had resident.
pub(crate) const BEGUN: &str = "x-begun-ns";
pub(crate) const ENDED: &str = "x-ended-ns";
pub(crate) const PEAK: &str = "x-peak-kib";

/// What it is told.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    /// Requests at once; 0 is no limit.
    pub(crate) places: u64,
    /// Bytes that a request holds, whatever its size.
    pub(crate) base: usize,
    /// And for each byte of its body.
    pub(crate) per_body_byte: usize,
}

impl Settings {
    /// The arguments that it is called with.
    pub(crate) fn arguments(self) -> [String; 4] {
        let Self { places, base, per_body_byte } = self;
        [FLAG.to_owned(), places.to_string(), base.to_string(), per_body_byte.to_string()]
    }

    /// When this process is to be one.
    pub(crate) fn of_command_line() -> Option<Self> {
        let mut args = std::env::args().skip(1);
        args.next().filter(|flag| flag == FLAG)?;
        let mut number = || args.next()?.parse().ok();
        let (places, base, per_body_byte) = (number()?, number()?, number()?);
        let (base, per_body_byte) = (base as usize, per_body_byte as usize);
        Some(Self { places, base, per_body_byte })
    }
}

/// Nanoseconds by a clock that all processes of a machine share.
pub(crate) fn clock_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

struct Replica {
    settings: Settings,
    in_flight: AtomicU64,
    began: SystemTime,
}

/// Serves where `up` says, until it is ended.
pub(crate) fn serve(settings: Settings) -> io::Result<()> {
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok());
    let port: u16 = port.ok_or_else(|| io::Error::other("no PORT"))?;
    let replica =
        Arc::new(Replica { settings, in_flight: AtomicU64::new(0), began: SystemTime::now() });
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.max_blocking_threads(FILLERS).thread_stack_size(STACK);
    runtime.enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            let replica = Arc::clone(&replica);
            tokio::spawn(async move {
                // A broken connection is the gateway's affair.
                let _ = replica.connection(stream).await;
            });
        }
    })
}

impl Replica {
    async fn connection(&self, stream: TcpStream) -> io::Result<()> {
        let mut wire = Wire::new(stream)?;
        while let Some(head) = wire.head().await? {
            match head.second().split('?').next().unwrap_or_default() {
                "/readyz" => wire.write(&reply("200 OK", "", "ready\n")).await?,
                "/metrics" => wire.write(&reply("200 OK", "", &self.metrics()?)).await?,
                _ => self.work(&mut wire, &head).await?,
            }
            if head.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
                break;
            }
        }
        Ok(())
    }

    async fn work(&self, wire: &mut Wire, head: &Head) -> io::Result<()> {
        let begun = clock_ns();
        let Some(place) = self.enter() else {
            eprintln!("{OVER}: more than {} at once", self.settings.places);
            wire.whole(head.left).await?;
            return wire.write(&reply("503 Service Unavailable", "", "full\n")).await;
        };
        let body = usize::try_from(wire.whole(head.left).await?).unwrap_or(usize::MAX);
        let memory = self.hold(body).await?;
        tokio::time::sleep(hold_time(head)).await;
        // Before the answer: the gateway knows of both only by it.
        drop(memory);
        drop(place);
        let peak = procfs::peak_kib(std::process::id())?;
        let fields = format!("{BEGUN}: {begun}\r\n{ENDED}: {}\r\n{PEAK}: {peak}\r\n", clock_ns());
        wire.write(&reply("200 OK", &fields, "done\n")).await
    }

    /// Takes a place, if there is one.
    fn enter(&self) -> Option<Place<'_>> {
        let place = Place(&self.in_flight);
        let there = self.in_flight.fetch_add(1, Relaxed);
        (self.settings.places == 0 || there < self.settings.places).then_some(place)
    }

    /// Memory that is resident, and no longer is once it is dropped: so large a piece is mapped by
    /// itself, as the environment says that the table gives it.
    async fn hold(&self, body: usize) -> io::Result<Vec<u8>> {
        let bytes = self.settings.base + self.settings.per_body_byte * body;
        let fill = move || {
            let mut memory = vec![0_u8; bytes];
            memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
            black_box(memory)
        };
        Ok(tokio::task::spawn_blocking(fill).await?)
    }

    fn metrics(&self) -> io::Result<String> {
        let resident = procfs::resident_kib(std::process::id())? * 1024.0;
        let began = self.began.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        Ok(format!(
            "# TYPE process_resident_memory_bytes gauge\n\
             process_resident_memory_bytes {resident}\n\
             # TYPE process_start_time_seconds gauge\n\
             process_start_time_seconds {began}\n"
        ))
    }
}

/// One of a replica's places, free again when dropped.
struct Place<'a>(&'a AtomicU64);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

fn hold_time(head: &Head) -> Duration {
    let ms = head.second().split_once("?ms=").and_then(|(_, ms)| ms.parse().ok());
    Duration::from_millis(ms.unwrap_or(0))
}

fn reply(status: &str, fields: &str, body: &str) -> Vec<u8> {
    let kind = "content-type: text/plain; version=0.0.4";
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{kind}\r\n{fields}content-length: {length}\r\n\r\n{body}").into()
}
