//! Writing to people: whether colours are wanted, text that can't steer the terminal, and a stdout
//! that may be closed at any time.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

/// Whether a stream gets colours: it is a terminal, and `NO_COLOR` is unset or empty.
pub(crate) fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// `text` in the SGR style `code` (such as `2` for dim) when `colours` is true.
pub(crate) fn paint(text: &str, code: &str, colours: bool) -> String {
    if colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Prints to stdout and turns the result into an exit code: 0 also when the reader has left, as
/// `| head` does; 1 when it can't be written otherwise.
pub(crate) fn print(text: &str) -> ExitCode {
    match write_out(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: can't write to stdout: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes to stdout and flushes.
pub(crate) fn write_out(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// `text` without control characters other than line feed and tab, so that what an agent or a
/// model says can't move the cursor, set the title or answer for the user.
pub(crate) fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

/// As [`clean`], for log lines: keeps colours (`ESC [ … m`) where `colours` are wanted, takes them
/// out whole where they aren't.
pub(crate) fn clean_line(text: &str, colours: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(char::is_control) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let style = style_length(rest);
        if colours {
            out.push_str(&rest[..style]);
        }
        if rest.starts_with('\t') {
            out.push('\t');
        }
        let skipped = rest.chars().next().map_or(0, char::len_utf8).max(style);
        rest = &rest[skipped..];
    }
    out.push_str(rest);
    out
}

/// The length of the colour sequence at the start of `text`; 0 when there is none.
fn style_length(text: &str) -> usize {
    let Some(after) = text.strip_prefix("\x1b[") else { return 0 };
    let digits = after.bytes().take_while(|b| b.is_ascii_digit() || *b == b';').count();
    if after.as_bytes().get(digits) == Some(&b'm') { 2 + digits + 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_can_not_steer_the_terminal() {
        assert_eq!(clean("a\x1b]0;title\x07b\tc\nd\r"), "a]0;titleb\tc\nd");
    }

    #[test]
    fn log_lines_keep_colours_only_where_they_are_wanted() {
        let line = "\x1b[1;32mok\x1b[0m \x1b[2Jcleared\x08é\t.";
        assert_eq!(clean_line(line, true), "\x1b[1;32mok\x1b[0m [2Jclearedé\t.");
        assert_eq!(clean_line(line, false), "ok [2Jclearedé\t.");
    }
}
