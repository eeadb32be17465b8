//! Where clients come in: what is reachable from outside, and who gives up first.

use std::time::Duration;

use config::Agent;

use super::{Invariant, Source};
use crate::hpa::seconds;
use crate::lint::node::Node;
use crate::lint::yard::{Fault, Object, Role, Yard};
use crate::{ADMIN_PORT, GATEWAY};

/// How long nginx and AWS' application load balancers wait in silence, seconds.
const PATIENCE: u64 = 60;

pub(super) const INVARIANTS: &[Invariant] = &[
    Invariant {
        id: "admin-port-exposed",
        catches: "the gateway's admin port in a Service of type LoadBalancer or NodePort, or behind an Ingress or HTTPRoute",
        why: "it has no authentication: an open console is how Tesla's cluster came to mine for others",
        source: Source {
            title: "RedLock, Lessons from the Cryptojacking Attack at Tesla (February 2018)",
            url: "https://web.archive.org/web/20180222103919/https://blog.redlock.io/cryptojacking-tesla",
        },
        check: admin_exposed,
    },
    Invariant {
        id: "front-gives-up-first",
        catches: "an Ingress of nginx's or AWS' in front of the gateway that waits less than `queue.timeout` and `first_byte_timeout`",
        why: "the client gets a 504 while its agent still works",
        source: Source {
            title: "kubernetes/ingress-nginx#3976: 504 Gateway time out (if the backed takes more than 60 seconds)",
            url: "https://github.com/kubernetes/ingress-nginx/issues/3976",
        },
        check: front_gives_up,
    },
    Invariant {
        id: "queue-outlasts-clients",
        catches: "a table in which a request may wait in line for 60 s or more",
        why: "clients and proxies with usual time-outs have left by then: the agent is asked for what nobody waits for",
        source: Source {
            title: "nginx documentation, proxy_read_timeout (60 s)",
            url: "https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_read_timeout",
        },
        check: queue_outlasts,
    },
];

/// Whether a Service leads to the gateway.
fn to_the_gateway(yard: &Yard<'_>, service: &Object<'_>) -> bool {
    let is_gateway = |object: &Object<'_>| matches!(yard.role(object), Some(Role::Gateway));
    let wanted = service.root.at("spec/selector").map_or(&[][..], Node::entries);
    let labels = yard.gateway_labels();
    let same = |(key, value): &(Node, Node)| labels.contains(&(key.to_string(), value.to_string()));
    service.namespace == yard.gateway.namespace
        && !wanted.is_empty()
        && wanted.iter().all(same)
        && yard.workloads().any(is_gateway)
}

/// The ports of a Service that lead to the gateway's admin port.
fn admin_ports<'y>(yard: &'y Yard<'y>, service: &'y Object<'y>) -> Vec<&'y Node> {
    let is_admin = |port: &&Node| {
        let target = port.key("targetPort").or_else(|| port.key("port"));
        target.is_some_and(|target| {
            target.text() == Some("admin") || target.int() == Some(i64::from(ADMIN_PORT))
        })
    };
    let ports = service.root.list_at("spec/ports").iter().filter(is_admin);
    ports.filter(|_| to_the_gateway(yard, service)).collect()
}

fn admin_exposed<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let mut faults = Vec::new();
    let hint = "kubectl port-forward, or a proxy that asks who it is";
    for service in yard.kind("Service") {
        let kind = service.root.text_at("spec/type").unwrap_or("ClusterIP");
        if let (Some(port), "LoadBalancer" | "NodePort") =
            (admin_ports(yard, service).first(), kind)
        {
            let number = port.nearest("port");
            let message =
                format!("{kind} makes the admin port reachable from outside, as {number}");
            faults.push(service.fault(number, message, hint));
        }
    }
    for (route, backend, service) in backends(yard) {
        let all = service.root.list_at("spec/ports").len();
        if all > 0 && admin_ports(yard, service).len() == all {
            let message = format!("it leads to the admin port, by {}", service.title());
            faults.push(route.fault(backend, message, hint));
        }
    }
    faults
}

/// The Services that Ingresses and HTTPRoutes lead to: the route, where it says so, the Service.
fn backends<'y>(yard: &'y Yard<'y>) -> Vec<(&'y Object<'y>, &'y Node, &'y Object<'y>)> {
    let mut found = Vec::new();
    for route in yard.objects.iter().filter(|one| ["Ingress", "HTTPRoute"].contains(&&*one.kind)) {
        let rules = route.root.list_at("spec/rules");
        let paths = rules.iter().flat_map(|rule| rule.list_at("http/paths"));
        let names = paths
            .filter_map(|path| path.at("backend/service/name"))
            .chain(route.root.at("spec/defaultBackend/service/name"))
            .chain(
                rules
                    .iter()
                    .flat_map(|rule| rule.list_at("backendRefs"))
                    .filter_map(|b| b.key("name")),
            );
        for name in names {
            let service = yard.kind("Service").find(|service| {
                Some(&*service.name) == name.text() && service.namespace == route.namespace
            });
            found.extend(service.map(|service| (route, name, service)));
        }
    }
    found
}

/// How long an Ingress waits in silence, seconds, and where it says so; `None` of a kind that we
/// don't know.
fn patience<'n>(ingress: &'n Object<'_>) -> Option<(u64, &'n Node)> {
    let annotation = |name: &str| ingress.root.at("metadata/annotations")?.key(name);
    let class = ingress.root.text_at("spec/ingressClassName");
    let class = class.or_else(|| annotation("kubernetes.io/ingress.class")?.text())?;
    let said = if class.contains("nginx") {
        let names =
            ["nginx.ingress.kubernetes.io/proxy-read-timeout", "nginx.org/proxy-read-timeout"];
        let node = names.into_iter().find_map(annotation);
        node.map(|node| (node.to_string(), node))
    } else if class.contains("alb") {
        let node = annotation("alb.ingress.kubernetes.io/load-balancer-attributes");
        node.and_then(|node| {
            let text = node.text()?.split("idle_timeout.timeout_seconds=").nth(1)?;
            Some((text.split(',').next()?.to_owned(), node))
        })
    } else {
        return None;
    };
    match said {
        Some((time, node)) => Some((time.trim_end_matches('s').parse().ok()?, node)),
        None => Some((PATIENCE, ingress.root.nearest("metadata/annotations"))),
    }
}

/// How long a request for an agent may be without an answer, line and work apart.
fn silence(agent: &Agent) -> (Duration, Duration) {
    let waits = agent.max_in_flight.is_some() && agent.queue.max > 0;
    (if waits { agent.queue.timeout } else { Duration::ZERO }, agent.first_byte_timeout)
}

fn front_gives_up<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let longest = yard.table.agents.values().max_by_key(|agent| {
        let (line, work) = silence(agent);
        line + work
    });
    let Some(agent) = longest else { return Vec::new() };
    let (line, work) = silence(agent);
    let needed = seconds(line + work);
    let mut faults: Vec<Fault<'y>> = Vec::new();
    for (route, _, service) in backends(yard) {
        let Some((waits, at)) = patience(route).filter(|(waits, _)| *waits < needed) else {
            continue;
        };
        let told = faults.iter().any(|fault| std::ptr::eq(fault.object, route));
        if to_the_gateway(yard, service) && admin_ports(yard, service).is_empty() && !told {
            let message = format!(
                "it gives up after {waits} s of silence, and agent {} may take {needed} s: {} s in line and {} s to begin",
                agent.name,
                seconds(line),
                seconds(work)
            );
            let hint = format!("its read (nginx) or idle (AWS) time-out: {needed} s or more");
            faults.push(route.fault(at, message, hint));
        }
    }
    faults
}

fn queue_outlasts<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let is_table =
        |map: &&Object<'_>| map.name == GATEWAY && map.namespace == yard.table.kubernetes.namespace;
    let Some(map) = yard.kind("ConfigMap").find(is_table) else { return Vec::new() };
    let agents = yard.table.agents.values();
    let patient = agents.filter(|agent| silence(agent).0 >= Duration::from_secs(PATIENCE));
    let fault = |agent: &'y Agent| {
        let message = format!(
            "a request for agent {} may wait {} s in line, and nginx and AWS' load balancers give up after {PATIENCE} s",
            agent.name,
            seconds(agent.queue.timeout)
        );
        map.fault_at(
            "data",
            message,
            "queue.timeout = \"30s\", or clients that wait longer and an exception",
        )
    };
    patient.map(fault).collect()
}
