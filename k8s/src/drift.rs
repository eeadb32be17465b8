//! Whether a folder's manifests are the table's. No I/O.

use std::collections::BTreeMap;

use crate::lint::Finding;
use crate::{File, MARK};

/// Ids of what this finds.
pub const DRIFT: [&str; 3] = ["missing", "leftover", "different"];

/// What of a folder is rendered, and would be removed when the table asks for it no more.
const FOLDERS: [&str; 3] = ["base", "components", "overlays"];

/// How many characters of a line are shown.
const SHOWN: usize = 100;

/// Compares what was rendered with what is `found` in a folder, by paths below it: all that
/// `render` gives, or its base alone where the folder has none of its subfolders. `command` makes
/// the folder right. In a folder without anything rendered that is the one finding, about the
/// folder itself, whose path is empty.
#[must_use]
pub fn drift(rendered: &[File], found: &[File], command: &str) -> Vec<Finding> {
    let wanted = wanted(rendered, found);
    let there: BTreeMap<_, _> =
        found.iter().map(|file| (file.path.as_str(), file.contents.as_str())).collect();
    let finding = |path: &str, (line, col): (usize, usize), id, message: String| Finding {
        file: path.to_owned(),
        line,
        col,
        id,
        message,
        hint: command.to_owned(),
        source: None,
    };
    let mut findings = Vec::new();
    if !found.iter().any(|file| file.contents.starts_with(MARK)) {
        let message = "nothing here was rendered from a table".to_owned();
        return vec![finding("", (1, 1), DRIFT[0], message)];
    }
    for (path, contents) in &wanted {
        match there.get(path) {
            None => {
                let message = "is missing: the table asks for it".to_owned();
                findings.push(finding(path, (1, 1), DRIFT[0], message));
            }
            // Somebody's own, in the place of ours: `render` leaves it alone, too.
            Some(text) if !text.starts_with(MARK) => {}
            Some(text) => findings.extend(
                difference(text, contents)
                    .map(|(place, message)| finding(path, place, DRIFT[2], message)),
            ),
        }
    }
    let rendered_once = |(path, text): &(&&str, &&str)| {
        text.starts_with(MARK) && !wanted.contains_key(**path) && is_ours(path, found)
    };
    findings.extend(there.iter().filter(rendered_once).map(|(path, _)| {
        let message = "was rendered once, and the table asks for it no more".to_owned();
        finding(path, (1, 1), DRIFT[1], message)
    }));
    findings.sort();
    findings
}

/// Whether a folder has only the base's files, and not in `base/`.
fn is_base_alone(found: &[File]) -> bool {
    let below = |file: &File| FOLDERS.contains(&file.path.split('/').next().unwrap_or_default());
    !found.iter().any(|file| file.path.contains('/') && below(file))
}

fn wanted<'f>(rendered: &'f [File], found: &[File]) -> BTreeMap<&'f str, &'f str> {
    let alone = is_base_alone(found);
    let path = |file: &'f File| {
        if alone { file.path.strip_prefix("base/") } else { Some(file.path.as_str()) }
    };
    rendered.iter().filter_map(|file| Some((path(file)?, file.contents.as_str()))).collect()
}

fn is_ours(path: &str, found: &[File]) -> bool {
    is_base_alone(found) || FOLDERS.iter().any(|folder| path.starts_with(&format!("{folder}/")))
}

/// The first place where a text isn't what it should be, and what stands in both.
fn difference(is: &str, should_be: &str) -> Option<((usize, usize), String)> {
    if is == should_be {
        return None;
    }
    let (mut ours, mut theirs) = (should_be.lines(), is.lines());
    let mut line = 0;
    loop {
        line += 1;
        let (there, wanted) = (theirs.next(), ours.next());
        if there == wanted && there.is_some() {
            continue;
        }
        let message = match (there, wanted) {
            (Some(there), Some(wanted)) => {
                format!("is {}, and the table says {}", shown(there), shown(wanted))
            }
            (Some(there), None) => format!("is {}, and the table says nothing more", shown(there)),
            (None, Some(wanted)) => format!("ends, and the table says {}", shown(wanted)),
            (None, None) => "differs in its line ends".to_owned(),
        };
        let same = there.unwrap_or_default().chars().zip(wanted.unwrap_or_default().chars());
        let col = same.take_while(|(one, other)| one == other).count() + 1;
        let line = if there.is_none() && wanted.is_none() { 1 } else { line };
        return Some(((line, col), message));
    }
}

/// A line in quotes, cut where it is long.
fn shown(line: &str) -> String {
    let line = line.trim();
    let mut text: String = line.chars().take(SHOWN).collect();
    if text.len() < line.len() {
        text.push('…');
    }
    format!("`{text}`")
}
