//! What was measured, as tables with a column a run, and how it stands to the bars: those of the
//! issue that asked for what happens under overload.

use std::fmt::Write as _;

const NAME: usize = 44;
const COLUMN: usize = 18;

/// Everything that is said.
#[derive(Default)]
pub(crate) struct Report {
    text: String,
    bars: Vec<Bar>,
}

struct Bar {
    what: String,
    value: String,
    met: bool,
}

impl Report {
    /// Text of its own.
    pub(crate) fn paragraph(&mut self, text: &str) {
        let _ = writeln!(self.text, "{text}");
    }

    /// The head of a table.
    pub(crate) fn head(&mut self, name: &str, columns: &[&str]) {
        self.text.push('\n');
        self.row(name, columns);
    }

    /// A line of it.
    pub(crate) fn row(&mut self, name: &str, values: &[impl AsRef<str>]) {
        let mut line = format!("{name:<NAME$}");
        for value in values {
            // A string takes all.
            let _ = write!(line, " {:>COLUMN$}", value.as_ref());
        }
        self.paragraph(line.trim_end());
    }

    /// What is to be, what is, and whether that will do.
    pub(crate) fn bar(&mut self, what: impl Into<String>, value: impl Into<String>, met: bool) {
        self.bars.push(Bar { what: what.into(), value: value.into(), met });
    }

    /// What was said since the last time.
    pub(crate) fn take_text(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    /// All bars.
    pub(crate) fn bars(&self) -> String {
        let line = |Bar { what, value, met }: &Bar| {
            format!("{what:<66} {value:>12}  {}\n", if *met { "met" } else { "missed" })
        };
        self.bars.iter().map(line).collect()
    }
}
