//! `max_in_flight` and the queue: how many at once, in which order, and until when.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::agent::{Agent, Call, Refusing};
use crate::ask::{get, post};
use crate::gateway::{Gateway, agent};
use crate::reply::{BOTH, Http};

const ONE: &str = "max_in_flight = 1\nqueue = { max = 64, timeout = \"60s\" }";

#[tokio::test]
async fn never_more_than_the_limit_are_at_a_replica() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counting = {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        move |call: Call| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                call.json("{}").await;
            }
        }
    };
    let qa = Agent::with(counting).await;
    let settings = "max_in_flight = 2\nqueue = { max = 64, timeout = \"60s\" }";
    // Two workers: the limit is the agent's, not a worker's.
    let gateway = Gateway::start(&agent("qa", &[qa.addr], settings)).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..16 {
        let client = gateway.client();
        tasks.spawn(async move {
            for _ in 0..10 {
                client.ask(BOTH[n % 2], post("/agents/qa/x", "{}")).await.ok();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!((qa.count(), most.load(Ordering::SeqCst)), (160, 2));
}

#[tokio::test]
async fn the_limit_is_per_replica() {
    let (mut a, mut b) = (Agent::manual().await, Agent::manual().await);
    let gateway = Gateway::start(&agent("qa", &[a.addr, b.addr], ONE)).await;
    let first = gateway.open(Http::One, get("/agents/qa/x")).await;
    let second = gateway.open(Http::One, get("/agents/qa/x")).await;
    let (call_a, call_b) = (a.call().await, b.call().await);
    let third = gateway.open(Http::One, get("/agents/qa/x")).await;
    gateway.until_state("qa", "queued", 1).await;
    assert_eq!(gateway.state("qa").await["capacity"], 2);
    call_b.json("{}").await;
    b.call().await.json("{}").await;
    call_a.json("{}").await;
    for open in [first, second, third] {
        open.whole().await.ok();
    }
}

#[tokio::test]
async fn who_waits_longest_is_next() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], ONE)).await;
    let mut opens = vec![gateway.open(Http::One, get("/agents/qa/0")).await];
    let mut call = qa.call().await;
    for n in 1..=10u64 {
        let http = BOTH[usize::try_from(n).unwrap() % 2];
        opens.push(gateway.open(http, post(&format!("/agents/qa/{n}"), "{}")).await);
        gateway.until_state("qa", "queued", n).await;
    }
    for n in 0..10 {
        assert_eq!(call.target(), format!("/{n}"));
        call.json("{}").await;
        call = qa.call().await;
    }
    call.json("{}").await;
    for open in opens {
        open.whole().await.ok();
    }
}

#[tokio::test]
async fn a_place_is_kept_until_the_last_byte() {
    for http in BOTH {
        let mut qa = Agent::manual().await;
        let gateway = Gateway::start(&agent("qa", &[qa.addr], ONE)).await;
        let mut first = gateway.open(http, get("/agents/qa/first")).await;
        let mut call = qa.call().await;
        call.begin_sse().await;
        call.event("one").await;
        first.until("one\n\n").await;
        let second = gateway.open(http, get("/agents/qa/second")).await;
        gateway.until_state("qa", "queued", 1).await;
        assert_eq!(gateway.state("qa").await["in_flight"], 1);
        assert!(qa.try_call().is_none());
        call.end().await;
        first.rest().await.ok();
        let call = qa.call().await;
        assert_eq!(call.target(), "/second");
        call.json("{}").await;
        second.whole().await.ok();
        gateway.until_state("qa", "in_flight", 0).await;
    }
}

#[tokio::test]
async fn a_place_is_given_back_however_a_request_ends() {
    let settings =
        format!("{ONE}\nfirst_byte_timeout = \"100ms\"\neject = \"off\"\nretry = \"off\"");
    let qa = Agent::with(|mut call| async move {
        match call.target().to_owned().as_str() {
            "/reset" => call.reset(),
            "/hang" => {
                call.gone().await;
            }
            "/break" => {
                call.begin("200 OK").await;
                call.chunk("some").await;
            }
            "/stream" => {
                call.begin("200 OK").await;
                call.chunk("some").await;
                call.gone().await;
            }
            _ => call.json("{}").await,
        }
    })
    .await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], &settings)).await;
    for http in BOTH {
        gateway.ask_by(http, get("/agents/qa/reset")).await.error("upstream-reset");
        gateway.ask_by(http, get("/agents/qa/hang")).await.error("first-byte-timeout");
        gateway.ask_by(http, get("/agents/qa/break")).await;
        let mut open = gateway.open(http, get("/agents/qa/stream")).await;
        open.until("some").await;
        drop(open);
        gateway.until_state("qa", "in_flight", 0).await;
        gateway.ask_by(http, get("/agents/qa/x")).await.ok();
        assert_eq!(gateway.state("qa").await["load"], 0);
    }
}

#[tokio::test]
async fn load_is_told_to_those_who_scale() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], ONE)).await;
    let first = gateway.open(Http::One, get("/agents/qa/x")).await;
    let call = qa.call().await;
    let second = gateway.open(Http::Two, get("/agents/qa/x")).await;
    gateway.until_state("qa", "queued", 1).await;
    for path in ["/api/load", "/api/load?scope=self"] {
        let load = gateway.admin(path).await.ok().json();
        let expected =
            serde_json::json!({"in_flight": 1, "queued": 1, "held": 0, "load": 2, "capacity": 1});
        assert_eq!(load["agents"]["qa"], expected, "{path}");
    }
    let of = [("agent", "qa")];
    assert_eq!(gateway.metric("switchyard_in_flight", &of).await, Some(1.0));
    assert_eq!(gateway.metric("switchyard_queued", &of).await, Some(1.0));
    call.json("{}").await;
    first.whole().await.ok();
    qa.call().await.json("{}").await;
    second.whole().await.ok();
    gateway.until_state("qa", "load", 0).await;
}

#[tokio::test]
async fn a_place_that_frees_goes_to_one_who_still_waits() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], ONE)).await;
    let first = gateway.open(Http::One, get("/agents/qa/first")).await;
    let call = qa.call().await;
    let leaving = gateway.open(Http::One, get("/agents/qa/leaving")).await;
    gateway.until_state("qa", "queued", 1).await;
    let staying = gateway.open(Http::One, get("/agents/qa/staying")).await;
    gateway.until_state("qa", "queued", 2).await;
    let _ = leaving.leave().await;
    gateway.until_state("qa", "queued", 1).await;
    call.json("{}").await;
    first.whole().await.ok();
    let call = qa.call().await;
    assert_eq!(call.target(), "/staying");
    call.json("{}").await;
    staying.whole().await.ok();
}

#[tokio::test]
async fn a_request_whose_replica_turns_out_dead_waits_for_another() {
    for http in BOTH {
        let (refusing, mut qa) = (Refusing::new(), Agent::manual().await);
        let addresses = [refusing.addr, qa.addr];
        let gateway = Gateway::start(&agent("qa", &addresses, ONE)).await;
        // One takes the living replica, if need be by way of the dead one.
        let first = gateway.open(http, get("/agents/qa/first")).await;
        let call = qa.call().await;
        let second = gateway.open(http, get("/agents/qa/second")).await;
        gateway.until_state("qa", "queued", 1).await;
        assert_eq!(call.target(), "/first");
        call.json("{}").await;
        first.whole().await.ok();
        let call = qa.call().await;
        assert_eq!(call.target(), "/second");
        call.json("{}").await;
        second.whole().await.ok();
    }
}

#[tokio::test]
async fn a_replica_that_is_added_takes_those_who_wait() {
    let (mut qa, mut new) = (Agent::manual().await, Agent::manual().await);
    let gateway = Gateway::start(&agent("qa", &[qa.addr], ONE)).await;
    let first = gateway.open(Http::One, get("/agents/qa/first")).await;
    let call = qa.call().await;
    let second = gateway.open(Http::One, get("/agents/qa/second")).await;
    gateway.until_state("qa", "queued", 1).await;
    gateway.edit(&agent("qa", &[qa.addr, new.addr], ONE)).await;
    let other = new.call().await;
    assert_eq!(other.target(), "/second");
    other.json("{}").await;
    second.whole().await.ok();
    call.json("{}").await;
    first.whole().await.ok();
}

#[tokio::test]
async fn a_connection_too_many_is_told_so_and_costs_no_other() {
    let qa = crate::agent::answers("{}").await;
    let table = format!("[gateway]\nmax_connections = 2\n{}", agent("qa", &[qa.addr], ""));
    let gateway = Gateway::start(&table).await;
    let mut first = gateway.client().connect().await;
    let mut second = gateway.client().connect().await;
    first.ask(get("/agents/qa/x")).await.ok();
    second.ask(get("/agents/qa/x")).await.ok();
    let mut third = gateway.client().connect().await;
    third.reply().await.error("overloaded");
    third.gone().await;
    first.ask(get("/agents/qa/x")).await.ok();
    drop(second);
    crate::wire::eventually("there is room again", || async {
        let mut next = gateway.client().connect().await;
        let _ = next.link.writer.send("GET /agents/qa/x HTTP/1.1\r\nhost: x\r\n\r\n").await;
        next.link.reader.head().await.is_ok_and(|head| head.word(1) == "200")
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_is_a_connection_among_those_there_may_be() {
    let mut qa = Agent::manual().await;
    let table = format!("[gateway]\nmax_connections = 1\n{}", agent("qa", &[qa.addr], ""));
    let gateway = Gateway::start(&table).await;
    let mut tunnel = gateway.client().connect().await;
    let upgrade = "connection: upgrade\r\nupgrade: x\r\n\r\n";
    tunnel.send(format!("GET /agents/qa/x HTTP/1.1\r\nhost: x\r\n{upgrade}")).await;
    let mut call = qa.call().await;
    call.send(format!("HTTP/1.1 101 Switching Protocols\r\n{upgrade}")).await;
    assert_eq!(tunnel.link.reader.head().await.unwrap().word(1), "101");
    tunnel.send("hello").await;
    call.framing = crate::wire::Framing::Close;
    assert_eq!(call.piece().await.unwrap(), "hello");
    let mut next = gateway.client().connect().await;
    next.reply().await.error("overloaded");
    drop((tunnel, call));
    crate::wire::eventually("there is room again", || async {
        let mut next = gateway.client().connect().await;
        let _ = next.link.writer.send("GET /agents HTTP/1.1\r\nhost: x\r\n\r\n").await;
        next.link.reader.head().await.is_ok_and(|head| head.word(1) == "200")
    })
    .await;
}

#[tokio::test]
async fn what_runs_on_at_replicas_that_are_gone_takes_no_places_at_those_that_are_there() {
    let (mut old, mut new) = (Agent::manual().await, Agent::manual().await);
    let settings = "max_in_flight = 1\nqueue = { max = 4, timeout = \"3s\" }";
    let gateway = Gateway::start(&agent("qa", &[old.addr], settings)).await;
    let first = gateway.open(Http::One, get("/agents/qa/x")).await;
    let call = old.call().await;
    gateway.edit(&agent("qa", &[new.addr], settings)).await;
    let second = gateway.open(Http::One, get("/agents/qa/x")).await;
    let second_call = new.call().await;
    let third = gateway.open(Http::One, get("/agents/qa/x")).await;
    gateway.until_state("qa", "queued", 1).await;
    // Who ends at the old replica makes no room at the new one.
    call.json("{}").await;
    first.whole().await.ok();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    gateway.until_state("qa", "queued", 1).await;
    second_call.json("{}").await;
    second.whole().await.ok();
    new.call().await.json("{}").await;
    third.whole().await.ok();
}
