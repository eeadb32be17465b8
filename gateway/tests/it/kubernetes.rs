//! Discovery by EndpointSlices, with a stand-in for the cluster's API.

use std::time::Duration;

use serde_json::{Value, json};

use crate::agent::{Agent, answers};
use crate::ask::get;
use crate::cluster::{Cluster, pod, pod_at, port};
use crate::gateway::{Gateway, agent, refused_start};
use crate::reply::{BOTH, Http};
use crate::wire::eventually;

const QA: &str = "[agents.qa]\nservice = \"qa-agent\"\n";
const AWAY: &str = "the cluster's API can't be asked";
const AGE: &str = "switchyard_discovery_age_seconds";

async fn asked(gateway: &Gateway) -> String {
    gateway.ask(get("/agents/qa/x")).await.ok().text()
}

async fn until_ready(gateway: &Gateway) -> Value {
    eventually("it is ready", || async { gateway.admin("/readyz").await.status == 200 }).await;
    gateway.admin("/readyz").await.json()
}

#[tokio::test]
async fn a_pod_that_turns_ready_gets_requests() {
    let (cluster, one, two) = (Cluster::start().await, answers("1").await, answers("2").await);
    cluster.put("qa-1", "qa-agent", &port(one.addr), &[pod("a", "starting")]);
    let gateway = cluster.gateway(QA).await;
    let ready = until_ready(&gateway).await;
    let followed = json!({ "source": "kubernetes", "age_seconds": 0.0, "error": null });
    assert_eq!(ready["discovery"], followed);
    gateway.ask(get("/agents/qa/x")).await.error("no-endpoint");
    cluster.put("qa-1", "qa-agent", &port(one.addr), &[pod("a", "ready")]);
    gateway.until_state("qa", "ready", 1).await;
    assert_eq!(asked(&gateway).await, "1");
    cluster.put("qa-2", "qa-agent", &port(two.addr), &[pod("b", "ready")]);
    gateway.until_state("qa", "ready", 2).await;
    eventually("both are asked", || async { asked(&gateway).await == "2" }).await;
    cluster.delete("qa-2");
    gateway.until_state("qa", "ready", 1).await;
    assert_eq!(asked(&gateway).await, "1");
}

#[tokio::test]
async fn one_that_terminates_gets_no_new_requests_while_its_streams_go_on() {
    for http in BOTH {
        let (cluster, mut old) = (Cluster::start().await, Agent::manual().await);
        let new = answers("new").await;
        cluster.put("old", "qa-agent", &port(old.addr), &[pod("a", "ready")]);
        let gateway = cluster.gateway(QA).await;
        gateway.until_state("qa", "ready", 1).await;
        let mut open = gateway.open(http, get("/agents/qa/stream")).await;
        let mut call = old.call().await;
        call.begin_sse().await;
        call.event("one").await;
        open.until("one\n\n").await;

        cluster.put("new", "qa-agent", &port(new.addr), &[pod("b", "ready")]);
        cluster.put("old", "qa-agent", &port(old.addr), &[pod("a", "leaving")]);
        gateway.until_endpoint("qa", old.addr, "draining").await;
        let draining = [("agent", "qa"), ("state", "draining")];
        gateway.until_metric("switchyard_endpoints", &draining, 1.0).await;
        for _ in 0..20 {
            assert_eq!(asked(&gateway).await, "new");
        }
        assert_eq!((gateway.state("qa").await["ready"].as_u64(), old.count()), (Some(1), 1));

        // The pod's slice entry goes; what it does is not cut either.
        cluster.delete("old");
        call.event("two").await;
        open.until("two\n\n").await;
        call.end().await;
        open.rest().await.ok();
        gateway.until_endpoint("qa", old.addr, "absent").await;
        gateway.until_metric("switchyard_endpoints", &draining, 0.0).await;
    }
}

#[tokio::test]
async fn streams_at_a_pod_that_leaves_take_no_places_from_the_new_one() {
    let (cluster, mut old) = (Cluster::start().await, Agent::manual().await);
    let mut new = Agent::manual().await;
    cluster.put("qa", "qa-agent", &port(old.addr), &[pod("a", "ready")]);
    let limits = "max_in_flight = 2\nqueue = { timeout = \"20s\" }\n";
    let gateway = cluster.gateway(&format!("{QA}{limits}")).await;
    gateway.until_state("qa", "capacity", 2).await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let open = gateway.open(Http::One, get("/agents/qa/stream")).await;
        streams.push((open, old.call().await));
    }
    cluster.put("qa", "qa-agent", &port(new.addr), &[pod("b", "ready")]);
    gateway.until_endpoint("qa", new.addr, "ready").await;
    let first = gateway.open(Http::One, get("/agents/qa/x")).await;
    let first = (first, new.call().await);
    let second = gateway.open(Http::One, get("/agents/qa/x")).await;
    let second = (second, new.call().await);
    // The new one is full: a third waits, also when streams at the old one end.
    let third = gateway.open(Http::One, get("/agents/qa/x")).await;
    gateway.until_state("qa", "queued", 1).await;
    for (open, call) in streams {
        call.json("old").await;
        assert_eq!(open.whole().await.ok().text(), "old");
    }
    gateway.until_state("qa", "capacity", 2).await;
    gateway.until_state("qa", "queued", 1).await;
    assert_eq!(new.count(), 2);
    first.1.json("1").await;
    first.0.whole().await.ok();
    new.call().await.json("3").await;
    third.whole().await.ok();
    second.1.json("2").await;
    second.0.whole().await.ok();
}

#[tokio::test]
async fn with_nobody_ready_those_that_leave_and_still_serve_are_asked() {
    let (cluster, qa) = (Cluster::start().await, answers("1").await);
    cluster.put("qa", "qa-agent", &port(qa.addr), &[pod("a", "leaving")]);
    let gateway = cluster.gateway(QA).await;
    gateway.until_state("qa", "ready", 1).await;
    assert_eq!(asked(&gateway).await, "1");
}

#[tokio::test]
async fn who_is_too_far_behind_lists_again() {
    let (cluster, one, two) = (Cluster::start().await, answers("1").await, answers("2").await);
    cluster.put("qa", "qa-agent", &port(one.addr), &[pod("a", "ready")]);
    let gateway = cluster.gateway(QA).await;
    gateway.until_state("qa", "ready", 1).await;
    cluster.put_behind_their_backs("qa", "qa-agent", &port(two.addr), &[pod("b", "ready")]);
    gateway.until_endpoint("qa", two.addr, "ready").await;
    assert_eq!(asked(&gateway).await, "2");
    assert_eq!(gateway.endpoint_states("qa", &[one.addr]).await, ["absent"]);
    assert!(cluster.asked().0 >= 2, "listed again: {:?}", cluster.asked());
    assert!(!gateway.log().iter().any(|line| line.contains(AWAY)), "that is no failure");
}

#[tokio::test]
async fn a_watch_that_ends_goes_on_from_the_last_bookmark() {
    let (cluster, one, two) = (Cluster::start().await, answers("1").await, answers("2").await);
    cluster.put("qa", "qa-agent", &port(one.addr), &[pod("a", "ready")]);
    let gateway = cluster.gateway(QA).await;
    gateway.until_state("qa", "ready", 1).await;
    cluster.bookmark();
    for n in 1..4 {
        let (_, before) = cluster.asked();
        cluster.cut_watches();
        eventually("it watches again", || async { cluster.asked().1 > before }).await;
        let (here, state) = if n % 2 == 0 { (&one, "ready") } else { (&two, "ready") };
        cluster.put("qa", "qa-agent", &port(here.addr), &[pod("a", state)]);
        gateway.until_endpoint("qa", here.addr, "ready").await;
    }
    assert_eq!(cluster.asked().0, 1, "never listed again");
    assert_eq!(asked(&gateway).await, "2");
}

#[tokio::test]
async fn while_the_api_is_away_the_last_state_serves_and_its_age_is_told() {
    let (mut cluster, one, two) = (Cluster::start().await, answers("1").await, answers("2").await);
    cluster.put("qa", "qa-agent", &port(one.addr), &[pod("a", "ready")]);
    let gateway = cluster.gateway(QA).await;
    gateway.until_state("qa", "ready", 1).await;
    assert_eq!(gateway.metric(AGE, &[]).await, Some(0.0));
    cluster.stop();
    gateway.logged(&[AWAY, "ai-agents"]).await;
    eventually("it grows old", || async { gateway.metric(AGE, &[]).await > Some(0.3) }).await;
    assert_eq!(asked(&gateway).await, "1");
    let ready = gateway.admin("/readyz").await.ok().json();
    assert!(ready["discovery"]["age_seconds"].as_f64() > Some(0.3), "{ready}");
    // An edit while it is away works with what is known.
    gateway
        .edit(&format!("[gateway]\ndiscovery = \"kubernetes\"\n{QA}idle_timeout = \"9s\"\n"))
        .await;
    assert_eq!(asked(&gateway).await, "1");

    cluster.restart().await;
    cluster.put("qa", "qa-agent", &port(two.addr), &[pod("b", "ready")]);
    gateway.until_endpoint("qa", two.addr, "ready").await;
    assert_eq!(asked(&gateway).await, "2");
    gateway.until_metric(AGE, &[], 0.0).await;
    gateway.logged(&["followed again"]).await;
    assert_eq!(gateway.log().iter().filter(|line| line.contains(AWAY)).count(), 1, "told once");
}

#[tokio::test]
async fn slices_pages_duplicates_and_ports_come_to_each_replica_once() {
    let (cluster, one, two) = (Cluster::start().await, answers("1").await, answers("2").await);
    cluster.behave(|ways| ways.page = 1);
    let ports = |http: u16| {
        json!([
            { "name": "metrics", "port": 9, "protocol": "TCP" },
            { "name": "http", "port": http, "protocol": "TCP" },
        ])
    };
    let (first, second) = (ports(one.addr.port()), ports(two.addr.port()));
    cluster.put("qa-1", "qa-agent", &first, &[pod("a", "ready"), pod_at("::1", "a", "ready")]);
    cluster.put("qa-2", "qa-agent", &first, &[pod("a", "ready"), pod("c", "starting")]);
    cluster.put("qa-3", "qa-agent", &second, &[pod("b", "ready")]);
    cluster.put("other", "other-agent", &second, &[pod("d", "ready")]);
    let gateway = cluster.gateway(QA).await;
    gateway.until_state("qa", "ready", 2).await;
    assert_eq!(gateway.endpoint_states("qa", &[one.addr, two.addr]).await, ["ready", "ready"]);
    assert!(cluster.asked().0 >= 4, "a page each: {:?}", cluster.asked());
}

#[tokio::test]
async fn a_pod_may_have_an_ipv6_address() {
    let Ok(listener) = tokio::net::TcpListener::bind("[::1]:0").await else {
        return println!("skipped: no IPv6 here");
    };
    let qa = Agent::with_on(listener, |call| call.json("6"));
    let cluster = Cluster::start().await;
    cluster.put("qa", "qa-agent", &port(qa.addr), &[pod_at("::1", "a", "ready")]);
    let gateway = cluster.gateway(QA).await;
    gateway.until_endpoint("qa", qa.addr, "ready").await;
    assert_eq!(asked(&gateway).await, "6");
}

#[tokio::test]
async fn a_new_token_is_taken_up() {
    let (cluster, one, two) = (Cluster::start().await, answers("1").await, answers("2").await);
    cluster.put("qa", "qa-agent", &port(one.addr), &[pod("a", "ready")]);
    let gateway = cluster.gateway(QA).await;
    gateway.until_state("qa", "ready", 1).await;
    cluster.behave(|ways| ways.token = Some("second".into()));
    cluster.cut_watches();
    gateway.logged(&[AWAY, "401"]).await;
    assert_eq!(asked(&gateway).await, "1");
    cluster.put("qa", "qa-agent", &port(two.addr), &[pod("b", "ready")]);
    cluster.write_token("second");
    gateway.until_endpoint("qa", two.addr, "ready").await;
    let tokens = cluster.tokens();
    assert_eq!((tokens[0].as_str(), tokens.last().unwrap().as_str()), ("first", "second"));
}

#[tokio::test]
async fn it_is_not_ready_before_the_first_answer() {
    let (cluster, qa) = (Cluster::start().await, answers("1").await);
    cluster.put("qa", "qa-agent", &port(qa.addr), &[pod("a", "ready")]);
    cluster.behave(|ways| ways.refuse = Some(503));
    let gateway = cluster.gateway(QA).await;
    gateway.logged(&[AWAY, "503"]).await;
    let reply = gateway.admin("/readyz").await;
    assert_eq!((reply.status, reply.json()["status"].clone()), (503, "starting".into()));
    assert_eq!(gateway.admin("/livez").await.status, 200);
    // A restarted one is asked before the cluster has noticed that it isn't ready.
    let mut early = Vec::new();
    for http in BOTH {
        early.push(gateway.open(http, get("/agents/qa/x")).await);
    }
    cluster.behave(|ways| {
        ways.refuse = None;
        ways.slow = Duration::from_millis(200);
    });
    until_ready(&gateway).await;
    for open in early {
        assert_eq!(open.whole().await.ok().text(), "1");
    }
    assert_eq!(asked(&gateway).await, "1");
}

#[tokio::test]
async fn an_api_that_stays_away_does_not_keep_it_out_for_ever() {
    let (mut cluster, local) = (Cluster::start().await, answers("1").await);
    cluster.stop();
    let gateway = cluster.gateway(&format!("{QA}{}", agent("local", &[local.addr], ""))).await;
    assert_eq!(gateway.admin("/readyz").await.status, 503);
    let ready = until_ready(&gateway).await;
    assert!(ready["discovery"]["age_seconds"].as_f64() > Some(0.0), "{ready}");
    gateway.ask(get("/agents/qa/x")).await.error("no-endpoint");
    gateway.ask(get("/agents/local/x")).await.ok();
}

#[tokio::test]
async fn services_of_other_namespaces_and_of_versions_are_followed_as_the_table_names_them() {
    let cluster = Cluster::start().await;
    let (near, far, new) = (answers("near").await, answers("far").await, answers("new").await);
    cluster.put("qa", "qa-agent", &port(near.addr), &[pod("a", "ready")]);
    cluster.put_in("team", "x", "search", &port(far.addr), &[pod("b", "ready")]);
    cluster.put_in("team", "y", "search-next", &port(new.addr), &[pod("c", "ready")]);
    cluster.put_in("team", "z", "qa-agent", &port(new.addr), &[pod("d", "ready")]);
    let gateway = cluster.gateway(QA).await;
    gateway.until_state("qa", "ready", 1).await;
    let versions = "[agents.search]\nversions = [{ service = \"search.team\", weight = 1 }, \
        { service = \"search-next.team\", weight = 1 }]\n";
    gateway.edit(&format!("[gateway]\ndiscovery = \"kubernetes\"\n{QA}{versions}")).await;
    gateway.until_state("search", "ready", 2).await;
    let ask = || async { gateway.ask(get("/agents/search/x")).await.ok().text() };
    eventually("the one version is asked", || async { ask().await == "far" }).await;
    eventually("the other version is asked", || async { ask().await == "new" }).await;
    assert_eq!(asked(&gateway).await, "near");
}

#[tokio::test]
async fn an_agent_of_a_namespace_that_is_followed_answers_with_the_edit_that_names_it() {
    let (cluster, qa, new) = (Cluster::start().await, answers("1").await, answers("2").await);
    cluster.put("qa", "qa-agent", &port(qa.addr), &[pod("a", "ready")]);
    cluster.put("new", "new-agent", &port(new.addr), &[pod("b", "ready")]);
    let gateway = cluster.gateway(QA).await;
    gateway.until_state("qa", "ready", 1).await;
    let more = "[agents.new]\nservice = \"new-agent\"\n";
    gateway.edit(&format!("[gateway]\ndiscovery = \"kubernetes\"\n{QA}{more}")).await;
    let reply = gateway.ask_by(Http::Two, get("/agents/new/x")).await;
    assert_eq!(reply.ok().text(), "2");
}

#[tokio::test]
async fn without_credentials_the_start_is_refused() {
    let text = format!("[gateway]\ndiscovery = \"kubernetes\"\n{QA}");
    let (code, said) = refused_start(&text).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("no usable credentials") && said.contains("/nonexistent/"), "{said}");
}
