//! Pods of a cluster: memory and processor time by the kubelet's summary, which is asked through the API
//! server, else by `metrics.k8s.io`; what they are limited to and how they were killed by the pod itself.

use std::collections::BTreeMap;
use std::time::Duration;

use config::units;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;
use switchyard::cluster::asker::{Asker, Failed};
use switchyard::discovery::kubernetes::Credentials;

use super::Reading;

/// The kubelet looks about every ten seconds: asking oftener tells nothing new.
pub(in crate::cli::size) const EVERY: Duration = Duration::from_secs(10);
/// The most pods of one agent that are listed.
const PODS_MAX: u32 = 500;

/// Where an agent's pods are.
pub(in crate::cli::size) struct Place {
    asker: std::sync::Arc<Asker>,
    pub(in crate::cli::size) namespace: String,
    pub(in crate::cli::size) service: String,
}

/// One pod that runs.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli::size) struct Listed {
    pub(in crate::cli::size) name: String,
    pub(in crate::cli::size) ip: String,
    /// Of the agent: its first.
    pub(in crate::cli::size) container: String,
    node: String,
    limit: Option<u64>,
}

/// One pod's meter.
pub(in crate::cli::size) struct PodMeter {
    asker: std::sync::Arc<Asker>,
    namespace: String,
    pod: Listed,
    by: By,
}

/// What said last how much it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Kubelet,
    MetricsApi,
}

impl Place {
    /// By the credentials of a pod, `KUBECONFIG` or `~/.kube/config`. `service` as the table has it.
    pub(in crate::cli::size) fn new(service: &str, namespace: &str) -> Result<Place, String> {
        let (service, namespace) = service.split_once('.').unwrap_or((service, namespace));
        let credentials = Credentials::find().map_err(|error| error.to_string())?;
        let asker = std::sync::Arc::new(Asker::new(credentials));
        Ok(Place { asker, namespace: namespace.to_owned(), service: service.to_owned() })
    }

    pub(in crate::cli::size) fn asker(&self) -> &Asker {
        &self.asker
    }

    /// The running pods that the Service selects.
    pub(in crate::cli::size) async fn list(&self) -> Result<Vec<Listed>, String> {
        let name = format!("Service {}/{}", self.namespace, self.service);
        let failed = |failed: Failed| format!("{name}: {failed}");
        let question = async |client| {
            Api::<Service>::namespaced(client, &self.namespace).get(&self.service).await
        };
        let service = self.asker.ask(question).await.map_err(failed)?;
        let selector = service.spec.and_then(|spec| spec.selector).unwrap_or_default();
        if selector.is_empty() {
            return Err(format!("{name} selects no pods"));
        }
        let labels: Vec<String> =
            selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let params = ListParams::default().labels(&labels.join(",")).limit(PODS_MAX);
        let question =
            async |client| Api::<Pod>::namespaced(client, &self.namespace).list(&params).await;
        let pods = self.asker.ask(question).await.map_err(failed)?;
        Ok(pods.items.iter().filter_map(listed).collect())
    }

    pub(in crate::cli::size) fn meter(&self, pod: Listed) -> PodMeter {
        let (asker, namespace) = (std::sync::Arc::clone(&self.asker), self.namespace.clone());
        PodMeter { asker, namespace, pod, by: By::Kubelet }
    }
}

/// A pod that runs and isn't on its way out.
fn listed(pod: &Pod) -> Option<Listed> {
    let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
    let runs =
        status.phase.as_deref() == Some("Running") && pod.metadata.deletion_timestamp.is_none();
    let container = spec.containers.first().filter(|_| runs)?;
    let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    Some(Listed {
        name: pod.metadata.name.clone()?,
        ip: status.pod_ip.clone()?,
        container: container.name.clone(),
        node: spec.node_name.clone()?,
        limit: limits.and_then(|limits| quantity(&limits.get("memory")?.0)),
    })
}

impl PodMeter {
    pub(super) async fn look(&mut self) -> Option<Reading> {
        let question = async |client| {
            Api::<Pod>::namespaced(client, &self.namespace).get(&self.pod.name).await
        };
        let pod = self.asker.ask(question).await.ok()?;
        let (life, oom_kills) = lives(&pod, &self.pod.container)?;
        let (memory, cpu) = match self.by_kubelet().await {
            Some(said) => said,
            None => (self.by_metrics_api().await?, None),
        };
        Some(Reading { memory, peak: memory, cpu, oom_kills, life })
    }

    async fn get(&self, path: &str) -> Option<Value> {
        let request = || http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError);
        self.asker
            .ask(async |client: kube::Client| client.request::<Value>(request()?).await)
            .await
            .ok()
    }

    async fn by_kubelet(&mut self) -> Option<(u64, Option<Duration>)> {
        let path = format!("/api/v1/nodes/{}/proxy/stats/summary", self.pod.node);
        let said = self.get(&path).await?;
        self.by = By::Kubelet;
        of_summary(&said, &self.namespace, &self.pod)
    }

    async fn by_metrics_api(&mut self) -> Option<u64> {
        let (namespace, name) = (&self.namespace, &self.pod.name);
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods/{name}");
        let said = self.get(&path).await?;
        self.by = By::MetricsApi;
        of_pod_metrics(&said, &self.pod.container)
    }

    pub(super) fn limit(&self) -> Option<u64> {
        self.pod.limit
    }

    pub(super) fn describe(&self) -> String {
        match self.by {
            By::Kubelet => "working set by the kubelet, about every 10 s".to_owned(),
            By::MetricsApi => "working set by metrics.k8s.io, about every 15 s".to_owned(),
        }
    }
}

/// Of the kubelet's summary (`k8s.io/kubelet/pkg/apis/stats/v1alpha1`): the container's working set and
/// processor time so far.
fn of_summary(summary: &Value, namespace: &str, pod: &Listed) -> Option<(u64, Option<Duration>)> {
    let named = |value: &&Value, name: &str| value["name"].as_str() == Some(name);
    let pods = summary["pods"].as_array()?;
    let own = pods.iter().find(|one| {
        named(&&one["podRef"], &pod.name) && one["podRef"]["namespace"].as_str() == Some(namespace)
    })?;
    let container = own["containers"].as_array()?.iter().find(|one| named(one, &pod.container))?;
    let cpu = container["cpu"]["usageCoreNanoSeconds"].as_u64().map(Duration::from_nanos);
    Some((container["memory"]["workingSetBytes"].as_u64()?, cpu))
}

fn of_pod_metrics(metrics: &Value, container: &str) -> Option<u64> {
    let containers = metrics["containers"].as_array()?;
    let own = containers.iter().find(|one| one["name"].as_str() == Some(container))?;
    quantity(own["usage"]["memory"].as_str()?)
}

/// Which life a container is in, and how often it was killed for want of memory, as far as its pod says:
/// it knows the last end only.
fn lives(pod: &Pod, container: &str) -> Option<(u64, u64)> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let own = statuses.iter().find(|status| status.name == container)?;
    let ended = |state: &k8s_openapi::api::core::v1::ContainerState| {
        state.terminated.as_ref().is_some_and(|end| end.reason.as_deref() == Some("OOMKilled"))
    };
    let states = [own.last_state.as_ref(), own.state.as_ref()];
    let killed = states.into_iter().flatten().any(ended);
    Some((u64::try_from(own.restart_count).unwrap_or(0), u64::from(killed)))
}

/// Kubernetes' spelling of bytes, as the table reads it.
fn quantity(text: &str) -> Option<u64> {
    units::size(text)
}

/// The pods' addresses, for those who know of them by it.
pub(in crate::cli::size) fn by_ip(loads: &[(String, u32)]) -> BTreeMap<String, u32> {
    let ip = |address: &String| {
        address.rsplit_once(':').map_or(address.as_str(), |(ip, _)| ip).to_owned()
    };
    loads.iter().map(|(address, load)| (ip(address), *load)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "qa-1" },
            "spec": { "nodeName": "n1", "containers": [
                { "name": "agent", "resources": { "limits": { "memory": "512Mi" } } }, { "name": "side" }
            ] },
            "status": status,
        }))
        .unwrap()
    }

    fn running() -> Value {
        json!({ "phase": "Running", "podIP": "10.0.0.7", "containerStatuses": [
            { "name": "agent", "image": "", "imageID": "", "ready": true, "restartCount": 2,
              "lastState": { "terminated": { "exitCode": 137, "reason": "OOMKilled" } } }
        ] })
    }

    #[test]
    fn a_pod_says_its_limit_and_how_it_was_killed() {
        let pod = pod(&running());
        let listed = listed(&pod).unwrap();
        assert_eq!(
            (&*listed.name, &*listed.container, listed.limit),
            ("qa-1", "agent", Some(512 << 20))
        );
        assert_eq!(lives(&pod, "agent"), Some((2, 1)));
        assert_eq!(lives(&pod, "other"), None);
        assert_eq!(super::listed(&self::pod(&json!({ "phase": "Pending" }))), None);
    }

    #[test]
    fn the_kubelets_summary_is_read_for_the_container_alone() {
        let summary = json!({ "node": {}, "pods": [
            { "podRef": { "name": "qa-1", "namespace": "other" }, "containers": [] },
            { "podRef": { "name": "qa-1", "namespace": "ns", "uid": "x" }, "containers": [
                { "name": "side", "memory": { "workingSetBytes": 1 } },
                { "name": "agent", "startTime": "2026-01-01T00:00:00Z",
                  "cpu": { "time": "2026-01-01T00:00:10Z", "usageNanoCores": 5, "usageCoreNanoSeconds": 2_500_000_000u64 },
                  "memory": { "usageBytes": 300, "workingSetBytes": 200, "rssBytes": 150 } },
            ] },
        ] });
        let listed = listed(&pod(&running())).unwrap();
        let cpu = Some(Duration::from_millis(2500));
        assert_eq!(of_summary(&summary, "ns", &listed), Some((200, cpu)));
        assert_eq!(of_summary(&summary, "nowhere", &listed), None);
    }

    #[test]
    fn metrics_of_pods_are_read_with_their_units() {
        let metrics = json!({ "timestamp": "", "window": "15s", "containers": [
            { "name": "agent", "usage": { "cpu": "2500000n", "memory": "123456Ki" } }
        ] });
        assert_eq!(of_pod_metrics(&metrics, "agent"), Some(123_456 << 10));
        assert_eq!(of_pod_metrics(&metrics, "side"), None);
    }

    #[test]
    fn loads_are_known_by_ip() {
        let loads = by_ip(&[("10.0.0.7:8000".to_owned(), 3), ("[fd00::1]:8000".to_owned(), 1)]);
        assert_eq!((loads["10.0.0.7"], loads["[fd00::1]"]), (3, 1));
    }
}
