//! How pods end.

use super::{Invariant, Source};
use crate::agent;
use crate::hpa::seconds;
use crate::lint::node::Node;
use crate::lint::yard::{Fault, Object, Role, Yard};
use crate::pod::MARGIN;

/// What the API gives a pod that names no grace, seconds.
const GRACE: i64 = 30;

/// Longest grace that the cluster autoscaler waits for unless it is told otherwise, seconds.
const AUTOSCALER_WAITS: i64 = 600;

pub(super) const INVARIANTS: &[Invariant] = &[
    Invariant {
        id: "grace-too-short",
        catches: "a grace shorter than the `preStop` pause and what follows it: at the gateway `drain_delay`, \
                  `drain_timeout` and 10 s, at an agent its longest `timeout` and 30 s",
        why: "the countdown begins before `preStop`; when it is over the kubelet kills what is still open",
        source: Source {
            title: "Kubernetes documentation, Pod Lifecycle: Termination of Pods",
            url: "https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination",
        },
        check: grace_too_short,
    },
    Invariant {
        id: "no-pause",
        catches: "an agent without a `preStop` pause",
        why: "endpoints are taken away while the pod already ends, so that requests go on arriving at a server that is gone",
        source: Source {
            title: "KEP-3960: Introducing Sleep Action for PreStop Hook",
            url: "https://github.com/kubernetes/enhancements/tree/master/keps/sig-node/3960-pod-lifecycle-sleep-action",
        },
        check: no_pause,
    },
    Invariant {
        id: "grace-too-long",
        catches: "a grace over 600 s that none of the table's times needs",
        why: "the cluster autoscaler waits that long by default, and then takes the node away",
        source: Source {
            title: "Cluster Autoscaler FAQ, --max-graceful-termination-sec",
            url: "https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/FAQ.md",
        },
        check: grace_too_long,
    },
];

fn grace(pod: &Node) -> i64 {
    pod.int_at("terminationGracePeriodSeconds").unwrap_or(GRACE)
}

/// The longest pause before a container of the pod is told to end.
fn pause(pod: &Node) -> i64 {
    let pauses = pod
        .list_at("containers")
        .iter()
        .map(|container| container.int_at("lifecycle/preStop/sleep/seconds").unwrap_or_default());
    pauses.max().unwrap_or_default()
}

/// How much a pod of the table's may need after its pause, and out of what that is made.
fn needed(yard: &Yard<'_>, role: Role<'_>) -> (i64, String) {
    let gateway = &yard.table.gateway;
    let (time, said) = match role {
        Role::Gateway => {
            let (delay, timeout) = (seconds(gateway.drain_delay), seconds(gateway.drain_timeout));
            let said = format!("drain_delay {delay} s + drain_timeout {timeout} s + {MARGIN} s");
            (delay + timeout + MARGIN, said)
        }
        Role::Agent(run) => {
            let drain = seconds(agent::drain(run));
            (drain, format!("the longest timeout and 30 s, {drain} s"))
        }
    };
    (i64::try_from(time).unwrap_or(i64::MAX), said)
}

fn grace_too_short<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let short = |object: &'y Object<'y>| {
        let pod = object.pod()?;
        let (grace, pause) = (grace(pod), pause(pod));
        let (after, said) = match yard.role(object) {
            Some(role) => needed(yard, role),
            None if pause > 0 => (1, "anything at all".to_owned()),
            None => return None,
        };
        let needed = pause.saturating_add(after);
        (grace < needed).then(|| {
            object.fault(
                pod.nearest("terminationGracePeriodSeconds"),
                format!("a grace of {grace} s is less than preStop {pause} s + {said}"),
                format!("terminationGracePeriodSeconds: {needed} or more"),
            )
        })
    };
    yard.workloads().filter_map(short).collect()
}

fn no_pause<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let hasty = |(object, _): (&'y Object<'y>, _)| {
        let pauses = |container: &Node| container.at("lifecycle/preStop").is_some();
        let first = object.containers().first()?;
        (!object.containers().iter().any(pauses)).then(|| {
            object.fault(
                first.nearest("lifecycle/preStop"),
                "no preStop pause: gateways still send it requests when it has ended",
                format!("lifecycle: {{preStop: {{sleep: {{seconds: {}}}}}}}", agent::PRE_STOP),
            )
        })
    };
    yard.agents().filter_map(hasty).collect()
}

fn grace_too_long<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let long = |(object, role): (&'y Object<'y>, Role<'y>)| {
        let pod = object.pod()?;
        let needed = needed(yard, role).0 + pause(pod) + MARGIN as i64;
        let grace = grace(pod);
        (grace > needed.max(AUTOSCALER_WAITS)).then(|| {
            object.fault(
                pod.nearest("terminationGracePeriodSeconds"),
                format!(
                    "a grace of {grace} s is over the {AUTOSCALER_WAITS} s that the cluster autoscaler waits, \
                     and the table needs {needed} s"
                ),
                format!("terminationGracePeriodSeconds: {needed}"),
            )
        })
    };
    yard.ours().filter_map(long).collect()
}
