//! What all our pods have in common: how they are updated, confined, spread and given their
//! environment.

use std::collections::BTreeSet;

use config::{Deployment, Resources, Table};
use serde_json::{Map, Value, json};

use crate::object::{labels, object, selector};
use crate::plan::{self, Workload};
use crate::{agent, gateway};

/// Seconds between the last that a pod does by itself and being killed: for what a stop costs
/// beside waiting (the kubelet's own delays, the last log lines).
pub(crate) const MARGIN: u64 = 10;

/// How long a Deployment may make no progress before a roll-out counts as failed, seconds beyond
/// what one pod may take to start and to end.
const PROGRESS_MARGIN: u64 = 300;

/// User and group of all containers: `nobody`'s usual number in images without a shell.
const USER: u32 = 65_532;

/// What a container may write to `/tmp` before its pod is evicted.
const TMP_MAX: &str = "1Gi";

/// What differs between our pods.
pub(crate) struct Pod {
    pub(crate) container: Map<String, Value>,
    /// Seconds from the beginning of a pod's end to its being killed, `preStop` included.
    pub(crate) grace: u64,
    /// Whether the pod talks to the API server.
    pub(crate) token: bool,
    /// Volumes beside `/tmp`.
    pub(crate) volumes: Vec<Value>,
}

/// The Deployment. It never names `replicas`: an autoscaler or `kubectl scale` owns them, and an
/// apply must not take them back.
pub(crate) fn deployment(workload: Workload<'_>, pod: Pod) -> Value {
    let rest = json!({ "spec": {
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": pod.grace + PROGRESS_MARGIN,
        "selector": { "matchLabels": selector(workload) },
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": { "maxUnavailable": 1, "maxSurge": 1 },
        },
        "template": { "metadata": { "labels": labels(workload) }, "spec": spec(workload, pod) },
    }});
    object(workload, ("apps/v1", "Deployment"), workload.name, rest)
}

/// Which of a pod's spread constraints is that over nodes.
pub(crate) const BY_NODE: usize = 1;

fn spec(workload: Workload<'_>, pod: Pod) -> Value {
    let mut volumes = vec![json!({ "name": "tmp", "emptyDir": { "sizeLimit": TMP_MAX } })];
    volumes.extend(pod.volumes);
    json!({
        "serviceAccountName": workload.name,
        "automountServiceAccountToken": pod.token,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": pod.grace,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "topologySpreadConstraints": [
            spread(workload, "topology.kubernetes.io/zone"),
            spread(workload, "kubernetes.io/hostname"),
        ],
        "containers": [pod.container],
        "volumes": volumes,
    })
}

/// A preference, not a condition: a cluster of one node runs everything.
fn spread(workload: Workload<'_>, key: &str) -> Value {
    json!({
        "maxSkew": 1,
        "topologyKey": key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": { "matchLabels": selector(workload) },
        "matchLabelKeys": ["pod-template-hash"],
    })
}

/// What every container has, in the order in which people read it: `first` (name, image, command,
/// ports, environment, resources), probes, and how it is confined.
pub(crate) fn container(first: Value, probes: Value, mounts: Vec<Value>) -> Map<String, Value> {
    let mut all = vec![json!({ "name": "tmp", "mountPath": "/tmp" })];
    all.extend(mounts);
    let last = json!({
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
        "volumeMounts": all,
    });
    let parts = [first, probes, last].into_iter();
    parts.filter_map(|part| if let Value::Object(part) = part { Some(part) } else { None }).fold(
        Map::new(),
        |mut all, part| {
            all.extend(part.into_iter().filter(|(_, value)| !value.is_null()));
            all
        },
    )
}

/// Literal text where the kubelet would expand `$(NAME)`.
pub(crate) fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

/// A container's environment: `own` first, then the table's variables, then its secrets by
/// reference; null when there are none. A variable of the table's takes the place of one of `defaults`, never of `own`.
pub(crate) fn environment(
    own: &[(&str, String)],
    defaults: &[(&str, String)],
    deployment: &Deployment,
) -> Value {
    let named =
        |name: &str| deployment.env.contains_key(name) || deployment.secrets.contains_key(name);
    let is_own = |name: &str| own.iter().any(|(own, _)| *own == name);
    let defaults = defaults.iter().filter(|(name, _)| !named(name));
    let plain = own.iter().chain(defaults).map(|(name, value)| variable(name, value));
    let table = deployment.env.iter().filter(|(name, _)| !is_own(name));
    let secrets = deployment.secrets.iter().filter(|(name, _)| !is_own(name));
    let all: Vec<_> = plain
        .chain(table.map(|(name, value)| variable(name, value)))
        .chain(secrets.map(|(name, secret)| {
            let key = json!({ "name": secret.name, "key": secret.key });
            json!({ "name": name, "valueFrom": { "secretKeyRef": key } })
        }))
        .collect();
    if all.is_empty() { Value::Null } else { all.into() }
}

fn variable(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": literal(value) })
}

/// `resources`, or null where the table names none.
pub(crate) fn resources(requests: Resources, limits: Resources) -> Value {
    let parts = [("requests", requests), ("limits", limits)].into_iter();
    let named: Map<String, Value> = parts
        .filter_map(|(name, resources)| Some((name.to_owned(), quantities(resources)?)))
        .collect();
    if named.is_empty() { Value::Null } else { Value::Object(named) }
}

fn quantities(resources: Resources) -> Option<Value> {
    let mut quantities = Map::new();
    if let Some(millis) = resources.cpu_millis {
        quantities.insert("cpu".to_owned(), cpu(millis).into());
    }
    if let Some(bytes) = resources.memory {
        quantities.insert("memory".to_owned(), memory(bytes).into());
    }
    (!quantities.is_empty()).then_some(Value::Object(quantities))
}

fn cpu(millis: u64) -> String {
    if millis.is_multiple_of(1_000) { (millis / 1_000).to_string() } else { format!("{millis}m") }
}

/// In the largest unit that divides it.
fn memory(bytes: u64) -> String {
    let units = [("Gi", 30), ("Mi", 20), ("Ki", 10)];
    let fits = |(_, bits): &&(&str, u32)| bytes != 0 && bytes.is_multiple_of(1 << bits);
    units
        .iter()
        .find(fits)
        .map_or_else(|| bytes.to_string(), |(unit, bits)| format!("{}{unit}", bytes >> bits))
}

/// Every image that is rendered with a tag, as Kustomize's `images` has them: a place to give each
/// another registry or tag. One that is pinned by digest stays as it is.
pub(crate) fn images(table: &Table) -> Vec<Value> {
    let runs = plan::runs(table);
    let named: BTreeSet<_> =
        runs.iter().map(agent::image).chain([gateway::image(&table.gateway)]).collect();
    let by_tag = named.into_iter().filter(|image| !image.contains('@'));
    by_tag
        .filter_map(|image| image.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')))
        .map(|(name, tag)| json!({ "name": name, "newName": name, "newTag": tag }))
        .collect()
}

/// A probe over HTTP. It always has a time-out: without one it waits a single second.
pub(crate) fn http_probe(path: &str, port: &str, clock: Clock) -> Value {
    probe(("httpGet", json!({ "path": path, "port": port })), clock)
}

/// A probe that only connects.
pub(crate) fn tcp_probe(port: &str, clock: Clock) -> Value {
    probe(("tcpSocket", json!({ "port": port })), clock)
}

/// Of a probe: seconds between two, seconds for one, and how many in a row must fail.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) period: u32,
    pub(crate) timeout: u32,
    pub(crate) failures: u32,
}

/// A minute to start: what `switchyard up` gives a replica, too.
pub(crate) const STARTUP: Clock = Clock { period: 1, timeout: 2, failures: 60 };
/// Slow to kill: half a minute of silence.
pub(crate) const LIVENESS: Clock = Clock { period: 10, timeout: 5, failures: 3 };
/// Quick to leave and to come back: one refusal is enough.
pub(crate) const READINESS: Clock = Clock { period: 2, timeout: 2, failures: 2 };

fn probe((how, what): (&str, Value), clock: Clock) -> Value {
    json!({
        how: what,
        "periodSeconds": clock.period,
        "timeoutSeconds": clock.timeout,
        "failureThreshold": clock.failures,
    })
}
