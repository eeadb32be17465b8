//! What containers may do to their node.

use super::{Invariant, Source};
use crate::lint::node::Node;
use crate::lint::quantity::quantity;
use crate::lint::yard::{Fault, Object, Yard};

pub(super) const INVARIANTS: &[Invariant] = &[
    Invariant {
        id: "privileged",
        catches: "a privileged container",
        why: "whoever gets into it has the node",
        source: Source {
            title: "Kubernetes documentation, Pod Security Standards: Baseline, Privileged Containers",
            url: "https://kubernetes.io/docs/concepts/security/pod-security-standards/#baseline",
        },
        check: privileged,
    },
    Invariant {
        id: "host-access",
        catches: "the host's network, processes, IPC, folders or ports in a pod",
        why: "it sees what belongs to others on its node; with a `hostPort` only one pod fits on each",
        source: Source {
            title: "Kubernetes documentation, Pod Security Standards: Baseline, Host Namespaces",
            url: "https://kubernetes.io/docs/concepts/security/pod-security-standards/#baseline",
        },
        check: host_access,
    },
    Invariant {
        id: "runs-as-root",
        catches: "a container without `runAsNonRoot: true`, or with `runAsUser: 0`",
        why: "root in a container could overwrite the host's runc",
        source: Source {
            title: "Kubernetes blog, Runc and CVE-2019-5736",
            url: "https://kubernetes.io/blog/2019/02/11/runc-and-cve-2019-5736/",
        },
        check: as_root,
    },
    Invariant {
        id: "privilege-escalation",
        catches: "a container without `allowPrivilegeEscalation: false`",
        why: "a program with the setuid bit makes root of whoever runs it: `pkexec` did for twelve years",
        source: Source {
            title: "CVE-2021-4034 (PwnKit)",
            url: "https://nvd.nist.gov/vuln/detail/CVE-2021-4034",
        },
        check: escalation,
    },
    Invariant {
        id: "capabilities-kept",
        catches: "a container that doesn't drop all capabilities, or adds one other than NET_BIND_SERVICE",
        why: "with NET_RAW, which containers have by default, a pod can pose as the cluster's DNS to its neighbours",
        source: Source {
            title: "Aqua Security, DNS Spoofing on Kubernetes Clusters",
            url: "https://www.aquasec.com/blog/dns-spoofing-kubernetes-clusters/",
        },
        check: capabilities,
    },
    Invariant {
        id: "writable-root",
        catches: "a container without `readOnlyRootFilesystem: true`",
        why: "whoever gets in can change the program and leave tools behind",
        source: Source {
            title: "NSA and CISA, Kubernetes Hardening Guide: Immutable container file systems",
            url: "https://media.defense.gov/2022/Aug/29/2003066362/-1/-1/0/CTR_KUBERNETES_HARDENING_GUIDANCE_1.2_20220829.PDF",
        },
        check: writable_root,
    },
    Invariant {
        id: "no-seccomp",
        catches: "a container without a seccomp profile",
        why: "the default one shuts `unshare` off, by which a bug of the kernel's led out of containers",
        source: Source {
            title: "CVE-2022-0185",
            url: "https://nvd.nist.gov/vuln/detail/CVE-2022-0185",
        },
        check: no_seccomp,
    },
];

/// A container of the folder's.
#[derive(Clone, Copy)]
struct Inmate<'y> {
    object: &'y Object<'y>,
    pod: &'y Node,
    container: &'y Node,
}

impl<'y> Inmate<'y> {
    /// A field of its security context, its own or, where it has none, the pod's.
    fn context(&self, path: &str) -> Option<&'y Node> {
        let path = format!("securityContext/{path}");
        self.container.at(&path).or_else(|| self.pod.at(&path))
    }

    fn fault(&self, path: &str, message: &str, hint: &str) -> Fault<'y> {
        let name = self.container.text_at("name").unwrap_or_default();
        let at = self.container.nearest(&format!("securityContext/{path}"));
        self.object.fault(at, format!("the container {name} {message}"), hint)
    }
}

fn inmates<'y>(yard: &'y Yard<'y>) -> impl Iterator<Item = Inmate<'y>> {
    yard.workloads().flat_map(|object| {
        let containers = object.all_containers();
        containers
            .filter_map(move |container| Some(Inmate { object, pod: object.pod()?, container }))
    })
}

fn privileged<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let all = inmates(yard).filter(|it| it.container.is_true("securityContext/privileged"));
    all.map(|it| it.fault("privileged", "is privileged", "leave it out")).collect()
}

fn host_access<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let mut faults = Vec::new();
    for object in yard.workloads() {
        let Some(pod) = object.pod() else { continue };
        let mut add = |at: &'y Node, what: String| {
            faults.push(object.fault(at, format!("its pods have {what}"), "leave it out"));
        };
        for name in ["hostNetwork", "hostPID", "hostIPC"] {
            if pod.is_true(name) {
                add(pod.nearest(name), name.to_owned());
            }
        }
        for path in pod.list_at("volumes").iter().filter_map(|volume| volume.at("hostPath/path")) {
            add(path, format!("the host's {path}"));
        }
        for port in object.ports().filter_map(|port| port.key("hostPort")) {
            add(port, format!("the host's port {port}"));
        }
    }
    faults
}

fn as_root<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let root = |it: &Inmate<'_>| {
        let promised = it.context("runAsNonRoot").is_some_and(|node| node.to_string() == "true");
        let zero = it.context("runAsUser").and_then(quantity) == Some(0.0);
        zero || !promised
    };
    let fault = |it: Inmate<'y>| it.fault("runAsNonRoot", "may run as root", "runAsNonRoot: true");
    inmates(yard).filter(root).map(fault).collect()
}

fn escalation<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let path = "securityContext/allowPrivilegeEscalation";
    let free = inmates(yard).filter(|it| it.container.bool_at(path) != Some(false));
    let fault = |it: Inmate<'y>| {
        let hint = "allowPrivilegeEscalation: false";
        it.fault("allowPrivilegeEscalation", "may gain privileges", hint)
    };
    free.map(fault).collect()
}

fn capabilities<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let keeps = |it: &Inmate<'_>| {
        let list = |key: &str| it.container.list_at(&format!("securityContext/capabilities/{key}"));
        let dropped = list("drop").iter().any(|one| one.text() == Some("ALL"));
        let added = list("add").iter().any(|one| one.text() != Some("NET_BIND_SERVICE"));
        !dropped || added
    };
    let fault = |it: Inmate<'y>| {
        it.fault("capabilities", "keeps capabilities", "capabilities: {drop: [ALL]}")
    };
    inmates(yard).filter(keeps).map(fault).collect()
}

fn writable_root<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let path = "securityContext/readOnlyRootFilesystem";
    let writable = inmates(yard).filter(|it| !it.container.is_true(path));
    let fault = |it: Inmate<'y>| {
        let hint = "readOnlyRootFilesystem: true, and an emptyDir where it must write";
        it.fault("readOnlyRootFilesystem", "can write to its own image's files", hint)
    };
    writable.map(fault).collect()
}

fn no_seccomp<'y>(yard: &'y Yard<'y>) -> Vec<Fault<'y>> {
    let free = |it: &Inmate<'_>| {
        it.context("seccompProfile/type").is_none_or(|kind| kind.text() == Some("Unconfined"))
    };
    let fault = |it: Inmate<'y>| {
        let hint = "seccompProfile: {type: RuntimeDefault}";
        it.fault("seccompProfile/type", "may make every system call", hint)
    };
    inmates(yard).filter(free).map(fault).collect()
}
