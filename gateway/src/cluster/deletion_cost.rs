//! Busy pods are spared: the one gateway that decides writes on pods what their deletion costs
//! (`controller.kubernetes.io/pod-deletion-cost`), so that a scale-in takes an idle one first.
//!
//! Few writes: a pod without requests has no cost, which is where all begin; only a change of class
//! is written, a lower one after a calm while, and only where there are replicas to choose from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::asker::{Asker, Failed};
use super::lease::Handle;
use super::load::Board;
use super::scale::MANAGER;
use crate::discovery::{Known, Pod};
use crate::shared::Shared;
use crate::table::Snapshot;

/// How often the counts are looked at.
const TICK: Duration = Duration::from_secs(1);
/// Pods written to in one look, all agents together: so many a second.
const WRITES_MAX: usize = 4;
/// A lower class is written once it has held for so long.
const CALM: Duration = Duration::from_secs(10);
/// Between two writes to one pod.
const SPACING: Duration = Duration::from_secs(5);
/// Cost of the classes above the idle one: one request, 2 or 3, 4 to 7, and so on.
const STEP: i32 = 10;
/// The annotation of a pod.
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// The annotation of the Lease with the costs that stand on pods, for the next one who decides.
const COSTS: &str = "switchyard/deletion-costs";

/// The cost of a pod with so many requests: it grows with their logarithm.
fn cost(requests: u64) -> i32 {
    requests.checked_ilog2().map_or(0, |log| STEP * (1 + log.cast_signed()))
}

/// What stands on one pod, as far as it is known.
#[derive(Debug)]
struct Written {
    cost: i32,
    at: Option<Instant>,
    /// Since when lower ones would do, and the highest of them.
    calm: Option<(Instant, i32)>,
}

/// What stands on all pods.
#[derive(Debug, Default)]
struct Costs {
    pods: BTreeMap<Pod, Written>,
}

impl Costs {
    /// What is to be written now: the greatest changes first.
    fn due(&mut self, counts: &BTreeMap<Pod, u64>, now: Instant) -> Vec<(Pod, i32)> {
        let mut due = Vec::new();
        for (pod, count) in counts {
            let fresh = || Written { cost: 0, at: None, calm: None };
            let written = self.pods.entry(pod.clone()).or_insert_with(fresh);
            if let Some(cost) = written.due(cost(*count), now) {
                due.push((pod.clone(), cost, cost.abs_diff(written.cost)));
            }
        }
        due.sort_by_key(|(_, _, change)| std::cmp::Reverse(*change));
        due.into_iter().take(WRITES_MAX).map(|(pod, cost, _)| (pod, cost)).collect()
    }

    /// Forgets pods that aren't there any more (what only isn't ready now stays known), and says
    /// which.
    fn forget(&mut self, known: &Known) -> BTreeMap<String, Option<String>> {
        let alive: BTreeSet<_> = known.pods.values().collect();
        let mut gone = BTreeMap::new();
        self.pods.retain(|pod, _| {
            let stays = alive.contains(pod);
            if !stays {
                gone.insert(entry(pod), None);
            }
            stays
        });
        gone
    }

    fn wrote(&mut self, pod: &Pod, cost: i32, now: Instant) {
        self.pods.insert(pod.clone(), Written { cost, at: Some(now), calm: None });
    }
}

impl Written {
    fn due(&mut self, cost: i32, now: Instant) -> Option<i32> {
        if cost >= self.cost {
            self.calm = None;
        } else {
            let (since, highest) = self.calm.unwrap_or((now, cost));
            self.calm = Some((since, highest.max(cost)));
        }
        let spaced = self.at.is_none_or(|at| now.duration_since(at) >= SPACING);
        let calmed = self.calm.filter(|(since, _)| now.duration_since(*since) >= CALM);
        match calmed {
            _ if !spaced => None,
            Some((_, lower)) => Some(lower),
            None => (cost > self.cost).then_some(cost),
        }
    }
}

/// Everything about deletion costs that one gateway does.
pub(super) struct DeletionCosts {
    pub(super) shared: Arc<Shared>,
    pub(super) board: Board,
    pub(super) asker: Arc<Asker>,
    pub(super) lease: Handle,
    pub(super) known: watch::Receiver<Arc<Known>>,
    /// Whether there is anything to decide here.
    pub(super) wanted: watch::Sender<bool>,
}

impl DeletionCosts {
    /// Writes costs while this gateway decides, until it is dropped.
    pub(super) async fn run(self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut costs: Option<Costs> = None;
        let mut failing = false;
        loop {
            ticks.tick().await;
            let counts = self.counts();
            self.wanted.send_if_modified(|wanted| {
                std::mem::replace(wanted, !counts.is_empty()) == counts.is_empty()
            });
            if !self.lease.leads() {
                costs = None;
                continue;
            }
            match self.once(&mut costs, &counts).await {
                Ok(()) => failing = false,
                Err(failed) => {
                    if !failing {
                        tracing::warn!(error = %failed, "deletion costs can't be written");
                    }
                    failing = true;
                }
            }
        }
    }

    /// Requests at each pod that a scale-in could choose, over all gateways.
    fn counts(&self) -> BTreeMap<Pod, u64> {
        let snapshot = self.shared.tables.current();
        let (known, running) = (Arc::clone(&self.known.borrow()), self.board.endpoints());
        let mut counts = BTreeMap::new();
        for owned in k8s::owned(&snapshot.table) {
            let addresses = addresses(&snapshot, &owned.agent);
            let pods: Vec<_> = addresses
                .iter()
                .filter_map(|address| Some((address, known.pods.get(address)?)))
                .collect();
            if pods.len() > 1 {
                let count = |address| running.get(address).copied().unwrap_or(0);
                counts.extend(pods.iter().map(|(address, pod)| ((*pod).clone(), count(*address))));
            }
        }
        counts
    }

    async fn once(
        &self,
        costs: &mut Option<Costs>,
        counts: &BTreeMap<Pod, u64>,
    ) -> Result<(), Failed> {
        let costs = match costs {
            Some(costs) => costs,
            None => costs.insert(self.inherited().await?),
        };
        let mut notes = costs.forget(&Arc::clone(&self.known.borrow()));
        let mut failure = None;
        for (pod, cost) in costs.due(counts, Instant::now()) {
            match self.write(&pod, cost).await {
                Ok(()) => {
                    costs.wrote(&pod, cost, Instant::now());
                    notes.insert(entry(&pod), (cost != 0).then(|| cost.to_string()));
                }
                Err(failed) if failed.is_absent() => drop(costs.pods.remove(&pod)),
                Err(failed) => failure = Some(failed),
            }
        }
        if !notes.is_empty() {
            self.lease.note(COSTS, notes).await?;
        }
        failure.map_or(Ok(()), Err)
    }

    /// What the one before has left on pods.
    async fn inherited(&self) -> Result<Costs, Failed> {
        let entries = self.lease.read(COSTS).await?;
        let pod = |(key, cost): (String, String)| {
            let (namespace, name) = key.split_once('/')?;
            let pod = Pod { namespace: namespace.to_owned(), name: name.to_owned() };
            Some((pod, Written { cost: cost.parse().ok()?, at: None, calm: None }))
        };
        Ok(Costs { pods: entries.into_iter().filter_map(pod).collect() })
    }

    async fn write(&self, pod: &Pod, cost: i32) -> Result<(), Failed> {
        let patch = json!({ "metadata": { "annotations": { COST: cost.to_string() } } });
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let question = async |client| {
            let api = Api::<v1::Pod>::namespaced(client, &pod.namespace);
            api.patch_metadata(&pod.name, &params, &Patch::Merge(&patch)).await
        };
        self.asker.ask(question).await?;
        tracing::debug!(namespace = pod.namespace, pod = pod.name, cost, "deletion cost");
        Ok(())
    }
}

/// Where an agent's replicas are.
fn addresses(snapshot: &Snapshot, agent: &str) -> Vec<config::Endpoint> {
    let index = snapshot.routes.lookup(agent);
    let agent = index.map(|index| &snapshot.agents[index as usize]);
    let places = agent.into_iter().flat_map(|agent| agent.places());
    places.map(|place| place.endpoint.address.clone()).collect()
}

fn entry(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> Pod {
        Pod { namespace: "n".into(), name: name.into() }
    }

    /// Looks each second with the counts of that second; says what was written when.
    fn check(seconds: &[&[(&str, u64)]], expected: &[(u64, &str, i32)]) {
        let (mut costs, begin) = (Costs::default(), Instant::now());
        let mut written = Vec::new();
        for (second, counts) in (0..).zip(seconds) {
            let now = begin + Duration::from_secs(second);
            let counts = counts.iter().map(|(name, count)| (pod(name), *count)).collect();
            for (pod, cost) in costs.due(&counts, now) {
                costs.wrote(&pod, cost, now);
                written.push((second, pod.name, cost));
            }
        }
        let expected: Vec<_> = expected.iter().map(|(s, n, c)| (*s, (*n).to_owned(), *c)).collect();
        assert_eq!(written, expected);
    }

    #[test]
    fn costs_grow_with_the_logarithm_and_nothing_costs_nothing() {
        let costs: Vec<_> = [0, 1, 2, 3, 4, 7, 8, 1000].into_iter().map(cost).collect();
        assert_eq!(costs, [0, 10, 20, 20, 30, 30, 40, 100]);
    }

    #[test]
    fn a_busy_pod_is_written_once_and_idle_ones_never() {
        let counts = [("a", 1), ("b", 0)];
        check(&[counts.as_slice(); 60], &[(0, "a", 10)]);
    }

    #[test]
    fn a_load_that_comes_and_goes_is_one_write_and_its_end_another() {
        let mut seconds: Vec<&[(&str, u64)]> = Vec::new();
        for second in 0..60 {
            seconds.push(if second < 30 && second % 2 == 0 { &[("a", 3)] } else { &[("a", 0)] });
        }
        check(&seconds, &[(0, "a", 20), (39, "a", 0)]);
    }

    #[test]
    fn a_growing_load_is_written_now_and_then_and_falls_to_what_it_still_is() {
        let growing: Vec<Vec<(&str, u64)>> =
            (0..40u64).map(|n| vec![("a", if n < 10 { n + 1 } else { 2 })]).collect();
        let seconds: Vec<_> = growing.iter().map(Vec::as_slice).collect();
        check(&seconds, &[(0, "a", 10), (5, "a", 30), (20, "a", 20)]);
    }

    #[test]
    fn many_at_once_are_spread_over_time_the_busiest_first() {
        let all: Vec<(&str, u64)> =
            vec![("a", 1), ("b", 1), ("c", 1), ("d", 9), ("e", 1), ("f", 1)];
        let seconds = vec![all.as_slice(); 3];
        let expected =
            [(0, "d", 40), (0, "a", 10), (0, "b", 10), (0, "c", 10), (1, "e", 10), (1, "f", 10)];
        check(&seconds, &expected);
    }
}
