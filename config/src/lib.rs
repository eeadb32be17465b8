//! The table: what the agents are, how big, how they scale and how they are reached.
//!
//! Text in, valid [`Table`] out, or every [`Problem`] of the file at once with its place.
//! No I/O, no HTTP, no Kubernetes. What is written (`raw`) and what is used ([`Table`]) are two
//! types with one conversion, and the parser, the JSON [`schema`] and the reference page read the
//! same list of keys.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod advice;
mod check;
mod convert;
mod kinds;
pub mod names;
mod page;
mod place;
mod problem;
mod raw;
mod reader;
mod render;
mod schema;
mod section;
mod shares;
mod size;
mod syntax;
mod table;
pub mod units;

use raw::Written;
use reader::Notes;

pub use place::problem_at;
pub use problem::{Checked, Problem};
pub use render::render_json;
pub use schema::schema;
pub use table::*;

/// Reads the text of a table. `file` is what problems call it.
///
/// # Errors
///
/// Every problem of the file, in file order; never an empty list.
pub fn parse(text: &str, file: &str) -> Result<Checked, Vec<Problem>> {
    let mut errors = Notes::default();
    let written = raw::read(text, &mut errors);
    if let Some(Written { root, whole: true }) = &written {
        check::check(root, &mut errors);
        if !errors.any() {
            let mut warnings = Notes::default();
            advice::advise(root, &mut warnings);
            let table = convert::table(root, text);
            return Ok(Checked { table, warnings: warnings.problems(text, file) });
        }
    }
    Err(errors.problems(text, file))
}

/// The reference page of the table, Markdown: what `docs/table.md` holds.
pub fn reference() -> String {
    page::page()
}
