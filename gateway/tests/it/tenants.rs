//! Callers that are told apart: who is believed, in which order they are served, what each may ask.

use crate::agent::Agent;
use crate::ask::{Ask, get, post};
use crate::gateway::{Gateway, agent};
use crate::open::Open;
use crate::reply::{BOTH, Http, Reply};
use crate::wire::eventually;

const BELIEVED: &str = "[gateway]\ntrusted_proxies = [\"127.0.0.0/8\"]\n";
const TENANTS: &str = "[tenants]\nheader = \"x-tenant-id\"\n";
const ONE: &str = "max_in_flight = 1\nqueue = { max = 64, timeout = \"60s\" }";

fn by(tenant: &str, ask: Ask) -> Ask {
    ask.header("x-tenant-id", tenant)
}

/// A gateway before one agent with one place, that is taken; and the call that has it.
async fn full(more: &str) -> (Gateway, Agent, Open, crate::agent::Call) {
    let mut qa = Agent::manual().await;
    let text = format!("{BELIEVED}{more}\n{}", agent("qa", &[qa.addr], ONE));
    let gateway = Gateway::start(&text).await;
    let open = gateway.open(Http::One, get("/agents/qa/first")).await;
    let call = qa.call().await;
    (gateway, qa, open, call)
}

/// Has these wait, in this order: tenant and path.
async fn waiting(gateway: &Gateway, who: &[(&str, &str)]) -> Vec<Open> {
    let mut opens = Vec::new();
    for (nth, (tenant, path)) in who.iter().enumerate() {
        let ask = by(tenant, get(&format!("/agents/qa{path}")));
        opens.push(gateway.open(BOTH[nth % 2], ask).await);
        gateway.until_state("qa", "queued", opens.len() as u64).await;
    }
    opens
}

/// Answers so many, and says in which order they came.
async fn served(qa: &mut Agent, first: crate::agent::Call, n: usize) -> Vec<String> {
    let (mut call, mut order) = (first, Vec::new());
    for _ in 0..n {
        // What counts is how long each holds its place.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        call.json("{}").await;
        call = qa.call().await;
        order.push(call.target().to_owned());
    }
    call.json("{}").await;
    order
}

#[tokio::test]
async fn one_tenants_burst_does_not_keep_the_others_waiting() {
    let (gateway, mut qa, first, call) = full(TENANTS).await;
    let who = [("a", "/a1"), ("a", "/a2"), ("a", "/a3"), ("b", "/b1"), ("c", "/c1"), ("b", "/b2")];
    let opens = waiting(&gateway, &who).await;
    let order = served(&mut qa, call, who.len()).await;
    let place = |path: &str| order.iter().position(|came| came == path).unwrap();
    assert!(place("/b1") < place("/a2") && place("/c1") < place("/a2"), "{order:?}");
    assert!(place("/b2") < place("/a3"), "{order:?}");
    for open in opens.into_iter().chain([first]) {
        open.whole().await.ok();
    }
}

#[tokio::test]
async fn a_higher_class_goes_first() {
    let more = format!(
        "{TENANTS}reserve = 0\n[tenants.known.vip]\npriority = \"high\"\n\
         [tenants.known.batch]\npriority = \"low\"\n"
    );
    let (gateway, mut qa, first, call) = full(&more).await;
    let who = [("batch", "/l1"), ("a", "/n1"), ("vip", "/h1"), ("batch", "/l2"), ("vip", "/h2")];
    let opens = waiting(&gateway, &who).await;
    let order = served(&mut qa, call, who.len()).await;
    assert_eq!(order, ["/h1", "/h2", "/n1", "/l1", "/l2"]);
    for open in opens.into_iter().chain([first]) {
        open.whole().await.ok();
    }
}

#[tokio::test]
async fn a_name_is_believed_only_from_a_trusted_proxy_and_taken_out_of_others_requests() {
    for (believed, seen) in [(BELIEVED, Some("acme")), ("", None)] {
        let qa = Agent::with(|call| async move { call.json("{}").await }).await;
        let gateway =
            Gateway::start(&format!("{believed}{TENANTS}\n{}", agent("qa", &[qa.addr], ""))).await;
        for http in BOTH {
            gateway.ask_by(http, by("acme", get("/agents/qa/x"))).await.ok();
        }
        for head in qa.seen() {
            assert_eq!(head.headers.get("x-tenant-id"), seen);
        }
        if seen.is_none() {
            gateway.ask(get("/agents/qa/x").header("x_tenant_id", "acme")).await.ok();
            assert_eq!(qa.seen().last().unwrap().headers.get("x_tenant_id"), None);
        }
        let line = gateway.logged(&["\"request\"", "/agents/qa/x"]).await;
        assert_eq!(line.contains("\"tenant\":\"acme\""), seen.is_some(), "{line}");
        // A tenant that asks for nothing for a while is told no more.
        eventually("the tenant is told", || async {
            gateway.ask(by("acme", get("/agents/qa/x"))).await.ok();
            gateway.state("qa").await["tenants"][0]["tenant"] == seen.unwrap_or_default()
        })
        .await;
    }
}

#[tokio::test]
async fn who_is_named_twice_or_by_no_name_is_nobody() {
    let qa = Agent::with(|call| async move { call.json("{}").await }).await;
    let gateway =
        Gateway::start(&format!("{BELIEVED}{TENANTS}\n{}", agent("qa", &[qa.addr], ""))).await;
    for http in BOTH {
        gateway.ask_by(http, by("b", by("a", get("/agents/qa/x")))).await.ok();
        gateway.ask_by(http, by("a b", get("/agents/qa/x"))).await.ok();
        gateway.ask_by(http, by(&"a".repeat(129), get("/agents/qa/x"))).await.ok();
    }
    let tenants = gateway.state("qa").await["tenants"].clone();
    assert_eq!((tenants.as_array().unwrap().len(), &tenants[0]["tenant"]), (1, &"".into()));
}

#[tokio::test]
async fn beyond_the_most_that_are_told_apart_tenants_are_one() {
    let more = format!("{TENANTS}max = 2\n[tenants.known.acme]\nweight = 2\n");
    let (gateway, mut qa, first, call) = full(&more).await;
    // The first one is nobody's, and the listed one always has its own.
    let who = [("a", "/a"), ("b", "/b"), ("c", "/c"), ("d", "/d"), ("acme", "/acme")];
    let opens = waiting(&gateway, &who).await;
    let tenants = gateway.state("qa").await["tenants"].clone();
    let names: Vec<_> =
        tenants.as_array().unwrap().iter().map(|of| of["tenant"].as_str().unwrap()).collect();
    assert!(names.contains(&"(other)") && names.contains(&"acme"), "{names:?}");
    assert!(!names.contains(&"d"), "{names:?}");
    served(&mut qa, call, who.len()).await;
    for open in opens.into_iter().chain([first]) {
        open.whole().await.ok();
    }
}

#[tokio::test]
async fn an_edit_changes_weights_and_names_under_way() {
    let (gateway, mut qa, first, call) = full(TENANTS).await;
    let opens = waiting(&gateway, &[("a", "/a1"), ("b", "/b1")]).await;
    let text = format!("{BELIEVED}{}", agent("qa", &[qa.addr], ONE));
    gateway.edit(&text).await;
    let later = gateway.open(Http::One, get("/agents/qa/later")).await;
    gateway.until_state("qa", "queued", 3).await;
    served(&mut qa, call, 3).await;
    for open in opens.into_iter().chain([first, later]) {
        open.whole().await.ok();
    }
    gateway.until_state("qa", "in_flight", 0).await;
}

fn told(reply: &Reply) -> (String, String) {
    let field = |name| reply.headers.get(name).unwrap_or_default().to_owned();
    (field("ratelimit-policy"), field("ratelimit"))
}

#[tokio::test]
async fn a_caller_gets_what_it_may_ask_for_and_429_beyond() {
    let qa = Agent::with(|call| async move { call.json("{}").await }).await;
    let rate = "rate = { requests = 3, window = \"1h\" }";
    let text = format!("{BELIEVED}{TENANTS}\n{}", agent("qa", &[qa.addr], rate));
    let gateway = Gateway::start(&text).await;
    for (nth, left) in [2, 1, 0].into_iter().enumerate() {
        let reply = gateway.ask_by(BOTH[nth % 2], by("a", get("/agents/qa/x"))).await.ok();
        let (policy, now) = told(&reply);
        assert_eq!(policy, "\"agent-requests\";q=3;w=3600");
        assert!(now.starts_with(&format!("\"agent-requests\";r={left};t=")), "{now}");
    }
    for http in BOTH {
        let refused = gateway.ask_by(http, by("a", get("/agents/qa/x"))).await;
        assert!(told(&refused).1.starts_with("\"agent-requests\";r=0;t="));
        let wait: u64 = refused.headers.get("retry-after").unwrap().parse().unwrap();
        assert!((1_190..=1_200).contains(&wait), "{wait}");
        refused.error("rate-limited");
    }
    gateway.ask(by("b", get("/agents/qa/x"))).await.ok();
    assert_eq!(qa.count(), 4);
    assert_eq!(
        gateway.metric("switchyard_requests_total", &[("outcome", "rate-limited")]).await,
        Some(2.0)
    );
}

#[tokio::test]
async fn a_tenants_own_limit_is_over_all_agents() {
    let both = Agent::with(|call| async move { call.json("{}").await }).await;
    let text = format!(
        "{BELIEVED}{TENANTS}[tenants.known.a]\nrate = {{ requests = 2, window = \"1h\" }}\n{}{}",
        agent("qa", &[both.addr], ""),
        agent("coding", &[both.addr], "")
    );
    let gateway = Gateway::start(&text).await;
    gateway.ask(by("a", get("/agents/qa/x"))).await.ok();
    gateway.ask(by("a", get("/agents/coding/x"))).await.ok();
    gateway.ask(by("a", get("/agents/qa/x"))).await.error("rate-limited");
    let other = gateway.ask(by("b", get("/agents/qa/x"))).await.ok();
    assert_eq!(told(&other), Default::default(), "no limit, nothing told");
}

#[tokio::test]
async fn requests_at_once_are_limited_until_their_last_byte() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "rate = { concurrent = 1 }")).await;
    for http in BOTH {
        let mut open = gateway.open(http, get("/agents/qa/stream")).await;
        let mut call = qa.call().await;
        call.begin_sse().await;
        call.event("one").await;
        open.until("one\n\n").await;
        gateway.ask(get("/agents/qa/x")).await.error("rate-limited");
        call.end().await;
        open.rest().await.ok();
        gateway.until_state("qa", "in_flight", 0).await;
    }
}

#[tokio::test]
async fn bytes_of_bodies_are_limited_however_they_are_framed() {
    for chunked in [false, true] {
        let qa = Agent::with(|mut call| async move {
            call.body().await;
            call.json("{}").await;
        })
        .await;
        let rate = "rate = { bytes = \"4KiB\", window = \"1h\" }";
        let gateway = Gateway::start(&agent("qa", &[qa.addr], rate)).await;
        let ask = |bytes: usize| match chunked {
            true => post("/agents/qa/x", "").chunks([vec![b'x'; bytes]]),
            false => post("/agents/qa/x", vec![b'x'; bytes]),
        };
        gateway.ask(ask(3_000)).await.ok();
        gateway.ask(ask(3_000)).await.ok();
        gateway.until_state("qa", "in_flight", 0).await;
        gateway.ask(ask(1)).await.error("rate-limited");
    }
}
