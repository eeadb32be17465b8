//! A cluster's API over real HTTP, as far as EndpointSlices go: list, watch, and what goes wrong
//! with them; the table's ConfigMap (`config_map`); Secrets that are got and created; and the objects
//! that scaling takes (`objects`). And the kubeconfig that leads there.

mod config_map;
mod objects;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use self::objects::Objects;
pub use config_map::Volume;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::agent::{Agent, Call};
use crate::gateway::Gateway;

/// The namespace of the tables that name none.
pub const NAMESPACE: &str = "ai-agents";

/// How the API behaves.
#[derive(Debug, Clone, Default)]
pub struct Ways {
    /// Every request is answered with this status.
    pub refuse: Option<u16>,
    /// Requests for these are answered with 403: `endpointslices`, `configmaps`, `events`.
    pub forbid: Vec<&'static str>,
    /// Every request for Secrets is.
    pub refuse_secrets: Option<u16>,
    /// Only this token is good.
    pub token: Option<String>,
    /// A list is answered after so long.
    pub slow: Duration,
    /// Slices on one page of a list, whatever was asked for; 0: as many as there are.
    pub page: usize,
    /// Watches from before this version are answered with 410, as an event of the watch.
    pub oldest: u64,
    /// Watches begun before the n-th of these are cut.
    pub cut: usize,
}

/// What the API holds: slices by namespace and name, and all that ever happened.
#[derive(Default)]
struct State {
    version: u64,
    slices: BTreeMap<(String, String), Value>,
    /// By path.
    secrets: BTreeMap<String, Value>,
    events: Vec<(u64, String, Value)>,
    objects: Objects,
    /// The table's ConfigMap, and the Events that were written.
    config_map: Option<Value>,
    written: Vec<Value>,
    ways: Ways,
    lists: usize,
    watches: usize,
    tokens: Vec<String>,
}

/// A stand-in for the cluster's API.
pub struct Cluster {
    /// Where it listens.
    pub addr: SocketAddr,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<()>,
    agent: Option<Agent>,
    folder: tempfile::TempDir,
}

/// An endpoint of a slice.
pub fn pod(uid: &str, conditions: &str) -> Value {
    pod_at("127.0.0.1", uid, conditions)
}

/// As [`pod`], with its address. `conditions`: `ready`, `starting` or `leaving`.
pub fn pod_at(ip: &str, uid: &str, conditions: &str) -> Value {
    let (ready, serving, terminating) = match conditions {
        "ready" => (true, true, false),
        "starting" => (false, false, false),
        "leaving" => (false, true, true),
        other => panic!("{other}?"),
    };
    json!({
        "addresses": [ip],
        "conditions": { "ready": ready, "serving": serving, "terminating": terminating },
        "targetRef": { "kind": "Pod", "name": uid, "uid": uid },
    })
}

/// The one port of a slice.
pub fn port(addr: SocketAddr) -> Value {
    json!([{ "name": "http", "port": addr.port(), "protocol": "TCP" }])
}

impl Cluster {
    /// An API without any slice.
    pub async fn start() -> Cluster {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "first").unwrap();
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: t\n\
             clusters: [{{name: t, cluster: {{server: \"http://{addr}\"}}}}]\n\
             users: [{{name: t, user: {{tokenFile: {}}}}}]\n\
             contexts: [{{name: t, context: {{cluster: t, user: t}}}}]\n",
            folder.path().join("token").display()
        );
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig).unwrap();
        let mut cluster = Cluster {
            addr,
            state: Arc::new(Mutex::new(State { version: 100, ..State::default() })),
            changed: watch::Sender::new(()),
            agent: None,
            folder,
        };
        cluster.listen(listener);
        cluster
    }

    fn listen(&mut self, listener: TcpListener) {
        let (state, changed) = (Arc::clone(&self.state), self.changed.clone());
        self.agent = Some(Agent::with_on(listener, move |call| {
            answer(call, Arc::clone(&state), changed.subscribe())
        }));
    }

    /// The kubeconfig's path.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Another token stands in the file.
    pub fn write_token(&self, token: &str) {
        std::fs::write(self.folder.path().join("token"), token).unwrap();
    }

    /// Starts a gateway that follows this cluster.
    pub async fn gateway(&self, agents: &str) -> Gateway {
        let text = format!("[gateway]\ndiscovery = \"kubernetes\"\n{agents}");
        Gateway::start_with(&text, &[("KUBECONFIG", self.kubeconfig().to_str().unwrap())]).await
    }

    /// Puts a slice of a Service in the table's namespace.
    pub fn put(&self, name: &str, service: &str, ports: &Value, pods: &[Value]) {
        self.put_in(NAMESPACE, name, service, ports, pods);
    }

    /// As [`Cluster::put`], in any namespace.
    pub fn put_in(&self, ns: &str, name: &str, service: &str, ports: &Value, pods: &[Value]) {
        self.change(|state| {
            let slice = json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": name,
                    "namespace": ns,
                    "resourceVersion": state.version.to_string(),
                    "labels": { "kubernetes.io/service-name": service },
                },
                "addressType": "IPv4",
                "ports": ports,
                "endpoints": pods,
            });
            let before = state.slices.insert((ns.into(), name.into()), slice.clone());
            let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
            state.events.push((state.version, ns.into(), json!({ "type": kind, "object": slice })));
        });
    }

    /// Takes a slice away.
    pub fn delete(&self, name: &str) {
        self.change(|state| {
            let slice = state.slices.remove(&(NAMESPACE.into(), name.into()));
            let mut slice = slice.expect("a slice to delete");
            slice["metadata"]["resourceVersion"] = state.version.to_string().into();
            let event = json!({ "type": "DELETED", "object": slice });
            state.events.push((state.version, NAMESPACE.into(), event));
        });
    }

    /// Tells all watches the version, as the API does now and then.
    pub fn bookmark(&self) {
        self.change(|state| {
            let metadata = json!({ "resourceVersion": state.version.to_string() });
            let object = json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
            });
            let event = json!({ "type": "BOOKMARK", "object": object });
            state.events.push((state.version, NAMESPACE.into(), event));
        });
    }

    /// Changes what there is without telling those who watch: it was compacted away. They are cut
    /// and learn that they are too far behind.
    pub fn put_behind_their_backs(&self, name: &str, service: &str, ports: &Value, pods: &[Value]) {
        self.put(name, service, ports, pods);
        self.change(|state| {
            state.events.clear();
            state.ways.oldest = state.version;
            state.ways.cut = state.watches;
        });
    }

    /// Changes how the API behaves from now on.
    pub fn behave(&self, how: impl FnOnce(&mut Ways)) {
        self.change(|state| how(&mut state.ways));
    }

    /// Ends all watches.
    pub fn cut_watches(&self) {
        self.change(|state| state.ways.cut = state.watches);
    }

    /// The API is gone: its port refuses, its connections are closed.
    pub fn stop(&mut self) {
        self.agent = None;
    }

    /// It is back, on the same port.
    pub async fn restart(&mut self) {
        let listener = TcpListener::bind(self.addr).await.unwrap();
        self.listen(listener);
    }

    /// The Secret at this path.
    pub fn secret(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().secrets.get(path).cloned()
    }

    /// Lists and watches so far.
    pub fn asked(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap();
        (state.lists, state.watches)
    }

    /// The tokens that came, one a request.
    pub fn tokens(&self) -> Vec<String> {
        self.state.lock().unwrap().tokens.clone()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        change(&mut state);
        drop(state);
        self.changed.send_replace(());
    }
}

fn query<'a>(target: &'a str, key: &str) -> Option<&'a str> {
    let (_, query) = target.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
}

fn status(code: u16) -> String {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "metadata": {},
        "code": code, "message": format!("refused with {code}"), "reason": "Test",
    });
    status.to_string()
}

async fn answer(call: Call, state: Arc<Mutex<State>>, changed: watch::Receiver<()>) {
    let target = call.target().to_owned();
    let token = call.header("authorization").unwrap_or_default().to_owned();
    let ways = {
        let mut state = state.lock().unwrap();
        state.tokens.push(token.trim_start_matches("Bearer ").to_owned());
        state.ways.clone()
    };
    let bad_token = ways.token.as_ref().filter(|good| token != format!("Bearer {good}"));
    let path = target.split('?').next().unwrap_or_default();
    let forbidden = ways.forbid.iter().any(|kind| path.ends_with(kind)).then_some(403);
    if let Some(code) = ways.refuse.or(bad_token.map(|_| 401)).or(forbidden) {
        return call
            .reply(&format!("{code} Refused\r\ncontent-type: application/json"), status(code))
            .await;
    }
    if target.contains("/secrets") {
        return secrets(call, ways.refuse_secrets, &state).await;
    }
    if path.ends_with("/configmaps") || path.ends_with("/events") {
        return config_map::answer(call, state, changed).await;
    }
    if !target.contains("/endpointslices") {
        return objects::answer(call, &state).await;
    }
    assert_eq!(query(&target, "labelSelector"), Some("kubernetes.io%2Fservice-name"), "{target}");
    let namespace = target.split('/').nth(5).expect("a namespace").to_owned();
    let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
    assert_eq!(target.split('?').next(), Some(&*path));
    if query(&target, "watch").is_some() {
        let nth = {
            let mut state = state.lock().unwrap();
            state.watches += 1;
            state.watches
        };
        return watch(call, &namespace, nth, state, changed).await;
    }
    tokio::time::sleep(ways.slow).await;
    let page = page(&target, &namespace, &mut state.lock().unwrap());
    call.json(&page.to_string()).await;
}

/// A Secret that is got, or created if there is none of its name.
async fn secrets(mut call: Call, refuse: Option<u16>, state: &Mutex<State>) {
    let path = call.target().split('?').next().unwrap_or_default().to_owned();
    let body = call.body().await;
    let (code, answer) = match (refuse, call.method()) {
        (Some(code), _) => (code, status(code)),
        (None, "GET") => match state.lock().unwrap().secrets.get(&path) {
            Some(secret) => (200, secret.to_string()),
            None => (404, status(404)),
        },
        (None, "POST") => {
            let secret: Value = serde_json::from_slice(&body).unwrap();
            let path = format!("{path}/{}", secret["metadata"]["name"].as_str().unwrap());
            let mut state = state.lock().unwrap();
            match state.secrets.contains_key(&path) {
                true => (409, status(409)),
                false => {
                    state.secrets.insert(path, secret.clone());
                    (201, secret.to_string())
                }
            }
        }
        (None, method) => panic!("{method} {path}?"),
    };
    call.reply(&format!("{code} Answered\r\ncontent-type: application/json"), answer).await;
}

fn page(target: &str, namespace: &str, state: &mut State) -> Value {
    state.lists += 1;
    let from: usize = query(target, "continue").map_or(0, |token| token.parse().unwrap());
    let most = if state.ways.page == 0 { usize::MAX } else { state.ways.page };
    let all: Vec<_> = state.slices.iter().filter(|((ns, _), _)| ns == namespace).collect();
    let items: Vec<_> = all.iter().skip(from).take(most).map(|(_, slice)| slice).collect();
    let next = from + items.len();
    let next = if next < all.len() { next.to_string() } else { String::new() };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSliceList",
        "metadata": { "resourceVersion": state.version.to_string(), "continue": next },
        "items": items,
    })
}

/// Events as they come, each in two chunks, until the watch is cut or left.
async fn watch(
    mut call: Call,
    namespace: &str,
    nth: usize,
    state: Arc<Mutex<State>>,
    mut changed: watch::Receiver<()>,
) {
    let from = query(call.target(), "resourceVersion").expect("a version to watch from");
    let mut seen: u64 = from.parse().unwrap();
    call.begin("200 OK\r\ncontent-type: application/json").await;
    loop {
        let (mut lines, cut) = {
            let state = state.lock().unwrap();
            let new = |(version, ns, _): &&(u64, String, Value)| *version > seen && ns == namespace;
            let lines: Vec<String> =
                state.events.iter().filter(new).map(|(_, _, event)| format!("{event}\n")).collect();
            let cut = nth <= state.ways.cut;
            let expired = !cut && seen < state.ways.oldest;
            seen = state.version;
            match expired {
                true => {
                    (vec![format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", status(410))], true)
                }
                false => (lines, cut),
            }
        };
        for line in lines.drain(..) {
            let (begin, end) = line.split_at(line.len() / 2);
            call.chunk(begin).await;
            call.chunk(end).await;
        }
        if cut {
            return;
        }
        tokio::select! {
            _ = changed.changed() => {}
            _ = call.reader().gone() => return,
        }
    }
}
