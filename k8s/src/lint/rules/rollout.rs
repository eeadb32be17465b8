//! How Deployments are updated.

use super::{Invariant, Source};
use crate::lint::quantity::Amount;
use crate::lint::yard::{Fault, Object, Yard};

pub(super) const INVARIANTS: &[Invariant] = &[
    Invariant {
        id: "rollout-stuck",
        catches: "`maxUnavailable` and `maxSurge` both 0",
        why: "no pod may go and none may come: the API refuses it",
        source: Source {
            title: "Kubernetes documentation, Deployments: Max Unavailable",
            url: "https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#max-unavailable",
        },
        check: stuck,
    },
    Invariant {
        id: "rollout-at-once",
        catches: "`maxUnavailable` of 100 %; `Recreate` for the gateway or an agent",
        why: "an update takes all pods away before the first new one is ready",
        source: Source {
            title: "Kubernetes documentation, Deployments: Strategy",
            url: "https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#strategy",
        },
        check: at_once,
    },
];

const ROLLING: &str = "spec/strategy/rollingUpdate";

fn amount(object: &Object<'_>, key: &str) -> Option<Amount> {
    Amount::of(object.root.at(&format!("{ROLLING}/{key}"))?)
}

fn stuck<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let stuck = |object: &&Object<'_>| {
        let none = |key| amount(object, key).is_some_and(Amount::is_none);
        none("maxUnavailable") && none("maxSurge")
    };
    let fault = |object: &'y Object<'y>| {
        object.fault_at(
            "spec/strategy/rollingUpdate/maxUnavailable",
            "maxUnavailable and maxSurge are both 0, so that no update can begin",
            "maxUnavailable: 1",
        )
    };
    yard.kind("Deployment").filter(stuck).map(fault).collect()
}

fn at_once<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let all = |object: &'y Object<'y>| {
        if let Some(Amount::Percent(percent @ 100..)) = amount(object, "maxUnavailable") {
            return Some(object.fault_at(
                "spec/strategy/rollingUpdate/maxUnavailable",
                format!("maxUnavailable is {percent} %: an update takes every pod away at once"),
                "maxUnavailable: 1",
            ));
        }
        let recreates = object.root.text_at("spec/strategy/type") == Some("Recreate");
        (recreates && yard.role(object).is_some()).then(|| {
            object.fault_at(
                "spec/strategy/type",
                "Recreate ends every pod before the first new one begins",
                "type: RollingUpdate",
            )
        })
    };
    yard.kind("Deployment").filter_map(all).collect()
}
