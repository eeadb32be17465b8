//! What is put on the base: each a Kustomize component, so that several go together, and an
//! overlay that is the base with this one.

use config::{Table, names};
use serde_json::{Value, json};

use crate::object::object;
use crate::plan::{self, Run, Workload, range};
use crate::{File, GATEWAY, base, external_metrics, hpa, monitoring, pod, yaml};

/// Fewest gateways in production: one may be lost while another is updated.
const GATEWAYS: u32 = 3;

/// The files of a component: names and objects.
pub(crate) type Files = Vec<(&'static str, Vec<Value>)>;

/// A component, beside what its Kustomization says.
struct Component {
    name: &'static str,
    resources: Files,
    /// Patches of the base's objects, each of one object: several in one file are beyond older
    /// versions of Kustomize, and several deletions crash newer ones.
    patches: Vec<Value>,
    /// Further keys of its Kustomization.
    rest: Value,
    /// Other components that its overlay has, because it is of no use without.
    with: &'static [&'static str],
}

/// All components and overlays.
pub(crate) fn files(table: &Table) -> Vec<File> {
    let components = [
        local(table),
        production(table),
        load(table),
        external_metrics(table),
        keda(table),
        monitoring(table),
    ];
    components.into_iter().flat_map(component).collect()
}

fn component(component: Component) -> Vec<File> {
    let Component { name, resources, patches, rest, with } = component;
    let mut kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
    });
    let resources: Files =
        resources.into_iter().filter(|(_, objects)| !objects.is_empty()).collect();
    if !resources.is_empty() {
        let names = resources.iter().map(|(name, _)| *name);
        kustomization["resources"] = names.collect::<Vec<_>>().into();
    }
    if !patches.is_empty() {
        let inline = |patch: &Value| match patch.get("patch") {
            Some(_) => patch.clone(),
            None => json!({ "patch": yaml::document(patch) }),
        };
        kustomization["patches"] = patches.iter().map(inline).collect::<Vec<_>>().into();
    }
    if let (Value::Object(all), Value::Object(rest)) = (&mut kustomization, rest) {
        all.extend(rest);
    }
    let folder = format!("components/{name}");
    let mut files: Vec<_> = resources
        .iter()
        .map(|(name, objects)| base::file(&format!("{folder}/{name}"), objects))
        .collect();
    files.push(base::file(&format!("{folder}/Kustomization"), &[kustomization]));
    files.push(overlay(name, with));
    files
}

fn overlay(name: &str, with: &[&str]) -> File {
    let components = std::iter::once(&name).chain(with);
    let components: Vec<_> = components.map(|name| format!("../../components/{name}")).collect();
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["../../base"],
        "components": components,
    });
    base::file(&format!("overlays/{name}/Kustomization"), &[kustomization])
}

/// An object's beginning, for a patch of it: no labels.
fn patch(workload: Workload<'_>, kind: (&str, &str), name: &str, rest: Value) -> Value {
    let mut patch = object(workload, kind, name, rest);
    if let Some(metadata) = patch["metadata"].as_object_mut() {
        metadata.remove("labels");
    }
    patch
}

pub(crate) fn patch_container(workload: Workload<'_>, container: &Value) -> Value {
    let rest = json!({ "spec": { "template": { "spec": { "containers": [container] }}}});
    patch(workload, ("apps/v1", "Deployment"), workload.name, rest)
}

const AUTOSCALER: (&str, &str) = ("autoscaling/v2", "HorizontalPodAutoscaler");

/// The gateway's autoscaler with another minimum, if it has one.
fn gateways(table: &Table, min: impl Fn(u32, u32) -> u32) -> Vec<Value> {
    let workload = plan::gateway(table);
    let scale = range(table.gateway.scale.as_ref());
    let of = |scale: &config::Scale| {
        let rest = json!({ "spec": { "minReplicas": min(scale.min, scale.max) }});
        patch(workload, AUTOSCALER, &hpa::name(workload), rest)
    };
    scale.map(of).into_iter().collect()
}

/// A cluster on one machine: images that were loaded by hand, little reserved, one gateway.
fn local(table: &Table) -> Component {
    let small = |name: &str| {
        json!({
            "name": name,
            "imagePullPolicy": "Never",
            "resources": { "requests": { "cpu": "20m", "memory": "64Mi" } },
        })
    };
    let mut deployments = vec![patch_container(plan::gateway(table), &small(GATEWAY))];
    let runs = plan::runs(table);
    deployments.extend(runs.iter().map(|run| patch_container(run.workload, &small("agent"))));
    Component {
        name: "local",
        resources: Vec::new(),
        patches: [deployments, gateways(table, |_, _| 1)].concat(),
        rest: Value::Null,
        with: &[],
    }
}

/// Several nodes: gateways on different ones, nothing reachable that no policy admits, and the one
/// place where images get their registry.
fn production(table: &Table) -> Component {
    let workload = plan::gateway(table);
    let strict = json!([{
        "op": "replace",
        "path": format!("/spec/template/spec/topologySpreadConstraints/{}/whenUnsatisfiable", pod::BY_NODE),
        "value": "DoNotSchedule",
    }]);
    let target = json!({
        "kind": "Deployment", "name": workload.name, "namespace": workload.namespace,
    });
    let deny = json!({ "spec": { "podSelector": {}, "policyTypes": ["Ingress"] }});
    let deny = object(workload, ("networking.k8s.io/v1", "NetworkPolicy"), "default-deny", deny);
    Component {
        name: "production",
        resources: vec![("default-deny.yaml", vec![deny])],
        patches: [
            vec![json!({ "target": target, "patch": yaml::document(&strict) })],
            gateways(table, |min, max| GATEWAYS.min(max).max(min)),
        ]
        .concat(),
        rest: json!({ "images": pod::images(table) }),
        with: &[],
    }
}

/// Agents that scale by their load instead of CPU: never by both, because an autoscaler with one
/// metric that fails never shrinks.
fn load(table: &Table) -> Component {
    let by_load = |run: &Run<'_>| {
        let target = json!({ "type": "AverageValue", "averageValue": target(run)?.to_string() });
        let metric = json!({ "name": names::LOAD_METRIC, "selector": types(run) });
        let external = json!({ "metric": metric, "target": target });
        let rest = json!({ "spec": { "metrics": [{ "type": "External", "external": external }] }});
        Some(patch(run.workload, AUTOSCALER, &hpa::name(run.workload), rest))
    };
    Component {
        name: "load",
        resources: Vec::new(),
        patches: plan::runs(table).iter().filter_map(by_load).collect(),
        rest: Value::Null,
        with: &["external-metrics"],
    }
}

/// The cluster's API server asks the gateway for the load. Apart from `load`, because a cluster has
/// one server of external metrics, and it may be another that knows the load too.
fn external_metrics(table: &Table) -> Component {
    let (resources, patches) = external_metrics::parts(table);
    Component { name: "external-metrics", resources, patches, rest: Value::Null, with: &[] }
}

/// Load per replica of an agent that has a range.
fn target(run: &Run<'_>) -> Option<u32> {
    range(run.agent.scale.as_deref())?.load
}

/// The types whose load a Deployment bears. The autoscaler adds up all values that match.
fn types(run: &Run<'_>) -> Value {
    let label = names::LOAD_LABEL;
    match run.serves.as_slice() {
        [only] => json!({ "matchLabels": { label: only.name } }),
        several => {
            let values: Vec<_> = several.iter().map(|agent| agent.name.as_str()).collect();
            json!({ "matchExpressions": [{ "key": label, "operator": "In", "values": values }] })
        }
    }
}

/// As `load`, by KEDA, which brings the autoscaler itself.
fn keda(table: &Table) -> Component {
    let runs: Vec<_> = plan::runs(table).into_iter().filter(|run| target(run).is_some()).collect();
    let gone = |run: &Run<'_>| {
        let name = hpa::name(run.workload);
        patch(run.workload, AUTOSCALER, &name, json!({ "$patch": "delete" }))
    };
    let admitted = monitoring::admission(
        plan::gateway(table),
        "keda",
        &["admin"],
        &json!({
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "keda" } },
        }),
    );
    Component {
        name: "keda",
        resources: vec![
            ("scaled-objects.yaml", runs.iter().filter_map(|run| scaled(run, table)).collect()),
            ("network-policy.yaml", vec![admitted]),
        ],
        patches: runs.iter().map(gone).collect(),
        rest: Value::Null,
        with: &[],
    }
}

fn scaled(run: &Run<'_>, table: &Table) -> Option<Value> {
    let scale = range(run.agent.scale.as_deref())?;
    let target = scale.load?.to_string();
    let namespace = &table.kubernetes.namespace;
    let url =
        format!("http://{}.{namespace}.svc:{}/api/load", crate::ADMIN_SERVICE, crate::ADMIN_PORT);
    let trigger = |(n, agent): (usize, &&config::Agent)| {
        json!({ "type": "metrics-api", "name": format!("type{n}"), "metadata": {
            "url": url,
            "valueLocation": format!("agents.{}.load", agent.name),
            "targetValue": target,
        }})
    };
    let mut advanced = json!({ "horizontalPodAutoscalerConfig": {
        "name": hpa::name(run.workload), "behavior": hpa::behavior(scale),
    }});
    if run.serves.len() > 1 {
        // Triggers are compared, not added up, unless a formula adds them.
        let names: Vec<_> = (0..run.serves.len()).map(|n| format!("type{n}")).collect();
        advanced["scalingModifiers"] = json!({
            "formula": names.join(" + "), "target": target, "metricType": "AverageValue",
        });
    }
    let mut spec = json!({
        "scaleTargetRef": { "name": run.workload.name },
        "pollingInterval": 15,
        "minReplicaCount": scale.min,
        "maxReplicaCount": scale.max,
        "advanced": advanced,
        "triggers": run.serves.iter().enumerate().map(trigger).collect::<Vec<_>>(),
    });
    if let Some(idle) = scale.idle {
        spec["cooldownPeriod"] = hpa::seconds(idle).into();
    }
    let kind = ("keda.sh/v1alpha1", "ScaledObject");
    Some(object(run.workload, kind, run.workload.name, json!({ "spec": spec })))
}

/// The Prometheus operator.
fn monitoring(table: &Table) -> Component {
    Component {
        name: "prometheus",
        resources: monitoring::resources(table),
        patches: Vec::new(),
        rest: Value::Null,
        with: &[],
    }
}
