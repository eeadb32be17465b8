//! Probes.

use super::{Invariant, Source};
use crate::lint::node::Node;
use crate::lint::yard::{Fault, Object, Role, Yard};

/// Seconds between two probes, where none are named.
const PERIOD: i64 = 10;
/// Seconds that one probe may take, where none are named.
const TIMEOUT: i64 = 1;

const PROBES: [&str; 3] = ["startupProbe", "livenessProbe", "readinessProbe"];

pub(super) const INVARIANTS: &[Invariant] = &[
    Invariant {
        id: "liveness-on-a-dependency",
        catches: "a liveness probe of `/readyz` or `/ready`; of `/health`, or what readiness asks, at the gateway and at agents",
        why: "a database that is slow for a minute then restarts every replica at once",
        source: Source {
            title: "Kubernetes documentation, Liveness, Readiness, and Startup Probes (\"cascading failures\")",
            url: "https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/",
        },
        check: on_a_dependency,
    },
    Invariant {
        id: "probe-without-timeout",
        catches: "a probe that doesn't say `timeoutSeconds`",
        why: "it is then 1 s, which a busy node alone can take; and probes by command had none at all before 1.20, so that \
              clusters broke when it began to hold",
        source: Source {
            title: "kubernetes/kubernetes#94080: exec-type liveness or readiness probes ignore timeout",
            url: "https://github.com/kubernetes/kubernetes/issues/94080",
        },
        check: without_timeout,
    },
    Invariant {
        id: "probe-slower-than-its-period",
        catches: "a liveness or readiness probe with `timeoutSeconds` over `periodSeconds`",
        why: "the next one begins late, so that `failureThreshold` times the period is no longer how soon a failure is seen",
        source: Source {
            title: "Kubernetes documentation, Configure Probes",
            url: "https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/#configure-probes",
        },
        check: slower_than_period,
    },
    Invariant {
        id: "liveness-before-start",
        catches: "a liveness probe without a startup probe or `initialDelaySeconds`",
        why: "a slow start is killed, again and again",
        source: Source {
            title: "KEP-950: Pod startup liveness-probe holdoff for slow-starting pods",
            url: "https://github.com/kubernetes/enhancements/tree/master/keps/sig-node/950-liveness-probe-holdoff",
        },
        check: before_start,
    },
    Invariant {
        id: "no-readiness",
        catches: "the gateway or an agent without a readiness probe",
        why: "a pod gets requests as soon as it runs, before it listens, and is never spared any",
        source: Source {
            title: "Kubernetes documentation, Define readiness probes",
            url: "https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/#define-readiness-probes",
        },
        check: no_readiness,
    },
    Invariant {
        id: "probe-port-unknown",
        catches: "a probe of a named port that its container doesn't have",
        why: "it can only fail: the pod is never ready, or always restarted",
        source: Source {
            title: "Kubernetes documentation, Use a named port",
            url: "https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/#use-a-named-port",
        },
        check: port_unknown,
    },
];

/// Every probe there is: of which object, in which container, which, and itself.
fn probes<'y>(
    yard: &'y Yard<'y>,
) -> impl Iterator<Item = (&'y Object<'y>, &'y Node, &'static str, &'y Node)> {
    let containers = yard
        .workloads()
        .flat_map(|object| object.all_containers().map(move |container| (object, container)));
    containers.flat_map(|(object, container)| {
        let found = PROBES.into_iter().filter_map(|name| Some((name, container.key(name)?)));
        found.map(move |(name, probe)| (object, container, name, probe))
    })
}

fn on_a_dependency<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let depends = |(object, _, name, probe): (&'y Object<'y>, _, _, &'y Node)| {
        let path = probe.text_at("httpGet/path").filter(|_| name == "livenessProbe")?;
        let readiness = match yard.role(object) {
            Some(Role::Agent(run)) => run.agent.health.as_ref().map(|health| health.path.as_str()),
            _ => None,
        };
        let ours = yard.role(object).is_some() && (path == "/health" || Some(path) == readiness);
        (ours || ["/readyz", "/ready"].contains(&path)).then(|| {
            object.fault(
                probe.nearest("httpGet/path"),
                format!("its life is asked by {path}, which depends on others"),
                "path: /livez",
            )
        })
    };
    probes(yard).filter_map(depends).collect()
}

fn without_timeout<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let silent = probes(yard).filter(|(.., probe)| probe.key("timeoutSeconds").is_none());
    let fault = |(object, container, name, _): (&'y Object<'y>, &'y Node, &str, _)| {
        object.fault(
            container.nearest(name),
            format!("the {name} has no timeoutSeconds, so that it waits {TIMEOUT} s"),
            "timeoutSeconds: 5",
        )
    };
    silent.map(fault).collect()
}

fn slower_than_period<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let slow = |(object, _, name, probe): (&'y Object<'y>, _, &str, &'y Node)| {
        let timeout = probe.int_at("timeoutSeconds").unwrap_or(TIMEOUT);
        let period = probe.int_at("periodSeconds").unwrap_or(PERIOD);
        (name != "startupProbe" && timeout > period).then(|| {
            object.fault(
                probe.nearest("timeoutSeconds"),
                format!("the {name} may take {timeout} s, and its period is {period} s"),
                format!("timeoutSeconds: {period} or less"),
            )
        })
    };
    probes(yard).filter_map(slow).collect()
}

fn before_start<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let early = |(object, container, name, probe): (&'y Object<'y>, &'y Node, &str, &'y Node)| {
        let waits = container.key("startupProbe").is_some()
            || probe.int_at("initialDelaySeconds").unwrap_or_default() > 0;
        (name == "livenessProbe" && !waits).then(|| {
            object.fault(
                container.nearest("livenessProbe"),
                "it is asked for life while it starts: there is neither a startupProbe nor initialDelaySeconds",
                "a startupProbe of the same path with failureThreshold: 60 and periodSeconds: 1",
            )
        })
    };
    probes(yard).filter_map(early).collect()
}

fn no_readiness<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let unasked = |(object, _): (&'y Object<'y>, Role<'y>)| {
        let mut asked = object.containers().iter().map(|one| one.key("readinessProbe").is_some());
        let first = object.containers().first()?;
        (!asked.any(|asked| asked)).then(|| {
            object.fault(
                first.nearest("readinessProbe"),
                "no readinessProbe: it gets requests before it can answer them",
                "readinessProbe: {httpGet: {path: /readyz, port: http}, timeoutSeconds: 2}",
            )
        })
    };
    yard.ours().filter_map(unasked).collect()
}

fn port_unknown<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let lost = |(object, container, name, probe): (&'y Object<'y>, &'y Node, &str, &'y Node)| {
        let path =
            ["httpGet/port", "tcpSocket/port"].into_iter().find(|p| probe.at(p).is_some())?;
        let port = probe.text_at(path)?;
        let named = |one: &Node| one.text_at("name") == Some(port);
        (!container.list_at("ports").iter().any(named)).then(|| {
            object.fault(
                probe.nearest(path),
                format!("the {name} asks the port {port}, which its container doesn't have"),
                "name one of the container's ports",
            )
        })
    };
    probes(yard).filter_map(lost).collect()
}
