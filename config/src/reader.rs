//! Walks the spanned tree: where a value stands, what was wrong with it, and which spelling was
//! meant.

use std::cell::LazyCell;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::kinds::pods::AgentType;
use crate::problem::Problem;
use crate::section::{At, Kind, Name, Shape};

/// Spellings compared over a whole file while looking for the nearest one; hints end there,
/// problems don't.
const MAX_COMPARISONS: usize = 200_000;
/// Longest piece of the file that a message repeats, in characters.
const MAX_QUOTED: usize = 60;
/// Below this likeness (0 to 1) a spelling is not offered.
const LIKENESS: f64 = 0.6;
/// Shortest beginning of a key that is taken for it, in bytes.
const MIN_STEM: usize = 3;
/// Most keys that a hint lists.
const MAX_LISTED: usize = 8;

/// Where a value was written. The order is that of authority, then of the file, so that the `max`
/// of two is the place to point at when they contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// Nowhere: a built-in default.
    BuiltIn,
    /// In `[defaults]`, at this byte.
    Defaults(usize),
    /// In the section itself, at this byte.
    Here(usize),
}

impl Origin {
    /// Whether a person wrote it.
    pub(crate) fn is_written(self) -> bool {
        self != Self::BuiltIn
    }

    /// Whether the section itself says so, not `[defaults]`.
    pub(crate) fn is_here(self) -> bool {
        matches!(self, Self::Here(_))
    }

    fn byte(self) -> usize {
        match self {
            Self::BuiltIn => 0,
            Self::Defaults(byte) | Self::Here(byte) => byte,
        }
    }
}

/// What was found, by byte; becomes [`Problem`]s with line and column in the end.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    found: Vec<(usize, String, Option<String>)>,
    comparisons: usize,
}

impl Notes {
    /// Adds one.
    pub(crate) fn add(&mut self, at: Origin, message: impl Into<String>, hint: Option<String>) {
        self.found.push((at.byte(), message.into(), hint));
    }

    /// Whether there is one.
    pub(crate) fn any(&self) -> bool {
        !self.found.is_empty()
    }

    /// The nearest of the names, when one is near enough.
    pub(crate) fn nearest<'n>(
        &mut self,
        wrong: &str,
        names: impl Iterator<Item = &'n str>,
    ) -> Option<&'n str> {
        let wrong: String = wrong.chars().take(MAX_QUOTED).collect::<String>().to_lowercase();
        let mut best: Option<(f64, &str)> = None;
        for name in names {
            if self.comparisons >= MAX_COMPARISONS {
                break;
            }
            self.comparisons += 1;
            let likeness = strsim::normalized_damerau_levenshtein(&wrong, &name.to_lowercase());
            if likeness >= LIKENESS && best.is_none_or(|(most, _)| likeness > most) {
                best = Some((likeness, name));
            }
        }
        best.map(|(_, name)| name)
    }

    /// All of them in file order, each once, lines and columns counted in one pass.
    pub(crate) fn problems(mut self, text: &str, file: &str) -> Vec<Problem> {
        self.found.sort_by_key(|(byte, ..)| *byte);
        let mut problems: Vec<Problem> = Vec::with_capacity(self.found.len());
        let mut places = Places { text, byte: 0, line: 1, col: 1 };
        for (byte, message, hint) in self.found {
            let (line, col) = places.advance(byte);
            let problem = Problem { file: file.to_owned(), line, col, message, hint };
            let same_place = |p: &&Problem| p.line == line && p.col == col;
            if !problems.iter().rev().take_while(same_place).any(|p| *p == problem) {
                problems.push(problem);
            }
        }
        problems
    }
}

/// A cursor that turns ascending bytes into lines and columns.
struct Places<'t> {
    text: &'t str,
    byte: usize,
    line: usize,
    col: usize,
}

impl Places<'_> {
    fn advance(&mut self, to: usize) -> (usize, usize) {
        let rest = self.text.get(self.byte..).unwrap_or_default();
        for (offset, letter) in rest.char_indices() {
            if self.byte + offset >= to {
                self.byte += offset;
                return (self.line, self.col);
            }
            if letter == '\n' {
                self.line += 1;
                self.col = 1;
            } else {
                self.col += 1;
            }
        }
        self.byte = self.text.len();
        (self.line, self.col)
    }
}

/// What a leaf says of a value that it can't take.
pub(crate) enum Wrong {
    /// Not of its kind at all.
    Kind,
    /// Of its kind, but.
    Because(String),
    /// Of its kind, but out of bounds: an example would not help.
    Bounds(String),
    /// Of its kind, but; and what to write instead.
    Rather(String, String),
}

/// Reads sections, collects what is wrong.
pub(crate) struct Reader<'n> {
    pub(crate) notes: &'n mut Notes,
    /// Values are read as `[defaults]`.
    pub(crate) in_defaults: bool,
    /// The value that is read next might also be "off".
    pub(crate) or_off: bool,
    path: Vec<String>,
    /// The shape of the whole table, to know where a misplaced key belongs; made when one is found.
    root: LazyCell<Shape>,
}

impl<'n> Reader<'n> {
    pub(crate) fn new(notes: &'n mut Notes, root: fn() -> Shape) -> Self {
        Self {
            notes,
            in_defaults: false,
            or_off: false,
            path: Vec::new(),
            root: LazyCell::new(root),
        }
    }

    /// The origin of something at this byte.
    pub(crate) fn origin(&self, byte: usize) -> Origin {
        if self.in_defaults { Origin::Defaults(byte) } else { Origin::Here(byte) }
    }

    /// Reads the value of one key. A table is placed at its key, anything else at its value.
    pub(crate) fn field<K: Kind>(
        &mut self,
        key: &Spanned<impl AsRef<str>>,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<At<K::Value>> {
        self.path.push(key.get_ref().as_ref().to_owned());
        let read = K::read(value, self);
        self.path.pop();
        let place = if value.get_ref().is_table() { key.span() } else { value.span() };
        read.map(|value| At { value, at: self.origin(place.start) })
    }

    /// The table that a section must be.
    pub(crate) fn table<'v, 'i>(
        &mut self,
        value: &'v Spanned<DeValue<'i>>,
        example: impl FnOnce() -> String,
    ) -> Option<&'v DeTable<'i>> {
        let noun = self.noun("a table");
        let table = value.get_ref().as_table();
        if table.is_none() {
            let got = match value.get_ref().as_str() {
                Some(word) if noun != "a table" => format!("`{}`", quoted(word)),
                _ => article(value),
            };
            let message = format!("`{}` takes {noun}, not {got}", self.key());
            self.say(value, message, Some(format!("for example {}", example())));
        }
        table
    }

    /// What a key takes, with "off" where that is possible.
    fn noun(&mut self, noun: &str) -> String {
        let or_off = std::mem::take(&mut self.or_off);
        if or_off { format!("\"off\" or {noun}") } else { noun.to_owned() }
    }

    /// A key that the section doesn't have.
    pub(crate) fn unknown(&mut self, key: &Spanned<impl AsRef<str>>, known: &[&'static str]) {
        let name = key.get_ref().as_ref();
        let place = match self.path.is_empty() {
            true => "at the top level".to_owned(),
            false => format!("in [{}]", quoted(&self.path.join("."))),
        };
        let hint = self.meant(name, known);
        let message = format!("unknown key `{}` {place}", quoted(name));
        self.notes.add(self.origin(key.span().start), message, Some(hint));
    }

    /// What an unknown key may have meant: a key of its section, a key of another section, or any
    /// that there is.
    fn meant(&mut self, name: &str, known: &[&'static str]) -> String {
        if let Some(near) = self.notes.nearest(name, known.iter().copied()) {
            return format!("did you mean `{near}`?");
        }
        let elsewhere = self.elsewhere(name);
        if !elsewhere.is_empty() {
            return format!("`{name}` is a key of {}", elsewhere.join(" and "));
        }
        let stem = |known: &&&str| {
            let (short, long) =
                if name.len() < known.len() { (name, **known) } else { (**known, name) };
            short.len() >= MIN_STEM && long.starts_with(short)
        };
        let begun: Vec<String> = known.iter().filter(stem).map(|k| format!("`{k}`")).collect();
        match (begun.is_empty(), known.len() <= MAX_LISTED) {
            (false, _) => format!("did you mean {}?", begun.join(" or ")),
            (true, true) => format!("the keys here are {}", known.join(", ")),
            (true, false) => "docs/table.md has every key".to_owned(),
        }
    }

    /// The sections nearest to this one that have such a key.
    fn elsewhere(&self, name: &str) -> Vec<String> {
        let same =
            |(step, here): &(&&str, &String)| *step == here || **step == AgentType::PLACEHOLDER;
        let far = |path: &[&str]| {
            let shared = path.iter().zip(&self.path).take_while(same).count();
            (usize::MAX - shared, path.first() == Some(&"defaults"), path.len())
        };
        let mut found = self.root.sections_with(name);
        let nearest = found.iter().map(|path| far(path)).min();
        found.retain(|path| Some(far(path)) == nearest);
        found.iter().map(|path| format!("[{}]", path.join("."))).collect()
    }

    /// A leaf that doesn't take its value. Only `echo` lets the message repeat what is written.
    pub(crate) fn wrong(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        wrong: Wrong,
        noun: &str,
        example: &str,
        echo: bool,
    ) {
        let (key, noun) = (self.key(), self.noun(noun));
        let (message, hint) = match wrong {
            Wrong::Kind => {
                let not = match value.get_ref().as_str() {
                    Some("") => ", not an empty string".to_owned(),
                    Some(text) if echo => format!(", not `{}`", quoted(text)),
                    Some(_) => String::new(),
                    None => format!(", not {}", article(value)),
                };
                (format!("`{key}` takes {noun}{not}"), Some(format!("for example {example}")))
            }
            Wrong::Because(why) => {
                (format!("`{key}` {why}"), Some(format!("for example {example}")))
            }
            Wrong::Bounds(why) => (format!("`{key}` {why}"), None),
            Wrong::Rather(why, rather) => (format!("`{key}` {why}"), Some(rather)),
        };
        self.say(value, message, hint);
    }

    /// Anything else, at a value.
    pub(crate) fn say(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        message: String,
        hint: Option<String>,
    ) {
        self.notes.add(self.origin(value.span().start), message, hint);
    }

    /// The key that is being read.
    pub(crate) fn key(&self) -> String {
        self.path.last().map(|key| quoted(key)).unwrap_or_default()
    }
}

/// A piece of the file as a message may repeat it: one line, no control characters, not too long.
pub(crate) fn quoted(text: &str) -> String {
    let mut letters = text.chars();
    let short: String = letters.by_ref().take(MAX_QUOTED).flat_map(char::escape_debug).collect();
    if letters.next().is_some() { format!("{short}…") } else { short }
}

/// `a string`, `an integer`: the type of a value, for messages.
fn article(value: &Spanned<DeValue<'_>>) -> String {
    match value.get_ref() {
        DeValue::Integer(_) => "an integer".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Float(_) => "a number with a fraction".to_owned(),
        other => format!("a {}", other.type_str()),
    }
}
