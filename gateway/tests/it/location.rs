//! What points into the agent's root is moved under its mount.

use crate::agent::Agent;
use crate::ask::get;
use crate::gateway::{Gateway, agent};
use crate::reply::BOTH;

/// What a client gets of a header that the agent sent. `{agent}` in it is the agent's address.
async fn check(name: &str, cases: &[(&str, &str)]) {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    for (sent, expected) in cases {
        for http in BOTH {
            let open = gateway.open(http, get("/agents/qa/a/b")).await;
            let sent = sent.replace("{agent}", &qa.addr.to_string());
            qa.call().await.reply(&format!("201 Created\r\n{name}: {sent}"), "{}").await;
            let reply = open.whole().await;
            let got = reply.header(name).unwrap_or_default();
            // A whole address may stay one, if it is the gateway's own.
            let own = format!("http://{}", gateway.addr);
            assert_eq!(got.trim_start_matches(&own), *expected, "{http:?} {name}: {sent}");
        }
    }
}

#[tokio::test]
async fn a_location_in_the_agents_root_is_moved_under_the_mount() {
    check(
        "location",
        &[
            ("/", "/agents/qa/"),
            ("/runs/1", "/agents/qa/runs/1"),
            ("/runs/1?x=/y#z", "/agents/qa/runs/1?x=/y#z"),
            ("http://{agent}/runs/1?x", "/agents/qa/runs/1?x"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_location_elsewhere_stays() {
    check(
        "location",
        &[
            ("runs/1", "runs/1"),
            ("../x", "../x"),
            ("?page=2", "?page=2"),
            ("https://example.com/runs/1", "https://example.com/runs/1"),
            ("//example.com/x", "//example.com/x"),
            ("http://127.0.0.1:1/x", "http://127.0.0.1:1/x"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_cookies_path_is_moved_under_the_mount() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    for (sent, expected) in [
        ("a=1; Path=/runs; HttpOnly", "a=1; Path=/agents/qa/runs; HttpOnly"),
        ("a=1; path=/runs/x", "a=1; path=/agents/qa/runs/x"),
        ("a=1; Secure", "a=1; Secure"),
        ("a=Path=/x", "a=Path=/x"),
        ("Path=/x; Max-Age=5", "Path=/x; Max-Age=5"),
    ] {
        let open = gateway.open(crate::reply::Http::One, get("/agents/qa/x")).await;
        let head = format!("200 OK\r\nset-cookie: {sent}\r\nset-cookie: b=2; Path=/");
        qa.call().await.reply(&head, "{}").await;
        let reply = open.whole().await.ok();
        let cookies = reply.headers.all("set-cookie");
        assert!(cookies[0].eq_ignore_ascii_case(expected), "{sent} → {}", cookies[0]);
        let root = cookies[1].trim_end_matches('/');
        assert!(root.eq_ignore_ascii_case("b=2; Path=/agents/qa"), "{root}");
    }
}
