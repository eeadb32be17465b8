//! One line on a terminal that says how far it is; nothing elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::flight::Now;
use super::windows::Phase;
use crate::cli::units;

/// Between two lines: as fast as somebody reads.
const INTERVAL: Duration = Duration::from_millis(250);

/// A line that is longer than the terminal is wide is cut there: wrapped, it couldn't be taken back.
const UNWRAPPED: &str = "\x1b[?7l";
const WRAPPED: &str = "\x1b[?7h";

pub(super) struct Progress {
    what: String,
    total: Duration,
    shown: Option<Instant>,
    terminal: bool,
}

impl Progress {
    pub(super) fn new(what: &str, total: Duration) -> Progress {
        let terminal = io::stderr().is_terminal();
        Progress { what: what.to_owned(), total, shown: None, terminal }
    }

    /// Shows a line in place of the last one, unless that is quite new.
    pub(super) fn show(&mut self, after: Duration, line: impl FnOnce() -> String) {
        if !self.terminal || self.shown.is_some_and(|shown| shown.elapsed() < INTERVAL) {
            return;
        }
        self.shown = Some(Instant::now());
        let (after, total) = (Duration::from_secs(after.as_secs()), self.total);
        let text =
            format!("{}: {} of {}, {}", self.what, units::time(after), units::time(total), line());
        // What can't be written is not worth stopping for.
        let _ = write!(io::stderr().lock(), "\r\x1b[K{UNWRAPPED}{text}{WRAPPED}");
    }

    pub(super) fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

/// `hold: 8 under way, 123 done, 0 failed, memory 152 MiB (at most 180 MiB)`.
pub(super) fn line(now: Now, done: u64, failed: u64, memory: u64, most: u64) -> String {
    let phase = match now.phase {
        Phase::Rest => "at rest",
        Phase::Warm => "first requests",
        Phase::Climb => "climbing",
        Phase::Hold => "holding",
    };
    let (memory, most) = (units::bytes(memory), units::bytes(most));
    format!(
        "{phase}: {} under way, {done} done, {failed} failed, memory {memory} (at most {most})",
        now.in_flight
    )
}
