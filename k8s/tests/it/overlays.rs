//! What the components put on the base.

use serde_json::{Value, json};

use crate::render;

const SCALED: &str = r#"
[gateway.scale]
min = 1
max = 2

[agents.qa]
service = "qa-agent"
scale   = { min = 0, max = 4, load = 8, idle = "5m" }

[agents.qa.deployment]
image    = "r.example.com:5000/qa@sha256:0000000000000000000000000000000000000000000000000000000000000000"
command  = ["qa"]
requests = { cpu = "1" }

[agents.fixed]
service = "fixed"

[agents.fixed.deployment]
image   = "r.example.com:5000/fixed"
command = ["fixed"]

[agents.also]
shares = "qa"
"#;

/// A component's Kustomization, its patches read.
fn patches(name: &str) -> Vec<Value> {
    let rendered = render(SCALED);
    let text = rendered.text(&format!("components/{name}/Kustomization"));
    let file = k8s::documents(text).unwrap().remove(0);
    let inline = file["patches"].as_array().cloned().unwrap_or_default();
    let read = |patch: &Value| k8s::documents(patch["patch"].as_str().unwrap()).unwrap().remove(0);
    inline.iter().map(read).collect()
}

#[test]
fn load_replaces_cpu_where_there_is_a_range_and_adds_up_the_types_of_a_replica() {
    let patches = patches("load");
    assert_eq!(patches.len(), 1, "only qa has a range; the gateway stays with CPU");
    assert_eq!(patches[0]["metadata"]["name"], "qa-agent-hpa");
    let metrics = patches[0]["spec"]["metrics"].as_array().unwrap();
    assert_eq!(metrics.len(), 1, "load beside CPU would freeze when one of them fails");
    let external = &metrics[0]["external"];
    assert_eq!(external["metric"]["name"], "agent_load");
    let types = &external["metric"]["selector"]["matchExpressions"][0];
    assert_eq!(types, &json!({ "key": "agent", "operator": "In", "values": ["also", "qa"] }));
    assert_eq!(external["target"], json!({ "type": "AverageValue", "averageValue": "8" }));
}

#[test]
fn keda_takes_the_autoscalers_place_and_may_park() {
    let gone = patches("keda");
    assert_eq!(gone.len(), 1);
    assert_eq!(
        (&gone[0]["$patch"], &gone[0]["metadata"]["name"]),
        (&json!("delete"), &json!("qa-agent-hpa"))
    );
    let rendered = render(SCALED);
    let scaled = k8s::documents(rendered.text("components/keda/scaled-objects.yaml")).unwrap();
    assert_eq!(scaled.len(), 1);
    let spec = &scaled[0]["spec"];
    assert_eq!((&spec["minReplicaCount"], &spec["maxReplicaCount"]), (&json!(0), &json!(4)));
    assert_eq!(spec["cooldownPeriod"], 300);
    assert_eq!(spec["triggers"][1]["metadata"]["valueLocation"], "agents.qa.load");
    assert_eq!(spec["advanced"]["scalingModifiers"]["formula"], "type0 + type1");
}

#[test]
fn production_stays_within_the_range_and_names_each_tagged_image_once() {
    let patches = patches("production");
    assert_eq!(patches[1]["spec"]["minReplicas"], 2, "three gateways, but never over the maximum");
    let rendered = render(SCALED);
    let text = rendered.text("components/production/Kustomization");
    let images = k8s::documents(text).unwrap()[0]["images"].clone();
    let (name, tag) = k8s::GATEWAY_IMAGE.split_once(':').unwrap();
    assert_eq!(images, json!([{ "name": name, "newName": name, "newTag": tag }]));
}

#[test]
fn local_pulls_nothing() {
    let deployments = patches("local");
    for name in ["switchyard", "qa-agent", "fixed"] {
        let patch = deployments
            .iter()
            .find(|patch| patch["kind"] == "Deployment" && patch["metadata"]["name"] == name);
        let container = &patch.unwrap()["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["imagePullPolicy"], "Never", "{name}");
    }
}

#[test]
fn prometheus_is_admitted_to_everything_that_it_asks() {
    let rendered = render(SCALED);
    let read = |file: &str| {
        k8s::documents(rendered.text(&format!("components/prometheus/{file}"))).unwrap()
    };
    let (monitors, policies) = (read("pod-monitors.yaml"), read("network-policies.yaml"));
    assert_eq!((monitors.len(), policies.len()), (3, 3));
    for (monitor, policy) in monitors.iter().zip(&policies) {
        assert_eq!(monitor["spec"]["selector"], policy["spec"]["podSelector"]);
        let port = &monitor["spec"]["podMetricsEndpoints"][0]["port"];
        assert_eq!(port, &policy["spec"]["ingress"][0]["ports"][0]["port"]);
    }
}

/// The objects of the component `external-metrics`.
fn external_metrics() -> Vec<Value> {
    let rendered = render(SCALED);
    ["external-metrics.yaml", "permissions.yaml"]
        .map(|file| format!("components/external-metrics/{file}"))
        .iter()
        .flat_map(|file| k8s::documents(rendered.text(file)).unwrap())
        .collect()
}

fn of_kind(objects: &[Value], kind: &str) -> Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("{kind}")).clone()
}

#[test]
fn the_overlay_load_brings_the_server_of_the_metric_that_it_scales_by() {
    let rendered = render(SCALED);
    let text = rendered.text("overlays/load/Kustomization");
    let components = k8s::documents(text).unwrap()[0]["components"].clone();
    let expected = ["../../components/load", "../../components/external-metrics"];
    assert_eq!(components, json!(expected));
}

#[test]
fn the_api_server_is_led_to_the_port_that_the_gateway_is_told_to_open() {
    let objects = external_metrics();
    let (api, service) = (of_kind(&objects, "APIService"), of_kind(&objects, "Service"));
    assert_eq!(api["spec"]["service"]["name"], service["metadata"]["name"]);
    assert_eq!(api["spec"]["service"]["namespace"], service["metadata"]["namespace"]);
    let port = &service["spec"]["ports"][0];
    assert_eq!(api["spec"]["service"]["port"], port["port"]);
    let patch = &patches("external-metrics")[0];
    let container = &patch["spec"]["template"]["spec"]["containers"][0];
    let opened = &container["ports"][0];
    assert_eq!(port["targetPort"], opened["name"]);
    assert!(opened["name"].as_str().unwrap().len() <= 15, "a port's name has at most 15 letters");
    let address = format!("0.0.0.0:{}", opened["containerPort"]);
    let env = json!([{ "name": "SWITCHYARD_EXTERNAL_METRICS", "value": address }]);
    assert_eq!(container["env"], env);
    let policy = of_kind(&objects, "NetworkPolicy");
    assert_eq!(policy["spec"]["ingress"][0]["ports"][0]["port"], opened["name"]);
}

#[test]
fn what_the_gateway_fills_in_is_not_rendered_so_that_an_apply_leaves_it() {
    let objects = external_metrics();
    let api = of_kind(&objects, "APIService");
    for key in ["caBundle", "insecureSkipTLSVerify"] {
        assert_eq!(api["spec"].get(key), None, "{key}");
    }
    let secret = of_kind(&objects, "Secret");
    assert_eq!((secret.get("data"), secret.get("stringData")), (None, None));
}

#[test]
fn every_permission_for_external_metrics_is_on_one_object_by_name() {
    let objects = external_metrics();
    for (kind, names, verbs) in [
        ("Role", ["switchyard-external-metrics"], ["get", "update"]),
        ("ClusterRole", ["v1beta1.external.metrics.k8s.io"], ["get", "patch"]),
    ] {
        let rules = of_kind(&objects, kind)["rules"].clone();
        assert_eq!(rules.as_array().unwrap().len(), 1, "{kind}");
        assert_eq!(rules[0]["resourceNames"], json!(names), "{kind}");
        assert_eq!(rules[0]["verbs"], json!(verbs), "{kind}");
    }
    let bindings: Vec<_> =
        objects.iter().filter(|object| object.get("roleRef").is_some()).collect();
    assert_eq!(bindings.len(), 3);
    for binding in bindings {
        let account =
            json!([{ "kind": "ServiceAccount", "name": "switchyard", "namespace": "ai-agents" }]);
        assert_eq!(binding["subjects"], account);
    }
    let cluster_wide = |object: &&Value| {
        ["ClusterRole", "ClusterRoleBinding", "APIService"]
            .contains(&object["kind"].as_str().unwrap())
    };
    for object in objects.iter().filter(cluster_wide) {
        assert_eq!(object["metadata"].get("namespace"), None, "{object}");
    }
}
