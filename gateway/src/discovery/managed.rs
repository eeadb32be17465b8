//! Replicas that `switchyard up` runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::{Found, listed};
use crate::table::version_key;

/// What runs, by agent.
pub type Fleet = BTreeMap<String, ManagedAgent>;

/// Where the supervisor says what runs.
pub type Managed = tokio::sync::watch::Receiver<Arc<Fleet>>;

/// One agent's replicas.
#[derive(Debug, Clone, Default)]
pub struct ManagedAgent {
    /// How many there shall be.
    pub desired: u32,
    /// Those that are ready.
    pub replicas: Vec<Replica>,
}

/// One replica that is ready.
#[derive(Debug, Clone)]
pub struct Replica {
    /// Where it listens.
    pub endpoint: config::Endpoint,
    /// Its memory, kept current by the supervisor; 0: unknown.
    pub memory_bytes: Arc<AtomicU64>,
}

/// What the table lists, but for the agents that are run: their replicas.
#[must_use]
pub fn find(table: &config::Table, fleet: &Fleet) -> Found {
    let mut found = listed::find(table);
    for (name, agent) in fleet {
        let endpoints: Vec<_> =
            agent.replicas.iter().map(|replica| replica.endpoint.clone()).collect();
        let service = table.agents.get(name).and_then(|agent| agent.service.as_ref());
        let versions = table.agents.values().flat_map(|agent| {
            let named = agent.versions.iter().filter(|version| Some(&version.service) == service);
            named.map(|version| version_key(&agent.name, &version.service))
        });
        for key in versions {
            found.insert(key, endpoints.clone());
        }
        found.insert(name.clone(), endpoints);
    }
    found
}
