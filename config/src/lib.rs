//! The table: what the agents are, how big, how they scale and how they are reached.
//!
//! Text in, valid [`Table`] out, or every [`Problem`] of the file at once with its place.
//! No I/O, no HTTP, no Kubernetes. What is written (`raw`) and what is used ([`Table`]) are two
//! types with one conversion, and the parser, the JSON [`schema`] and the reference page read the
//! same list of keys.

mod check;
mod convert;
mod kinds;
pub mod names;
mod problem;
mod raw;
mod reader;
mod section;
mod table;
mod units;
mod web;

pub use problem::{Checked, Problem};
pub use table::*;

/// Reads the text of a table. `file` is what problems call it.
///
/// # Errors
///
/// Every problem of the file, in file order; never an empty list.
pub fn parse(text: &str, file: &str) -> Result<Checked, Vec<Problem>> {
    let (yard, mut notes) = raw::read(text);
    check::check(&yard, &mut notes);
    if notes.any() {
        return Err(notes.problems(text, file));
    }
    let table = convert::table(&yard, text);
    Ok(Checked { table, warnings: Vec::new() })
}
