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
