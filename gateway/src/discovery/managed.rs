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

/// What the table lists, but for the agents that are run: their replicas. Until the first of them
/// is ready, an agent that has listed endpoints keeps those, so that an edit which begins to run an
/// agent drops nothing.
#[must_use]
pub fn find(table: &config::Table, fleet: &Fleet) -> Found {
    let mut found = listed::find(table);
    for (name, agent) in fleet {
        let endpoints: Vec<_> =
            agent.replicas.iter().map(|replica| replica.endpoint.clone()).collect();
        if endpoints.is_empty()
            && found.get(name).is_some_and(|listed| !listed.addresses.is_empty())
        {
            continue;
        }
        let service = table.agents.get(name).and_then(|agent| agent.service.as_ref());
        let versions = table.agents.values().flat_map(|agent| {
            let named = agent.versions.iter().filter(|version| Some(&version.service) == service);
            named.map(|version| version_key(&agent.name, &version.service))
        });
        for key in versions {
            found.insert(key, endpoints.clone().into());
        }
        found.insert(name.clone(), endpoints.into());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(replicas: &[Replica]) -> Found {
        let text =
            "[agents.qa]\nendpoints = [\"http://127.0.0.1:1\"]\n[agents.new]\nservice = \"new\"\n";
        let table = config::parse(text, "t").unwrap().table;
        let agent = || ManagedAgent { desired: 1, replicas: replicas.to_vec() };
        find(&table, &Fleet::from([("qa".into(), agent()), ("new".into(), agent())]))
    }

    #[test]
    fn listed_endpoints_serve_until_the_first_replica_is_ready() {
        let ports = |found: &Found, name: &str| {
            found[name].addresses.iter().map(|address| address.port).collect::<Vec<_>>()
        };
        let none = found(&[]);
        assert_eq!((ports(&none, "qa"), ports(&none, "new")), (vec![1], vec![]));
        let endpoint = config::Endpoint { host: "127.0.0.1".into(), port: 2 };
        let one = found(&[Replica { endpoint, memory_bytes: Arc::default() }]);
        assert_eq!((ports(&one, "qa"), ports(&one, "new")), (vec![2], vec![2]));
    }
}
