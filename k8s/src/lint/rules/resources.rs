//! Requests, limits, and how large things may be.

use super::{Invariant, Source};
use crate::CONFIG_MAP_MAX;
use crate::lint::node::Node;
use crate::lint::quantity::quantity;
use crate::lint::yard::{Fault, Object, Yard};

/// Most bytes of all annotations of an object, where `kubectl apply` keeps what it applied last.
const ANNOTATIONS_MAX: usize = 256 << 10;

pub(super) const INVARIANTS: &[Invariant] = &[
    Invariant {
        id: "requests-over-limits",
        catches: "a request that is larger than its limit",
        why: "the API refuses the pods: the Deployment is there, and nothing runs",
        source: Source {
            title: "Kubernetes documentation, Limit Ranges: LimitRange and admission checks for Pods",
            url: "https://kubernetes.io/docs/concepts/policy/limit-range/",
        },
        check: over_limits,
    },
    Invariant {
        id: "no-memory-limit",
        catches: "a container without a memory limit",
        why: "one that grows takes the node's memory, and the kernel or the kubelet ends its neighbours",
        source: Source {
            title: "Kubernetes documentation, Assign Memory Resources: If you do not specify a memory limit",
            url: "https://kubernetes.io/docs/tasks/configure-pod-container/assign-memory-resource/#if-you-do-not-specify-a-memory-limit",
        },
        check: no_memory_limit,
    },
    Invariant {
        id: "memory-volume-without-limit",
        catches: "an `emptyDir` in memory without `sizeLimit`",
        why: "what is written there counts as the containers' memory, up to their limit: a full folder is an OOM kill",
        source: Source {
            title: "Kubernetes documentation, Volumes: emptyDir",
            url: "https://kubernetes.io/docs/concepts/storage/volumes/#emptydir",
        },
        check: memory_volume,
    },
    Invariant {
        id: "config-map-too-large",
        catches: "a ConfigMap over 1 MiB",
        why: "the API refuses it",
        source: Source {
            title: "Kubernetes documentation, ConfigMaps: Motivation",
            url: "https://kubernetes.io/docs/concepts/configuration/configmap/#motivation",
        },
        check: config_map_too_large,
    },
    Invariant {
        id: "config-map-too-large-to-apply",
        catches: "a ConfigMap over 256 KiB",
        why: "`kubectl apply` keeps what it applied in an annotation, and those hold 256 KiB: only `--server-side` works",
        source: Source {
            title: "kubernetes/kubectl#712: Object exceeds last-applied-configuration annotation",
            url: "https://github.com/kubernetes/kubectl/issues/712",
        },
        check: config_map_too_large_to_apply,
    },
];

fn over_limits<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let mut faults = Vec::new();
    for object in yard.workloads() {
        for container in object.all_containers() {
            let requests = container.at("resources/requests").map_or(&[][..], Node::entries);
            for (name, request) in requests {
                let limit = container.at("resources/limits").and_then(|all| all.key(name.text()?));
                let Some(limit) = limit else { continue };
                if let (Some(asked), Some(most)) = (quantity(request), quantity(limit))
                    && asked > most
                {
                    let message =
                        format!("{name} {request} is requested, over the limit of {limit}");
                    faults.push(object.fault(request, message, format!("{limit} or less")));
                }
            }
        }
    }
    faults
}

fn no_memory_limit<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let containers = yard
        .workloads()
        .flat_map(|object| object.containers().iter().map(move |container| (object, container)));
    let free = containers.filter(|(_, one)| one.at("resources/limits/memory").is_none());
    let fault = |(object, container): (&'y Object<'y>, &'y Node)| {
        let name = container.text_at("name").unwrap_or_default();
        let message = format!("the container {name} may take all of its node's memory");
        let hint = "limits: {memory: 512Mi}, in the table deployment.limits.memory";
        object.fault(container.nearest("resources/limits/memory"), message, hint)
    };
    free.map(fault).collect()
}

fn memory_volume<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let volumes = yard.workloads().flat_map(|object| {
        let volumes = object.pod().map_or(&[][..], |pod| pod.list_at("volumes"));
        volumes.iter().map(move |volume| (object, volume))
    });
    let unlimited = volumes.filter(|(_, volume)| {
        volume.text_at("emptyDir/medium") == Some("Memory")
            && volume.at("emptyDir/sizeLimit").is_none()
    });
    let fault = |(object, volume): (&'y Object<'y>, &'y Node)| {
        let name = volume.text_at("name").unwrap_or_default();
        let message = format!("the volume {name} is in memory and may fill all of it");
        object.fault(volume.nearest("emptyDir/medium"), message, "sizeLimit: 64Mi")
    };
    unlimited.map(fault).collect()
}

/// Bytes of a ConfigMap's values.
fn size(config_map: &Object<'_>) -> usize {
    let values = ["data", "binaryData"].into_iter().filter_map(|key| config_map.root.key(key));
    values.flat_map(Node::entries).map(|(_, value)| value.text().map_or(0, str::len)).sum()
}

fn larger<'y>(
    yard: &'y Yard<'y>,
    range: std::ops::RangeInclusive<usize>,
    hint: &str,
) -> Vec<Fault<'y>> {
    let large = yard.kind("ConfigMap").filter(|map| range.contains(&size(map)));
    let fault = |map: &'y Object<'y>| {
        let most = (range.start() - 1) >> 10;
        let message = format!("its values have {} bytes, over {most} KiB", size(map));
        map.fault_at("data", message, hint)
    };
    large.map(fault).collect()
}

fn config_map_too_large<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    larger(yard, CONFIG_MAP_MAX + 1..=usize::MAX, "split it up")
}

fn config_map_too_large_to_apply<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let hint = "split it up, or apply it with --server-side and allow it";
    larger(yard, ANNOTATIONS_MAX + 1..=CONFIG_MAP_MAX, hint)
}
