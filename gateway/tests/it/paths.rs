//! What of a path passes, byte for byte, and what could mean another agent and doesn't.

use crate::agent::{Agent, answers};
use crate::ask::get;
use crate::client::Client;
use crate::gateway::{Gateway, agent};
use crate::reply::Http;

#[tokio::test]
async fn a_path_passes_byte_for_byte() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    let mut conn = Client::of(gateway.addr).connect().await;
    for path in [
        "/models/org%2Fmodel",
        "/models/org%2fmodel",
        "/a//b",
        "//a",
        "/%E2%9C%93",
        "/x;v=1/y;w",
        "/...",
        "/a..b/..c/d..",
        "/.well-known/agent.json",
        "/%7Euser/~user",
        "/a%20b+c",
        "/a%25b",
        "/a%5Cb",
        "/a:b@c!$&'()*,=",
        "/message:send",
        "/x?q=../..&r=%2e%2e%2f%00",
        "/x?",
        "/x?a?b/c",
    ] {
        conn.send(format!("GET /agents/qa{path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        let call = qa.call().await;
        assert_eq!(call.target(), path);
        call.json("{}").await;
        conn.reply().await.ok();
    }
}

/// Everything that a lenient reader could take for a dot segment, or that no name contains.
const BAD: [&str; 34] = [
    "/agents/qa/..",
    "/agents/qa/.",
    "/agents/qa/../coding/x",
    "/agents/qa/./x",
    "/agents/qa/x/..",
    "/agents/../agents/qa/x",
    "/./agents/qa/x",
    "/agents/qa/%2e%2e/coding",
    "/agents/qa/%2E%2E/coding",
    "/agents/qa/.%2e/coding",
    "/agents/qa/%2e",
    "/agents/qa/%252e%252e/coding",
    "/agents/qa/%25%32%65%25%32%65/coding",
    "/agents/qa/..%2fcoding",
    "/agents/qa/..%2Fcoding",
    "/agents/qa/x%2f..%2f..%2fcoding",
    "/agents/qa/..%252fcoding",
    "/agents/qa/..\\coding",
    "/agents/qa/x\\..\\coding",
    "/agents/qa/..%5ccoding",
    "/agents/qa/..%5Ccoding",
    "/agents/qa/..%255ccoding",
    "/agents/qa/..;/coding",
    "/agents/qa/..;a=b/coding",
    "/agents/qa/.;/x",
    "/agents/qa/..%3b/coding",
    "/agents/qa/..%3Ba=b/coding",
    "/agents/qa/%2e%2e;x/coding",
    "/agents/qa/%00",
    "/agents/qa/x%00y",
    "/agents/qa/%0d%0aX-Y:%20z",
    "/agents/qa/%1f",
    "/agents/qa/%7f",
    "/agents/qa/%2500",
];

#[tokio::test]
async fn a_path_that_could_mean_another_agent_is_refused() {
    let qa = answers("{}").await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    let mut wrong = Vec::new();
    for path in BAD {
        let mut conn = Client::of(gateway.addr).connect().await;
        conn.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        let reply = conn.reply().await;
        if reply.code() != Some("bad-path") && !reply.is_bare() {
            wrong.push((path, reply.status, reply.code().map(str::to_owned)));
        }
        if path.contains('\\') {
            continue; // The client's own library sends no backslash.
        }
        let reply = gateway.ask_by(Http::Two, get(path)).await;
        if reply.code() != Some("bad-path") {
            wrong.push((path, reply.status, reply.code().map(str::to_owned)));
        }
    }
    assert!(wrong.is_empty(), "not refused as bad-path: {wrong:#?}");
    assert_eq!(qa.count(), 0);
}

#[tokio::test]
async fn raw_control_characters_in_a_path_reach_nobody() {
    let qa = answers("{}").await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    for byte in [0u8, 1, 9, 0x1f, 0x7f] {
        let mut conn = Client::of(gateway.addr).connect().await;
        let mut request = b"GET /agents/qa/x".to_vec();
        request.push(byte);
        request.extend_from_slice(b"y HTTP/1.1\r\nhost: x\r\n\r\n");
        conn.send(request).await;
        assert_eq!(conn.reply().await.status, 400, "{byte:#x}");
    }
    assert_eq!(qa.count(), 0);
}

#[tokio::test]
async fn a_request_may_name_its_whole_address() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    let mut conn = Client::of(gateway.addr).connect().await;
    let target = format!("http://{}/agents/qa/x?y", gateway.addr);
    conn.send(format!("GET {target} HTTP/1.1\r\nhost: {}\r\n\r\n", gateway.addr)).await;
    let call = qa.call().await;
    assert_eq!(call.target(), "/x?y");
    call.json("{}").await;
    conn.reply().await.ok();
}

#[tokio::test]
async fn paths_are_renamed_as_the_table_says() {
    let mut qa = Agent::manual().await;
    let renames = "[agents.qa.paths]\n\"/invoke\" = \"/run\"\n\"/a/b\" = \"/c\"";
    let gateway = Gateway::start(&agent("qa", &[qa.addr], renames)).await;
    for (path, expected) in [
        ("/agents/qa/invoke", "/run"),
        ("/agents/qa/invoke?x=1", "/run?x=1"),
        ("/agents/qa/a/b", "/c"),
        ("/agents/qa/a/b/c", "/a/b/c"),
        ("/agents/qa/invoked", "/invoked"),
        ("/agents/qa/run", "/run"),
        ("/agents/qa/x", "/x"),
    ] {
        let open = gateway.open(Http::One, get(path)).await;
        let call = qa.call().await;
        assert_eq!(call.target(), expected, "{path}");
        call.json("{}").await;
        open.whole().await.ok();
    }
    let open = gateway.open(Http::One, crate::ask::post("/invoke?agent=qa", "{}")).await;
    let call = qa.call().await;
    assert_eq!(call.target().split('?').next(), Some("/run"), "POST /invoke is renamed too");
    call.json("{}").await;
    open.whole().await.ok();
}
