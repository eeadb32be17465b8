//! NetworkPolicies.

use super::{Invariant, Source};
use crate::lint::node::Node;
use crate::lint::yard::{Fault, Object, Yard, selects};

const KIND: &str = "NetworkPolicy";

pub(super) const INVARIANTS: &[Invariant] = &[
    Invariant {
        id: "policy-selects-nothing",
        catches: "a NetworkPolicy that selects no pods of the folder",
        why: "what it was to protect is open to every pod",
        source: Source {
            title: "Kubernetes documentation, Network Policies: The two sorts of pod isolation",
            url: "https://kubernetes.io/docs/concepts/services-networking/network-policies/#the-two-sorts-of-pod-isolation",
        },
        check: selects_nothing,
    },
    Invariant {
        id: "policy-shuts-out-the-gateway",
        catches: "an agent whose policies admit the gateway's pods to none of its ports",
        why: "every request ends as `connect-timeout`: packets are dropped, not refused",
        source: Source {
            title: "Kubernetes documentation, Network Policies: Behavior of to and from selectors",
            url: "https://kubernetes.io/docs/concepts/services-networking/network-policies/#behavior-of-to-and-from-selectors",
        },
        check: shuts_out,
    },
    Invariant {
        id: "policy-admits-everybody",
        catches: "a policy of an agent's that admits every pod or address",
        why: "callers that pass the gateway by are in no queue, under no limit and in no log",
        source: Source {
            title: "Kubernetes documentation, Network Policies: Allow all ingress traffic",
            url: "https://kubernetes.io/docs/concepts/services-networking/network-policies/#allow-all-ingress-traffic",
        },
        check: admits_everybody,
    },
];

fn selects_nothing<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let idle = |policy: &&'y Object<'y>| {
        let all = policy.root.at("spec/podSelector").is_none_or(|it| it.entries().is_empty());
        !all && yard.chosen(policy, "spec/podSelector").next().is_none()
    };
    let fault = |policy: &'y Object<'y>| {
        let message = "no workload here makes pods that it selects";
        policy.fault_at("spec/podSelector", message, "the labels of a pod template")
    };
    yard.kind(KIND).filter(idle).map(fault).collect()
}

/// The policies that say who may connect to a workload.
fn policies<'y>(yard: &'y Yard<'y>, workload: &'y Object<'y>) -> Vec<&'y Object<'y>> {
    let is_about = |policy: &&'y Object<'y>| {
        let types = policy.root.list_at("spec/policyTypes");
        let ingress = types.is_empty() || types.iter().any(|one| one.text() == Some("Ingress"));
        ingress && policy.chooses("spec/podSelector", workload)
    };
    yard.kind(KIND).filter(is_about).collect()
}

fn shuts_out<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let mut faults = Vec::new();
    for (agent, _) in yard.agents() {
        let policies = policies(yard, agent);
        let admits = |policy: &&Object<'_>| {
            let mut rules = policy.root.list_at("spec/ingress").iter();
            rules.any(|rule| to_its_port(yard, rule, agent) && from_the_gateway(yard, policy, rule))
        };
        let own = policies.iter().find(|policy| policy.beside(agent)).or(policies.first());
        if let Some(policy) = own.filter(|_| !policies.iter().any(admits)) {
            let message = format!(
                "no policy admits the pods of {} in {} to {}",
                yard.gateway.name,
                yard.gateway.namespace,
                agent.title()
            );
            faults.push(policy.fault_at("spec/ingress", message, "a rule from the gateway's pods"));
        }
    }
    faults
}

/// Whether a rule is about one of a workload's ports. One without ports is about all.
fn to_its_port(yard: &Yard<'_>, rule: &Node, workload: &Object<'_>) -> bool {
    let ports = rule.list_at("ports");
    let is_its = |port: &Node| {
        let Some(wanted) = port.key("port") else { return true };
        let mut own = yard.ports(workload);
        match (wanted.text(), wanted.int()) {
            (Some(name), _) => own.any(|port| port.text_at("name") == Some(name)),
            (_, Some(first)) => {
                let last = port.int_at("endPort").unwrap_or(first);
                own.any(|port| {
                    port.int_at("containerPort").is_some_and(|own| (first..=last).contains(&own))
                })
            }
            _ => false,
        }
    };
    ports.is_empty() || ports.iter().any(is_its)
}

/// Whether a rule surely or possibly admits the gateway's pods: labels of namespaces other than
/// their name, and networks, can't be known here.
fn from_the_gateway(yard: &Yard<'_>, policy: &Object<'_>, rule: &Node) -> bool {
    let peers = rule.list_at("from");
    let gateway = yard.ours().find(|(object, _)| object.name == yard.gateway.name);
    let is_gateway = |peer: &Node| {
        if peer.key("ipBlock").is_some() {
            return true;
        }
        let there = match peer.key("namespaceSelector") {
            None => policy.namespace == yard.gateway.namespace,
            Some(namespaces) => {
                let name = namespaces
                    .at("matchLabels")
                    .and_then(|all| all.key("kubernetes.io/metadata.name"));
                name.is_none_or(|name| name.text() == Some(yard.gateway.namespace))
            }
        };
        let it = peer.key("podSelector").is_none_or(|selector| {
            gateway.is_none_or(|(object, _)| selects(selector, object.pod_labels()))
        });
        there && it
    };
    peers.is_empty() || peers.iter().any(is_gateway)
}

fn admits_everybody<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let mut faults: Vec<Fault<'y>> = Vec::new();
    for (agent, _) in yard.agents() {
        for policy in policies(yard, agent) {
            let open = policy.root.list_at("spec/ingress").iter().find(|rule| is_open(rule));
            let told = faults.iter().any(|fault| std::ptr::eq(fault.object, policy));
            if let Some(rule) = open.filter(|_| !told) {
                let message = format!("it admits everybody to {}", agent.title());
                let hint = "from: the gateway's pods in its namespace";
                faults.push(policy.fault(rule.nearest("from"), message, hint));
            }
        }
    }
    faults
}

fn is_open(rule: &Node) -> bool {
    let empty = |node: &Node| node.entries().is_empty();
    let everybody = |peer: &Node| {
        let anywhere = peer.text_at("ipBlock/cidr").is_some_and(|cidr| cidr.ends_with("/0"));
        let any_pod = peer.key("namespaceSelector").is_some_and(empty)
            && peer.key("podSelector").is_none_or(empty);
        anywhere || any_pod
    };
    let peers = rule.list_at("from");
    peers.is_empty() || peers.iter().any(everybody)
}
