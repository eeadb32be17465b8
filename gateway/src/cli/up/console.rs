//! The one log of the yard: what `up` itself says, and every replica's lines behind its name.
//!
//! One thread writes, fed by a bounded queue: a terminal that stands still holds up the replicas'
//! output as any pipe would, and never the supervision.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing_subscriber::fmt::MakeWriter;

use crate::cli::terminal;

/// Lines that wait to be written. Replicas wait for room; `up`'s own lines beyond it are lost.
const QUEUE: usize = 1024;

/// How long the last lines may take to be written at the end.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// SGR colours of the replicas, in turn: those that can be read on dark and light.
const PALETTE: [&str; 6] = ["36", "33", "35", "32", "34", "31"];

/// Where a line goes.
enum Line {
    /// To stdout: what a person starting the yard wants to know.
    Out(String),
    /// To stderr: the log.
    Log(String),
}

/// A handle on the log. The writing thread ends when the last one is dropped.
#[derive(Clone)]
pub(super) struct Console {
    lines: mpsc::Sender<Line>,
    colours: bool,
    streams: Arc<AtomicUsize>,
}

/// The writing thread.
pub(super) struct Printer {
    done: oneshot::Receiver<()>,
}

impl Console {
    /// Starts writing to `out` and `log`.
    pub(super) fn start(
        out: impl Write + Send + 'static,
        log: impl Write + Send + 'static,
        colours: bool,
    ) -> io::Result<(Console, Printer)> {
        let (lines, queue) = mpsc::channel(QUEUE);
        let (finished, done) = oneshot::channel();
        let write = move || {
            write_all(queue, out, log);
            // The receiver may have given up waiting.
            let _ = finished.send(());
        };
        thread::Builder::new().name("log".to_owned()).spawn(write)?;
        Ok((Console { lines, colours, streams: Arc::default() }, Printer { done }))
    }

    /// One line on stdout.
    pub(super) fn print(&self, text: &str) {
        self.put(Line::Out(format!("{text}\n")));
    }

    /// One line of `up`'s own in the log.
    pub(super) fn say(&self, text: &str) {
        let prefix = terminal::paint("up |", "1", self.colours);
        self.put(Line::Log(format!("{prefix} {}\n", terminal::clean(text))));
    }

    /// The lines of the replica `name`, in the next colour.
    pub(super) fn stream(&self, name: &str) -> Stream {
        let turn = self.streams.fetch_add(1, Ordering::Relaxed);
        let prefix =
            terminal::paint(&format!("{name} |"), PALETTE[turn % PALETTE.len()], self.colours);
        Stream { console: self.clone(), prefix }
    }

    fn put(&self, line: Line) {
        // A full queue means that nobody has read for a thousand lines.
        let _ = self.lines.try_send(line);
    }
}

impl Printer {
    /// Waits until every line is written, or no longer than a terminal should take.
    pub(super) fn finish(self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        if let Ok(runtime) = runtime {
            let _ =
                runtime.block_on(async { tokio::time::timeout(FINISH_TIMEOUT, self.done).await });
        }
    }
}

fn write_all(mut queue: mpsc::Receiver<Line>, mut out: impl Write, mut log: impl Write) {
    while let Some(line) = queue.blocking_recv() {
        // A closed stream is no reason to stop the yard: what can't be written is lost.
        let _ = match line {
            Line::Out(text) => out.write_all(text.as_bytes()).and_then(|()| out.flush()),
            Line::Log(text) => log.write_all(text.as_bytes()).and_then(|()| log.flush()),
        };
    }
}

/// Where one replica's lines go.
#[derive(Clone)]
pub(super) struct Stream {
    console: Console,
    prefix: String,
}

impl Stream {
    /// One line of the replica's, without its line end; waits for room.
    pub(super) async fn line(&self, text: &str) {
        let reset = if self.console.colours && text.contains('\x1b') { "\x1b[0m" } else { "" };
        let text = terminal::clean_line(text, self.console.colours);
        let line = Line::Log(format!("{} {text}{reset}\n", self.prefix));
        // The thread ends only after the last handle is gone.
        let _ = self.console.lines.send(line).await;
    }
}

/// The gateway's own log on stderr, behind its name.
pub(super) struct GatewayLog {
    prefix: String,
}

impl GatewayLog {
    pub(super) fn new(colours: bool) -> GatewayLog {
        GatewayLog { prefix: terminal::paint("gateway |", "1", colours) }
    }
}

impl<'a> MakeWriter<'a> for GatewayLog {
    type Writer = Prefixed<'a>;

    fn make_writer(&'a self) -> Prefixed<'a> {
        Prefixed { prefix: &self.prefix }
    }
}

/// Puts the prefix before each event, which arrives in one write.
pub(super) struct Prefixed<'a> {
    prefix: &'a str,
}

impl Write for Prefixed<'_> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = [self.prefix.as_bytes(), b" ", event].concat();
        io::stderr().lock().write_all(&line)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
