//! What the Prometheus operator needs: whom to ask, and leave to ask it.

use config::Table;
use serde_json::{Value, json};

use crate::object::{object, selector};
use crate::overlays::Files;
use crate::plan::{self, Workload};

/// Where the operator's own bundle and its chart put Prometheus.
const NAMESPACE: &str = "monitoring";

/// Seconds between two questions.
const INTERVAL: &str = "15s";

/// One PodMonitor a workload, and a policy that admits Prometheus beside the base's policies.
pub(crate) fn resources(table: &Table) -> Files {
    let gateway = plan::gateway(table);
    let agents = plan::runs(table);
    let all: Vec<_> = std::iter::once((gateway, "admin"))
        .chain(agents.iter().map(|run| (run.workload, "http")))
        .collect();
    let prometheus = json!({
        "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": NAMESPACE } },
        "podSelector": { "matchLabels": { "app.kubernetes.io/name": "prometheus" } },
    });
    let admitted =
        all.iter().map(|(workload, port)| admission(*workload, "prometheus", &[port], &prometheus));
    vec![
        (
            "pod-monitors.yaml",
            all.iter().map(|(workload, port)| monitor(*workload, port)).collect(),
        ),
        ("network-policies.yaml", admitted.collect()),
    ]
}

fn monitor(workload: Workload<'_>, port: &str) -> Value {
    let rest = json!({ "spec": {
        "selector": { "matchLabels": selector(workload) },
        "podMetricsEndpoints": [{ "port": port, "path": "/metrics", "interval": INTERVAL }],
    }});
    object(workload, ("monitoring.coreos.com/v1", "PodMonitor"), workload.name, rest)
}

/// A policy beside the base's own: policies add up.
pub(crate) fn admission(workload: Workload<'_>, whom: &str, ports: &[&str], from: &Value) -> Value {
    let ports: Vec<_> =
        ports.iter().map(|port| json!({ "protocol": "TCP", "port": port })).collect();
    let rest = json!({ "spec": {
        "podSelector": { "matchLabels": selector(workload) },
        "policyTypes": ["Ingress"],
        "ingress": [{ "from": [from], "ports": ports }],
    }});
    let name = format!("{}-{whom}", workload.name);
    object(workload, ("networking.k8s.io/v1", "NetworkPolicy"), &name, rest)
}
