//! PodDisruptionBudgets.

use super::{Invariant, Source};
use crate::lint::quantity::Amount;
use crate::lint::yard::{Fault, Object, Yard};

pub(super) const INVARIANTS: &[Invariant] = &[
    Invariant {
        id: "pdb-blocks-every-eviction",
        catches: "a budget with `maxUnavailable: 0`, or `minAvailable` of 100 % or of all replicas that there are without an autoscaler",
        why: "`kubectl drain` and every node upgrade wait for ever",
        source: Source {
            title: "Kubernetes documentation, Specifying a Disruption Budget for your Application",
            url: "https://kubernetes.io/docs/tasks/run-application/configure-pdb/",
        },
        check: blocks,
    },
    Invariant {
        id: "pdb-over-the-autoscalers-minimum",
        catches: "`minAvailable` no less than the autoscaler's `minReplicas`",
        why: "in quiet hours, when nodes are drained, it allows no eviction",
        source: Source {
            title: "open-policy-agent/gatekeeper-library#202: HPA minReplicas vs PDB minAvailable check",
            url: "https://github.com/open-policy-agent/gatekeeper-library/issues/202",
        },
        check: over_minimum,
    },
    Invariant {
        id: "pdb-keeps-what-is-broken",
        catches: "a budget without `unhealthyPodEvictionPolicy: AlwaysAllow`",
        why: "pods that crash count as missing, so that the broken ones can't be evicted and the node can't be drained",
        source: Source {
            title: "KEP-3017: PodHealthyPolicy for PodDisruptionBudget",
            url: "https://github.com/kubernetes/enhancements/tree/master/keps/sig-apps/3017-pod-healthy-policy-for-pdb",
        },
        check: keeps_broken,
    },
    Invariant {
        id: "pdb-selects-nothing",
        catches: "a budget that selects no pods of the folder",
        why: "a drain takes all replicas at once, and nobody notices before",
        source: Source {
            title: "Kubernetes documentation, Disruptions: Pod disruption budgets",
            url: "https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-budgets",
        },
        check: selects_nothing,
    },
    Invariant {
        id: "two-pdbs",
        catches: "two budgets over the same pods",
        why: "the eviction API then refuses every eviction with an error, and a drain never ends",
        source: Source {
            title: "kubernetes/kubernetes#75957: Cannot drain node with pod with more than one Pod Disruption Budget",
            url: "https://github.com/kubernetes/kubernetes/issues/75957",
        },
        check: two,
    },
];

const KIND: &str = "PodDisruptionBudget";

fn amount(budget: &Object<'_>, key: &str) -> Option<Amount> {
    Amount::of(budget.root.at("spec")?.key(key)?)
}

/// How many replicas there are surely of what a budget is for, if no autoscaler has a say.
fn replicas<'y>(yard: &'y Yard<'y>, budget: &'y Object<'y>) -> Option<i64> {
    let mut all = 0;
    for workload in yard.chosen(budget, "spec/selector") {
        if yard.autoscalers(workload).next().is_some() || workload.kind == "DaemonSet" {
            return None;
        }
        all += workload.root.int_at("spec/replicas").unwrap_or(1);
    }
    (all > 0).then_some(all)
}

fn blocks<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let blocks = |budget: &'y Object<'y>| {
        if amount(budget, "maxUnavailable").is_some_and(Amount::is_none) {
            let message = "maxUnavailable is 0, so that no pod may ever be evicted";
            return Some(budget.fault_at("spec/maxUnavailable", message, "maxUnavailable: 1"));
        }
        let least = amount(budget, "minAvailable")?;
        let replicas = replicas(yard, budget);
        let all = matches!(least, Amount::Percent(100..))
            || replicas.is_some_and(|replicas| least.up(replicas) >= replicas);
        all.then(|| {
            let said = budget.root.nearest("spec/minAvailable");
            let of = replicas.map_or("all".to_owned(), |replicas| replicas.to_string());
            let message = format!("minAvailable {said} of {of} replicas: none may ever be evicted");
            budget.fault(said, message, "maxUnavailable: 1 instead")
        })
    };
    yard.kind(KIND).filter_map(blocks).collect()
}

fn over_minimum<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let over = |budget: &'y Object<'y>| {
        let least = amount(budget, "minAvailable")
            .filter(|least| !matches!(least, Amount::Percent(100..)))?;
        let workload = yard.chosen(budget, "spec/selector").next()?;
        let hpa = yard.autoscalers(workload).next()?;
        let fewest = hpa.root.int_at("spec/minReplicas").unwrap_or(1);
        let said = budget.root.nearest("spec/minAvailable");
        (least.up(fewest) >= fewest).then(|| {
            let message = format!(
                "minAvailable {said}, and {} may go down to {fewest}: then none may be evicted",
                hpa.name
            );
            budget.fault(said, message, "maxUnavailable: 1 instead")
        })
    };
    yard.kind(KIND).filter_map(over).collect()
}

fn keeps_broken<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let policy = "spec/unhealthyPodEvictionPolicy";
    let keeps = |budget: &&Object<'_>| budget.root.text_at(policy) != Some("AlwaysAllow");
    let fault = |budget: &'y Object<'y>| {
        let message = "pods that aren't ready can hold up a node's drain for ever";
        budget.fault_at(policy, message, "unhealthyPodEvictionPolicy: AlwaysAllow")
    };
    yard.kind(KIND).filter(keeps).map(fault).collect()
}

fn selects_nothing<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let idle = |budget: &&'y Object<'y>| yard.chosen(budget, "spec/selector").next().is_none();
    let fault = |budget: &'y Object<'y>| {
        let message = "no workload here makes pods that it selects";
        budget.fault_at("spec/selector", message, "the labels of a pod template")
    };
    yard.kind(KIND).filter(idle).map(fault).collect()
}

fn two<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let mut faults: Vec<Fault<'y>> = Vec::new();
    for workload in yard.workloads() {
        let budgets: Vec<_> =
            yard.kind(KIND).filter(|budget| budget.chooses("spec/selector", workload)).collect();
        for (n, budget) in budgets.iter().enumerate() {
            let first = budgets[..n].iter().find(|other| other.beside(budget));
            let told = faults.iter().any(|fault| std::ptr::eq(fault.object, *budget));
            if let Some(first) = first.filter(|_| !told) {
                let message =
                    format!("{} has the pods of {}, too", first.title(), workload.title());
                faults.push(budget.fault_at("spec/selector", message, "leave one of the two"));
            }
        }
    }
    faults
}
