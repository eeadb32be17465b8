//! Text that is no TOML: what to say of it, and how to go on with the rest of the file.
//!
//! The TOML parser recovers within a file, but after an open bracket it complains of every line
//! that follows. So the statement that is at fault is blanked out and the file parsed again.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use crate::reader::{Notes, Origin, quoted};

/// Faulty statements that are named before the file is given up; each costs a parse.
const MAX_FAULTS: usize = 20;

/// Parses the text and hands the tree to `walk`, with whether it is the whole file: what is no TOML
/// is noted and left out of it.
pub(crate) fn parse<T>(
    text: &str,
    notes: &mut Notes,
    walk: impl FnOnce(&Spanned<DeValue<'_>>, bool, &mut Notes) -> T,
) -> Option<T> {
    let mut work = Cow::Borrowed(text);
    for faults in 0..MAX_FAULTS {
        let (tree, errors) = DeTable::parse_recoverable(&work);
        // Not in file order: values are read after the lines that hold them.
        let syntax = errors.iter().filter(|error| !is_clash(error));
        let Some(error) = syntax.min_by_key(|error| place(error)) else {
            note_clashes(text, &errors, notes);
            let tree = Spanned::new(0..text.len(), DeValue::Table(tree.into_inner()));
            return Some(walk(&tree, faults == 0, notes));
        };
        let blank = note_fault(&work, error, notes);
        work = Cow::Owned(blanked(&work, blank));
    }
    None
}

fn place(error: &Error) -> usize {
    error.span().map_or(0, |span| span.start)
}

/// Whether the text is TOML but says something twice. The tree then holds one of the two.
fn is_clash(error: &Error) -> bool {
    error.message().starts_with("duplicate key") || error.message().starts_with("cannot extend")
}

fn note_clashes(text: &str, errors: &[Error], notes: &mut Notes) {
    for error in errors {
        let span = error.span().unwrap_or_default();
        let key = quoted(text.get(span.clone()).unwrap_or_default());
        let message = match error.message() {
            "duplicate key" => format!("`{key}` is there twice"),
            other => other.to_owned(),
        };
        let hint = "a table is opened once in a file, and each key written once in it";
        notes.add(Origin::Here(span.start), message, Some(hint.to_owned()));
    }
}

/// Notes what is no TOML and answers with the bytes to leave out.
fn note_fault(text: &str, error: &Error, notes: &mut Notes) -> Range<usize> {
    let at = place(error).min(text.len());
    let lines = Lines::of(text);
    let line = lines.at(at);
    let first = lines.begin(line);
    let opened_before = at == first && lines.is_statement(line) && stands_alone(lines.text(line));
    let previous = (0..line).rev().find(|line| lines.is_statement(*line));
    if let (true, Some(previous)) = (opened_before, previous) {
        let hint = "close it, with ] or }, before the next key";
        let message = "not valid TOML: what opens here is never closed";
        notes.add(Origin::Here(lines.begin(previous)), message, Some(hint.to_owned()));
        return lines.starts[previous]..lines.starts[line];
    }
    let start = (0..=line).rev().find(|line| lines.is_statement(*line)).unwrap_or(0);
    if start == line && lines.is_unquoted(line) {
        let hint = "put it in quotes".to_owned();
        notes.add(Origin::Here(at), "not valid TOML: text without quotes", Some(hint));
        return lines.starts[line]..lines.end(line);
    }
    if error.message().starts_with("key with no value") {
        let hint = "a line is key = value, [a table], or begins with #".to_owned();
        notes.add(Origin::Here(first), "not valid TOML: this is no line of a table", Some(hint));
        return lines.starts[line]..lines.end(line);
    }
    let place = if error.message().starts_with("unclosed") { lines.begin(start) } else { at };
    notes.add(Origin::Here(place), format!("not valid TOML: {}", plain(error.message())), None);
    let header = lines.is_header(start);
    let ends =
        |next: &usize| if header { lines.is_header(*next) } else { lines.is_statement(*next) };
    let end = (line + 1..lines.starts.len()).find(ends);
    lines.starts[start]..end.map_or(text.len(), |end| lines.starts[end])
}

/// The parser's message where a word of ours is not plainer.
fn plain(message: &str) -> &str {
    match message {
        "invalid basic string, expected `\"`" => "this string is never closed",
        "invalid literal string, expected `'`" => "this string is never closed",
        message => message.strip_suffix(", expected nothing").unwrap_or(message),
    }
}

/// Whether a line reads well without what stands before it, at least at its beginning.
fn stands_alone(line: &str) -> bool {
    let (_, errors) = DeTable::parse_recoverable(line);
    let begin = line.len() - line.trim_start().len();
    errors.first().is_none_or(|error| error.span().is_some_and(|span| span.start > begin))
}

/// The text with spaces for the bytes of the range; lines stay.
fn blanked(text: &str, range: Range<usize>) -> String {
    let mut blanked = String::with_capacity(text.len());
    for (at, letter) in text.char_indices() {
        if range.contains(&at) && letter != '\n' {
            blanked.extend(std::iter::repeat_n(' ', letter.len_utf8()));
        } else {
            blanked.push(letter);
        }
    }
    blanked
}

/// The lines of a text.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Self {
        let after = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(after).collect() }
    }

    /// The line that a byte is in.
    fn at(&self, byte: usize) -> usize {
        self.starts.partition_point(|start| *start <= byte).saturating_sub(1)
    }

    /// The byte after a line.
    fn end(&self, line: usize) -> usize {
        self.starts.get(line + 1).copied().unwrap_or(self.text.len())
    }

    fn text(&self, line: usize) -> &'t str {
        self.text.get(self.starts[line]..self.end(line)).unwrap_or_default()
    }

    /// Whether a line looks like `key = text` without quotes.
    fn is_unquoted(&self, line: usize) -> bool {
        let value = self.text(line).split_once('=').map(|(_, value)| value.trim_start());
        let starts = |c: char| c.is_alphanumeric() || "/:.*@".contains(c);
        !self.is_header(line) && value.is_some_and(|value| value.starts_with(starts))
    }

    /// The first byte of a line that is no space.
    fn begin(&self, line: usize) -> usize {
        let text = self.text(line);
        self.starts[line]
            + (text.len() - text.trim_start().len()).min(text.trim_end_matches('\n').len())
    }

    /// Whether a line looks like `[header]`.
    fn is_header(&self, line: usize) -> bool {
        let text = self.text(line).trim_start();
        let Some(inner) = text.strip_prefix("[[").or_else(|| text.strip_prefix('[')) else {
            return false;
        };
        let starts = inner.starts_with(|c: char| c.is_ascii_alphanumeric() || "_-\"'".contains(c));
        let end = inner.find(['#', '\n']).unwrap_or(inner.len());
        starts && !inner[..end].contains(',')
    }

    /// Whether a line looks like the beginning of `key = …` or `[header]`.
    fn is_statement(&self, line: usize) -> bool {
        let Some((key, _)) = self.text(line).split_once('=') else {
            return self.is_header(line);
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || "_-.\"' /".contains(c);
        (!key.trim().is_empty() && key.chars().all(fits)) || self.is_header(line)
    }
}
