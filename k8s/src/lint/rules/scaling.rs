//! Autoscalers and who owns the number of replicas.

use super::{Invariant, Source};
use crate::lint::node::Node;
use crate::lint::yard::{Fault, Object, Yard};

const HPA: &str = "HorizontalPodAutoscaler";

pub(super) const INVARIANTS: &[Invariant] = &[
    Invariant {
        id: "replicas-and-autoscaler",
        catches: "`replicas` in a workload that an autoscaler scales",
        why: "each apply sets the number back, in the middle of a burst",
        source: Source {
            title: "Kubernetes documentation, Migrating Deployments and StatefulSets to horizontal autoscaling",
            url: "https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#migrating-deployments-and-statefulsets-to-horizontal-autoscaling",
        },
        check: both_own,
    },
    Invariant {
        id: "hpa-bounds",
        catches: "`minReplicas` over `maxReplicas`",
        why: "the API refuses it",
        source: Source {
            title: "Kubernetes API, HorizontalPodAutoscaler v2",
            url: "https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/horizontal-pod-autoscaler-v2/",
        },
        check: bounds,
    },
    Invariant {
        id: "hpa-from-zero",
        catches: "`minReplicas: 0`",
        why: "it needs a feature gate that most clusters don't have, and an autoscaler by CPU never wakes what doesn't run; parking is the gateway's",
        source: Source {
            title: "KEP-2021: HPA supports scaling to/from zero pods for object/external metrics",
            url: "https://github.com/kubernetes/enhancements/tree/master/keps/sig-autoscaling/2021-scale-from-zero",
        },
        check: from_zero,
    },
    Invariant {
        id: "hpa-two-kinds-of-metric",
        catches: "an autoscaler by CPU or memory and by another metric, too",
        why: "while one of them can't be read nothing is scaled down: an adapter's outage keeps every replica",
        source: Source {
            title: "Kubernetes documentation, Horizontal Pod Autoscaling: Algorithm details",
            url: "https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details",
        },
        check: two_kinds,
    },
    Invariant {
        id: "hpa-without-request",
        catches: "an autoscaler by utilization of CPU or memory for containers that request none",
        why: "utilization is percent of the request: without one the autoscaler does nothing",
        source: Source {
            title: "Kubernetes documentation, Horizontal Pod Autoscaling: How does a HorizontalPodAutoscaler work?",
            url: "https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#how-does-a-horizontalpodautoscaler-work",
        },
        check: without_request,
    },
    Invariant {
        id: "hpa-target-unknown",
        catches: "an autoscaler (or KEDA's ScaledObject) of something that isn't in the folder",
        why: "it says FailedGetScale in its events, and nothing is scaled",
        source: Source {
            title: "Kubernetes API, CrossVersionObjectReference of HorizontalPodAutoscaler v2",
            url: "https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/horizontal-pod-autoscaler-v2/",
        },
        check: target_unknown,
    },
    Invariant {
        id: "two-autoscalers",
        catches: "two autoscalers of one workload",
        why: "they took turns before 1.26, and both are switched off since (AmbiguousSelector)",
        source: Source {
            title: "kubernetes/kubernetes#112027: Undefined behaviour when selected pods overlap in HPA",
            url: "https://github.com/kubernetes/kubernetes/issues/112027",
        },
        check: two,
    },
];

fn both_own<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let owned = |object: &'y Object<'y>| {
        let replicas = object.root.int_at("spec/replicas")?;
        let hpa = scalers(yard).find(|hpa| hpa.scales(object) && hpa.beside(object))?;
        let message =
            format!("replicas is {replicas}, and {} says how many there are", hpa.title());
        Some(object.fault_at("spec/replicas", message, "leave replicas out"))
    };
    yard.workloads().filter_map(owned).collect()
}

fn bounds<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let wrong = |hpa: &'y Object<'y>| {
        let min = hpa.root.int_at("spec/minReplicas")?;
        let max = hpa.root.int_at("spec/maxReplicas")?;
        let message = || format!("minReplicas {min} is over maxReplicas {max}");
        (min > max).then(|| hpa.fault_at("spec/minReplicas", message(), format!("{max} or less")))
    };
    yard.kind(HPA).filter_map(wrong).collect()
}

fn from_zero<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let zero = |hpa: &&Object<'_>| hpa.root.int_at("spec/minReplicas") == Some(0);
    let fault = |hpa: &'y Object<'y>| {
        let message = "minReplicas is 0, which most clusters refuse";
        let hint = "minReplicas: 1, and scale.min = 0 in the table: an autoscaler leaves what is parked alone";
        hpa.fault_at("spec/minReplicas", message, hint)
    };
    yard.kind(HPA).filter(zero).map(fault).collect()
}

fn metrics<'n>(hpa: &'n Object<'_>) -> impl Iterator<Item = (&'n str, &'n Node)> {
    let all = hpa.root.list_at("spec/metrics").iter();
    all.filter_map(|metric| Some((metric.text_at("type")?, metric)))
}

fn two_kinds<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let is_resource = |kind: &str| ["Resource", "ContainerResource"].contains(&kind);
    let mixed = |hpa: &'y Object<'y>| {
        let (own, _) = metrics(hpa).find(|(kind, _)| is_resource(kind))?;
        let (other, metric) = metrics(hpa).find(|(kind, _)| !is_resource(kind))?;
        let message = format!("{own} and {other} metrics: while one fails nothing is scaled down");
        Some(hpa.fault(metric, message, "one kind of metric for each autoscaler"))
    };
    yard.kind(HPA).filter_map(mixed).collect()
}

fn without_request<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let mut faults = Vec::new();
    for hpa in yard.kind(HPA) {
        for (_, metric) in metrics(hpa).filter(|(kind, _)| *kind == "Resource") {
            let percent = metric.text_at("resource/target/type") == Some("Utilization");
            let Some(name) = metric.text_at("resource/name").filter(|_| percent) else { continue };
            let asks = |container: &Node| {
                ["requests", "limits"]
                    .iter()
                    .any(|key| container.at(&format!("resources/{key}/{name}")).is_some())
            };
            let target = yard.workloads().find(|workload| hpa.scales(workload));
            let silent =
                target.and_then(|target| target.containers().iter().find(|one| !asks(one)));
            if let Some(container) = silent {
                let container = container.text_at("name").unwrap_or_default();
                let message = format!(
                    "its {name} is percent of a request, and the container {container} has none"
                );
                let hint =
                    format!("requests: {{{name}: …}}, in the table deployment.requests.{name}");
                faults.push(hpa.fault(metric.nearest("resource/name"), message, hint));
            }
        }
    }
    faults
}

/// What says how many there are: Kubernetes' autoscalers and KEDA's.
fn scalers<'y>(yard: &'y Yard<'y>) -> impl Iterator<Item = &'y Object<'y>> {
    yard.objects.iter().filter(|object| {
        object.kind == HPA || object.kind == "ScaledObject" && object.api.starts_with("keda.sh/")
    })
}

fn target_unknown<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let lost = |hpa: &'y Object<'y>| {
        let kind = hpa.root.text_at("spec/scaleTargetRef/kind").unwrap_or("Deployment");
        let known = ["Deployment", "StatefulSet", "ReplicaSet"].contains(&kind);
        let name = hpa.root.text_at("spec/scaleTargetRef/name").unwrap_or_default();
        (known && !yard.workloads().any(|workload| hpa.scales(workload))).then(|| {
            let message = format!("there is no {kind} {name} to scale in {}", hpa.namespace);
            hpa.fault_at("spec/scaleTargetRef/name", message, "the name of one that is here")
        })
    };
    scalers(yard).filter_map(lost).collect()
}

fn two<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let all: Vec<_> = scalers(yard).collect();
    let mut faults = Vec::new();
    for (n, hpa) in all.iter().enumerate() {
        let target = yard.workloads().find(|workload| hpa.scales(workload));
        let Some(workload) = target else { continue };
        let first = all[..n].iter().find(|other| other.scales(workload) && other.beside(hpa));
        if let Some(first) = first {
            let message = format!("{} scales {}, too", first.title(), workload.title());
            faults.push(hpa.fault_at("spec/scaleTargetRef/name", message, "leave one of the two"));
        }
    }
    faults
}
