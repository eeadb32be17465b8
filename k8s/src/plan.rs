//! What of a table becomes objects, under which names and where.

use std::collections::BTreeSet;
use std::time::Duration;

use config::{Agent, Deployment, Scale, Table};

use crate::{ADMIN_SERVICE, GATEWAY, PEERS_SERVICE};

/// A Deployment and what belongs to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload<'a> {
    /// The name of its Deployment, Service and ServiceAccount, and its label `app`.
    pub(crate) name: &'a str,
    pub(crate) namespace: &'a str,
    /// `gateway` or `agent`.
    pub(crate) component: &'static str,
}

/// An agent type that has a Deployment of its own.
pub(crate) struct Run<'a> {
    pub(crate) workload: Workload<'a>,
    pub(crate) agent: &'a Agent,
    pub(crate) deployment: &'a Deployment,
    /// The types that its replicas serve: itself, and those that share them.
    pub(crate) serves: Vec<&'a Agent>,
}

/// The gateway's own workload.
pub(crate) fn gateway(table: &Table) -> Workload<'_> {
    Workload { name: GATEWAY, namespace: &table.kubernetes.namespace, component: "gateway" }
}

/// The agent types that get a Deployment, in the table's order.
pub(crate) fn runs(table: &Table) -> Vec<Run<'_>> {
    table.agents.values().filter_map(|agent| run(table, agent)).collect()
}

/// A Deployment of an agent type, as the gateway in the cluster has to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// The agent type whose Deployment it is.
    pub agent: String,
    /// The Deployment's name, which is its Service's.
    pub name: String,
    /// Where it is.
    pub namespace: String,
    /// The agent types that its replicas serve: the owner, those that share its replicas, and
    /// those that name the same Service.
    pub serves: Vec<String>,
    /// Parked after that long without a request; `None`: never.
    pub idle: Option<Duration>,
}

/// The Deployments that a table's agents own, in the table's order. One whose Service is a version
/// of another agent is never parked: its share of that traffic has nowhere to wait.
#[must_use]
pub fn owned(table: &Table) -> Vec<Owned> {
    let versions: BTreeSet<_> = table
        .agents
        .values()
        .flat_map(|agent| agent.versions.iter().map(|version| place(&version.service, table)))
        .collect();
    let owned = |run: Run<'_>| {
        let at = (run.workload.name, run.workload.namespace);
        let calls = |agent: &&Agent| {
            let service = agent.service.as_ref().map(|service| place(service, table));
            agent.versions.is_empty() && service == Some(at)
        };
        let shares = run.serves.iter().copied();
        let serves = shares.chain(table.agents.values().filter(calls)).map(|a| a.name.clone());
        let scale = run.agent.scale.as_ref().filter(|scale| scale.min == 0);
        Owned {
            agent: run.agent.name.clone(),
            name: at.0.to_owned(),
            namespace: at.1.to_owned(),
            serves: serves.collect::<BTreeSet<_>>().into_iter().collect(),
            idle: scale.and_then(|scale| scale.idle).filter(|_| !versions.contains(&at)),
        }
    };
    runs(table).into_iter().map(owned).collect()
}

fn run<'a>(table: &'a Table, agent: &'a Agent) -> Option<Run<'a>> {
    let deployment = agent.deployment.as_ref()?;
    let service = agent.service.as_deref()?;
    if !agent.versions.is_empty() || agent.shares.is_some() {
        return None;
    }
    let (name, namespace) = place(service, table);
    if is_taken(name, namespace, table) {
        return None;
    }
    let shares = |other: &&Agent| {
        other.name == agent.name || other.shares.as_deref() == Some(agent.name.as_str())
    };
    Some(Run {
        workload: Workload { name, namespace, component: "agent" },
        agent,
        deployment,
        serves: table.agents.values().filter(shares).collect(),
    })
}

/// A service's name and its namespace: `name` or `name.namespace`.
fn place<'a>(service: &'a str, table: &'a Table) -> (&'a str, &'a str) {
    // A port behind the name is for discovery by DNS.
    let service = service.split_once(':').map_or(service, |(name, _)| name);
    service.split_once('.').unwrap_or((service, &table.kubernetes.namespace))
}

/// Whether the gateway itself has this name.
fn is_taken(name: &str, namespace: &str, table: &Table) -> bool {
    namespace == table.kubernetes.namespace
        && [GATEWAY, ADMIN_SERVICE, PEERS_SERVICE].contains(&name)
}

/// The namespaces in which something is rendered, the table's own first.
pub(crate) fn namespaces(table: &Table) -> Vec<&str> {
    let own = table.kubernetes.namespace.as_str();
    let others: BTreeSet<_> = runs(table).iter().map(|run| run.workload.namespace).collect();
    std::iter::once(own).chain(others.into_iter().filter(|other| *other != own)).collect()
}

/// Whether every cluster has this namespace, so that it isn't ours to make.
pub(crate) fn is_given(namespace: &str) -> bool {
    namespace == "default" || namespace.starts_with("kube-")
}

/// The namespaces in which the gateway looks up replicas, the table's own first: those of every
/// Service that the table names.
pub(crate) fn looked_up(table: &Table) -> Vec<&str> {
    let own = table.kubernetes.namespace.as_str();
    let services = table.agents.values().flat_map(|agent| {
        agent.service.iter().chain(agent.versions.iter().map(|version| &version.service))
    });
    let others: BTreeSet<_> = services.map(|service| place(service, table).1).collect();
    std::iter::once(own).chain(others.into_iter().filter(|other| *other != own)).collect()
}

/// The scale, if it is a range: only then there is an autoscaler.
pub(crate) fn range(scale: Option<&Scale>) -> Option<&Scale> {
    scale.filter(|scale| scale.max > scale.min.max(1))
}

/// What a reader of the manifests might miss in them, one sentence each: deployments that aren't
/// rendered, and scales that can't be.
pub fn notes(table: &Table) -> Vec<String> {
    let mut notes = Vec::new();
    for agent in table.agents.values().filter(|agent| agent.deployment.is_some()) {
        let name = &agent.name;
        if run(table, agent).is_none() {
            notes.push(format!("agents.{name}: nothing is rendered: {}", why_not(agent)));
            continue;
        }
        let Some(scale) = &agent.scale else { continue };
        if range(Some(scale)).is_none() && scale.min > 1 {
            notes.push(format!(
                "agents.{name}: no range, so no autoscaler, and it begins with one replica: \
                 `kubectl scale` says how many"
            ));
        }
        if range(Some(scale)).is_some() && !measures_cpu(agent) {
            notes.push(format!(
                "agents.{name}: without a CPU request its autoscaler can't measure: \
                 add deployment.requests.cpu, or use the overlay `load`"
            ));
        }
    }
    notes
}

fn why_not(agent: &Agent) -> &'static str {
    if !agent.versions.is_empty() {
        "its traffic goes to `versions`, and each Deployment belongs to an agent with that service"
    } else if agent.service.is_none() {
        "it has no `service`, by which the gateway would find it"
    } else {
        "its `service` is the gateway's own name"
    }
}

fn measures_cpu(agent: &Agent) -> bool {
    let cpu = |deployment: &Deployment| {
        deployment.requests.cpu_millis.or(deployment.limits.cpu_millis).is_some()
    };
    agent.deployment.as_deref().is_some_and(cpu)
}
