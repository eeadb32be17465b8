//! Seeded faults: what is done to good manifests, and the one invariant that it breaks.

use serde_json::{Value, json};

/// Manifests to spoil: objects of the base of our own table.
pub(crate) struct Set {
    pub(crate) table: String,
    pub(crate) objects: Vec<Value>,
}

/// An invariant, and a fault that breaks it and no other.
pub(crate) type Row = (&'static str, fn(&mut Set));

impl Set {
    fn find(&mut self, object: &str) -> &mut Value {
        let (kind, name) = object.split_once('/').unwrap();
        let same = |one: &&mut Value| one["kind"] == kind && one["metadata"]["name"] == name;
        self.objects.iter_mut().find(same).unwrap_or_else(|| panic!("no {object}"))
    }

    /// Writes a field. Steps of a path are keys, or positions of a list.
    fn put(&mut self, object: &str, path: &str, value: Value) {
        let mut at = self.find(object);
        for step in path.split('/') {
            at = match step.parse::<usize>() {
                Ok(position) => &mut at[position],
                Err(_) => &mut at[step],
            };
        }
        *at = value;
    }

    /// Adds to a list.
    fn push(&mut self, object: &str, path: &str, value: Value) {
        let mut list = self.find(object).pointer(&format!("/{path}")).cloned().unwrap_or(json!([]));
        list.as_array_mut().unwrap().push(value);
        self.put(object, path, list);
    }

    /// Takes a field away.
    fn cut(&mut self, object: &str, path: &str) {
        let (place, key) = path.rsplit_once('/').unwrap();
        let place = self.find(object).pointer_mut(&format!("/{place}")).unwrap();
        place.as_object_mut().unwrap().remove(key).unwrap_or_else(|| panic!("no {path}"));
    }

    fn remove(&mut self, object: &str) {
        let (kind, name) = object.split_once('/').unwrap();
        self.objects.retain(|one| one["kind"] != kind || one["metadata"]["name"] != name);
    }

    /// A copy under another name.
    fn copy(&mut self, object: &str, name: &str) -> String {
        let mut copy = self.find(object).clone();
        copy["metadata"]["name"] = name.into();
        self.objects.push(copy);
        format!("{}/{name}", object.split_once('/').unwrap().0)
    }

    fn add(&mut self, object: Value) {
        self.objects.push(object);
    }

    /// An Ingress of nginx's to a Service.
    fn ingress(&mut self, annotations: &Value, service: &str, port: u16) {
        self.add(json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": { "name": "front", "namespace": "ai-agents", "annotations": annotations },
            "spec": {
                "ingressClassName": "nginx",
                "rules": [{ "http": { "paths": [{
                    "path": "/", "pathType": "Prefix",
                    "backend": { "service": { "name": service, "port": { "number": port } } },
                }]}}],
            },
        }));
    }
}

const QA: &str = "Deployment/qa-agent";
const CODING: &str = "Deployment/coding-agent";
const GATEWAY: &str = "Deployment/switchyard";
const POD: &str = "spec/template/spec";
const CONTAINER: &str = "spec/template/spec/containers/0";

fn in_pod(rest: &str) -> String {
    format!("{POD}/{rest}")
}

fn in_container(rest: &str) -> String {
    format!("{CONTAINER}/{rest}")
}

/// How pods end, are updated and are probed.
pub(crate) const ENDING: &[Row] = &[
    ("grace-too-short", |s| s.put(GATEWAY, &in_pod("terminationGracePeriodSeconds"), 344.into())),
    ("grace-too-short", |s| s.put(QA, &in_pod("terminationGracePeriodSeconds"), 334.into())),
    ("grace-too-short", |s| s.cut(QA, &in_pod("terminationGracePeriodSeconds"))),
    ("grace-too-short", |s| {
        s.put(CODING, &in_container("lifecycle/preStop/sleep/seconds"), 60.into());
    }),
    ("no-pause", |s| s.cut(CODING, &in_container("lifecycle"))),
    ("grace-too-long", |s| s.put(QA, &in_pod("terminationGracePeriodSeconds"), 3600.into())),
    ("rollout-stuck", |s| {
        s.put(QA, "spec/strategy/rollingUpdate", json!({"maxUnavailable": 0, "maxSurge": "0%"}));
    }),
    ("rollout-at-once", |s| {
        s.put(QA, "spec/strategy/rollingUpdate/maxUnavailable", "100%".into());
    }),
    ("rollout-at-once", |s| s.put(GATEWAY, "spec/strategy", json!({"type": "Recreate"}))),
    ("liveness-on-a-dependency", |s| {
        s.put(QA, &in_container("livenessProbe/httpGet/path"), "/health".into());
    }),
    ("liveness-on-a-dependency", |s| {
        s.put(GATEWAY, &in_container("livenessProbe/httpGet/path"), "/readyz".into());
    }),
    ("probe-without-timeout", |s| s.cut(QA, &in_container("livenessProbe/timeoutSeconds"))),
    ("probe-slower-than-its-period", |s| {
        s.put(QA, &in_container("readinessProbe/timeoutSeconds"), 3.into());
    }),
    ("liveness-before-start", |s| s.cut(QA, &in_container("startupProbe"))),
    ("no-readiness", |s| s.cut(GATEWAY, &in_container("readinessProbe"))),
    ("probe-port-unknown", |s| {
        s.put(QA, &in_container("readinessProbe/httpGet/port"), "web".into());
    }),
];

/// Budgets and autoscalers.
pub(crate) const SCALING: &[Row] = &[
    ("pdb-blocks-every-eviction", |s| {
        s.put("PodDisruptionBudget/qa-agent", "spec/maxUnavailable", 0.into());
    }),
    ("pdb-blocks-every-eviction", |s| {
        s.cut("PodDisruptionBudget/qa-agent", "spec/maxUnavailable");
        s.put("PodDisruptionBudget/qa-agent", "spec/minAvailable", "100%".into());
    }),
    ("pdb-blocks-every-eviction", |s| {
        s.remove("HorizontalPodAutoscaler/qa-agent-hpa");
        s.put(QA, "spec/replicas", 3.into());
        s.cut("PodDisruptionBudget/qa-agent", "spec/maxUnavailable");
        s.put("PodDisruptionBudget/qa-agent", "spec/minAvailable", 3.into());
    }),
    ("pdb-over-the-autoscalers-minimum", |s| {
        s.cut("PodDisruptionBudget/switchyard", "spec/maxUnavailable");
        s.put("PodDisruptionBudget/switchyard", "spec/minAvailable", 2.into());
    }),
    ("pdb-over-the-autoscalers-minimum", |s| {
        s.cut("PodDisruptionBudget/switchyard", "spec/maxUnavailable");
        s.put("PodDisruptionBudget/switchyard", "spec/minAvailable", "60%".into());
    }),
    ("pdb-keeps-what-is-broken", |s| {
        s.cut("PodDisruptionBudget/qa-agent", "spec/unhealthyPodEvictionPolicy");
    }),
    ("pdb-selects-nothing", |s| {
        s.put("PodDisruptionBudget/qa-agent", "spec/selector/matchLabels/app", "qa".into());
    }),
    ("two-pdbs", |s| drop(s.copy("PodDisruptionBudget/qa-agent", "qa-too"))),
    ("replicas-and-autoscaler", |s| s.put(QA, "spec/replicas", 2.into())),
    ("hpa-bounds", |s| s.put("HorizontalPodAutoscaler/qa-agent-hpa", "spec/minReplicas", 9.into())),
    ("hpa-from-zero", |s| {
        s.put("HorizontalPodAutoscaler/qa-agent-hpa", "spec/minReplicas", 0.into());
    }),
    ("hpa-two-kinds-of-metric", |s| {
        let metric = json!({ "type": "External", "external": {
            "metric": { "name": "agent_load" },
            "target": { "type": "AverageValue", "averageValue": "8" },
        }});
        s.push("HorizontalPodAutoscaler/qa-agent-hpa", "spec/metrics", metric);
    }),
    ("hpa-without-request", |s| {
        let memory = json!({ "memory": "512Mi" });
        s.put(QA, &in_container("resources"), json!({ "requests": memory, "limits": memory }));
    }),
    ("hpa-target-unknown", |s| {
        let hpa = "HorizontalPodAutoscaler/qa-agent-hpa";
        s.put(hpa, "spec/scaleTargetRef/name", "qa".into());
    }),
    ("two-autoscalers", |s| drop(s.copy("HorizontalPodAutoscaler/qa-agent-hpa", "qa-too"))),
];

/// What is requested, and how large things are.
pub(crate) const RESOURCES: &[Row] = &[
    ("requests-over-limits", |s| {
        s.put(QA, &in_container("resources/requests/memory"), "1Gi".into());
    }),
    ("requests-over-limits", |s| {
        s.put(QA, &in_container("resources/requests/cpu"), "100001m".into());
    }),
    ("no-memory-limit", |s| s.cut(QA, &in_container("resources/limits/memory"))),
    ("memory-volume-without-limit", |s| {
        s.put(QA, &in_pod("volumes/0/emptyDir"), json!({ "medium": "Memory" }));
    }),
    ("config-map-too-large", |s| {
        s.put("ConfigMap/switchyard", "data/more", "x".repeat(1 << 20).into());
    }),
    ("config-map-too-large-to-apply", |s| {
        s.put("ConfigMap/switchyard", "data/more", "x".repeat(256 << 10).into());
    }),
];

/// Services, policies, and the way in.
pub(crate) const NETWORK: &[Row] = &[
    ("service-selects-nothing", |s| s.put("Service/qa-agent", "spec/selector/app", "qa".into())),
    ("service-selects-others", |s| {
        let selector = json!({ "app.kubernetes.io/part-of": "switchyard" });
        s.put("Service/switchyard", "spec/selector", selector);
    }),
    ("service-port-unknown", |s| {
        s.put("Service/qa-agent", "spec/ports/0/targetPort", "web".into());
    }),
    ("service-port-unknown", |s| {
        s.put("Service/qa-agent", "spec/ports/0/targetPort", 8001.into());
    }),
    ("port-twice", |s| {
        s.push(QA, &in_container("ports"), json!({ "name": "more", "containerPort": 8000 }));
    }),
    ("port-twice", |s| {
        let port = json!({ "name": "more", "port": 80, "targetPort": "http" });
        s.push("Service/qa-agent", "spec/ports", port);
    }),
    ("client-ip-affinity", |s| {
        s.put("Service/coding-agent", "spec/sessionAffinity", "ClientIP".into());
    }),
    ("unready-addresses", |s| {
        s.put("Service/qa-agent", "spec/publishNotReadyAddresses", true.into());
    }),
    ("selector-misses-its-pods", |s| {
        s.put(QA, "spec/selector/matchLabels/tier", "front".into());
    }),
    ("selector-takes-others", |s| {
        let labels = json!({ "app.kubernetes.io/component": "agent" });
        s.put(QA, "spec/selector/matchLabels", labels);
    }),
    ("policy-selects-nothing", |s| {
        s.put("NetworkPolicy/qa-agent", "spec/podSelector/matchLabels/app", "qa".into());
    }),
    ("policy-shuts-out-the-gateway", |s| {
        let from = "spec/ingress/0/from/0/podSelector/matchLabels/app";
        s.put("NetworkPolicy/qa-agent", from, "gateway".into());
    }),
    ("policy-shuts-out-the-gateway", |s| {
        s.put("NetworkPolicy/qa-agent", "spec/ingress/0/ports/0/port", 9000.into());
    }),
    ("policy-shuts-out-the-gateway", |s| {
        let labels = json!({ "kubernetes.io/metadata.name": "default" });
        let path = "spec/ingress/0/from/0/namespaceSelector/matchLabels";
        s.put("NetworkPolicy/qa-agent", path, labels);
    }),
    ("policy-admits-everybody", |s| s.cut("NetworkPolicy/qa-agent", "spec/ingress/0/from")),
    ("policy-admits-everybody", |s| {
        let cidr = json!({ "ipBlock": { "cidr": "0.0.0.0/0" } });
        s.push("NetworkPolicy/qa-agent", "spec/ingress/0/from", cidr);
    }),
    ("admin-port-exposed", |s| {
        s.put("Service/switchyard-admin", "spec/type", "LoadBalancer".into());
    }),
    ("admin-port-exposed", |s| {
        let annotations = json!({ "nginx.ingress.kubernetes.io/proxy-read-timeout": "3600" });
        s.ingress(&annotations, "switchyard-admin", 9090);
    }),
    ("front-gives-up-first", |s| s.ingress(&json!({}), "switchyard", 80)),
    ("front-gives-up-first", |s| {
        let annotations = json!({ "nginx.ingress.kubernetes.io/proxy-read-timeout": "329" });
        s.ingress(&annotations, "switchyard", 80);
    }),
    ("queue-outlasts-clients", |s| {
        s.table = s.table.replacen("max = 32, timeout = \"30s\"", "max = 32, timeout = \"60s\"", 1);
    }),
];

/// How pods are confined, and what they are given.
pub(crate) const SECURITY: &[Row] = &[
    ("privileged", |s| s.put(QA, &in_container("securityContext/privileged"), true.into())),
    ("host-access", |s| s.put(QA, &in_pod("hostNetwork"), true.into())),
    ("host-access", |s| {
        let volume = json!({ "name": "docker", "hostPath": { "path": "/var/run/docker.sock" } });
        s.push(QA, &in_pod("volumes"), volume);
    }),
    ("host-access", |s| s.put(QA, &in_container("ports/0/hostPort"), 8000.into())),
    ("runs-as-root", |s| s.cut(QA, &in_pod("securityContext/runAsNonRoot"))),
    ("runs-as-root", |s| s.put(QA, &in_container("securityContext/runAsUser"), 0.into())),
    ("privilege-escalation", |s| {
        s.cut(QA, &in_container("securityContext/allowPrivilegeEscalation"));
    }),
    ("capabilities-kept", |s| s.cut(QA, &in_container("securityContext/capabilities"))),
    ("capabilities-kept", |s| {
        let path = in_container("securityContext/capabilities/add");
        s.put(QA, &path, json!(["NET_RAW"]));
    }),
    ("writable-root", |s| s.cut(QA, &in_container("securityContext/readOnlyRootFilesystem"))),
    ("no-seccomp", |s| s.cut(QA, &in_pod("securityContext/seccompProfile"))),
    ("no-seccomp", |s| {
        s.put(QA, &in_container("securityContext/seccompProfile/type"), "Unconfined".into());
    }),
    ("secret-in-the-clear", |s| {
        let key = format!("sk-proj-{}", "a1B2".repeat(10));
        s.push(QA, &in_container("env"), json!({ "name": "OPENAI_API_KEY", "value": key }));
    }),
    ("secret-in-the-clear", |s| {
        let words = json!(["agent", "--key", format!("AKIA{}", "1A".repeat(8))]);
        s.put(QA, &in_container("command"), words);
    }),
    ("secret-in-the-clear", |s| {
        s.put("ConfigMap/switchyard", "data/key", "-----BEGIN PRIVATE KEY-----\nMII".into());
    }),
    ("secret-not-in-the-table", |s| {
        let key = json!({ "name": "agent-secrets", "key": "openai" });
        let entry = json!({ "name": "OPENAI_API_KEY", "valueFrom": { "secretKeyRef": key } });
        s.push(QA, &in_container("env"), entry);
    }),
    ("image-floats", |s| s.put(QA, &in_container("image"), "r.example.com:5000/agent".into())),
    ("image-floats", |s| s.put(QA, &in_container("image"), "agent:latest".into())),
    ("token-mounted", |s| s.put(QA, &in_pod("automountServiceAccountToken"), true.into())),
    ("service-links", |s| s.cut(QA, &in_pod("enableServiceLinks"))),
    ("rbac-wildcard", |s| s.put("Role/switchyard", "rules/0/verbs", json!(["*"]))),
];

/// Names, kinds, exceptions.
pub(crate) const IDENTITY: &[Row] = &[
    ("removed-api", |s| {
        s.put("PodDisruptionBudget/qa-agent", "apiVersion", "policy/v1beta1".into());
    }),
    ("removed-api", |s| {
        let hpa = "HorizontalPodAutoscaler/qa-agent-hpa";
        s.put(hpa, "apiVersion", "autoscaling/v2beta2".into());
    }),
    ("object-twice", |s| drop(s.copy("ServiceAccount/qa-agent", "qa-agent"))),
    ("name-too-long", |s| drop(s.copy("Service/qa-agent", &"q".repeat(64)))),
    ("name-too-long", |s| {
        let port = json!({ "name": "a-port-too-many-", "containerPort": 8001 });
        s.push(QA, &in_container("ports"), port);
    }),
    ("service-account-unknown", |s| s.put(QA, &in_pod("serviceAccountName"), "qa".into())),
    ("exception-unknown", |s| {
        let annotations = json!({ "switchyard.dev/allow": "writeable-root" });
        s.put("Service/qa-agent", "metadata/annotations", annotations);
    }),
];
