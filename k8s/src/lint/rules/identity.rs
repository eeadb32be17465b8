//! Names, kinds and exceptions.

use std::collections::BTreeMap;

use super::{Invariant, Source, invariants};
use crate::lint::node::Node;
use crate::lint::yard::{Fault, Object, Yard};

/// Longest DNS label: names of Services, namespaces and containers, and values of labels.
const LABEL_MAX: usize = 63;
/// Longest name of a port.
const PORT_MAX: usize = 15;

pub(super) const INVARIANTS: &[Invariant] = &[
    Invariant {
        id: "removed-api",
        catches: "an `apiVersion` that Kubernetes no longer has",
        why: "the cluster doesn't know the object: after an upgrade nothing can be applied",
        source: Source {
            title: "Kubernetes documentation, Deprecated API Migration Guide",
            url: "https://kubernetes.io/docs/reference/using-api/deprecation-guide/",
        },
        check: removed_api,
    },
    Invariant {
        id: "object-twice",
        catches: "one object twice in a folder",
        why: "the one that is applied later wins, and Kustomize refuses both",
        source: Source {
            title: "Kubernetes documentation, Object Names and IDs",
            url: "https://kubernetes.io/docs/concepts/overview/working-with-objects/names/",
        },
        check: object_twice,
    },
    Invariant {
        id: "name-too-long",
        catches: "a name over 63 characters of a Service, namespace, container or label, or over 15 of a port",
        why: "the API refuses it",
        source: Source {
            title: "Kubernetes documentation, Object Names and IDs: RFC 1123 Label Names",
            url: "https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-label-names",
        },
        check: name_too_long,
    },
    Invariant {
        id: "service-account-unknown",
        catches: "the gateway or an agent with a ServiceAccount that isn't in the folder",
        why: "no pod is made, and only the ReplicaSet's events say so",
        source: Source {
            title: "Kubernetes documentation, Service Accounts: Assign a ServiceAccount to a Pod",
            url: "https://kubernetes.io/docs/concepts/security/service-accounts/#assign-to-pod",
        },
        check: account_unknown,
    },
    Invariant {
        id: "exception-unknown",
        catches: "an exception (`switchyard.dev/allow`) for an invariant that there isn't",
        why: "somebody relies on it",
        source: Source {
            title: "Kubernetes documentation, Annotations",
            url: "https://kubernetes.io/docs/concepts/overview/working-with-objects/annotations/",
        },
        check: exception_unknown,
    },
];

/// `apiVersion`, kind, since when it is gone, and what is there instead.
const REMOVED: &[(&str, &str, &str, &str)] = &[
    ("admissionregistration.k8s.io/v1beta1", "", "1.22", "admissionregistration.k8s.io/v1"),
    ("apiextensions.k8s.io/v1beta1", "", "1.22", "apiextensions.k8s.io/v1"),
    ("apiregistration.k8s.io/v1beta1", "", "1.22", "apiregistration.k8s.io/v1"),
    ("apps/v1beta1", "", "1.16", "apps/v1"),
    ("apps/v1beta2", "", "1.16", "apps/v1"),
    ("autoscaling/v2beta1", "", "1.25", "autoscaling/v2"),
    ("autoscaling/v2beta2", "", "1.26", "autoscaling/v2"),
    ("batch/v1beta1", "CronJob", "1.25", "batch/v1"),
    ("coordination.k8s.io/v1beta1", "", "1.22", "coordination.k8s.io/v1"),
    ("discovery.k8s.io/v1beta1", "", "1.25", "discovery.k8s.io/v1"),
    ("events.k8s.io/v1beta1", "", "1.25", "events.k8s.io/v1"),
    ("extensions/v1beta1", "Ingress", "1.22", "networking.k8s.io/v1"),
    ("extensions/v1beta1", "NetworkPolicy", "1.16", "networking.k8s.io/v1"),
    ("extensions/v1beta1", "", "1.16", "apps/v1"),
    ("networking.k8s.io/v1beta1", "Ingress", "1.22", "networking.k8s.io/v1"),
    ("networking.k8s.io/v1beta1", "IngressClass", "1.22", "networking.k8s.io/v1"),
    ("policy/v1beta1", "", "1.25", "policy/v1"),
    ("rbac.authorization.k8s.io/v1beta1", "", "1.22", "rbac.authorization.k8s.io/v1"),
    ("scheduling.k8s.io/v1beta1", "", "1.22", "scheduling.k8s.io/v1"),
    ("storage.k8s.io/v1beta1", "CSIStorageCapacity", "1.27", "storage.k8s.io/v1"),
];

fn removed_api<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let removed = |object: &'y Object<'y>| {
        let mut all = REMOVED.iter();
        let is_it = |(api, kind, ..): &&(&str, &str, &str, &str)| {
            *api == object.api && (kind.is_empty() || *kind == object.kind)
        };
        let (api, _, since, instead) = all.find(is_it)?;
        let message = format!("{api} is gone since Kubernetes {since}");
        Some(object.fault_at("apiVersion", message, format!("apiVersion: {instead}")))
    };
    yard.objects.iter().filter_map(removed).collect()
}

fn object_twice<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let mut seen: BTreeMap<_, Vec<&Object<'_>>> = BTreeMap::new();
    let mut faults = Vec::new();
    for object in &yard.objects {
        let group = object.api.split_once('/').map_or("", |(group, _)| group);
        let key = (group, &object.kind, &object.namespace, &object.name);
        let before = seen.entry(key).or_default();
        if let Some(first) = before.iter().find(|first| first.beside(object)) {
            let line = first.root.nearest("kind").line;
            let message = format!("it is already in {}:{line}", first.file);
            faults.push(object.fault_at("metadata/name", message, "leave one of the two"));
        }
        before.push(object);
    }
    faults
}

fn name_too_long<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let mut faults = Vec::new();
    let mut measure = |object: &'y Object<'y>, node: Option<&'y Node>, most: usize| {
        let Some((node, name)) = node.and_then(|node| Some((node, node.text()?))) else { return };
        let length = name.chars().count();
        if length > most {
            let message = format!("{name} has {length} characters, over {most}");
            faults.push(object.fault(node, message, "a shorter name"));
        }
    };
    for object in &yard.objects {
        if ["Service", "Namespace"].contains(&&*object.kind) {
            measure(object, object.root.at("metadata/name"), LABEL_MAX);
        }
        let labels = object.root.at("metadata/labels").map_or(&[][..], Node::entries);
        for (_, value) in labels.iter().chain(object.pod_labels()) {
            measure(object, Some(value), LABEL_MAX);
        }
        for container in object.all_containers() {
            measure(object, container.key("name"), LABEL_MAX);
        }
        for port in object.ports() {
            measure(object, port.key("name"), PORT_MAX);
        }
    }
    faults
}

fn account_unknown<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let lost = |(object, _): (&'y Object<'y>, _)| {
        let node = object.pod()?.key("serviceAccountName")?;
        let name = node.text().filter(|name| *name != "default")?;
        let here = yard
            .kind("ServiceAccount")
            .any(|account| account.name == name && account.namespace == object.namespace);
        let message = || format!("there is no ServiceAccount {name} in {}", object.namespace);
        (!here).then(|| object.fault(node, message(), "the name of one that is here"))
    };
    yard.ours().filter_map(lost).collect()
}

fn exception_unknown<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let mut faults = Vec::new();
    for object in &yard.objects {
        for (id, node) in object.allowed() {
            if !invariants().any(|invariant| invariant.id == id) {
                let message = format!("there is no check {id} to make an exception from");
                faults.push(object.fault(node, message, "docs/kubernetes-checks.md has them all"));
            }
        }
    }
    faults
}
