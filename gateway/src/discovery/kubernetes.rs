//! The cluster's word on where replicas are: the EndpointSlices of the namespaces that the table
//! names, followed live.
//!
//! One task per namespace asks the API; one more keeps what they tell and says what it comes to.

pub mod watch;

mod credentials;
mod slices;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch as channel};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

pub use self::credentials::{Credentials, Unusable, in_pod};
use self::slices::Slice;
use self::watch::{Follower, News, Told, Which};
use super::services::{Known, Pod, named};
use super::{FIRST_ANSWER, Gateways, Status, Table};
use crate::pool::now_ms;

/// News that follow each other within this time are one change: a roll-out comes in bursts, and
/// each change is a new snapshot.
const COALESCE: Duration = Duration::from_millis(20);
/// News that wait to be taken; whoever has more waits.
const NEWS_MAX: usize = 256;

/// `name.namespace` of a Service; one without a namespace is in the table's.
#[must_use]
pub fn full_name(service: &str, table: &config::Table) -> String {
    let service = service.split(':').next().unwrap_or(service);
    match service.contains('.') {
        true => service.to_owned(),
        false => format!("{service}.{}", table.kubernetes.namespace),
    }
}

/// The namespaces of the Services that a table names, and that of the gateways.
fn namespaces(table: &config::Table) -> BTreeSet<String> {
    let namespace = |service| full_name(service, table).split_once('.').map(|(_, n)| n.to_owned());
    let named = named(table).into_iter().filter_map(namespace);
    named.chain([table.kubernetes.namespace.clone()]).collect()
}

/// Follows what the table in force names until nobody wants to know any more.
pub async fn follow(
    credentials: Credentials,
    mut tables: channel::Receiver<Table>,
    known: channel::Sender<Arc<Known>>,
    gateways: channel::Sender<Gateways>,
    status: Arc<Status>,
) {
    let (sender, mut news) = mpsc::channel(NEWS_MAX);
    let mut cluster = Cluster {
        credentials,
        news: sender,
        own: Arc::from(""),
        gateways,
        namespaces: BTreeMap::new(),
        wakes: BTreeSet::new(),
        ids: 0,
        patient: true,
    };
    cluster.narrow(&tables.borrow_and_update());
    let patience = Instant::now() + FIRST_ANSWER;
    let mut due = Some(Instant::now());
    loop {
        tokio::select! {
            changed = tables.changed() => {
                if changed.is_err() {
                    return;
                }
                cluster.narrow(&tables.borrow_and_update());
                due = Some(Instant::now());
            }
            Some(told) = news.recv() => {
                if let News::Away(error) = &told.2 {
                    status.set_error(&format!("{}: {error}", told.0));
                }
                cluster.take(told);
                due = due.or_else(|| Some(Instant::now() + COALESCE));
            }
            () = sleep_until(due.unwrap_or(patience)), if due.is_some() => {
                due = None;
                cluster.publish(&known, &status);
            }
            () = sleep_until(patience), if cluster.patient => {
                cluster.patient = false;
                cluster.publish(&known, &status);
            }
            () = known.closed() => return,
        }
    }
}

/// What is known of the cluster.
struct Cluster {
    credentials: Credentials,
    news: mpsc::Sender<Told<Slice>>,
    /// The namespace of the gateways.
    own: Arc<str>,
    /// Where they are.
    gateways: channel::Sender<Gateways>,
    namespaces: BTreeMap<Arc<str>, Namespace>,
    /// Services of agents that may be parked: who finds nobody ready waits.
    wakes: BTreeSet<String>,
    /// Followers begun so far.
    ids: u64,
    /// The first answers may still be waited for.
    patient: bool,
}

/// One namespace and who follows it.
struct Namespace {
    id: u64,
    slices: BTreeMap<String, Slice>,
    listed: bool,
    away_since_ms: Option<u64>,
    task: JoinHandle<()>,
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Cluster {
    /// Begins and ends to follow, so that it is what this table names.
    fn narrow(&mut self, table: &config::Table) {
        let wanted = namespaces(table);
        self.own = table.kubernetes.namespace.as_str().into();
        let parked = k8s::owned(table).into_iter().filter(|owned| owned.idle.is_some());
        self.wakes = parked.map(|owned| format!("{}.{}", owned.name, owned.namespace)).collect();
        self.namespaces.retain(|name, _| wanted.contains(&**name));
        for name in wanted {
            let name: Arc<str> = name.into();
            if !self.namespaces.contains_key(&name) {
                let namespace = self.begin(&name);
                self.namespaces.insert(name, namespace);
            }
        }
    }

    fn begin(&mut self, name: &Arc<str>) -> Namespace {
        self.ids += 1;
        let follower = Follower {
            namespace: Arc::clone(name),
            which: Which::Labelled(slices::SERVICE),
            id: self.ids,
            credentials: self.credentials,
            news: self.news.clone(),
        };
        Namespace {
            id: self.ids,
            slices: BTreeMap::new(),
            listed: false,
            away_since_ms: None,
            task: tokio::spawn(follower.run()),
        }
    }

    fn take(&mut self, (name, id, news): Told<Slice>) {
        let Some(namespace) = self.namespaces.get_mut(&name).filter(|known| known.id == id) else {
            return;
        };
        match news {
            News::Listed(slices) => {
                namespace.slices = slices.into_iter().collect();
                namespace.listed = true;
                tracing::debug!(namespace = &*name, slices = namespace.slices.len(), "listed");
            }
            News::Changed(slice, told) => drop(namespace.slices.insert(slice, told)),
            News::Gone(slice) => drop(namespace.slices.remove(&slice)),
            News::Follows => {
                if let Some(since) = namespace.away_since_ms.take() {
                    let for_ms = now_ms().saturating_sub(since);
                    tracing::info!(namespace = &*name, for_ms, "the cluster is followed again");
                }
            }
            News::Away(error) => {
                if namespace.away_since_ms.is_none() {
                    namespace.away_since_ms = Some(now_ms());
                    let slices = namespace.slices.len();
                    tracing::warn!(
                        namespace = &*name,
                        error,
                        slices,
                        "the cluster's API can't be asked: what is known stays"
                    );
                }
            }
        }
    }

    /// The gateways first: who takes requests for a replica knows with whom it is shared.
    fn publish(&self, known: &channel::Sender<Arc<Known>>, status: &Status) {
        self.publish_gateways();
        status.set_away(self.namespaces.values().filter_map(|one| one.away_since_ms).min());
        let (mut replicas, mut pods) = (BTreeMap::new(), BTreeMap::new());
        for (name, namespace) in &self.namespaces {
            let mut services = BTreeMap::<&str, Vec<&Slice>>::new();
            for slice in namespace.slices.values() {
                services.entry(&slice.service).or_default().push(slice);
            }
            services.remove(k8s::PEERS_SERVICE);
            for (service, slices) in services {
                for (endpoint, pod) in slices::names(slices.iter().copied()) {
                    let pod = Pod { namespace: name.to_string(), name: pod.to_owned() };
                    pods.insert(endpoint, pod);
                }
                let service = format!("{service}.{name}");
                let wakes = self.wakes.contains(&service);
                replicas.insert(service, slices::replicas(slices.into_iter(), wakes));
            }
        }
        let complete = !self.patient || self.namespaces.values().all(|one| one.listed);
        let complete = complete || known.borrow().complete;
        let now = Known { replicas, pods, complete };
        known.send_if_modified(|before| {
            let changed = **before != now;
            if changed {
                *before = Arc::new(now);
            }
            changed
        });
    }

    fn publish_gateways(&self) {
        let Some(own) = self.namespaces.get(&self.own).filter(|own| own.listed) else { return };
        let slices = own.slices.values().filter(|slice| slice.service == k8s::PEERS_SERVICE);
        let now = Some(slices::all(slices));
        self.gateways.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
    }
}
