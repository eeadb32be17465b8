//! What of a table outlives it, found again by name and address, and the making of snapshots.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::{SmallVec, smallvec};

use super::agent::{Agent, AgentState, Split};
use super::known::Known;
use super::{Found, Replicas, Snapshot, version_key};
use crate::forward::headers::{AgentHeaders, TrustedProxies};
use crate::metrics::Metrics;
use crate::pool::{Endpoint, Place, Pool, Probe};
use crate::router::{BadRename, Routes};

/// Holds nothing by itself: what no snapshot and no request holds is forgotten.
#[derive(Default)]
pub(super) struct Registry {
    agents: Mutex<Known<String, AgentState>>,
    endpoints: Mutex<Known<(config::Endpoint, config::Protocol), Endpoint>>,
    probes: Mutex<Known<(String, config::Endpoint), Probe>>,
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
        let agents: Vec<Agent> =
            table.agents.values().map(|agent| self.agent(&table, agent, found, metrics)).collect();
        let trusted = TrustedProxies::new(&table.gateway.trusted_proxies);
        let clocked = (0..).zip(&agents).filter(|(_, agent)| agent.is_clocked());
        let clocked = clocked.map(|(index, _)| index).collect();
        let places = agents.iter().flat_map(Agent::places);
        let endpoints = places.map(|place| place.endpoint.id).collect();
        Ok(Snapshot { generation, routes, agents, trusted, table, clocked, endpoints })
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
            Split { weight, pool: Pool::new(addresses.iter().map(place)), standing }
        };
        let splits: SmallVec<[Split; 1]> = match owner.versions.as_slice() {
            [] => smallvec![split(1, &owner.name)],
            versions => versions
                .iter()
                .map(|version| split(version.weight, &version_key(&owner.name, &version.service)))
                .collect(),
        };
        Agent {
            eject: owner.eject,
            health: owner.health.clone().filter(|_| settings.shares.is_none()),
            reserve: table.tenants.as_ref().map_or(0.0, |tenants| tenants.reserve),
            metrics: metrics.agent(&settings.name),
            headers: AgentHeaders::new(&settings.name),
            settings: settings.clone(),
            splits,
            state,
        }
    }

    fn state(&self, agent: &str) -> Arc<AgentState> {
        lock(&self.agents).or_make(agent.to_owned(), AgentState::default)
    }

    fn place(
        &self,
        agent: &AgentState,
        owner: &config::Agent,
        address: &config::Endpoint,
    ) -> Arc<Place> {
        let key = (address.clone(), owner.protocol);
        let key_of_probe = (owner.name.clone(), address.clone());
        let probe = lock(&self.probes).or_make(key_of_probe, Probe::default);
        if owner.health.is_none() {
            probe.reset();
        }
        let endpoint = || Endpoint::new(address.clone(), owner.protocol);
        let endpoint = lock(&self.endpoints).or_make(key, endpoint);
        let key = (owner.name.clone(), address.clone(), owner.protocol);
        agent.places().or_make(key, || Place::new(endpoint, probe))
    }

    /// Counts of one agent, if somebody holds them.
    pub(super) fn known(&self, agent: &str) -> Option<Arc<AgentState>> {
        lock(&self.agents).get(agent)
    }

    /// Counts of every agent.
    pub(super) fn states(&self) -> Vec<(String, Arc<AgentState>)> {
        let agents = lock(&self.agents);
        agents.iter().map(|(name, state)| (name.clone(), state)).collect()
    }

    /// Requests begun and not ended at every address.
    pub(super) fn running(&self) -> BTreeMap<config::Endpoint, u64> {
        let mut running = BTreeMap::new();
        for endpoint in lock(&self.endpoints).alive() {
            *running.entry(endpoint.address.clone()).or_default() +=
                u64::from(endpoint.in_flight());
        }
        running
    }

    /// Forgets what nobody holds any more.
    pub(super) fn forget(&self) {
        let mut agents = lock(&self.agents);
        agents.forget();
        agents.alive().for_each(|state| state.places().forget());
        lock(&self.endpoints).forget();
        lock(&self.probes).forget();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
