//! Services, ports and selectors that don't meet.

use std::collections::BTreeSet;

use super::{Invariant, Source};
use crate::lint::node::Node;
use crate::lint::yard::{Fault, Object, Yard, selects};

pub(super) const INVARIANTS: &[Invariant] = &[
    Invariant {
        id: "service-selects-nothing",
        catches: "a Service whose selector no pods of the folder have",
        why: "it has no endpoints: every request gets `no-endpoint`",
        source: Source {
            title: "Kubernetes documentation, Debug Services: Does the Service have any EndpointSlices?",
            url: "https://kubernetes.io/docs/tasks/debug/debug-application/debug-service/",
        },
        check: selects_nothing,
    },
    Invariant {
        id: "service-selects-others",
        catches: "a Service of the gateway or of an agent that selects pods of another workload, too",
        why: "requests for one agent reach another",
        source: Source {
            title: "Kubernetes documentation, Labels and Selectors",
            url: "https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/",
        },
        check: selects_others,
    },
    Invariant {
        id: "service-port-unknown",
        catches: "a Service with a `targetPort` that no container has",
        why: "its endpoints have no such port, or one where nobody listens: connections are refused",
        source: Source {
            title: "Kubernetes documentation, Service: Port definitions",
            url: "https://kubernetes.io/docs/concepts/services-networking/service/#field-spec-ports",
        },
        check: port_unknown,
    },
    Invariant {
        id: "port-twice",
        catches: "a port number and protocol twice in a pod, or in a Service",
        why: "only one container can listen on it, and the next `kubectl apply` merges the two by number and loses one",
        source: Source {
            title: "kubernetes/kubernetes#105610: Service Duplicate Port Numbers + Patch Merge",
            url: "https://github.com/kubernetes/kubernetes/issues/105610",
        },
        check: port_twice,
    },
    Invariant {
        id: "client-ip-affinity",
        catches: "`sessionAffinity: ClientIP` on the way to the gateway or to an agent",
        why: "everybody behind one proxy has one address and gets one replica for three hours; sessions are kept by the table's `affinity`",
        source: Source {
            title: "Kubernetes documentation, Virtual IPs and Service Proxies: Session affinity",
            url: "https://kubernetes.io/docs/reference/networking/virtual-ips/#session-affinity",
        },
        check: client_ip,
    },
    Invariant {
        id: "unready-addresses",
        catches: "`publishNotReadyAddresses` in a Service with a cluster IP that leads to the gateway or to an agent",
        why: "pods that still start, or can't work, get requests",
        source: Source {
            title: "Kubernetes API, ServiceSpec v1: publishNotReadyAddresses",
            url: "https://kubernetes.io/docs/reference/kubernetes-api/service-resources/service-v1/#ServiceSpec",
        },
        check: unready,
    },
    Invariant {
        id: "selector-misses-its-pods",
        catches: "a workload whose selector doesn't match the labels of its own pods",
        why: "the API refuses it",
        source: Source {
            title: "Kubernetes documentation, Deployments: Selector",
            url: "https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#selector",
        },
        check: misses_its_pods,
    },
    Invariant {
        id: "selector-takes-others",
        catches: "a workload whose selector matches another workload's pods",
        why: "autoscalers, budgets and `kubectl` then count the wrong pods: one team's autoscaler stayed at its maximum for weeks",
        source: Source {
            title: "kubernetes/kubernetes#78761: HPA doesn't scale down to minReplicas even though metric is under target",
            url: "https://github.com/kubernetes/kubernetes/issues/78761",
        },
        check: takes_others,
    },
];

/// Whether a Service has a selector, so that it leads to pods by itself.
fn leads(service: &Object<'_>) -> bool {
    service.root.at("spec/selector").is_some_and(|selector| !selector.entries().is_empty())
        && service.root.text_at("spec/type") != Some("ExternalName")
}

fn selects_nothing<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let idle = |service: &&'y Object<'y>| leads(service) && yard.behind(service).next().is_none();
    let fault = |service: &'y Object<'y>| {
        let message = "no workload here makes pods that it selects";
        service.fault_at("spec/selector", message, "the labels of a pod template")
    };
    yard.kind("Service").filter(idle).map(fault).collect()
}

/// Services that lead to the gateway or to an agent.
fn ours<'y>(yard: &'y Yard<'y>) -> impl Iterator<Item = &'y Object<'y>> {
    let is_ours = |service: &&'y Object<'y>| {
        yard.behind(service).any(|workload| yard.role(workload).is_some())
    };
    yard.kind("Service").filter(is_ours)
}

fn selects_others<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let wide = |service: &'y Object<'y>| {
        let all: Vec<_> = yard.behind(service).map(Object::title).collect();
        let message = || format!("it selects the pods of {}", all.join(" and of "));
        let hint = "a label that only one of them has";
        (all.len() > 1).then(|| service.fault_at("spec/selector", message(), hint))
    };
    ours(yard).filter_map(wide).collect()
}

/// Whether a workload has the port that is meant by this name or number. One that names no ports
/// may listen on any.
fn has_port(yard: &Yard<'_>, workload: &Object<'_>, target: &Node) -> bool {
    let mut ports = yard.ports(workload).peekable();
    match (target.text(), target.int()) {
        (Some(name), _) => ports.any(|port| port.text_at("name") == Some(name)),
        (None, Some(number)) => {
            ports.peek().is_none() || ports.any(|port| port.int_at("containerPort") == Some(number))
        }
        _ => true,
    }
}

fn port_unknown<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let mut faults = Vec::new();
    for service in yard.kind("Service").filter(|service| leads(service)) {
        for port in service.root.list_at("spec/ports") {
            let Some(target) = port.key("targetPort").or_else(|| port.key("port")) else {
                continue;
            };
            let lost = yard.behind(service).find(|workload| !has_port(yard, workload, target));
            if let Some(workload) = lost {
                let message = format!("{} has no port {target}", workload.title());
                let hint = "a port of its containers, by name";
                faults.push(service.fault(target, message, hint));
            }
        }
    }
    faults
}

/// The ports of a list that repeat one before them.
fn repeated<'n>(ports: impl Iterator<Item = &'n Node>, number: &str) -> Vec<&'n Node> {
    let mut seen = BTreeSet::new();
    let again = |port: &&Node| {
        let protocol = port.text_at("protocol").unwrap_or("TCP");
        port.int_at(number).is_some_and(|number| !seen.insert((number, protocol.to_owned())))
    };
    ports.filter(again).collect()
}

fn port_twice<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let mut faults = Vec::new();
    let mut add = |object: &'y Object<'y>, ports: Vec<&'y Node>, number| {
        for port in ports {
            let said = port.nearest(number);
            let message = format!("port {said} is there twice");
            faults.push(object.fault(said, message, "each port once"));
        }
    };
    for object in yard.workloads() {
        add(object, repeated(object.ports(), "containerPort"), "containerPort");
    }
    for service in yard.kind("Service") {
        add(service, repeated(service.root.list_at("spec/ports").iter(), "port"), "port");
    }
    faults
}

fn client_ip<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let path = "spec/sessionAffinity";
    let sticky = |service: &&Object<'_>| service.root.text_at(path) == Some("ClientIP");
    let fault = |service: &'y Object<'y>| {
        let message =
            "sessionAffinity ClientIP sends all that comes through one proxy to one replica";
        let hint = "leave it out; in the table affinity = { header = \"x-session-id\" }";
        service.fault_at(path, message, hint)
    };
    ours(yard).filter(sticky).map(fault).collect()
}

fn unready<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let path = "spec/publishNotReadyAddresses";
    let open = |service: &&Object<'_>| {
        service.root.is_true(path) && service.root.text_at("spec/clusterIP") != Some("None")
    };
    let fault = |service: &'y Object<'y>| {
        service.fault_at(path, "pods that aren't ready get requests, too", "leave it out")
    };
    ours(yard).filter(open).map(fault).collect()
}

fn misses_its_pods<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let misses = |object: &&'y Object<'y>| {
        let selector = object.root.at("spec/selector");
        // Jobs are given theirs; a ReplicationController's has another form.
        let named = selector.filter(|_| !["Job", "ReplicationController"].contains(&&*object.kind));
        named.is_some_and(|selector| !selects(selector, object.pod_labels()))
    };
    let fault = |object: &'y Object<'y>| {
        let message = "its selector doesn't match the labels of its own pods";
        object.fault_at("spec/selector", message, "the labels of spec.template.metadata")
    };
    yard.workloads().filter(misses).map(fault).collect()
}

fn takes_others<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let takes = |object: &'y Object<'y>| {
        let own = object.kind != "Job" && object.root.at("spec/selector").is_some();
        let mut chosen = yard.chosen(object, "spec/selector").filter(|_| own);
        let same = |other: &Object<'_>| other.name == object.name && other.kind == object.kind;
        let other = chosen.find(|other| !same(other) && other.beside(object))?;
        let message = format!("its selector takes the pods of {}, too", other.title());
        Some(object.fault_at("spec/selector", message, "a label that only its own pods have"))
    };
    yard.workloads().filter_map(takes).collect()
}
