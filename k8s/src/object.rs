//! What every object begins with, and the small ones that each workload has.

use serde_json::{Value, json};

use crate::plan::Workload;

/// Labels that say what an object belongs to; the same on every object of a workload.
pub(crate) fn labels(workload: Workload<'_>) -> Value {
    json!({
        "app": workload.name,
        "app.kubernetes.io/name": workload.name,
        "app.kubernetes.io/component": workload.component,
        "app.kubernetes.io/part-of": "switchyard",
        "app.kubernetes.io/managed-by": "switchyard",
    })
}

/// What selects a workload's pods. A Deployment's selector can't be changed later: one label.
pub(crate) fn selector(workload: Workload<'_>) -> Value {
    json!({ "app": workload.name })
}

/// `apiVersion`, `kind` and `metadata` of an object of this workload, and then `rest`'s keys.
pub(crate) fn object(
    workload: Workload<'_>,
    (api, kind): (&str, &str),
    name: &str,
    rest: Value,
) -> Value {
    let mut object = json!({
        "apiVersion": api,
        "kind": kind,
        "metadata": {
            "name": name, "namespace": workload.namespace, "labels": labels(workload),
        },
    });
    if let (Value::Object(object), Value::Object(rest)) = (&mut object, rest) {
        object.extend(rest);
    }
    object
}

/// A namespace. One of our `own` takes only pods that ask for nothing special; in one that others
/// may have pods in, too, that isn't ours to say.
pub(crate) fn namespace(name: &str, own: bool) -> Value {
    let mut namespace = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "labels": {
                "app.kubernetes.io/part-of": "switchyard",
                "app.kubernetes.io/managed-by": "switchyard",
            },
        },
    });
    if own {
        namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "restricted".into();
    }
    namespace
}

/// The account that a workload's pods run as.
pub(crate) fn service_account(workload: Workload<'_>) -> Value {
    let rest = json!({ "automountServiceAccountToken": false });
    object(workload, ("v1", "ServiceAccount"), workload.name, rest)
}

/// A Service that reaches a workload's pods: one port, by name.
pub(crate) fn service(workload: Workload<'_>, name: &str, port: (&str, u16)) -> Value {
    let rest = json!({ "spec": {
        "type": "ClusterIP",
        "selector": selector(workload),
        "ports": [{ "name": port.0, "port": port.1, "targetPort": port.0, "protocol": "TCP" }],
    }});
    object(workload, ("v1", "Service"), name, rest)
}

/// Evictions take one pod at a time, and always may take one: `maxUnavailable` also lets the only
/// replica go, where `minAvailable: 1` would hold up a node's drain for ever. A pod that isn't
/// ready never stands in the way.
pub(crate) fn disruption_budget(workload: Workload<'_>) -> Value {
    let rest = json!({ "spec": {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": { "matchLabels": selector(workload) },
    }});
    object(workload, ("policy/v1", "PodDisruptionBudget"), workload.name, rest)
}

/// Who may connect to a workload's pods.
pub(crate) fn network_policy(workload: Workload<'_>, ingress: &Value) -> Value {
    let rest = json!({ "spec": {
        "podSelector": { "matchLabels": selector(workload) },
        "policyTypes": ["Ingress"],
        "ingress": ingress,
    }});
    object(workload, ("networking.k8s.io/v1", "NetworkPolicy"), workload.name, rest)
}
