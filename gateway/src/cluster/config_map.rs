//! The table's ConfigMap, followed through the API: an edit is there at once, while the kubelet takes
//! up to a minute and a half to copy it into the mounted file.
//!
//! What counts when, and what comes of an edit, is [`crate::reload`]'s to say.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::events::{self, Events};
use crate::discovery::kubernetes::Credentials;
use crate::discovery::kubernetes::watch::{Follower, Kept, News, Told as Heard, Which};
use crate::pool::now_ms;
use crate::reload::{Edit, Elsewhere, Told, Version};

/// Edits that wait to be judged; whoever follows waits, and nothing is lost.
const EDITS_MAX: usize = 16;
/// The link in a volume's folder that the kubelet swaps.
const VOLUME: &str = "..data";

/// The ConfigMap that a gateway's table is mounted from.
pub struct ConfigMap {
    namespace: Arc<str>,
    credentials: Credentials,
    status: Arc<Status>,
}

/// What counts of the object.
struct Object {
    version: Version,
    bytes: Result<Vec<u8>, String>,
}

impl Kept for Object {
    type Object = v1::ConfigMap;

    fn of(object: &v1::ConfigMap) -> Option<Self> {
        let version = Version {
            uid: object.metadata.uid.clone().unwrap_or_default(),
            resource_version: object.metadata.resource_version.clone().unwrap_or_default(),
        };
        let text = object.data.as_ref().and_then(|data| data.get(k8s::TABLE_KEY));
        let binary = || object.binary_data.as_ref()?.get(k8s::TABLE_KEY).map(|b| b.0.clone());
        let bytes = text.map(|text| text.clone().into_bytes()).or_else(binary);
        let missing = || format!("there is no such key in the ConfigMap's data ({})", keys(object));
        Some(Self { version, bytes: bytes.ok_or_else(missing) })
    }
}

/// What there is instead.
fn keys(object: &v1::ConfigMap) -> String {
    let names: Vec<_> = object.data.iter().flatten().map(|(key, _)| key.as_str()).take(3).collect();
    match names.is_empty() {
        true => "it is empty".to_owned(),
        false => format!("there is {}", names.join(", ")),
    }
}

impl ConfigMap {
    /// The one that `file` is mounted from; `None` where there is no cluster, or the file is in no
    /// volume: somebody's own file on a laptop isn't overruled by a cluster that the laptop can
    /// reach.
    #[must_use]
    pub fn mounted(
        file: &Path,
        table: &config::Table,
        credentials: Option<Credentials>,
    ) -> Option<Self> {
        let credentials = credentials?;
        let link = std::fs::read_link(file).ok()?;
        let in_volume = link.starts_with(VOLUME) && file.file_name()? == k8s::TABLE_KEY;
        in_volume.then(|| {
            let namespace: Arc<str> = table.kubernetes.namespace.as_str().into();
            let status = Arc::new(Status::new(format!("{namespace}/{}", k8s::GATEWAY)));
            Self { namespace, credentials, status }
        })
    }

    /// Whether it is followed, and since when not.
    #[must_use]
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// Begins to follow it, and to write Events about what comes of its edits, until the other side
    /// is dropped.
    #[must_use]
    pub fn follow(self) -> Elsewhere {
        let (news, heard) = mpsc::channel(EDITS_MAX);
        let (sender, told) = mpsc::channel(EDITS_MAX);
        let (verdicts, judged) = mpsc::channel(events::WAITING_MAX);
        let follower = Follower {
            namespace: Arc::clone(&self.namespace),
            which: Which::Named(k8s::GATEWAY),
            id: 0,
            credentials: self.credentials,
            news,
        };
        let events = Events::new(self.credentials, Arc::clone(&self.namespace));
        let follows = tokio::spawn(follower.run());
        tokio::spawn(async move {
            pass_on(heard, &sender, &self.status).await;
            follows.abort();
        });
        tokio::spawn(events.write(judged));
        Elsewhere { told, verdicts }
    }
}

/// From the one who follows to the one who judges.
async fn pass_on(
    mut heard: mpsc::Receiver<Heard<Object>>,
    told: &mpsc::Sender<Told>,
    status: &Status,
) {
    let mut there = false;
    while let Some((_, _, news)) = heard.recv().await {
        let tell = match news {
            News::Listed(mut objects) => {
                let object = objects.pop();
                there = object.is_some();
                object.map_or_else(
                    || status.lost(State::Absent),
                    |(_, object)| Some(Told::Edit(status.edit(object))),
                )
            }
            News::Changed(_, object) => {
                there = true;
                Some(Told::Edit(status.edit(object)))
            }
            News::Gone(_) => {
                there = false;
                status.lost(State::Absent)
            }
            News::Follows if there => status.found(),
            // That there is none is followed, too; the file counts.
            News::Follows => status.lost(State::Absent),
            News::Away(error) => status.lost(State::Away { since_ms: now_ms(), error }),
        };
        if let Some(tell) = tell
            && told.send(tell).await.is_err()
        {
            return;
        }
    }
}

/// What probes, metrics and `status` tell of the ConfigMap.
#[derive(Debug)]
pub struct Status {
    name: String,
    state: ArcSwap<State>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// The API hasn't answered yet.
    Asked { since_ms: u64 },
    /// An edit is heard of at once.
    Followed,
    /// There is none.
    Absent,
    /// The API can't be asked.
    Away { since_ms: u64, error: String },
}

impl Status {
    fn new(name: String) -> Self {
        Self { name, state: ArcSwap::from_pointee(State::Asked { since_ms: now_ms() }) }
    }

    /// How long edits may have gone unheard, seconds; 0 while it is followed.
    #[must_use]
    pub fn age_seconds(&self) -> f64 {
        match &**self.state.load() {
            State::Asked { since_ms } | State::Away { since_ms, .. } => {
                now_ms().saturating_sub(*since_ms) as f64 / 1_000.0
            }
            State::Followed | State::Absent => 0.0,
        }
    }

    /// As it is told on the operators' port.
    #[must_use]
    pub fn json(&self) -> Value {
        let state = self.state.load();
        let (word, error) = match &**state {
            State::Asked { .. } => ("asked", None),
            State::Followed => ("followed", None),
            State::Absent => ("absent", None),
            State::Away { error, .. } => ("away", Some(error)),
        };
        json!({
            "name": self.name,
            "state": word,
            "age_seconds": self.age_seconds(),
            "error": error,
        })
    }

    fn edit(&self, object: Object) -> Edit {
        self.found();
        let name = format!("ConfigMap {}, {}", self.name, k8s::TABLE_KEY);
        Edit { name, bytes: object.bytes, version: object.version }
    }

    fn found(&self) -> Option<Told> {
        let before = self.state.swap(Arc::new(State::Followed));
        let name = &self.name;
        match &*before {
            State::Away { since_ms, .. } => {
                let for_ms = now_ms().saturating_sub(*since_ms);
                tracing::info!(config_map = name, for_ms, "the ConfigMap is followed again");
            }
            State::Absent => tracing::info!(config_map = name, "the ConfigMap is there again"),
            State::Asked { .. } => tracing::info!(config_map = name, "the ConfigMap is followed"),
            State::Followed => {}
        }
        Some(Told::Follows)
    }

    /// Told once, however often it is tried; the time since when stays the first one.
    fn lost(&self, now: State) -> Option<Told> {
        let name = &self.name;
        let before = self.state.load_full();
        match (&*before, &now) {
            (State::Absent, State::Absent) => return None,
            (State::Away { since_ms, error: old }, State::Away { error, .. }) => {
                if old != error {
                    let (since_ms, error) = (*since_ms, error.clone());
                    self.state.store(Arc::new(State::Away { since_ms, error }));
                }
                return None;
            }
            (_, State::Away { error, .. }) => tracing::warn!(
                config_map = name,
                error,
                "the ConfigMap can't be followed: edits come by the mounted file, which is late"
            ),
            _ => tracing::warn!(
                config_map = name,
                "there is no such ConfigMap: the table in force stays, and edits come by the file"
            ),
        }
        self.state.store(Arc::new(now));
        Some(Told::Away)
    }
}

#[cfg(test)]
mod tests;
