//! `switchyard schema`: the JSON Schema of the table on stdout.

use std::process::ExitCode;

use super::terminal;

pub(crate) fn run() -> ExitCode {
    terminal::print(&config::schema())
}
