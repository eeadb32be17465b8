//! Several gateways of one cluster: they find each other, tell what all of them have to do, and
//! share the places of the replicas.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use serde_json::{Value, json};

use crate::agent::{Agent, Call};
use crate::ask::{get, post};
use crate::cluster::{Cluster, NAMESPACE, pod, pod_at, port};
use crate::gateway::Gateway;
use crate::open::Open;
use crate::reply::{BOTH, Http};
use crate::wire::eventually;

const QA: &str = "[agents.qa]\nservice = \"qa-agent\"\nmax_in_flight = 4\n\
    queue = { max = 500, timeout = \"60s\" }\n";
const SECRET: &str = "/api/v1/namespaces/ai-agents/secrets/switchyard-peers";

/// A table with these agents.
fn table_of(agents: &str) -> String {
    format!("[gateway]\ndiscovery = \"kubernetes\"\nadmin = \"0.0.0.0:0\"\n{agents}")
}

/// Gateways of one cluster, each listed by the headless Service from its start on.
struct Yard {
    cluster: Cluster,
    gateways: Vec<Gateway>,
}

impl Yard {
    /// A cluster with these replicas and so many gateways that know each other.
    async fn start(agents: &[&Agent], gateways: usize) -> Yard {
        let mut yard = Yard { cluster: Cluster::start().await, gateways: Vec::new() };
        for (n, agent) in agents.iter().enumerate() {
            let name = format!("qa-{n}");
            yard.cluster.put(&name, "qa-agent", &port(agent.addr), &[pod(&name, "ready")]);
        }
        for _ in 0..gateways {
            yard.add(&[]).await;
        }
        yard.until_all_know(gateways).await;
        yard
    }

    /// One more gateway, once it is ready.
    async fn add(&mut self, env: &[(&str, &str)]) {
        let text = table_of(QA);
        let kubeconfig = self.cluster.kubeconfig();
        let kubeconfig = [("KUBECONFIG", kubeconfig.to_str().unwrap())];
        let gateway = Gateway::start_with(&text, &[&kubeconfig, env].concat()).await;
        let ready = || async { gateway.admin("/readyz").await.status == 200 };
        eventually("it is ready", ready).await;
        self.list(&format!("g{}", self.gateways.len()), gateway.admin.port(), "127.0.0.1");
        self.gateways.push(gateway);
    }

    fn list(&self, name: &str, port: u16, ip: &str) {
        let ports = json!([
            { "name": "http", "port": 1, "protocol": "TCP" },
            { "name": "admin", "port": port, "protocol": "TCP" },
        ]);
        let service = "switchyard-peers";
        self.cluster.put(name, service, &ports, &[pod_at(ip, name, "starting")]);
    }

    async fn until_all_know(&self, n: usize) {
        for gateway in &self.gateways {
            until_knows(gateway, n).await;
        }
    }
}

async fn load(gateway: &Gateway, query: &str) -> Value {
    gateway.admin(&format!("/api/load{query}")).await.ok().json()
}

async fn until_knows(gateway: &Gateway, n: usize) {
    eventually(&format!("it knows {n} gateways"), || async {
        load(gateway, "").await["replicas"] == n
    })
    .await;
}

/// The places that each gateway takes for its share, once shares have settled.
async fn until_shares_sum_up(gateways: &[Gateway], sum: u64) {
    eventually(&format!("shares sum up to {sum}"), || async {
        let mut shares = 0;
        for gateway in gateways {
            shares +=
                load(gateway, "?scope=self").await["agents"]["qa"]["capacity"].as_u64().unwrap();
        }
        shares == sum
    })
    .await;
}

/// Agents that take four requests at once and refuse a fifth.
#[derive(Default)]
struct Counts {
    here: AtomicUsize,
    refused: AtomicUsize,
}

async fn takes_four(now: Arc<AtomicUsize>, most: Arc<AtomicUsize>) -> (Agent, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let kept = Arc::clone(&counts);
    let agent = Agent::with(move |call: Call| {
        let (counts, now, most) = (Arc::clone(&counts), Arc::clone(&now), Arc::clone(&most));
        async move {
            if counts.here.fetch_add(1, SeqCst) >= 4 {
                counts.here.fetch_sub(1, SeqCst);
                counts.refused.fetch_add(1, SeqCst);
                return call.not_begun().await;
            }
            most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
            now.fetch_sub(1, SeqCst);
            counts.here.fetch_sub(1, SeqCst);
            call.json("{}").await;
        }
    });
    (agent.await, kept)
}

#[tokio::test]
async fn a_limit_holds_over_all_gateways_and_all_places_are_used() {
    let (now, most) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
    let (one, first) = takes_four(Arc::clone(&now), Arc::clone(&most)).await;
    let (two, second) = takes_four(now, Arc::clone(&most)).await;
    let yard = Yard::start(&[&one, &two], 3).await;
    until_shares_sum_up(&yard.gateways, 8).await;
    let changes = || yard.gateways.iter().map(changes).sum::<usize>();
    let before = changes();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..36 {
        let client = yard.gateways[n % 3].client();
        tasks.spawn(async move {
            for _ in 0..20 {
                client.ask(BOTH[n % 2], post("/agents/qa/x", "{}")).await.ok();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(most.load(SeqCst), 8, "all places were used");
    let refused = first.refused.load(SeqCst) + second.refused.load(SeqCst);
    // On a machine so slow that a gateway isn't heard for 2 s, the agents' refusals count.
    if changes() == before {
        assert_eq!((one.count() + two.count(), refused), (720, 0), "no replica saw a fifth");
    }
}

/// How often a gateway has found others come or gone.
fn changes(gateway: &Gateway) -> usize {
    gateway.log().iter().filter(|line| line.contains("gateways that share the places")).count()
}

/// A stream through each of these gateways, and the agent's end of it.
async fn streams(gateways: &[Gateway], agent: &mut Agent) -> Vec<(Open, Call)> {
    let mut streams = Vec::new();
    for gateway in gateways {
        let open = gateway.open(Http::One, get("/agents/qa/stream")).await;
        streams.push((open, agent.call().await));
    }
    streams
}

#[tokio::test]
async fn load_is_the_sum_of_all_and_a_gateway_that_dies_is_forgotten() {
    let mut qa = Agent::manual().await;
    let mut yard = Yard::start(&[&qa], 3).await;
    // One of them has a second address.
    yard.list("again", yard.gateways[1].admin.port(), "127.0.0.2");
    let mut streams = streams(&yard.gateways, &mut qa).await;
    let whole = |n: u64| json!({"in_flight": n, "queued": 0, "held": 0, "load": n, "capacity": 4});
    for gateway in &yard.gateways {
        eventually("all is summed up", || async {
            load(gateway, "").await["agents"]["qa"] == whole(3)
        })
        .await;
        let own = load(gateway, "?scope=self").await;
        assert_eq!((&own["replicas"], &own["agents"]["qa"]["load"]), (&json!(1), &json!(1)));
        assert_eq!(gateway.metric("switchyard_load", &[("agent", "qa")]).await, Some(3.0));
        assert_eq!(gateway.metric("switchyard_gateways", &[]).await, Some(3.0));
    }
    let killed = yard.gateways.pop().unwrap();
    drop(killed);
    let (open, mut call) = streams.pop().unwrap();
    drop(open);
    call.gone().await;
    yard.until_all_know(2).await;
    until_shares_sum_up(&yard.gateways, 4).await;
    for gateway in &yard.gateways {
        let now = load(gateway, "").await;
        assert_eq!((&now["replicas"], &now["agents"]["qa"]), (&json!(2), &whole(2)));
    }
    for (open, call) in streams {
        call.json("{}").await;
        open.whole().await.ok();
    }
    for gateway in &yard.gateways {
        eventually("nothing is left", || async {
            load(gateway, "").await["agents"]["qa"] == whole(0)
        })
        .await;
    }
}

#[tokio::test]
async fn a_new_gateway_takes_no_place_that_another_still_has() {
    let mut qa = Agent::manual().await;
    let mut yard = Yard::start(&[&qa], 1).await;
    let all: Vec<&Gateway> = vec![&yard.gateways[0]; 4];
    let mut open = Vec::new();
    for gateway in all {
        let stream = gateway.open(Http::One, get("/agents/qa/old")).await;
        open.push((stream, qa.call().await));
    }
    yard.add(&[]).await;
    let new = &yard.gateways[1];
    let waiting = new.open(Http::One, get("/agents/qa/new")).await;
    new.until_state("qa", "queued", 1).await;
    yard.until_all_know(2).await;
    assert!(qa.try_call().is_none(), "a fifth");
    let (stream, call) = open.pop().unwrap();
    call.json("{}").await;
    stream.whole().await.ok();
    let call = qa.call().await;
    assert_eq!(call.target(), "/new");
    call.json("{}").await;
    waiting.whole().await.ok();
}

#[tokio::test]
async fn what_a_gateway_that_drains_still_runs_is_nobody_elses() {
    let mut qa = Agent::manual().await;
    let yard = Yard::start(&[&qa], 2).await;
    until_shares_sum_up(&yard.gateways, 4).await;
    let mut old = streams(&yard.gateways[..1], &mut qa).await;
    yard.gateways[0].sigterm();
    // What the other may have grows to all but the one.
    until_shares_sum_up(&yard.gateways[1..], 3).await;
    assert_eq!(load(&yard.gateways[1], "").await["agents"]["qa"]["load"], 1);
    let (stream, call) = old.pop().unwrap();
    call.json("{}").await;
    stream.whole().await.ok();
    until_shares_sum_up(&yard.gateways[1..], 4).await;
    until_knows(&yard.gateways[1], 1).await;
}

#[tokio::test]
async fn strangers_are_neither_answered_nor_counted() {
    let foreign =
        Agent::with(|call| call.json("{\"instance\":\"x\",\"leaving\":false,\"agents\":{}}")).await;
    let qa = crate::agent::answers("{}").await;
    let mut yard = Yard::start(&[&qa], 2).await;
    yard.list("foreign", foreign.addr.port(), "127.0.0.1");
    yard.add(&[("SWITCHYARD_PEER_KEY", "another key than the cluster's")]).await;
    yard.gateways[0].logged(&["another gateway isn't counted", "doesn't know us"]).await;
    yard.gateways[0].logged(&["another gateway isn't counted", "another server"]).await;
    eventually("the foreign server is asked", || async { foreign.count() > 2 }).await;
    for (gateway, n) in yard.gateways.iter().zip([2, 2, 1]) {
        assert_eq!(load(gateway, "").await["replicas"], n);
    }
    let signed = foreign.seen()[0].headers.get("authorization").unwrap().to_owned();
    let forged = signed.replace('.', ".0");
    for ask in [
        get("/api/peer"),
        get("/api/peer").header("authorization", &forged),
        get("/api/peer").header("authorization", "Switchyard-Peer"),
        get("/api/peer").header("authorization", "Bearer x"),
    ] {
        let client = crate::client::Client::unchecked(yard.gateways[0].admin);
        let refused = client.ask(Http::One, ask).await;
        assert_eq!((refused.status, refused.json()["code"].as_str()), (401, Some("unauthorized")));
        assert_eq!(refused.header("www-authenticate"), Some("Switchyard-Peer"));
    }
}

#[tokio::test]
async fn the_first_gateway_makes_the_key_and_nobody_tells_it() {
    let qa = crate::agent::answers("{}").await;
    let yard = Yard::start(&[&qa], 2).await;
    let secret = yard.cluster.secret(SECRET).expect("it was made");
    assert_eq!(secret["metadata"]["namespace"], NAMESPACE);
    let key = secret["data"]["key"].as_str().unwrap();
    assert!(key.len() > 80, "32 random bytes, in hexadecimal, in Base64");
    for gateway in &yard.gateways {
        assert!(!gateway.log().iter().any(|line| line.contains(key)));
        assert!(!gateway.admin("/readyz").await.text().contains(key));
    }
}

#[tokio::test]
async fn without_a_key_each_counts_itself_alone_until_there_is_one() {
    let qa = crate::agent::answers("{}").await;
    let mut yard = Yard::start(&[&qa], 0).await;
    yard.cluster.behave(|ways| ways.refuse_secrets = Some(403));
    for n in 0..2 {
        yard.add(&[]).await;
        let gateway = &yard.gateways[n];
        gateway.ask(get("/agents/qa/x")).await.ok();
        let said = gateway.admin("/readyz").await.json();
        assert_eq!(said["cluster"]["gateways"], 1);
        let problem = said["cluster"]["problem"].as_str().unwrap_or_default();
        assert!(problem.contains("switchyard-peers") && problem.contains("403"), "{said}");
        gateway.logged(&["counts itself alone", "403"]).await;
    }
    yard.cluster.behave(|ways| ways.refuse_secrets = None);
    yard.until_all_know(2).await;
    let said = yard.gateways[0].admin("/readyz").await.json();
    assert_eq!(said["cluster"], json!({ "gateways": 2, "problem": null }));
}

#[tokio::test]
async fn rates_are_shared_out_between_the_gateways_that_are_there() {
    let qa = Agent::with(|call| async move { call.json("{}").await }).await;
    let yard = Yard::start(&[&qa], 2).await;
    for gateway in &yard.gateways {
        let limited = format!("{QA}rate = {{ requests = 6, window = \"1h\" }}\n");
        gateway.edit(&table_of(&limited)).await;
        for left in [2, 1, 0] {
            let reply = gateway.ask(get("/agents/qa/x")).await.ok();
            let told = reply.headers.get("ratelimit").unwrap().to_owned();
            assert!(told.starts_with(&format!("\"agent-requests\";r={left};")), "{told}");
            let policy = reply.headers.get("ratelimit-policy");
            assert_eq!(policy, Some("\"agent-requests\";q=6;w=3600"));
        }
        gateway.ask(get("/agents/qa/x")).await.error("rate-limited");
    }
}
