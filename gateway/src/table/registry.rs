//! What of a table outlives it, found again by name and address, and the making of snapshots.

use std::sync::{Arc, Weak};

use dashmap::DashMap;

use super::agent::{Agent, AgentState, Split};
use super::{Found, Replicas, Snapshot, version_key};
use crate::forward::headers::{AgentHeaders, TrustedProxies};
use crate::metrics::Metrics;
use crate::pool::{Endpoint, Place, Pool, Probe};
use crate::router::{BadRename, Routes};

/// Holds nothing by itself: what no snapshot and no request holds is forgotten.
#[derive(Default)]
pub(super) struct Registry {
    pub(super) agents: DashMap<String, Weak<AgentState>>,
    pub(super) endpoints: DashMap<(config::Endpoint, config::Protocol), Weak<Endpoint>>,
    probes: DashMap<(String, config::Endpoint), Weak<Probe>>,
}

impl Registry {
    pub(super) fn snapshot(
        &self,
        generation: u64,
        table: Arc<config::Table>,
        found: &Found,
        metrics: &Metrics,
    ) -> Result<Snapshot, BadRename> {
        let names = table.agents.iter().map(|(name, agent)| (name.as_str(), &agent.paths));
        let routes = Routes::new(names)?;
        let agents: Vec<_> =
            table.agents.values().map(|agent| self.agent(&table, agent, found, metrics)).collect();
        let trusted = TrustedProxies::new(&table.gateway.trusted_proxies);
        Ok(Snapshot { generation, routes, agents, trusted, table })
    }

    fn agent(
        &self,
        table: &config::Table,
        settings: &config::Agent,
        found: &Found,
        metrics: &Metrics,
    ) -> Agent {
        let owner = settings.shares.as_ref().and_then(|owner| table.agents.get(owner));
        let owner = owner.unwrap_or(settings);
        let state = self.state(&settings.name);
        let split = |weight: u32, key: &str| {
            let Replicas { addresses, standing } = found.get(key).cloned().unwrap_or_default();
            let place = |address| self.place(&state, owner, address);
            Split { weight, pool: Pool::new(addresses.iter().map(place).collect()), standing }
        };
        let splits: Vec<_> = match owner.versions.as_slice() {
            [] => vec![split(1, &owner.name)],
            versions => versions
                .iter()
                .map(|version| split(version.weight, &version_key(&owner.name, &version.service)))
                .collect(),
        };
        Agent {
            eject: owner.eject,
            health: owner.health.clone().filter(|_| settings.shares.is_none()),
            total_weight: splits.iter().map(|split| split.weight).sum(),
            metrics: metrics.agent(&settings.name),
            headers: AgentHeaders::new(&settings.name),
            settings: settings.clone(),
            splits,
            state,
        }
    }

    fn state(&self, agent: &str) -> Arc<AgentState> {
        alive(&self.agents, agent.to_owned(), AgentState::default)
    }

    fn place(
        &self,
        agent: &AgentState,
        owner: &config::Agent,
        address: &config::Endpoint,
    ) -> Arc<Place> {
        let key = (address.clone(), owner.protocol);
        let probe = alive(&self.probes, (owner.name.clone(), address.clone()), Probe::default);
        if owner.health.is_none() {
            probe.reset();
        }
        let endpoint = || Endpoint::new(address.clone(), owner.protocol);
        let endpoint = alive(&self.endpoints, key, endpoint);
        let key = (owner.name.clone(), address.clone(), owner.protocol);
        alive(&agent.places, key, || Place::new(endpoint, probe))
    }

    /// Forgets what nobody holds any more.
    pub(super) fn forget(&self) {
        self.agents.retain(|_, state| match state.upgrade() {
            Some(state) => {
                state.places.retain(|_, place| place.strong_count() > 0);
                true
            }
            None => false,
        });
        self.endpoints.retain(|_, endpoint| endpoint.strong_count() > 0);
        self.probes.retain(|_, probe| probe.strong_count() > 0);
    }
}

fn alive<K: std::hash::Hash + Eq, V>(
    map: &DashMap<K, Weak<V>>,
    key: K,
    make: impl FnOnce() -> V,
) -> Arc<V> {
    let mut entry = map.entry(key).or_default();
    entry.upgrade().unwrap_or_else(|| {
        let made = Arc::new(make());
        *entry = Arc::downgrade(&made);
        made
    })
}
