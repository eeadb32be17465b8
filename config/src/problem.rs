//! What is said about a file: its problems, each with its place.

use crate::table::Table;

/// A valid table and what is legal but unwise about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// The table.
    pub table: Table,
    /// Warnings, in file order.
    pub warnings: Vec<Problem>,
}

/// One thing that is wrong with a file, or unwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// As the caller named the file.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub col: usize,
    /// What is wrong.
    pub message: String,
    /// What to do, where we know: the nearest valid spelling, an example.
    pub hint: Option<String>,
}

impl std::fmt::Display for Problem {
    /// `file:line:col: message (hint)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.col, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}
