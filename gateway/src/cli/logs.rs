//! The process's own log: on stderr, filtered by `SWITCHYARD_LOG`, as text on a terminal and JSON
//! elsewhere unless `SWITCHYARD_LOG_FORMAT` says.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::terminal;

const FILTER: &str = "SWITCHYARD_LOG";
const FORMAT: &str = "SWITCHYARD_LOG_FORMAT";

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
    EnvFilter::try_new(wanted).unwrap_or_else(|error| {
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
