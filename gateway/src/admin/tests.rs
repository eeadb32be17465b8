//! What operators are told, asked of the router itself.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;

use http::HeaderMap;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::admission::Ask;
use crate::cluster::peers::Peers;
use crate::discovery;
use crate::discovery::managed::{self, ManagedAgent, Replica};
use crate::error::Code;
use crate::headroom::Headroom;
use crate::metrics::{Metrics, Outcome};
use crate::shared::Connected;
use crate::table::{Refused, Tables};

const QA: &str = "[agents.qa]\ndescription = \"Answers\"\nendpoints = [\"http://127.0.0.1:1\"]\n";
const CODING: &str = "[agents.coding]\nendpoints = [\"http://127.0.0.1:2\"]\nmax_in_flight = 2\n";

/// A gateway without sockets.
struct Yard {
    shared: Arc<Shared>,
    phase: watch::Sender<Phase>,
    fleet: watch::Sender<Arc<Fleet>>,
    router: Router,
    _connected: [Connected; 3],
}

struct Reply {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }
}

fn parse(text: &str) -> Arc<config::Table> {
    Arc::new(config::parse(text, "t.toml").unwrap().table)
}

impl Yard {
    fn new(text: &str) -> Self {
        let (table, metrics) = (parse(text), Arc::new(Metrics::new()));
        let found = managed::find(&table, &Fleet::new());
        let tables = Tables::new(table, &found, Arc::clone(&metrics)).unwrap();
        let shared = Arc::new(Shared::new(Arc::new(tables), metrics, 2, (10, Headroom::new(1000))));
        let connected = [0, 1, 1].map(|worker: usize| shared.loads[worker].connected());
        let (phase, fleet) = (watch::Sender::new(Phase::Running), watch::Sender::default());
        let managed = Some(fleet.subscribe());
        let peers = Peers::new(Arc::clone(&shared), phase.subscribe(), &discovery::Peers::None);
        let admin = Admin::new(
            Arc::clone(&shared),
            phase.subscribe(),
            managed,
            Arc::new(Status::at_hand("managed")),
            Board::new(Arc::clone(&shared), Arc::new(peers)),
            None,
        );
        Self { shared, phase, fleet, router: router(Arc::new(admin)), _connected: connected }
    }

    fn replace(&self, text: &str) {
        let table = parse(text);
        let found = managed::find(&table, &self.fleet.borrow());
        self.shared.tables.replace(table, &found).unwrap();
    }

    async fn ask(&self, request: http::request::Builder) -> Reply {
        let request = request.body(Body::empty()).unwrap();
        let (parts, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Reply { status: parts.status.as_u16(), headers: parts.headers, text }
    }

    async fn get(&self, path: &str) -> Reply {
        self.ask(Request::get(path)).await
    }
}

#[tokio::test]
async fn it_is_ready_until_the_drain_begins_whatever_was_refused() {
    let yard = Yard::new(QA);
    let problems = vec!["t.toml:1:1: no".to_owned()];
    yard.shared.tables.refuse(Refused { problems: problems.clone(), hash: "00".into() });
    for (phase, status, word) in [
        (Phase::Running, 200, "ready"),
        (Phase::Closing, 503, "draining"),
        (Phase::Draining, 503, "draining"),
    ] {
        yard.phase.send_replace(phase);
        let reply = yard.get("/readyz").await;
        assert_eq!((reply.status, &reply.json()["status"]), (status, &json!(word)));
        assert_eq!(reply.json()["refused"]["problems"], json!(problems));
        assert_eq!(reply.json()["generation"], 1);
        assert_eq!(reply.headers["cache-control"], "no-store");
        assert_eq!(yard.get("/livez").await.status, 200);
    }
    yard.replace(CODING);
    let table = yard.get("/api/table").await.json();
    assert_eq!((&table["generation"], &table["refused"]), (&json!(2), &Value::Null));
    assert_eq!(table["hash"], json!(parse(CODING).hash));
    assert_eq!(table["table"]["agents"]["coding"]["max_in_flight"], 2);
}

#[tokio::test]
async fn an_error_is_a_problem_document() {
    let yard = Yard::new(QA);
    let own_id = |request: http::request::Builder| request.header("x-request-id", "mine");
    for (request, status, code) in [
        (Request::get("/nothing"), 404, "not-found"),
        (Request::get("/api/agents/qb"), 404, "unknown-agent"),
        (Request::get("/api/agents/%ff"), 400, "bad-request"),
        (Request::get("/api/load?scope=x"), 400, "bad-request"),
        (Request::post("/readyz"), 405, "method-not-allowed"),
        (Request::get("/livez").header("content-length", "1000000"), 413, "body-too-large"),
    ] {
        let reply = yard.ask(own_id(request)).await;
        assert_eq!((reply.status, &reply.json()["code"]), (status, &json!(code)));
        assert_eq!(reply.headers["content-type"], "application/problem+json");
        assert_eq!(reply.headers["x-switchyard-error"], code);
        assert_eq!(reply.json()["request_id"], "mine");
        assert_eq!(reply.headers.get("allow").is_some(), status == 405);
    }
    let reply = yard.ask(Request::head("/readyz")).await;
    assert_eq!((reply.status, reply.text.as_str()), (200, ""));
    let ids = yard.ask(Request::get("/nothing").header("x-request-id", "not an id")).await;
    assert_eq!(ids.headers["x-request-id"].len(), 36);
}

#[tokio::test]
async fn an_agent_is_idle_where_it_may_be_parked_and_down_where_it_may_not() {
    let run = |name: &str, scale: &str| {
        let deployment = format!("[agents.{name}.deployment]\ncommand = [\"agent\"]\n");
        format!("{deployment}[agents.{name}.scale]\nmax = 2\n{scale}\n")
    };
    let sharer = |name: &str, of: &str| format!("[agents.{name}]\nshares = \"{of}\"\n");
    let up = [QA, &sharer("quick", "qa")].concat();
    let parked = run("parked", "min = 0\nidle = \"15m\"") + &sharer("too", "parked");
    let yard = Yard::new(&format!("{up}{parked}"));
    let reply = yard.get("/health").await;
    let checks = json!({ "parked": "idle", "qa": "ok", "quick": "ok", "too": "idle" });
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json(), json!({ "status": "ok", "checks": checks }));
    yard.replace(&format!("{up}{}", run("gone", "min = 1")));
    let reply = yard.get("/health").await;
    let checks = json!({ "gone": "down", "qa": "ok", "quick": "ok" });
    assert_eq!(reply.status, 503);
    assert_eq!(reply.json(), json!({ "status": "degraded", "checks": checks }));
}

#[tokio::test]
async fn what_up_runs_is_told_with_its_memory() {
    let sharer = "[agents.quick]\nshares = \"qa\"\n";
    let yard = Yard::new(&[QA, CODING, sharer].concat());
    let replica = |port, bytes| Replica {
        endpoint: config::Endpoint { host: "127.0.0.1".into(), port },
        memory_bytes: Arc::new(AtomicU64::new(bytes)),
    };
    let replicas = vec![replica(7, 100), replica(8, 0), replica(9, 20)];
    let fleet = Fleet::from([("qa".to_owned(), ManagedAgent { desired: 4, replicas })]);
    yard.fleet.send_replace(Arc::new(fleet));
    let table = Arc::clone(&yard.shared.tables.current().table);
    yard.shared.tables.rediscover(&managed::find(&table, &yard.fleet.borrow()));
    for name in ["qa", "quick"] {
        let state = yard.get(&format!("/api/agents/{name}")).await.json();
        assert_eq!((&state["ready"], &state["desired"]), (&json!(3), &json!(4)));
        assert_eq!(state["memory_bytes"], 120);
        assert_eq!(state["endpoints"][1]["memory_bytes"], Value::Null);
        assert_eq!(state["endpoints"][2]["memory_bytes"], 20);
    }
    let coding = yard.get("/api/agents/coding").await.json();
    assert_eq!((&coding["desired"], &coding["memory_bytes"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn load_is_what_runs_waits_and_is_held() {
    let yard = Yard::new(&[QA, CODING].concat());
    let state = yard.shared.tables.state("coding").unwrap();
    let queue = config::Queue { max: 1, bytes: 1 << 20, timeout: Duration::from_secs(9) };
    for _ in 0..2 {
        state.admission.enter(Ask::default(), queue).await.unwrap();
    }
    state.admission.hold();
    let waits = Arc::clone(&state);
    let waiting = tokio::spawn(async move { waits.admission.enter(Ask::default(), queue).await });
    while state.admission.queued() == 0 {
        tokio::task::yield_now().await;
    }
    let coding = json!({ "in_flight": 1, "queued": 1, "held": 1, "load": 3, "capacity": 2 });
    let idle = json!({ "in_flight": 0, "queued": 0, "held": 0, "load": 0, "capacity": null });
    let load = json!({ "agents": { "coding": coding, "qa": idle }, "replicas": 1 });
    assert_eq!(yard.get("/api/load").await.json(), load);
    assert_eq!(yard.get("/api/load?scope=self").await.json(), load);
    waiting.abort();
}

/// The value of a series in Prometheus text.
fn value(text: &str, series: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).to_owned()
}

#[tokio::test]
async fn gauges_follow_an_agent_out_of_the_table() {
    let yard = Yard::new(&[QA, CODING].concat());
    let state = yard.shared.tables.state("coding").unwrap();
    let queue = config::Queue { max: 1, bytes: 1 << 20, timeout: Duration::from_secs(9) };
    let seat = state.admission.enter(Ask::default(), queue).await.unwrap();
    let read = async |in_flight: &str, ready: &str| {
        let text = yard.get("/metrics").await.text;
        assert_eq!(value(&text, "switchyard_in_flight{agent=\"coding\"}"), in_flight);
        let of = |state| format!("switchyard_endpoints{{agent=\"coding\",state=\"{state}\"}}");
        assert_eq!(value(&text, &of("ready")), ready);
        assert_eq!(value(&text, &of("ejected")), "0");
        assert_eq!(value(&text, &of("unhealthy")), "0");
        assert_eq!(value(&text, "switchyard_connections"), "3");
        assert_eq!(value(&text, "switchyard_worker_connections{worker=\"1\"}"), "2");
    };
    read("1", "1").await;
    yard.replace(QA);
    read("1", "0").await;
    state.admission.leave(seat);
    drop(state);
    read("0", "0").await;
}

/// Name, type and labels of every metric in Prometheus text.
fn rendered(text: &str) -> BTreeSet<(String, String, String)> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let labels = |name: &str, kind: &str| {
        let name = if kind == "histogram" { format!("{name}_count") } else { name.to_owned() };
        let found = text.lines().find_map(|line| line.strip_prefix(&name)?.strip_prefix('{'));
        let labels = found.and_then(|rest| rest.split('}').next()).unwrap_or_default();
        let names: BTreeSet<_> = labels.split(',').filter_map(|l| l.split('=').next()).collect();
        names.into_iter().map(str::to_owned).collect::<Vec<_>>().join(", ")
    };
    let of = |line: &str| {
        let (name, kind) = line.split_once(' ').unwrap();
        (name.to_owned(), kind.to_owned(), labels(name, kind))
    };
    types.map(of).collect()
}

/// The same of the tables in the documentation.
fn documented(page: &str) -> BTreeSet<(String, String, String)> {
    let rows = page.lines().filter(|line| line.starts_with("| `switchyard_"));
    let of = |row: &str| {
        let cells: Vec<_> = row.split('|').map(|cell| cell.trim().replace('`', "")).collect();
        (cells[1].clone(), cells[2].clone(), cells[3].clone())
    };
    rows.map(of).collect()
}

#[tokio::test]
async fn every_metric_and_every_value_of_a_label_is_documented_and_nothing_else_is() {
    let yard = Yard::new(QA);
    let metrics = yard.shared.metrics.agent("qa");
    metrics.ended(Outcome::Ok, Duration::from_millis(5));
    metrics.first_byte(Duration::from_millis(4));
    metrics.queue.record(Duration::from_millis(1));
    metrics.start.record(Duration::from_secs(3));
    yard.shared.metrics.unrouted(Code::UnknownAgent);
    let reply = yard.get("/metrics").await;
    assert_eq!(reply.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let page = include_str!("../../../docs/metrics.md");
    assert_eq!(rendered(&reply.text), documented(page));
    for outcome in [Outcome::Ok, Outcome::UpstreamError].map(Outcome::as_str) {
        assert!(page.contains(&format!("`{outcome}`")), "{outcome}");
    }
    for code in Code::ALL.map(Code::as_str) {
        assert!(page.contains(&format!("`{code}`")), "{code}");
    }
    for state in crate::pool::State::ALL.map(crate::pool::State::as_str) {
        assert!(page.contains(&format!("`{state}`")), "{state}");
    }
}
