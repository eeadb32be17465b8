//! The table's ConfigMap in the stand-in for the API, the Events that gateways write about it, and
//! the volume that the kubelet would mount it as.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Cluster, NAMESPACE, State, query, status};
use crate::agent::Call;
use crate::gateway::{Gateway, table};
use crate::reload::mount;

/// What the history calls it.
const KIND: &str = "configmap";
/// All of one object.
const SELECTED: Option<&str> = Some("metadata.name%3Dswitchyard");

/// A folder as the kubelet mounts a ConfigMap.
pub struct Volume {
    folder: tempfile::TempDir,
    versions: usize,
}

impl Volume {
    /// With this table, of which [`table`] fills in the rest.
    pub fn of(text: &str) -> Volume {
        let mut volume = Volume { folder: tempfile::tempdir().unwrap(), versions: 0 };
        volume.write(text);
        symlink("..data/switchyard.toml", volume.file()).unwrap();
        volume
    }

    /// The kubelet brings it up to this table.
    pub fn write(&mut self, text: &str) {
        self.versions += 1;
        mount(self.folder.path(), &format!("..2030_{}", self.versions), text);
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("switchyard.toml")
    }
}

impl Cluster {
    /// A gateway whose table is mounted from the ConfigMap.
    pub async fn mounted(&self, volume: &Volume) -> Gateway {
        let kubeconfig = self.kubeconfig();
        let env = [("KUBECONFIG", kubeconfig.to_str().unwrap())];
        Gateway::start_on_with(&volume.file(), &env).await
    }

    /// The ConfigMap holds this table.
    pub fn put_table(&self, text: &str) {
        self.put_data(&json!({ "switchyard.toml": table(text) }));
    }

    /// The ConfigMap holds this data.
    pub fn put_data(&self, data: &Value) {
        self.change(|state| {
            let known = state.config_map.as_ref().map(|before| before["metadata"]["uid"].clone());
            let kind = if known.is_some() { "MODIFIED" } else { "ADDED" };
            let uid = known.unwrap_or_else(|| format!("uid-{}", state.version).into());
            let object = json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": "switchyard",
                    "namespace": NAMESPACE,
                    "uid": uid,
                    "resourceVersion": state.version.to_string(),
                },
                "data": data,
            });
            state.config_map = Some(object.clone());
            let event = json!({ "type": kind, "object": object });
            state.events.push((state.version, KIND.into(), event));
        });
    }

    /// The ConfigMap is deleted.
    pub fn delete_table(&self) {
        self.change(|state| {
            let mut object = state.config_map.take().expect("a ConfigMap to delete");
            object["metadata"]["resourceVersion"] = state.version.to_string().into();
            let event = json!({ "type": "DELETED", "object": object });
            state.events.push((state.version, KIND.into(), event));
        });
    }

    /// Puts a table whose history is lost at once: those who watch are cut, and those who come back
    /// learn that they are too far behind.
    pub fn lose_history_with(&self, text: &str) {
        self.put_table(text);
        self.change(|state| {
            state.events.clear();
            state.ways.oldest = state.version;
            state.ways.cut = state.watches;
        });
    }

    /// The Events that were written, each once, and how often one was that was there already.
    pub fn written(&self) -> (Vec<Value>, usize) {
        let all = self.state.lock().unwrap().written.clone();
        let mut once = Vec::<Value>::new();
        for event in &all {
            if !once.iter().any(|known| known["metadata"]["name"] == event["metadata"]["name"]) {
                once.push(event.clone());
            }
        }
        let again = all.len() - once.len();
        (once, again)
    }
}

pub(super) async fn answer(call: Call, state: Arc<Mutex<State>>, changed: watch::Receiver<()>) {
    let target = call.target().to_owned();
    let path = |kind| format!("/api/v1/namespaces/{NAMESPACE}/{kind}");
    let asked = target.split('?').next();
    if asked == Some(&*path("events")) {
        return write(call, &state).await;
    }
    assert_eq!((asked, query(&target, "fieldSelector")), (Some(&*path("configmaps")), SELECTED));
    if query(&target, "watch").is_some() {
        let nth = {
            let mut state = state.lock().unwrap();
            state.watches += 1;
            state.watches
        };
        return super::watch(call, KIND, nth, state, changed).await;
    }
    let list = {
        let mut state = state.lock().unwrap();
        state.lists += 1;
        json!({
            "apiVersion": "v1", "kind": "ConfigMapList",
            "metadata": { "resourceVersion": state.version.to_string() },
            "items": state.config_map.iter().collect::<Vec<_>>(),
        })
    };
    call.json(&list.to_string()).await;
}

/// 409 where there is one of this name.
async fn write(mut call: Call, state: &Mutex<State>) {
    assert_eq!(call.method(), "POST");
    let event: Value = serde_json::from_slice(&call.body().await).expect("an Event");
    let known = {
        let mut state = state.lock().unwrap();
        let name = &event["metadata"]["name"];
        let known = state.written.iter().any(|known| known["metadata"]["name"] == *name);
        state.written.push(event.clone());
        known
    };
    match known {
        true => {
            let head = "409 Conflict\r\ncontent-type: application/json";
            call.reply(head, status(409)).await;
        }
        false => call.json(&event.to_string()).await,
    }
}
