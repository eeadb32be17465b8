//! The process's own log: on stderr, filtered by `SWITCHYARD_LOG`, as text on a terminal and JSON
//! elsewhere unless `SWITCHYARD_LOG_FORMAT` says.

use std::io::{self, IsTerminal};

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::terminal;

const FILTER: &str = "SWITCHYARD_LOG";
const FORMAT: &str = "SWITCHYARD_LOG_FORMAT";

/// Lines that wait for a slow reader of stderr; beyond them lines are dropped and counted.
const LINES_MAX: usize = 16_384;

/// Keeps a log going; dropped, it is written out.
pub(crate) struct Log {
    _guard: WorkerGuard,
    dropped: ErrorCounter,
}

impl Log {
    /// How many lines were dropped so far.
    pub(crate) fn dropped(&self) -> switchyard::gateway::Dropped {
        let counter = self.dropped.clone();
        Box::new(move || counter.dropped_lines())
    }
}

/// Starts logging to `writer` on a thread of its own: nobody who logs waits for it.
pub(crate) fn start_beside<W>(writer: W) -> Log
where
    W: io::Write + Send + 'static,
{
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_MAX);
    let (writer, guard) = builder.finish(writer);
    let dropped = writer.error_counter();
    start(writer);
    Log { _guard: guard, dropped }
}

/// Starts logging to `writer` for the rest of the process. What the environment says that can't be
/// followed is named in one line, and the default is used.
pub(crate) fn start<W>(writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter())
        .with_ansi(terminal::colours(&io::stderr()))
        .with_writer(writer);
    if wants_json() { builder.json().flatten_event(true).init() } else { builder.init() }
}

fn filter() -> EnvFilter {
    let wanted = std::env::var(FILTER).unwrap_or_default();
    let wanted = if wanted.is_empty() { "info" } else { &wanted };
    // The API's client tells every failure; discovery tells when it begins and when it is over. The
    // watcher of files tells of each folder that a ConfigMap's volume takes away.
    EnvFilter::try_new(format!("kube_client=off,notify=off,{wanted}")).unwrap_or_else(|error| {
        eprintln!("warning: {FILTER}: {error}; logging at info");
        EnvFilter::new("info")
    })
}

fn wants_json() -> bool {
    match std::env::var(FORMAT).as_deref() {
        Ok("json") => true,
        Ok("text") => false,
        Err(_) | Ok("") => !io::stderr().is_terminal(),
        Ok(other) => {
            eprintln!("warning: {FORMAT} is {other:?}: only json and text are known");
            !io::stderr().is_terminal()
        }
    }
}
