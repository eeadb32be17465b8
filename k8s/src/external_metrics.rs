//! What it takes for the cluster's API server to ask the gateway for external metrics.

use config::Table;
use serde_json::{Value, json};

use crate::object::{object, selector, service};
use crate::overlays::{Files, patch_container};
use crate::plan::{self, Workload};
use crate::{EXTERNAL_METRICS as NAME, EXTERNAL_METRICS_PORT as PORT, GATEWAY};

/// The API that autoscalers ask; a cluster has one server of it.
const GROUP: &str = "external.metrics.k8s.io";
const VERSION: &str = "v1beta1";
/// The container's port, by name.
const PORT_NAME: &str = "metrics-api";
/// Port of the Service: the only one on which the API server calls unless told otherwise.
const SERVICE_PORT: u16 = 443;
/// Where the API server says who its front proxy is, and the Role that may read it.
const FRONT_PROXY: (&str, &str) = ("kube-system", "extension-apiserver-authentication-reader");

const RBAC: &str = "rbac.authorization.k8s.io";

/// The objects, and what the gateway's Deployment gets.
pub(crate) fn parts(table: &Table) -> (Files, Vec<Value>) {
    let workload = plan::gateway(table);
    let service = service(workload, NAME, (PORT_NAME, SERVICE_PORT));
    let objects = vec![
        object(workload, ("v1", "Secret"), NAME, json!({ "type": "Opaque" })),
        service,
        admission(workload),
        api_service(workload),
    ];
    let files =
        vec![("external-metrics.yaml", objects), ("permissions.yaml", permissions(workload))];
    let container = json!({
        "name": GATEWAY,
        "ports": [{ "name": PORT_NAME, "containerPort": PORT, "protocol": "TCP" }],
        "env": [{ "name": "SWITCHYARD_EXTERNAL_METRICS", "value": format!("0.0.0.0:{PORT}") }],
    });
    (files, vec![patch_container(workload, &container)])
}

/// Without `caBundle`: the gateway puts in that of its authority, and an apply leaves it alone
/// because it says nothing of it.
fn api_service(workload: Workload<'_>) -> Value {
    let spec = json!({
        "group": GROUP,
        "version": VERSION,
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "service": { "name": NAME, "namespace": workload.namespace, "port": SERVICE_PORT },
    });
    let kind = ("apiregistration.k8s.io/v1", "APIService");
    cluster_wide(workload, kind, &format!("{VERSION}.{GROUP}"), json!({ "spec": spec }))
}

/// An object that is in no namespace.
fn cluster_wide(workload: Workload<'_>, kind: (&str, &str), name: &str, rest: Value) -> Value {
    let mut object = object(workload, kind, name, rest);
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.shift_remove("namespace");
    }
    object
}

/// The API server has no pod that a policy could name: everybody reaches the port, and whoever has
/// no certificate of its front proxy gets no further than the handshake.
fn admission(workload: Workload<'_>) -> Value {
    let rest = json!({ "spec": {
        "podSelector": { "matchLabels": selector(workload) },
        "policyTypes": ["Ingress"],
        "ingress": [{ "ports": [{ "protocol": "TCP", "port": PORT_NAME }] }],
    }});
    object(workload, ("networking.k8s.io/v1", "NetworkPolicy"), NAME, rest)
}

/// The one Secret, the one APIService, and to read who the front proxy is. The Secret is rendered
/// empty so that the gateway needn't create any: whoever may create Secrets may have a token made
/// for any account of the namespace.
fn permissions(workload: Workload<'_>) -> Vec<Value> {
    let api = format!("{RBAC}/v1");
    let secret = json!({ "rules": [{
        "apiGroups": [""], "resources": ["secrets"], "resourceNames": [NAME],
        "verbs": ["get", "update"],
    }]});
    let api_service = json!({ "rules": [{
        "apiGroups": ["apiregistration.k8s.io"], "resources": ["apiservices"],
        "resourceNames": [format!("{VERSION}.{GROUP}")], "verbs": ["get", "patch"],
    }]});
    let there = Workload { namespace: FRONT_PROXY.0, ..workload };
    let bound = |kind: &str, name: &str| {
        json!({
            "roleRef": { "apiGroup": RBAC, "kind": kind, "name": name },
            "subjects": [{
                "kind": "ServiceAccount", "name": GATEWAY, "namespace": workload.namespace,
            }],
        })
    };
    vec![
        object(workload, (&api, "Role"), NAME, secret),
        object(workload, (&api, "RoleBinding"), NAME, bound("Role", NAME)),
        cluster_wide(workload, (&api, "ClusterRole"), NAME, api_service),
        cluster_wide(workload, (&api, "ClusterRoleBinding"), NAME, bound("ClusterRole", NAME)),
        object(there, (&api, "RoleBinding"), NAME, bound("Role", FRONT_PROXY.1)),
    ]
}
