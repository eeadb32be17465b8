//! The invariants: each an id, what it catches, why it matters and who says so, and the check.
//! One file a subject; here is what they have in common.

mod confined;
mod disruption;
mod ending;
mod entry;
mod identity;
mod network;
mod probes;
mod resources;
mod rollout;
mod scaling;
mod secrets;
mod services;

use std::fmt;

use super::yard::{Fault, Yard};

/// Something that must hold for manifests, and why.
pub struct Invariant {
    /// A word that stays the same: in findings, in exceptions, in the documentation.
    pub id: &'static str,
    /// What is found, Markdown.
    pub catches: &'static str,
    /// What happens otherwise, Markdown.
    pub why: &'static str,
    /// Who says so.
    pub source: Source,
    pub(super) check: Check,
}

/// Finds what breaks an invariant.
pub(super) type Check = for<'y> fn(&'y Yard<'y>) -> Vec<Fault<'y>>;

/// A document or incident.
pub struct Source {
    /// Its title.
    pub title: &'static str,
    /// Where it is.
    pub url: &'static str,
}

impl fmt::Display for Source {
    /// `title, url`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.title, self.url)
    }
}

/// All invariants, by subject.
pub fn invariants() -> impl Iterator<Item = &'static Invariant> {
    let subjects = [
        ending::INVARIANTS,
        rollout::INVARIANTS,
        probes::INVARIANTS,
        disruption::INVARIANTS,
        scaling::INVARIANTS,
        resources::INVARIANTS,
        services::INVARIANTS,
        network::INVARIANTS,
        entry::INVARIANTS,
        confined::INVARIANTS,
        secrets::INVARIANTS,
        identity::INVARIANTS,
    ];
    subjects.into_iter().flatten()
}
