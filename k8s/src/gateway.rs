//! The gateway's own objects.

use config::{Deployment, Gateway, Resources, Table};
use serde_json::{Value, json};

use crate::hpa::{autoscaler, seconds};
use crate::object::{
    disruption_budget, network_policy, object, selector, service, service_account,
};
use crate::plan::{self, Owned, Workload};
use crate::pod::{self, LIVENESS, MARGIN, Pod, READINESS, STARTUP};
use crate::{
    ADMIN_PORT, ADMIN_SERVICE, CLIENT_PORT, GATEWAY, PEERS_SERVICE, TABLE_FOLDER, TABLE_KEY,
};

/// Image of the gateway where the table names none: this version, on no registry.
pub const GATEWAY_IMAGE: &str = concat!("switchyard/switchyard:", env!("CARGO_PKG_VERSION"));

/// Port of the gateway's Service for clients.
const SERVICE_PORT: u16 = 80;

/// Reserved for a gateway whose table names neither requests nor limits: enough for some hundred
/// open streams.
const REQUESTS: Resources = Resources { cpu_millis: Some(500), memory: Some(128 << 20) };
/// The limits that go with it: two CPUs are two worker threads.
const LIMITS: Resources = Resources { cpu_millis: Some(2_000), memory: Some(512 << 20) };

/// The ConfigMap with the table's own bytes. Its name is stable, so that an edit of it is a reload
/// and not a roll-out.
pub(crate) fn config_map(table: &Table, text: &str) -> Value {
    let rest = json!({ "data": { TABLE_KEY: text } });
    object(plan::gateway(table), ("v1", "ConfigMap"), GATEWAY, rest)
}

/// Everything else of the gateway, in the order in which it is applied.
pub(crate) fn objects(table: &Table) -> Vec<Value> {
    let workload = plan::gateway(table);
    let mut objects = vec![service_account(workload)];
    objects.extend(permissions(table, workload));
    objects.extend([
        network_policy(workload, &callers(workload)),
        service(workload, GATEWAY, ("http", SERVICE_PORT)),
        service(workload, ADMIN_SERVICE, ("admin", ADMIN_PORT)),
        peers(workload),
        pod::deployment(workload, pod(&table.gateway)),
    ]);
    objects.extend(autoscaler(workload, table.gateway.scale.as_ref()));
    objects.push(disruption_budget(workload));
    objects
}

/// What the gateway may ask of the API server: where replicas are, in the namespaces that the
/// table names; its own ConfigMap; to say what came of an edit; the key by which the gateways know
/// each other, which the first of them makes (a permission to create can't name what); and what
/// scaling takes.
fn permissions(table: &Table, workload: Workload<'_>) -> Vec<Value> {
    let slices = json!({
        "apiGroups": ["discovery.k8s.io"],
        "resources": ["endpointslices"],
        "verbs": ["get", "list", "watch"],
    });
    let own = [
        json!({
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": [GATEWAY],
            "verbs": ["get", "list", "watch"],
        }),
        json!({ "apiGroups": [""], "resources": ["secrets"], "verbs": ["create"] }),
        json!({
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": [PEERS_SERVICE],
            "verbs": ["get"],
        }),
        json!({
            "apiGroups": ["", "events.k8s.io"],
            "resources": ["events"],
            "verbs": ["create", "patch"],
        }),
    ];
    let owned = plan::owned(table);
    let mut objects = Vec::new();
    for namespace in plan::looked_up(table) {
        let here = Workload { namespace, ..workload };
        let mut rules = vec![slices.clone()];
        if namespace == workload.namespace {
            rules.extend(own.clone());
            rules.extend(if owned.is_empty() { vec![] } else { lease() });
        }
        rules.extend(scaling(&owned, namespace));
        let api = "rbac.authorization.k8s.io/v1";
        objects.push(object(here, (api, "Role"), GATEWAY, json!({ "rules": rules })));
        let binding = json!({
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": GATEWAY,
            },
            "subjects": [{
                "kind": "ServiceAccount", "name": GATEWAY, "namespace": workload.namespace,
            }],
        });
        objects.push(object(here, (api, "RoleBinding"), GATEWAY, binding));
    }
    objects
}

/// One gateway of all decides what is parked and which pods are spared. A Lease that isn't there
/// yet has no name that a rule could go by.
fn lease() -> Vec<Value> {
    let rule = json!({ "apiGroups": ["coordination.k8s.io"], "resources": ["leases"] });
    let with = |more: Value| {
        let mut rule = rule.clone();
        if let (Value::Object(rule), Value::Object(more)) = (&mut rule, more) {
            rule.extend(more);
        }
        rule
    };
    vec![
        with(json!({ "verbs": ["create"] })),
        with(json!({ "resourceNames": [GATEWAY], "verbs": ["get", "update", "patch"] })),
    ]
}

/// What parking and waking, and sparing busy pods, take in one namespace: the scale of those
/// Deployments that may be parked and of no other, and the pods' annotations. Pods' names aren't
/// known before, so that rule can't be limited to some.
fn scaling(owned: &[Owned], namespace: &str) -> Vec<Value> {
    let here: Vec<_> = owned.iter().filter(|one| one.namespace == namespace).collect();
    let mut rules = Vec::new();
    let parked: Vec<_> =
        here.iter().filter(|one| one.idle.is_some()).map(|one| &one.name).collect();
    if !parked.is_empty() {
        rules.push(json!({
            "apiGroups": ["apps"],
            "resources": ["deployments/scale"],
            "resourceNames": parked,
            "verbs": ["get", "patch"],
        }));
    }
    if !here.is_empty() {
        rules.push(json!({ "apiGroups": [""], "resources": ["pods"], "verbs": ["patch"] }));
    }
    rules
}

/// Anybody in the cluster may be a client; the admin port has no authentication, so that only the
/// other gateways reach it (and the kubelet, whom no policy stops).
fn callers(workload: Workload<'_>) -> Value {
    json!([
        { "ports": [{ "protocol": "TCP", "port": "http" }] },
        {
            "from": [{ "podSelector": { "matchLabels": selector(workload) } }],
            "ports": [{ "protocol": "TCP", "port": "admin" }],
        },
    ])
}

/// Finds every replica, also one that is draining: what it has open counts until it is done.
fn peers(workload: Workload<'_>) -> Value {
    let mut peers = service(workload, PEERS_SERVICE, ("admin", ADMIN_PORT));
    peers["spec"]["clusterIP"] = "None".into();
    peers["spec"]["publishNotReadyAddresses"] = true.into();
    peers
}

fn pod(gateway: &Gateway) -> Pod {
    let none = Deployment::default();
    let deployment = gateway.deployment.as_ref().unwrap_or(&none);
    let sized =
        deployment.requests != Resources::default() || deployment.limits != Resources::default();
    let (requests, limits) =
        if sized { (deployment.requests, deployment.limits) } else { (REQUESTS, LIMITS) };
    let first = json!({
        "name": GATEWAY,
        "image": image(gateway),
        "imagePullPolicy": "IfNotPresent",
        "command": command(deployment),
        "ports": [
            { "name": "http", "containerPort": CLIENT_PORT, "protocol": "TCP" },
            { "name": "admin", "containerPort": ADMIN_PORT, "protocol": "TCP" },
        ],
        "env": pod::environment(&[], &[], deployment),
        "resources": pod::resources(requests, limits),
    });
    let mount = json!({ "name": "table", "mountPath": TABLE_FOLDER, "readOnly": true });
    Pod {
        container: pod::container(first, probes(), vec![mount]),
        grace: seconds(gateway.drain_delay) + seconds(gateway.drain_timeout) + MARGIN,
        token: true,
        volumes: vec![json!({ "name": "table", "configMap": { "name": GATEWAY } })],
    }
}

/// The gateway's image.
pub(crate) fn image(gateway: &Gateway) -> &str {
    let named = gateway.deployment.as_ref().and_then(|deployment| deployment.image.as_deref());
    named.unwrap_or(GATEWAY_IMAGE)
}

fn command(deployment: &Deployment) -> Vec<String> {
    if !deployment.command.is_empty() {
        return deployment.command.iter().map(|word| pod::literal(word)).collect();
    }
    let table = format!("{TABLE_FOLDER}/{TABLE_KEY}");
    let (listen, admin) = (format!("0.0.0.0:{CLIENT_PORT}"), format!("0.0.0.0:{ADMIN_PORT}"));
    ["switchyard", "serve", "--config", &table, "--listen", &listen, "--admin", &admin]
        .map(str::to_owned)
        .into()
}

/// No `preStop`: the gateway's own `drain_delay` is the pause.
fn probes() -> Value {
    json!({
        "startupProbe": pod::http_probe("/livez", "admin", STARTUP),
        "livenessProbe": pod::http_probe("/livez", "admin", LIVENESS),
        "readinessProbe": pod::http_probe("/readyz", "admin", READINESS),
    })
}
