//! The objects of one agent type.

use std::time::Duration;

use config::{Protocol, names};
use serde_json::{Value, json};

use crate::hpa::{autoscaler, seconds};
use crate::object::{disruption_budget, network_policy, selector, service, service_account};
use crate::plan::{Run, Workload};
use crate::pod::{self, Clock, LIVENESS, MARGIN, Pod, READINESS, STARTUP};

/// Image of agents whose table names none: `agents/` of this version, on no registry.
pub const AGENT_IMAGE: &str = concat!("switchyard/agent:", env!("CARGO_PKG_VERSION"));

/// Seconds that a pod which ends still takes requests, until every gateway has seen that it ends.
pub(crate) const PRE_STOP: u64 = 5;

/// What a drain may take beyond the longest request: the same as the gateway's own.
const DRAIN_MARGIN: Duration = Duration::from_secs(30);

/// The largest limit that the reference agents take.
const IN_FLIGHT_MAX: u64 = 100_000;

/// Port of Services of agents. The pods' port is [`names::AGENT_PORT`].
const SERVICE_PORT: u16 = 80;

/// Everything of one agent type, in the order in which it is applied.
pub(crate) fn objects(run: &Run<'_>, gateway: Workload<'_>) -> Vec<Value> {
    let workload = run.workload;
    let mut objects = vec![
        service_account(workload),
        network_policy(workload, &only_from(gateway)),
        service(workload, workload.name, ("http", SERVICE_PORT)),
        pod::deployment(workload, pod(run)),
    ];
    objects.extend(autoscaler(workload, run.agent.scale.as_deref()));
    objects.push(disruption_budget(workload));
    objects
}

/// Only the gateway's pods, also from another namespace, and only the one port.
fn only_from(gateway: Workload<'_>) -> Value {
    json!([{
        "from": [{
            "namespaceSelector": {
                "matchLabels": { "kubernetes.io/metadata.name": gateway.namespace },
            },
            "podSelector": { "matchLabels": selector(gateway) },
        }],
        "ports": [{ "protocol": "TCP", "port": "http" }],
    }])
}

fn pod(run: &Run<'_>) -> Pod {
    let deployment = run.deployment;
    let command: Vec<_> = deployment.command.iter().map(|word| pod::literal(word)).collect();
    let own = [("HOST", "0.0.0.0".to_owned()), ("PORT", names::AGENT_PORT.to_string())];
    let first = json!({
        "name": "agent",
        "image": image(run),
        "imagePullPolicy": "IfNotPresent",
        "command": if command.is_empty() { Value::Null } else { command.into() },
        "ports": [{ "name": "http", "containerPort": names::AGENT_PORT, "protocol": "TCP" }],
        "env": pod::environment(&own, &told(run), deployment),
        "resources": pod::resources(deployment.requests, deployment.limits),
    });
    Pod {
        container: pod::container(first, probes(run), Vec::new()),
        grace: grace(run),
        token: false,
        volumes: Vec::new(),
    }
}

/// The agent's image.
pub(crate) fn image<'a>(run: &Run<'a>) -> &'a str {
    run.deployment.image.as_deref().unwrap_or(AGENT_IMAGE)
}

/// What an agent is told of the table unless the table says otherwise: how long it may drain, and
/// how many requests it may have at once where each type that it serves has a limit.
fn told(run: &Run<'_>) -> Vec<(&'static str, String)> {
    let mut told = vec![("AGENT_DRAIN_TIMEOUT", format!("{}s", seconds(drain(run))))];
    let limits: Option<u64> =
        run.serves.iter().map(|agent| agent.max_in_flight.map(u64::from)).sum();
    told.extend(limits.map(|limit| ("AGENT_MAX_IN_FLIGHT", limit.min(IN_FLIGHT_MAX).to_string())));
    told
}

/// How long a replica may go on with what it has begun.
pub(crate) fn drain(run: &Run<'_>) -> Duration {
    let longest = run.serves.iter().map(|agent| agent.timeout).max().unwrap_or_default();
    longest + DRAIN_MARGIN
}

/// The countdown begins before `preStop`, so that it is part of it.
fn grace(run: &Run<'_>) -> u64 {
    PRE_STOP + seconds(drain(run)) + MARGIN
}

/// The kubelet speaks HTTP/1.1 only: of an agent that speaks HTTP/2 it can but see whether it
/// listens.
fn probes(run: &Run<'_>) -> Value {
    let ready = run.agent.health.as_ref().map_or("/readyz", |health| health.path.as_str());
    let probe = |path: &str, clock: Clock| match run.agent.protocol {
        Protocol::Http1 => pod::http_probe(path, "http", clock),
        Protocol::H2c => pod::tcp_probe("http", clock),
    };
    json!({
        "startupProbe": probe("/livez", STARTUP),
        "livenessProbe": probe("/livez", LIVENESS),
        "readinessProbe": probe(ready, READINESS),
        "lifecycle": { "preStop": { "sleep": { "seconds": PRE_STOP } } },
    })
}
