//! Which gateway of all decides: the holder of the Lease `switchyard` in the table's namespace.
//!
//! Holding and losing are client-go's leader election: whether another's hold has run out is judged
//! by how long this process has seen it unchanged, never by comparing clocks. What has to outlive a
//! holder stands in the Lease's annotations, each a bounded map.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::asker::{Asker, Failed};
use super::scale::MANAGER;
use crate::shared::Phase;

/// The Lease's name.
const NAME: &str = k8s::GATEWAY;
/// A holder of whom nothing was heard for so long holds it no more.
const HELD: Duration = Duration::from_secs(10);
/// A holder that couldn't renew for so long decides nothing more: well before anybody else does.
const RENEWED: Duration = Duration::from_secs(6);
/// Between two looks, and between two renewals.
const RETRY: Duration = Duration::from_secs(2);
/// Entries of one annotation, about 80 bytes each: the API takes 256 KiB of annotations.
const ENTRIES_MAX: usize = 1_000;
/// Notes that wait to be written; whoever has more waits.
const NOTES_MAX: usize = 16;

/// A map in the Lease's annotations.
pub(super) type Entries = BTreeMap<String, String>;

/// What is to be changed in one annotation: entries, or `None` to take one out.
pub(super) struct Note {
    annotation: &'static str,
    entries: BTreeMap<String, Option<String>>,
    written: oneshot::Sender<Result<(), Failed>>,
}

/// What others see of this gateway's part in the election.
#[derive(Clone)]
pub(super) struct Handle {
    asker: Arc<Asker>,
    namespace: Arc<str>,
    until: watch::Receiver<Option<Instant>>,
    notes: mpsc::Sender<Note>,
}

impl Handle {
    /// Whether this gateway decides, now.
    pub(super) fn leads(&self) -> bool {
        self.until.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Changes entries of an annotation, as the holder.
    pub(super) async fn note(
        &self,
        annotation: &'static str,
        entries: BTreeMap<String, Option<String>>,
    ) -> Result<(), Failed> {
        let (written, answer) = oneshot::channel();
        let gone = |_| Failed::because("the gateway shuts down");
        let note = Note { annotation, entries, written };
        self.notes.send(note).await.map_err(|_| gone(()))?;
        answer.await.map_err(|_| gone(()))?
    }

    /// The entries of an annotation, whoever holds the Lease; none where there is no Lease.
    pub(super) async fn read(&self, annotation: &str) -> Result<Entries, Failed> {
        match get(&self.asker, &self.namespace).await {
            Ok(lease) => Ok(entries(&lease, annotation)),
            Err(failed) if failed.is_absent() => Ok(Entries::new()),
            Err(failed) => Err(failed),
        }
    }
}

/// One who takes part in the election.
pub(super) struct Elector {
    asker: Arc<Asker>,
    namespace: Arc<str>,
    identity: String,
    until: watch::Sender<Option<Instant>>,
    notes: mpsc::Receiver<Note>,
    seen: Option<Seen>,
    failing: bool,
}

/// The Lease as it was last seen, and since when it has been like that.
struct Seen {
    lease: Lease,
    since: Instant,
}

impl Elector {
    /// Takes part in the election in this namespace, once it runs.
    pub(super) fn new(asker: &Arc<Asker>, namespace: &str) -> (Self, Handle) {
        let (until, leads) = watch::channel(None);
        let (sender, notes) = mpsc::channel(NOTES_MAX);
        let (asker, namespace) = (Arc::clone(asker), Arc::<str>::from(namespace));
        let handle = Handle {
            asker: Arc::clone(&asker),
            namespace: Arc::clone(&namespace),
            until: leads,
            notes: sender,
        };
        let identity = identity();
        (Self { asker, namespace, identity, until, notes, seen: None, failing: false }, handle)
    }

    /// Takes and renews the Lease while it is wanted; gives it back when it isn't, and when the
    /// gateway begins to shut down.
    pub(super) async fn run(
        mut self,
        mut wanted: watch::Receiver<bool>,
        mut phase: watch::Receiver<Phase>,
    ) {
        let mut next = Instant::now();
        loop {
            let wants = *wanted.borrow_and_update();
            tokio::select! {
                () = sleep_until(next), if wants => {
                    self.round().await;
                    // Several gateways that start together don't ask together for ever.
                    next = Instant::now() + RETRY.mul_f64(0.8 + 0.4 * fastrand::f64());
                }
                Some(note) = self.notes.recv() => {
                    let answer = self.write(note.annotation, &note.entries).await;
                    // Who asked may have gone.
                    let _ = note.written.send(answer);
                }
                changed = wanted.changed() => {
                    if changed.is_err() {
                        return self.release().await;
                    }
                    if !*wanted.borrow() {
                        self.release().await;
                    }
                    next = Instant::now();
                }
                () = shutting_down(&mut phase) => return self.release().await,
            }
        }
    }

    /// Looks once, and takes or renews it where that may be.
    async fn round(&mut self) {
        let begun = Instant::now();
        match self.hold().await {
            Ok(true) => {
                if self.until.send_replace(Some(begun + RENEWED)).is_none() {
                    tracing::info!(identity = self.identity, "this gateway decides on scaling");
                }
                self.failing = false;
            }
            Ok(false) => {
                self.failing = false;
                self.lost("another gateway has the lease");
            }
            Err(failed) => {
                if !self.failing && !failed.is_conflict() {
                    tracing::warn!(error = %failed, "the lease for scaling can't be had");
                }
                self.failing |= !failed.is_conflict();
                if self.until.borrow().is_some_and(|until| until <= Instant::now()) {
                    self.lost("it couldn't be renewed in time");
                }
            }
        }
    }

    fn lost(&self, why: &str) {
        if self.until.send_replace(None).is_some() {
            tracing::info!(why, "this gateway no longer decides on scaling");
        }
    }

    /// Says whether this gateway holds it.
    async fn hold(&mut self) -> Result<bool, Failed> {
        match get(&self.asker, &self.namespace).await {
            Ok(lease) => self.see(lease),
            Err(failed) if failed.is_absent() => {
                let lease = self.create().await?;
                self.see(lease);
                return Ok(true);
            }
            Err(failed) => return Err(failed),
        }
        let Some(seen) = &self.seen else { return Ok(false) };
        let mine = holder(&seen.lease) == Some(&self.identity);
        if !mine && !seen.has_run_out() {
            return Ok(false);
        }
        let mut spec = json!({ "renewTime": now() });
        if !mine {
            let before = seen.lease.spec.as_ref().and_then(|spec| spec.lease_transitions);
            spec = json!({
                "holderIdentity": self.identity,
                "leaseDurationSeconds": HELD.as_secs(),
                "acquireTime": now(),
                "renewTime": now(),
                "leaseTransitions": before.unwrap_or_default() + 1,
            });
        }
        self.patch(json!({ "spec": spec })).await?;
        Ok(true)
    }

    /// Notes how it is now. Only a change begins the time anew after which it has run out.
    fn see(&mut self, lease: Lease) {
        match &mut self.seen {
            Some(seen) if seen.lease.spec == lease.spec => seen.lease = lease,
            _ => self.seen = Some(Seen { lease, since: Instant::now() }),
        }
    }

    async fn create(&self) -> Result<Lease, Failed> {
        let lease = json!({
            "metadata": { "name": NAME, "namespace": &*self.namespace, "labels": {
                "app.kubernetes.io/part-of": "switchyard",
            }},
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": HELD.as_secs(),
                "acquireTime": now(),
                "renewTime": now(),
                "leaseTransitions": 0,
            },
        });
        let lease: Lease = serde_json::from_value(lease).expect("it has a Lease's form");
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        let question = async |client| {
            Api::<Lease>::namespaced(client, &self.namespace).create(&params, &lease).await
        };
        self.asker.ask(question).await
    }

    /// Changes it, if it is still as it was seen; a conflict otherwise.
    async fn patch(&mut self, mut patch: Value) -> Result<(), Failed> {
        let version =
            self.seen.as_ref().and_then(|seen| seen.lease.metadata.resource_version.clone());
        patch["metadata"]["resourceVersion"] = version.into();
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let question = async |client| {
            let api = Api::<Lease>::namespaced(client, &self.namespace);
            api.patch(NAME, &params, &Patch::Merge(&patch)).await
        };
        let lease = self.asker.ask(question).await?;
        self.see(lease);
        Ok(())
    }

    /// Changes entries of an annotation.
    async fn write(
        &mut self,
        annotation: &str,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<(), Failed> {
        let leads = self.until.borrow().is_some_and(|until| Instant::now() < until);
        let Some(seen) = self.seen.as_ref().filter(|_| leads) else {
            return Err(Failed::because("another gateway decides"));
        };
        let before = entries(&seen.lease, annotation);
        let mut after = before.clone();
        for (key, value) in changes {
            match value {
                Some(value) => drop(after.insert(key.clone(), value.clone())),
                None => drop(after.remove(key)),
            }
        }
        if after == before {
            return Ok(());
        }
        if after.len() > ENTRIES_MAX && after.len() > before.len() {
            return Err(Failed::because(format!("the lease notes {ENTRIES_MAX} already")));
        }
        let text = json!(after).to_string();
        self.patch(json!({ "metadata": { "annotations": { annotation: text } } })).await
    }

    /// Gives it back, so that the next one needn't wait.
    async fn release(&mut self) {
        let held = self.until.borrow().is_some();
        self.lost("it was given back");
        if held {
            let spec = json!({ "holderIdentity": "", "leaseDurationSeconds": 1 });
            if let Err(failed) = self.patch(json!({ "spec": spec })).await {
                tracing::debug!(error = %failed, "the lease wasn't given back: it runs out");
            }
        }
    }
}

impl Seen {
    fn has_run_out(&self) -> bool {
        if holder(&self.lease).is_none_or(String::is_empty) {
            return true;
        }
        let spec = self.lease.spec.as_ref();
        let seconds = spec.and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
        let held = Duration::from_secs(seconds.max(0).unsigned_abs().into());
        self.since.elapsed() > held
    }
}

/// Ends when the shutdown begins.
async fn shutting_down(phase: &mut watch::Receiver<Phase>) {
    let _ = phase.wait_for(|phase| *phase > Phase::Running).await;
}

async fn get(asker: &Asker, namespace: &str) -> Result<Lease, Failed> {
    asker.ask(async |client| Api::<Lease>::namespaced(client, namespace).get(NAME).await).await
}

fn holder(lease: &Lease) -> Option<&String> {
    lease.spec.as_ref()?.holder_identity.as_ref()
}

/// An annotation that isn't ours, or that somebody has broken, is empty.
fn entries(lease: &Lease, annotation: &str) -> Entries {
    let text = lease.metadata.annotations.as_ref().and_then(|all| all.get(annotation));
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

fn now() -> Value {
    json!(MicroTime(Timestamp::now()))
}

/// The pod's name and something that no other process has, not even the next in the same pod.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "gateway".into());
    format!("{host}_{}", uuid::Uuid::now_v7())
}
