//! Autoscalers of workloads whose scale is a range.

use std::time::Duration;

use config::Scale;
use serde_json::{Value, json};

use crate::object::object;
use crate::plan::{Workload, range};

/// Longest stabilisation window that the API takes, seconds.
const WINDOW_MAX: u64 = 3_600;
/// Longest period of a scaling policy that the API takes, seconds.
const PERIOD_MAX: u64 = 1_800;

/// The name of a workload's autoscaler.
pub(crate) fn name(workload: Workload<'_>) -> String {
    format!("{}-hpa", workload.name)
}

/// The autoscaler by CPU; none without a range. An agent that is parked at zero has one from one
/// replica on: an autoscaler leaves a Deployment at zero alone.
pub(crate) fn autoscaler(workload: Workload<'_>, scale: Option<&Scale>) -> Option<Value> {
    let scale = range(scale)?;
    let rest = json!({ "spec": {
        "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": workload.name },
        "minReplicas": scale.min.max(1),
        "maxReplicas": scale.max,
        "metrics": [by_cpu(scale)],
        "behavior": behavior(scale),
    }});
    Some(object(workload, ("autoscaling/v2", "HorizontalPodAutoscaler"), &name(workload), rest))
}

fn by_cpu(scale: &Scale) -> Value {
    let target = json!({ "type": "Utilization", "averageUtilization": scale.cpu.unwrap_or(60) });
    json!({ "type": "Resource", "resource": { "name": "cpu", "target": target } })
}

/// How fast it grows and shrinks: the table's `up` and `down`.
pub(crate) fn behavior(scale: &Scale) -> Value {
    let (up, down) = (&scale.up, &scale.down);
    json!({
        "scaleUp": {
            "stabilizationWindowSeconds": seconds(up.window).min(WINDOW_MAX),
            "selectPolicy": "Max",
            "policies": [{
                "type": "Pods",
                "value": up.pods.max(1),
                "periodSeconds": seconds(up.period).clamp(1, PERIOD_MAX),
            }],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": seconds(down.window).min(WINDOW_MAX),
            "selectPolicy": "Max",
            "policies": [{ "type": "Percent", "value": 100, "periodSeconds": 15 }],
        },
    })
}

/// Whole seconds, rounded up: Kubernetes knows no others.
pub(crate) fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
