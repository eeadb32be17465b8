//! Which endpoint a request goes to: the less busy of two, or the one that a session sticks to.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::agent::{Agent, Call};
use crate::ask::{get, post};
use crate::client::Conn;
use crate::gateway::{Gateway, agent};
use crate::reply::Http;

const STICKY: &str = "affinity = { header = \"x-session-id\" }";

/// Agents that answer with their own number, and hang for `/hang`.
async fn numbered(n: usize) -> Vec<Agent> {
    let mut agents = Vec::new();
    for number in 0..n {
        let answer = move |mut call: Call| async move {
            if call.target() == "/hang" {
                call.gone().await;
            } else {
                call.json(&number.to_string()).await;
            }
        };
        agents.push(Agent::with(answer).await);
    }
    agents
}

fn addresses(agents: &[Agent]) -> Vec<SocketAddr> {
    agents.iter().map(|a| a.addr).collect()
}

/// The agent's number that answers a request of this session.
async fn home(conn: &mut Conn, session: usize) -> String {
    let asked = get("/agents/qa/x").header("x-session-id", &format!("session-{session}"));
    conn.ask(asked).await.ok().text()
}

async fn homes(gateway: &Gateway, sessions: usize) -> HashMap<usize, String> {
    let mut conn = gateway.client().connect().await;
    let mut homes = HashMap::new();
    for session in 0..sessions {
        homes.insert(session, home(&mut conn, session).await);
    }
    homes
}

#[tokio::test]
async fn requests_spread_over_the_endpoints() {
    let agents = numbered(3).await;
    let gateway = Gateway::start(&agent("qa", &addresses(&agents), "")).await;
    let mut conn = gateway.client().connect().await;
    for _ in 0..300 {
        conn.ask(get("/agents/qa/x")).await.ok();
    }
    for agent in &agents {
        // A hundred each are expected; 50 is six standard deviations away.
        assert!(agent.count() >= 50, "{:?}", agents.iter().map(Agent::count).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_busy_endpoint_gets_less() {
    let agents = numbered(2).await;
    let gateway = Gateway::start(&agent("qa", &addresses(&agents), "")).await;
    // Some hang, and weigh on whichever endpoint they landed on.
    let mut hanging = Vec::new();
    for _ in 0..4 {
        hanging.push(gateway.open(Http::One, post("/agents/qa/hang", "{}")).await);
    }
    gateway.until_state("qa", "in_flight", 4).await;
    crate::wire::eventually("the agents have what hangs", || async {
        agents.iter().map(Agent::count).sum::<usize>() == 4
    })
    .await;
    // With two endpoints, two choices are both: what hangs is spread evenly.
    assert_eq!(agents[0].count(), 2, "of four that hang");
    for open in hanging.drain(..2) {
        let _ = open.leave().await;
    }
}

#[tokio::test]
async fn a_session_sticks_to_its_endpoint() {
    let agents = numbered(4).await;
    let gateway = Gateway::start(&agent("qa", &addresses(&agents), STICKY)).await;
    let first = homes(&gateway, 40).await;
    for _ in 0..5 {
        // On new connections, which another worker may serve.
        assert_eq!(homes(&gateway, 40).await, first);
    }
    let used: std::collections::HashSet<_> = first.values().collect();
    assert_eq!(used.len(), 4, "sessions spread: {first:?}");
}

#[tokio::test]
async fn only_the_sessions_of_an_endpoint_that_goes_move() {
    let agents = numbered(4).await;
    let all = addresses(&agents);
    let gateway = Gateway::start(&agent("qa", &all, STICKY)).await;
    let first = homes(&gateway, 60).await;
    gateway.edit(&agent("qa", &[all[0], all[1], all[3]], STICKY)).await;
    for (session, home) in homes(&gateway, 60).await {
        match first[&session].as_str() {
            "2" => assert_ne!(home, "2"),
            before => assert_eq!(home, before, "session {session} moved without need"),
        }
    }
    gateway.edit(&agent("qa", &all, STICKY)).await;
    assert_eq!(homes(&gateway, 60).await, first, "they come home");
}

#[tokio::test]
async fn the_order_of_endpoints_means_nothing_to_a_session() {
    let agents = numbered(3).await;
    let mut all = addresses(&agents);
    let gateway = Gateway::start(&agent("qa", &all, STICKY)).await;
    let first = homes(&gateway, 30).await;
    all.reverse();
    gateway.edit(&agent("qa", &all, STICKY)).await;
    assert_eq!(homes(&gateway, 30).await, first);
}

#[tokio::test]
async fn a_session_gives_way_when_its_endpoint_is_gone() {
    let mut agents = numbered(2).await;
    let settings = format!(
        "{STICKY}\neject = {{ consecutive = 3, time = \"30s\", time_max = \"30s\", max_percent = 50 }}"
    );
    let gateway = Gateway::start(&agent("qa", &addresses(&agents), &settings)).await;
    let first = homes(&gateway, 20).await;
    agents[0].close_idle().await;
    drop(agents.remove(0));
    assert_eq!(first.len(), 20);
    for (session, home) in homes(&gateway, 20).await {
        assert_eq!(home, "1", "session {session}");
    }
}

#[tokio::test]
async fn a_session_gives_way_when_its_endpoint_is_full() {
    let agents = numbered(2).await;
    let settings = format!("{STICKY}\nmax_in_flight = 1");
    let gateway = Gateway::start(&agent("qa", &addresses(&agents), &settings)).await;
    let mut conn = gateway.client().connect().await;
    let before = home(&mut conn, 7).await;
    let hang = get("/agents/qa/hang").header("x-session-id", "session-7");
    let _hanging = gateway.open(Http::One, hang).await;
    let at_home: usize = before.parse().unwrap();
    crate::wire::eventually("the session's endpoint is full", || async {
        agents[at_home].seen().iter().any(|h| h.word(1) == "/hang")
    })
    .await;
    assert_ne!(home(&mut conn, 7).await, before);
}

#[tokio::test]
async fn without_a_session_requests_spread() {
    let agents = numbered(2).await;
    let gateway = Gateway::start(&agent("qa", &addresses(&agents), STICKY)).await;
    let mut conn = gateway.client().connect().await;
    for _ in 0..60 {
        conn.ask(get("/agents/qa/x")).await.ok();
    }
    assert!(agents.iter().all(|a| a.count() > 5));
}
