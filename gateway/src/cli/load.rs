//! Reading a table from a file, with every problem on stderr when it can't be used.

use std::path::Path;

use config::{Checked, Problem};

/// Reads and checks the table in `path`. A file that can't be read is one problem at its start.
pub(crate) fn load(path: &Path) -> Result<Checked, Vec<Problem>> {
    config::parse(&read(path)?, &path.display().to_string())
}

/// As [`load`], and the text that it was read from.
pub(crate) fn load_text(path: &Path) -> Result<(Checked, String), Vec<Problem>> {
    let text = read(path)?;
    Ok((config::parse(&text, &path.display().to_string())?, text))
}

fn read(path: &Path) -> Result<String, Vec<Problem>> {
    let hint = "name the table with --config FILE";
    let explained = |error| vec![unreadable(&path.display().to_string(), &error, Some(hint))];
    std::fs::read_to_string(path).map_err(explained)
}

/// As [`load`], with problems and warnings told on stderr; `None` when the table can't be used.
pub(crate) fn load_or_explain(path: &Path) -> Option<Checked> {
    explain(load(path))
}

/// As [`load_or_explain`], and the text that it was read from.
pub(crate) fn load_text_or_explain(path: &Path) -> Option<(Checked, String)> {
    let mut text = String::new();
    let checked = load_text(path).map(|(checked, read)| {
        text = read;
        checked
    });
    Some((explain(checked)?, text))
}

fn explain(checked: Result<Checked, Vec<Problem>>) -> Option<Checked> {
    match checked {
        Ok(checked) => {
            checked.warnings.iter().for_each(|warning| eprintln!("{}", as_warning(warning)));
            Some(checked)
        }
        Err(problems) => {
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            None
        }
    }
}

/// `file:line:col: warning: message (hint)`.
pub(crate) fn as_warning(problem: &Problem) -> String {
    let message = format!("warning: {}", problem.message);
    Problem { message, ..problem.clone() }.to_string()
}

/// A file that can't be read, as a problem at its start. `hint` is for one that isn't there.
pub(crate) fn unreadable(file: &str, error: &std::io::Error, hint: Option<&str>) -> Problem {
    let absent = error.kind() == std::io::ErrorKind::NotFound;
    Problem {
        file: file.to_owned(),
        line: 1,
        col: 1,
        message: format!("can't be read: {error}"),
        hint: hint.filter(|_| absent).map(str::to_owned),
    }
}
