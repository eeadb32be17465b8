//! Manifests judged: documents in, findings out. What may be wrong with them, and why it matters,
//! is in `rules`, one invariant each; whose objects they are, in `yard`. No I/O.

mod kustomize;
mod node;
mod page;
mod quantity;
mod rules;
mod yard;

use std::collections::BTreeSet;

use config::Table;

use crate::File;
pub use page::page;
pub use rules::{Invariant, invariants};
use yard::{Fault, Yard};

/// Annotation of an object with the ids of the invariants that don't hold for it, separated by
/// commas: a deliberate exception.
pub const ALLOW: &str = "switchyard.dev/allow";

/// Id of the finding that a file is no YAML.
pub const UNREADABLE: &str = "unreadable";

/// One thing that is wrong with the manifests.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, as it was given.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub col: usize,
    /// Which invariant doesn't hold: a word that stays the same.
    pub id: &'static str,
    /// What is wrong, with the numbers; one sentence without its full stop.
    pub message: String,
    /// What to do.
    pub hint: String,
    /// The document or incident that says why it matters; none where the reason is our own.
    pub source: Option<String>,
}

/// Everything that is wrong with the objects in these files, in the order of files and lines.
///
/// Only whole objects are judged: a patch, or a document that is no Kubernetes object, is passed
/// over. An object's annotation [`ALLOW`] names what is deliberate.
#[must_use]
pub fn lint(table: &Table, files: &[File]) -> Vec<Finding> {
    let (yard, unreadable) = Yard::read(table, files);
    let mut findings: BTreeSet<Finding> = unreadable.into_iter().collect();
    for invariant in invariants() {
        let faults = (invariant.check)(&yard).into_iter();
        let meant = faults.filter(|fault| !fault.object.allows(invariant.id));
        findings.extend(meant.map(|fault| finding(invariant, fault)));
    }
    findings.into_iter().collect()
}

/// How many whole objects there are in these files.
#[must_use]
pub fn count(table: &Table, files: &[File]) -> usize {
    Yard::read(table, files).0.objects.len()
}

fn finding(invariant: &Invariant, fault: Fault<'_>) -> Finding {
    Finding {
        file: fault.object.file.to_owned(),
        line: fault.at.line,
        col: fault.at.col,
        id: invariant.id,
        message: format!("{}: {}", fault.object.title(), fault.message),
        hint: fault.hint,
        source: Some(invariant.source.to_string()),
    }
}
