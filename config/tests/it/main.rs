//! The table from outside: files in, tables or problems out.

#![allow(clippy::unwrap_used)]

mod generated;
mod refused;
mod schema;
mod soup;
mod tables;

use std::path::{Path, PathBuf};

/// A path in this crate's folder.
fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The files of a folder with this extension, in alphabetical order.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(here(folder)).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    files
}

/// The tables that we ship: the default yard and the examples.
fn shipped() -> Vec<PathBuf> {
    let mut tables = files("examples", "toml");
    tables.extend(["switchyard.toml", "local-model.toml"].map(here));
    tables
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// Compares a committed file with what it should hold; `UPDATE=1` writes it instead.
fn committed(path: &Path, is: &str, test: &str) {
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, is).unwrap();
        return;
    }
    let was = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        was == is,
        "{} is not what it should be; `UPDATE=1 cargo test -p config {test}` refreshes it\n{}",
        path.display(),
        first_difference(&was, is)
    );
}

fn first_difference(was: &str, is: &str) -> String {
    let (mut was, mut is) = (was.lines(), is.lines());
    for line in 1.. {
        let (before, after) = (was.next(), is.next());
        if before != after || before.is_none() {
            let (before, after) = (before.unwrap_or("(end)"), after.unwrap_or("(end)"));
            return format!("line {line}\n  committed: {before}\n  should be: {after}");
        }
    }
    String::new()
}
