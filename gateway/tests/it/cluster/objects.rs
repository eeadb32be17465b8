//! Leases, the `scale` of Deployments and the annotations of pods: read, made and patched, with
//! versions that conflict as the API's do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{Cluster, NAMESPACE, State, status};
use crate::agent::Call;

/// All objects by path.
#[derive(Default)]
pub(super) struct Objects {
    by_path: BTreeMap<String, Value>,
    /// Every patch that was taken, with its path.
    patches: Vec<(String, Value)>,
    /// Paths that contain this are answered with 403.
    forbidden: Option<&'static str>,
}

const PARAMS: char = '?';

fn scale_path(name: &str) -> String {
    format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{name}/scale")
}

fn pod_path(name: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}")
}

fn lease_path() -> String {
    format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/switchyard")
}

impl Cluster {
    /// Makes a Deployment of this size; or somebody scales it by hand.
    pub fn scale(&self, name: &str, replicas: i64) {
        self.change(|state| {
            let scale = json!({
                "apiVersion": "autoscaling/v1", "kind": "Scale",
                "metadata": {
                    "name": name, "namespace": NAMESPACE,
                    "resourceVersion": state.version.to_string(),
                },
                "spec": { "replicas": replicas }, "status": { "replicas": replicas },
            });
            state.objects.by_path.insert(scale_path(name), scale);
        });
    }

    /// Makes a pod, as far as it can be annotated.
    pub fn pod(&self, name: &str) {
        self.change(|state| {
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": name, "namespace": NAMESPACE },
            });
            state.objects.by_path.insert(pod_path(name), pod);
        });
    }

    /// How many replicas a Deployment shall have.
    pub fn replicas(&self, name: &str) -> i64 {
        self.object(&scale_path(name))["spec"]["replicas"].as_i64().expect("a number")
    }

    /// The sizes that a Deployment was given by patches, in order.
    pub fn resized(&self, name: &str) -> Vec<i64> {
        let patches = self.patches(&scale_path(name));
        patches.iter().map(|patch| patch["spec"]["replicas"].as_i64().expect("a number")).collect()
    }

    /// The deletion costs that were written on a pod, in order.
    pub fn costs(&self, name: &str) -> Vec<String> {
        let patches = self.patches(&pod_path(name));
        let cost = |patch: &Value| {
            let annotations = &patch["metadata"]["annotations"];
            annotations["controller.kubernetes.io/pod-deletion-cost"].as_str().map(str::to_owned)
        };
        patches.iter().filter_map(cost).collect()
    }

    /// Who holds the Lease; empty where there is none or nobody does.
    pub fn holder(&self) -> String {
        let lease = self.object(&lease_path());
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    }

    /// The text of one of the Lease's annotations.
    pub fn lease_notes(&self, annotation: &str) -> String {
        let lease = self.object(&lease_path());
        lease["metadata"]["annotations"][annotation].as_str().unwrap_or_default().to_owned()
    }

    /// From now on, paths that contain this are forbidden.
    pub fn forbid(&self, what: Option<&'static str>) {
        self.change(|state| state.objects.forbidden = what);
    }

    fn object(&self, path: &str) -> Value {
        self.state.lock().unwrap().objects.by_path.get(path).cloned().unwrap_or_default()
    }

    fn patches(&self, path: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        let here = state.objects.patches.iter().filter(|(patched, _)| patched == path);
        here.map(|(_, patch)| patch.clone()).collect()
    }
}

pub(super) async fn answer(mut call: Call, state: &Arc<Mutex<State>>) {
    let path = call.target().split(PARAMS).next().unwrap_or_default().to_owned();
    let method = call.method().to_owned();
    let body = call.body().await;
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let (code, answer) = changed(&method, path, body, &mut state.lock().unwrap());
    let text = if answer.is_null() { status(code) } else { answer.to_string() };
    call.reply(&format!("{code} Answer\r\ncontent-type: application/json"), text).await;
}

fn changed(method: &str, path: String, body: Value, state: &mut State) -> (u16, Value) {
    if state.objects.forbidden.is_some_and(|what| path.contains(what)) {
        return (403, Value::Null);
    }
    state.version += 1;
    let version = json!(state.version.to_string());
    let objects = &mut state.objects;
    match method {
        "GET" => objects.by_path.get(&path).map_or((404, Value::Null), |o| (200, o.clone())),
        "POST" => {
            let path = format!("{path}/{}", body["metadata"]["name"].as_str().expect("a name"));
            if objects.by_path.contains_key(&path) {
                return (409, Value::Null);
            }
            let mut object = body;
            object["metadata"]["resourceVersion"] = version;
            objects.by_path.insert(path, object.clone());
            (201, object)
        }
        "PATCH" => {
            let Some(object) = objects.by_path.get_mut(&path) else { return (404, Value::Null) };
            let wanted = &body["metadata"]["resourceVersion"];
            if !wanted.is_null() && *wanted != object["metadata"]["resourceVersion"] {
                return (409, Value::Null);
            }
            merge(object, &body);
            object["metadata"]["resourceVersion"] = version;
            let answer = object.clone();
            objects.patches.push((path, body));
            (200, answer)
        }
        other => panic!("{other} {path}?"),
    }
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        match value {
            Value::Null => drop(target.as_object_mut().expect("just made").remove(key)),
            value => merge(&mut target[key.as_str()], value),
        }
    }
}
