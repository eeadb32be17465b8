//! How much there is to do, per agent type: said once, for every dialect in which it is asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::peers::Peers;
use crate::shared::Shared;
use crate::table::Agent;

/// What one agent type has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AgentLoad {
    /// Requests that have a place, without the held ones.
    pub in_flight: u64,
    /// Requests that wait.
    pub queued: u64,
    /// Requests whose client left and whose agent goes on.
    pub held: u64,
    /// Places at the ready replicas, or this gateway's share of them; `None` without a limit.
    pub capacity: Option<u64>,
}

impl AgentLoad {
    /// What autoscalers go by: in flight, queued and held together.
    #[must_use]
    pub fn load(&self) -> u64 {
        self.in_flight + self.queued + self.held
    }

    /// Of this gateway's share of an agent, as it is now.
    #[must_use]
    pub fn of(agent: &Agent) -> Self {
        let admission = &agent.state.admission;
        Self {
            in_flight: admission.in_flight().into(),
            queued: admission.queued() as u64,
            held: admission.held().into(),
            capacity: agent.share().map(u64::from),
        }
    }
}

/// What all agent types of the table have to do; each is there, also with nothing to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loads {
    /// By agent type.
    pub agents: BTreeMap<String, AgentLoad>,
    /// Gateways that are counted in.
    pub gateways: usize,
}

/// Where the load can be asked at any time, without waiting for anybody.
#[derive(Clone)]
pub struct Board {
    shared: Arc<Shared>,
    peers: Arc<Peers>,
}

impl Board {
    /// The board of this gateway and those that it knows.
    #[must_use]
    pub fn new(shared: Arc<Shared>, peers: Arc<Peers>) -> Self {
        Self { shared, peers }
    }

    /// This gateway among the others.
    #[must_use]
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Of this gateway alone, as it is now.
    #[must_use]
    pub fn own(&self) -> Loads {
        let snapshot = self.shared.tables.current();
        let load = |agent: &Agent| (agent.settings.name.clone(), AgentLoad::of(agent));
        Loads { agents: snapshot.agents.iter().map(load).collect(), gateways: 1 }
    }

    /// Requests answered so far by type, over all gateways, at least of types that may be parked:
    /// where a number changes, somebody has asked.
    #[must_use]
    pub fn asked(&self) -> BTreeMap<String, u64> {
        let snapshot = self.shared.tables.current();
        let own = |agent: &Agent| (agent.settings.name.clone(), agent.metrics.recent.requests());
        let mut asked: BTreeMap<_, _> = snapshot.agents.iter().map(own).collect();
        for report in self.peers.reports() {
            for (name, n) in &report.asked {
                *asked.entry(name.clone()).or_default() += n;
            }
        }
        asked
    }

    /// Of all gateways together: this one as it is now, the others as they were last heard.
    #[must_use]
    pub fn overall(&self) -> Loads {
        let (snapshot, mut loads) = (self.shared.tables.current(), self.own());
        for agent in &snapshot.agents {
            if let Some(load) = loads.agents.get_mut(&agent.settings.name) {
                load.capacity = agent.capacity().map(u64::from);
            }
        }
        for report in self.peers.reports() {
            for (name, [in_flight, queued, held]) in &report.agents {
                // Who is not in this table yet, or any more, is asked for by nobody.
                let Some(load) = loads.agents.get_mut(name) else { continue };
                load.in_flight += in_flight;
                load.queued += queued;
                load.held += held;
            }
        }
        loads.gateways = self.gateways();
        loads
    }

    /// Requests begun and not ended at each replica over all gateways, the held ones too. Who has
    /// none is there with 0, as long as this gateway uses it.
    #[must_use]
    pub fn endpoints(&self) -> BTreeMap<config::Endpoint, u64> {
        let mut endpoints = self.shared.tables.running();
        for report in self.peers.reports() {
            for (endpoint, n) in report.running.values().flatten() {
                *endpoints.entry(endpoint.clone()).or_default() += u64::from(*n);
            }
        }
        endpoints
    }

    /// How many gateways there are, this one included.
    #[must_use]
    pub fn gateways(&self) -> usize {
        self.peers.gateways()
    }
}
