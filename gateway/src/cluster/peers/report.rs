//! What one gateway tells another: who it is and what it has to do.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::admission::sleep::Mode;
use crate::shared::{Phase, Shared};
use crate::table::Running;

/// One gateway's word, on the wire.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wire {
    /// Made up at its start.
    instance: String,
    /// It takes nothing new, and only finishes what it has.
    leaving: bool,
    /// By type; who has nothing to do is left out.
    agents: BTreeMap<String, WireWork>,
    /// Requests answered so far, of types that may be parked. Gateways of an older version don't say.
    #[serde(default)]
    asked: BTreeMap<String, u64>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct WireWork {
    in_flight: u64,
    queued: u64,
    held: u64,
    /// Host, port, requests.
    replicas: Vec<(String, u16, u32)>,
}

/// One gateway's word, as it is used.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cluster) struct Report {
    pub(super) instance: String,
    pub(super) leaving: bool,
    /// By type: in flight, queued, held.
    pub(in crate::cluster) agents: BTreeMap<String, [u64; 3]>,
    /// Requests answered so far, of types that may be parked.
    pub(in crate::cluster) asked: BTreeMap<String, u64>,
    /// By type and replica.
    pub(in crate::cluster) running: Arc<Running>,
}

impl Wire {
    /// Of this gateway, as it is now.
    pub(super) fn of(instance: &str, shared: &Shared, phase: Phase) -> Self {
        let (mut agents, mut asked) = (BTreeMap::new(), BTreeMap::new());
        for (name, state) in shared.tables.states() {
            let admission = &state.admission;
            let running = state.running().into_iter();
            let work = WireWork {
                in_flight: admission.in_flight().into(),
                queued: admission.queued() as u64,
                held: admission.held().into(),
                replicas: running.map(|(at, n)| (at.host, at.port, n)).collect(),
            };
            if state.sleep.mode() != Mode::Fixed {
                asked.insert(name.clone(), shared.metrics.agent(&name).recent.requests());
            }
            if work != WireWork::default() {
                agents.insert(name, work);
            }
        }
        let waits = agents.values().any(|work| work.queued > 0);
        let leaving = phase >= Phase::Draining && !waits;
        Self { instance: instance.to_owned(), leaving, agents, asked }
    }
}

impl From<Wire> for Report {
    fn from(wire: Wire) -> Self {
        let (mut agents, mut running) = (BTreeMap::new(), Running::new());
        for (name, work) in wire.agents {
            agents.insert(name.clone(), [work.in_flight, work.queued, work.held]);
            let at = |(host, port, n)| (config::Endpoint { host, port }, n);
            running.insert(name, work.replicas.into_iter().map(at).collect());
        }
        let Wire { instance, leaving, asked, .. } = wire;
        Self { instance, leaving, agents, asked, running: Arc::new(running) }
    }
}
