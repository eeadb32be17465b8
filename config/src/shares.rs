//! `shares`: in whose Deployment an agent runs in the end, and where that goes in a circle.

use std::collections::BTreeMap;

use crate::raw::Root;
use crate::reader::{Notes, Origin};

/// Who shares with whom, resolved.
pub(crate) struct Shares<'r> {
    /// Agents that share, by name, with the agent in whose Deployment they run; `None` where that
    /// leads nowhere.
    owners: BTreeMap<&'r str, Option<&'r str>>,
    /// Each circle, in its order.
    circles: Vec<Vec<&'r str>>,
}

impl<'r> Shares<'r> {
    /// Follows every chain once.
    pub(crate) fn of(root: &'r Root) -> Self {
        let mut shares = Self { owners: BTreeMap::new(), circles: Vec::new() };
        for name in root.agents.iter().flat_map(|agents| agents.value.keys()) {
            shares.follow(name, root);
        }
        shares
    }

    /// In whose Deployment a sharing agent runs: never one that shares itself. `None` for an agent
    /// that has its own.
    pub(crate) fn owner(&self, name: &str) -> Option<&'r str> {
        self.owners.get(name).copied().flatten()
    }

    fn follow(&mut self, name: &'r str, root: &'r Root) {
        let mut chain: Vec<&str> = Vec::new();
        let mut steps: BTreeMap<&str, usize> = BTreeMap::new();
        let mut at = name;
        let end = loop {
            if let Some(known) = self.owners.get(at) {
                break *known;
            }
            if let Some(step) = steps.get(at) {
                self.circles.push(chain[*step..].to_vec());
                break None;
            }
            match next(at, root) {
                Next::Shares(other) => {
                    steps.insert(at, chain.len());
                    chain.push(at);
                    at = other;
                }
                Next::Own => break Some(at),
                Next::Unknown => break None,
            }
        };
        for sharing in chain {
            self.owners.insert(sharing, end);
        }
    }

    /// Notes every circle, at its first `shares` in the file.
    pub(crate) fn note_circles(&self, root: &Root, notes: &mut Notes) {
        for circle in &self.circles {
            let place = |name: &&str| place_of_shares(name, root);
            let Some((first, at)) = circle
                .iter()
                .enumerate()
                .filter_map(|(i, name)| Some((i, place(name)?)))
                .min_by_key(|(_, at)| *at)
            else {
                continue;
            };
            let message = match circle.len() {
                1 => format!("agent `{}` shares itself", circle[0]),
                _ => {
                    let turned = circle[first..].iter().chain(&circle[..=first]);
                    let names: Vec<String> = turned.map(|name| format!("`{name}`")).collect();
                    format!("`shares` goes in a circle: {}", names.join(", "))
                }
            };
            let hint =
                "one of them must run by itself: give it endpoints, a service or a deployment";
            notes.add(at, message, Some(hint.to_owned()));
        }
    }
}

enum Next<'r> {
    Shares(&'r str),
    Own,
    Unknown,
}

fn next<'r>(name: &str, root: &'r Root) -> Next<'r> {
    match root.agents.as_ref().and_then(|agents| agents.value.get(name)) {
        None => Next::Unknown,
        Some(agent) => {
            agent.value.shares.as_ref().map_or(Next::Own, |other| Next::Shares(&other.value))
        }
    }
}

fn place_of_shares(name: &str, root: &Root) -> Option<Origin> {
    let agent = root.agents.as_ref()?.value.get(name)?;
    agent.value.shares.as_ref().map(|shares| shares.at)
}
