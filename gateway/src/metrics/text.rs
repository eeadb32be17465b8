//! Prometheus' text format, version 0.0.4: families of series, each with its help and its type.

use std::fmt::{Display, Write};

/// A metric: all series of one name.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
}

impl Family {
    /// Goes up until the process ends.
    #[must_use]
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: "counter", help }
    }

    /// Goes up and down.
    #[must_use]
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: "gauge", help }
    }

    /// Counts by size.
    #[must_use]
    pub const fn histogram(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: "histogram", help }
    }
}

/// A label and its value.
pub type Label<'a> = (&'a str, &'a str);

/// The text, written a family at a time.
#[derive(Default)]
pub struct Text(String);

impl Text {
    /// A family's series, which `write` adds.
    pub fn family(&mut self, family: &Family, write: impl FnOnce(&mut Series<'_>)) {
        let Family { name, kind, help } = family;
        self.0 += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        write(&mut Series { text: &mut self.0, name });
        self.0.push('\n');
    }

    /// All that was written.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

/// Where a family's series are written.
pub struct Series<'t> {
    text: &'t mut String,
    name: &'static str,
}

impl Series<'_> {
    /// Adds one.
    pub fn add(&mut self, labels: &[Label<'_>], value: impl Display) {
        self.add_part("", labels, value);
    }

    /// Adds one of a histogram's, whose name ends in `suffix`.
    pub(super) fn add_part(&mut self, suffix: &str, labels: &[Label<'_>], value: impl Display) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        for (n, (key, value)) in labels.iter().enumerate() {
            self.text.push_str(if n == 0 { "{" } else { "," });
            self.text.push_str(key);
            self.text.push_str("=\"");
            value.chars().for_each(|letter| self.push_escaped(letter));
            self.text.push('"');
        }
        let end = if labels.is_empty() { "" } else { "}" };
        // A string takes all.
        let _ = writeln!(self.text, "{end} {value}");
    }

    fn push_escaped(&mut self, letter: char) {
        match letter {
            '\\' => self.text.push_str("\\\\"),
            '"' => self.text.push_str("\\\""),
            '\n' => self.text.push_str("\\n"),
            plain => self.text.push(plain),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_stand_behind_help_and_type_and_label_values_are_escaped() {
        let mut text = Text::default();
        text.family(&Family::gauge("tasks", "How many"), |series| {
            series.add(&[], 1);
            series.add(&[("a", "x"), ("b", "\"\\\n")], 2.5);
        });
        let expected = "# HELP tasks How many\n# TYPE tasks gauge\ntasks 1\ntasks{a=\"x\",b=\"\\\"\\\\\\n\"} 2.5\n\n";
        assert_eq!(text.into_string(), expected);
    }
}
