//! A yard of a proof's own: a table, rendered by `switchyard render` and applied, in a namespace
//! that is deleted afterwards.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::Context;
use super::cluster::{SOON, epoch, json, kubectl, kubectl_with, run, until};
use super::failure::Outcome;
use crate::wire::Answer;

/// As long as a roll-out may take, for kubectl.
const ROLLOUT: &str = "--timeout=240s";
/// The pod to run commands in.
const CLIENT: &str = "client";

/// Where a proof happens.
pub(crate) struct Yard<'a> {
    pub(crate) context: &'a Context,
    pub(crate) namespace: String,
    folder: PathBuf,
}

/// A pod, as far as proofs look at it.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) ip: String,
    /// Since when it is ready, seconds since 1970.
    pub(crate) ready: Option<i64>,
    pub(crate) terminating: bool,
    pub(crate) restarts: u64,
    /// Why its container ended the last time.
    pub(crate) last_end: String,
}

impl<'a> Yard<'a> {
    /// A name of its own, a client pod in it, and what `table` says for that namespace, ready.
    pub(crate) async fn up(
        context: &'a Context,
        name: &str,
        table: impl FnOnce(&str) -> String,
    ) -> Outcome<Self> {
        Self::with(context, name, table, &[]).await
    }

    /// The same with components, as an overlay of a user's has them.
    pub(crate) async fn with(
        context: &'a Context,
        name: &str,
        table: impl FnOnce(&str) -> String,
        components: &[&str],
    ) -> Outcome<Self> {
        let yard = Self::empty(context, name)?;
        let table = table(&yard.namespace);
        yard.apply(&table, components).await?;
        yard.start_client().await?;
        Ok(yard)
    }

    /// For files of the proof's own.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A namespace that something else makes.
    pub(crate) fn of(context: &'a Context, namespace: &str) -> Outcome<Self> {
        let folder = context.folder.path().join(namespace);
        std::fs::create_dir_all(&folder)?;
        context.owns(namespace);
        Ok(Self { context, namespace: namespace.to_owned(), folder })
    }

    fn empty(context: &'a Context, name: &str) -> Outcome<Self> {
        let random = fastrand::u32(..);
        let namespace = format!("switchyard-e2e-{name}-{random:08x}");
        Self::of(context, &namespace)
    }

    /// Renders a table, and applies the base with components.
    pub(crate) async fn apply(&self, table: &str, components: &[&str]) -> Outcome<String> {
        let (file, out) = (self.folder.join("switchyard.toml"), self.folder.join("k8s"));
        std::fs::write(&file, table)?;
        let (file, out) = (file.display().to_string(), out.display().to_string());
        let switchyard = self.context.settings.switchyard.display().to_string();
        run(&switchyard, &["check", "--config", &file], "", &[]).await?;
        run(&switchyard, &["render", "--config", &file, "--out", &out], "", &[]).await?;
        let overlay = self.folder.join("k8s/overlays/e2e");
        std::fs::create_dir_all(&overlay)?;
        let components = components.iter().map(|name| format!("../../components/{name}"));
        let kustomization = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
            "resources": ["../../base"], "components": components.collect::<Vec<_>>(),
        });
        std::fs::write(overlay.join("kustomization.yaml"), kustomization.to_string())?;
        let objects = kubectl(&["kustomize", &overlay.display().to_string()]).await?;
        let policy = format!("imagePullPolicy: {}", self.context.settings.pull_policy);
        let objects = objects.replace("imagePullPolicy: IfNotPresent", &policy);
        kubectl_with(&["apply", "-f", "-"], &objects).await
    }

    /// The pod that asks, and leave for it to ask the admin port, where policies are enforced.
    pub(crate) async fn start_client(&self) -> Outcome {
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": { "name": "e2e-client", "namespace": self.namespace },
            "spec": {
                "podSelector": { "matchLabels": { "app": "switchyard" }},
                "policyTypes": ["Ingress"],
                "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": "e2e" }}}] }],
            },
        });
        kubectl_with(&["apply", "-f", "-"], &policy.to_string()).await?;
        self.start_pod(CLIENT, &["e2e", "idle"]).await?;
        self.kubectl(&["wait", "--for=condition=Ready", "pod/client", "--timeout=120s"]).await?;
        Ok(())
    }

    /// A pod of this program, confined as the namespace demands.
    pub(crate) async fn start_pod(&self, name: &str, command: &[&str]) -> Outcome {
        let settings = &self.context.settings;
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": self.namespace, "labels": { "app": "e2e" }},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "terminationGracePeriodSeconds": 1,
                "securityContext": {
                    "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532,
                    "seccompProfile": { "type": "RuntimeDefault" },
                },
                "containers": [{
                    "name": "e2e",
                    "image": settings.e2e_image,
                    "imagePullPolicy": settings.pull_policy,
                    "command": command,
                    "resources": { "requests": { "cpu": "10m", "memory": "32Mi" }},
                    "securityContext": {
                        "allowPrivilegeEscalation": false,
                        "readOnlyRootFilesystem": true,
                        "capabilities": { "drop": ["ALL"] },
                    },
                }],
            },
        });
        kubectl_with(&["apply", "-f", "-"], &pod.to_string()).await.map(drop)
    }

    /// `kubectl ARGS -n NAMESPACE`.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> Outcome<String> {
        kubectl(&[&["-n", &self.namespace], args].concat()).await
    }

    /// `kubectl ARGS -o json -n NAMESPACE`.
    pub(crate) async fn json(&self, args: &[&str]) -> Outcome<Value> {
        json(&[&["-n", &self.namespace], args].concat()).await
    }

    /// Asks a URL from inside of the cluster.
    pub(crate) async fn ask(&self, url: &str, data: Option<&str>) -> Outcome<Answer> {
        let mut args = vec!["exec", CLIENT, "--", "e2e", "ask", url];
        args.extend(data.iter().flat_map(|data| ["--data", data]));
        Ok(serde_json::from_str(&self.kubectl(&args).await?)?)
    }

    /// Asks the admin port of any gateway for JSON.
    pub(crate) async fn admin(&self, path: &str) -> Outcome<Value> {
        let answer = self.ask(&format!("http://switchyard-admin:9090{path}"), None).await?;
        Ok(serde_json::from_str(&answer.body)?)
    }

    /// Waits until a Deployment's last roll-out is done.
    pub(crate) async fn rolled_out(&self, deployment: &str) -> Outcome {
        let deployment = format!("deployment/{deployment}");
        self.kubectl(&["rollout", "status", &deployment, ROLLOUT]).await.map(drop)
    }

    /// `kubectl scale`, and waits until so many are ready and no other pod is left.
    pub(crate) async fn scale(&self, deployment: &str, replicas: usize) -> Outcome<Vec<Pod>> {
        let target = format!("deployment/{deployment}");
        self.kubectl(&["scale", &target, &format!("--replicas={replicas}")]).await?;
        self.settled(deployment, replicas, SOON).await
    }

    /// Waits until exactly so many pods are there, all ready.
    pub(crate) async fn settled(
        &self,
        app: &str,
        replicas: usize,
        deadline: Duration,
    ) -> Outcome<Vec<Pod>> {
        until(&format!("{replicas} ready pods of {app}"), deadline, async || {
            let pods = self.pods(app).await?;
            let ready = pods.iter().all(|pod| pod.ready.is_some() && !pod.terminating);
            Ok((ready && pods.len() == replicas).then_some(pods))
        })
        .await
    }

    /// The pods of a Deployment.
    pub(crate) async fn pods(&self, app: &str) -> Outcome<Vec<Pod>> {
        let listed = self.json(&["get", "pods", "-l", &format!("app={app}")]).await?;
        Ok(listed["items"].as_array().into_iter().flatten().map(Pod::of).collect())
    }
}

impl Pod {
    fn of(value: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let conditions = value["status"]["conditions"].as_array();
        let ready = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        let container = &value["status"]["containerStatuses"][0];
        Self {
            name: text(&value["metadata"]["name"]),
            uid: text(&value["metadata"]["uid"]),
            ip: text(&value["status"]["podIP"]),
            ready: ready.and_then(|ready| epoch(ready["lastTransitionTime"].as_str()?)),
            terminating: value["metadata"].get("deletionTimestamp").is_some(),
            restarts: container["restartCount"].as_u64().unwrap_or_default(),
            last_end: text(&container["lastState"]["terminated"]["reason"]),
        }
    }
}
