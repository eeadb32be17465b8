//! Where replicas are, as discovery says it.

use std::collections::BTreeMap;

/// The replicas of each agent: its own by its name, those of its versions by [`version_key`].
pub type Found = BTreeMap<String, Replicas>;

/// Addresses, and what will become of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replicas {
    /// Where they are.
    pub addresses: Vec<config::Endpoint>,
    /// Whether others come when these go.
    pub standing: Standing,
}

/// Whether others come when these go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Standing {
    /// They are what the table or `up` says: nobody tells of others.
    #[default]
    Listed,
    /// They are a Service's: when the last has gone, the next may be on its way.
    Followed,
    /// They are a Service's, and all of them are on their way out: they are asked because nobody
    /// else is there.
    Leaving,
}

impl From<Vec<config::Endpoint>> for Replicas {
    /// Those that somebody lists.
    fn from(addresses: Vec<config::Endpoint>) -> Self {
        Self { addresses, standing: Standing::Listed }
    }
}

impl Replicas {
    /// Those of a Service.
    #[must_use]
    pub fn followed(addresses: Vec<config::Endpoint>) -> Self {
        Self { addresses, standing: Standing::Followed }
    }

    /// Those of a Service that has no others.
    #[must_use]
    pub fn leaving(addresses: Vec<config::Endpoint>) -> Self {
        Self { addresses, standing: Standing::Leaving }
    }
}

/// The key in [`Found`] of one version's addresses.
#[must_use]
pub fn version_key(agent: &str, service: &str) -> String {
    format!("{agent}/{service}")
}
