//! Headers, in both directions.

use std::sync::Arc;

use crate::agent::{Agent, Call};
use crate::ask::{Ask, ask, get, post};
use crate::client::Client;
use crate::gateway::{Gateway, agent};
use crate::reply::{BOTH, Http, Reply};
use crate::wire::Headers;

/// What the agent got, and what the client got when the agent had answered `head`.
async fn exchange(
    gateway: &Gateway,
    qa: &mut Agent,
    http: Http,
    asked: Ask,
    head: &str,
) -> (Headers, Reply) {
    let open = gateway.open(http, asked).await;
    let call = qa.call().await;
    let headers = call.head.headers.clone();
    call.reply(head, "{}").await;
    (headers, open.whole().await)
}

async fn one() -> (Agent, Gateway) {
    let qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    (qa, gateway)
}

#[tokio::test]
async fn an_agent_is_told_who_asked_for_what() {
    let (mut qa, gateway) = one().await;
    for http in BOTH {
        let (got, _) = exchange(&gateway, &mut qa, http, get("/agents/qa/x"), "200 OK").await;
        assert_eq!(got.all("host"), [qa.addr.to_string()], "{http:?}");
        assert_eq!(got.all("x-forwarded-for"), ["127.0.0.1"], "{http:?}");
        assert_eq!(got.all("x-forwarded-proto"), ["http"], "{http:?}");
        assert_eq!(got.all("x-forwarded-host"), [gateway.addr.to_string()], "{http:?}");
        assert_eq!(got.all("x-forwarded-prefix"), ["/agents/qa"], "{http:?}");
        assert_eq!(got.all("x-agent-type"), ["qa"], "{http:?}");
        let version = if http == Http::One { "1.1" } else { "2" };
        let via = got.all("via").join(", ");
        assert!(via.starts_with(&format!("{version} ")) && via.contains("switchyard"), "{via}");
    }
}

#[tokio::test]
async fn what_a_client_says_about_its_way_is_dropped() {
    let (mut qa, gateway) = one().await;
    let asked = get("/agents/qa/x")
        .header("x-forwarded-for", "10.1.2.3")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-host", "bank.example")
        .header("x-forwarded-prefix", "/evil")
        .header("forwarded", "for=10.1.2.3");
    let (got, _) = exchange(&gateway, &mut qa, Http::One, asked, "200 OK").await;
    assert_eq!(got.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(got.all("x-forwarded-proto"), ["http"]);
    assert_eq!(got.all("x-forwarded-host"), [gateway.addr.to_string()]);
    assert_eq!(got.all("x-forwarded-prefix"), ["/agents/qa"]);
    assert!(!got.has("forwarded"), "{got:?}");
}

#[tokio::test]
async fn what_a_trusted_proxy_says_is_kept_and_appended_to() {
    let mut qa = Agent::manual().await;
    let trust = "[gateway]\ntrusted_proxies = [\"127.0.0.0/8\"]\n";
    let gateway = Gateway::start(&format!("{trust}{}", agent("qa", &[qa.addr], ""))).await;
    let asked = get("/agents/qa/x")
        .header("x-forwarded-for", "10.1.2.3")
        .header("x-forwarded-for", "10.4.5.6")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-host", "shop.example")
        .header("x-forwarded-prefix", "/yard")
        .header("forwarded", "for=10.1.2.3");
    let (got, _) = exchange(&gateway, &mut qa, Http::One, asked, "200 OK").await;
    assert_eq!(got.all("x-forwarded-for").join(", "), "10.1.2.3, 10.4.5.6, 127.0.0.1");
    let begins = |name: &str, value: &str| {
        assert!(got.all(name).join(", ").starts_with(value), "{name}: {:?}", got.all(name));
    };
    begins("x-forwarded-proto", "https");
    begins("x-forwarded-host", "shop.example");
    begins("x-forwarded-prefix", "/yard");
    begins("forwarded", "for=10.1.2.3");
}

#[tokio::test]
async fn a_network_that_is_not_trusted_is_not_believed() {
    let mut qa = Agent::manual().await;
    let trust = "[gateway]\ntrusted_proxies = [\"10.0.0.0/8\"]\n";
    let gateway = Gateway::start(&format!("{trust}{}", agent("qa", &[qa.addr], ""))).await;
    let asked = get("/agents/qa/x").header("x-forwarded-for", "10.1.2.3");
    let (got, _) = exchange(&gateway, &mut qa, Http::One, asked, "200 OK").await;
    assert_eq!(got.all("x-forwarded-for"), ["127.0.0.1"]);
}

#[tokio::test]
async fn hop_by_hop_headers_do_not_reach_the_agent() {
    let (mut qa, gateway) = one().await;
    let asked = get("/agents/qa/x")
        .header("connection", "keep-alive, x-mine")
        .header("connection", "X-Other")
        .header("x-mine", "1")
        .header("x-other", "1")
        .header("keep-alive", "timeout=5")
        .header("proxy-connection", "keep-alive")
        .header("te", "trailers, deflate")
        .header("x-kept", "1");
    let (got, _) = exchange(&gateway, &mut qa, Http::One, asked, "200 OK").await;
    for name in ["x-mine", "x-other", "keep-alive", "proxy-connection"] {
        assert!(!got.has(name), "{name}: {got:?}");
    }
    assert!(got.get("te").is_none_or(|te| te == "trailers"), "{got:?}");
    assert_eq!(got.get("x-kept"), Some("1"));
    for option in got.all("connection").join(",").split(',').map(str::trim) {
        assert!(
            ["", "keep-alive", "close", "te"].contains(&option.to_ascii_lowercase().as_str()),
            "connection: {option}"
        );
    }
}

#[tokio::test]
async fn a_client_cannot_strip_what_the_gateway_says() {
    let (mut qa, gateway) = one().await;
    let named = "close, host, x-agent-type, x-request-id, x-forwarded-for, via, content-length";
    let asked = post("/agents/qa/x", "body").header("connection", named);
    let open = gateway.open(Http::One, asked).await;
    let mut call = qa.call().await;
    for name in ["host", "x-agent-type", "x-request-id", "x-forwarded-for", "via"] {
        assert!(call.header(name).is_some(), "{name}: {:?}", call.head.headers);
    }
    assert_eq!(call.body().await, b"body");
    call.json("{}").await;
    open.whole().await.ok();
}

#[tokio::test]
async fn hop_by_hop_headers_do_not_reach_the_client() {
    let (mut qa, gateway) = one().await;
    let head = "200 OK\r\nconnection: x-mine, keep-alive\r\nx-mine: 1\r\nkeep-alive: timeout=5\r\n\
        proxy-connection: keep-alive\r\nupgrade: h2c\r\nx-kept: 1";
    for http in BOTH {
        let (_, reply) = exchange(&gateway, &mut qa, http, get("/agents/qa/x"), head).await;
        // That the others are gone is asserted of every reply.
        assert!(!reply.headers.has("x-mine"), "{:?}", reply.headers);
        assert_eq!(reply.header("x-kept"), Some("1"));
    }
}

#[tokio::test]
async fn everything_else_passes_as_it_is() {
    let (mut qa, gateway) = one().await;
    let asked = get("/agents/qa/x")
        .header("authorization", "Bearer a.b-c")
        .header("accept", "text/event-stream")
        .header("accept", "*/*;q=0.1")
        .header("user-agent", "odd/1 (x; y)")
        .header("cookie", "a=1; b=2")
        .header("x-empty", "")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .header("tracestate", "congo=t61rcWkgMzE")
        .header("baggage", "k=v;p=1")
        .header("range", "bytes=0-1")
        .header("idempotency-key", "\"k\"");
    let head = "206 Partial\r\nset-cookie: a=1\r\nset-cookie: b=2\r\netag: W/\"x\"\r\n\
        content-range: bytes 0-1/9\r\nserver: mine\r\nvary: accept\r\nx-empty:\r\n\
        date: Tue, 01 Jan 2030 00:00:00 GMT";
    for http in BOTH {
        let (got, reply) = exchange(&gateway, &mut qa, http, asked.clone(), head).await;
        for (name, value) in asked.headers.iter().filter(|(n, _)| n != "accept") {
            assert_eq!(got.all(name), [value.as_str()], "{http:?} {name}");
        }
        assert_eq!(got.all("accept").join(", "), "text/event-stream, */*;q=0.1");
        assert_eq!(reply.status, 206);
        assert_eq!(reply.headers.all("set-cookie"), ["a=1", "b=2"]);
        for (name, value) in [
            ("etag", "W/\"x\""),
            ("content-range", "bytes 0-1/9"),
            ("server", "mine"),
            ("vary", "accept"),
            ("x-empty", ""),
            ("date", "Tue, 01 Jan 2030 00:00:00 GMT"),
        ] {
            assert_eq!(reply.headers.all(name), [value], "{http:?} {name}");
        }
    }
}

#[tokio::test]
async fn values_that_are_no_ascii_pass_as_they_are() {
    let (mut qa, gateway) = one().await;
    let mut conn = Client::of(gateway.addr).connect().await;
    conn.send(b"GET /agents/qa/x HTTP/1.1\r\nhost: x\r\nx-odd: caf\xe9 \xff\r\n\r\n").await;
    let mut call = qa.call().await;
    assert_eq!(call.header("x-odd"), Some("caf\u{e9} \u{ff}"));
    call.send(b"HTTP/1.1 200 OK\r\nx-odd: \xfe\xe9\r\ncontent-length: 0\r\n\r\n").await;
    call.done().await;
    assert_eq!(conn.reply().await.ok().header("x-odd"), Some("\u{fe}\u{e9}"));
}

#[tokio::test]
async fn cookies_that_http_2_split_are_joined() {
    let (mut qa, gateway) = one().await;
    let asked = get("/agents/qa/x").header("cookie", "a=1").header("cookie", "b=2");
    let (got, _) = exchange(&gateway, &mut qa, Http::Two, asked, "200 OK").await;
    assert_eq!(got.all("cookie"), ["a=1; b=2"]);
}

#[tokio::test]
async fn a_via_that_is_there_is_appended_to() {
    let (mut qa, gateway) = one().await;
    let asked = get("/agents/qa/x").header("via", "1.0 fred");
    let (got, _) = exchange(&gateway, &mut qa, Http::One, asked, "200 OK").await;
    let via = got.all("via").join(", ");
    assert!(via.starts_with("1.0 fred, 1.1 ") && via.contains("switchyard"), "{via}");
}

#[tokio::test]
async fn a_good_request_id_is_kept_and_comes_back() {
    let (mut qa, gateway) = one().await;
    let longest = "x".repeat(128);
    for id in ["a", "A-Z.a_z:0/9+=-", longest.as_str()] {
        for http in BOTH {
            let asked = get("/agents/qa/x").header("x-request-id", id);
            let (got, reply) = exchange(&gateway, &mut qa, http, asked, "200 OK").await;
            assert_eq!(got.all("x-request-id"), [id]);
            assert_eq!(reply.request_id(), id);
        }
        let asked = get("/agents/nobody/x").header("x-request-id", id);
        assert_eq!(gateway.ask(asked).await.error("unknown-agent")["request_id"], id);
    }
}

#[tokio::test]
async fn a_bad_request_id_is_replaced_by_a_uuid() {
    let (mut qa, gateway) = one().await;
    let long = "x".repeat(129);
    for ids in [
        vec![],
        vec![""],
        vec!["a b"],
        vec!["a,b"],
        vec!["{x}"],
        vec!["a", "b"],
        vec!["a", "a"],
        vec![&long],
    ] {
        let mut asked = get("/agents/qa/x");
        for id in &ids {
            asked = asked.header("x-request-id", id);
        }
        let (got, reply) = exchange(&gateway, &mut qa, Http::One, asked, "200 OK").await;
        let uuid = uuid::Uuid::parse_str(reply.request_id());
        let uuid = uuid.unwrap_or_else(|e| panic!("{ids:?} → {}: {e}", reply.request_id()));
        assert_eq!(uuid.get_version_num(), 7, "{ids:?}");
        assert_eq!(got.all("x-request-id"), [reply.request_id()]);
    }
}

#[tokio::test]
async fn a_request_id_of_the_agents_own_is_not_added() {
    let (mut qa, gateway) = one().await;
    let asked = get("/agents/qa/x").header("x-request-id", "mine");
    let head = "200 OK\r\nx-request-id: theirs";
    let (_, reply) = exchange(&gateway, &mut qa, Http::One, asked, head).await;
    assert_eq!(reply.headers.all("x-request-id"), ["mine"]);
}

#[tokio::test]
async fn lengths_and_their_absence_pass() {
    let head = |text: &'static str| {
        Arc::new(move |mut call: Call| async move {
            call.send(text).await;
            call.done().await;
        })
    };
    for (method, reply_head, length) in [
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n", Some("1234")),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", None),
        ("GET", "HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n\r\n", None),
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Some("0")),
        ("POST", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", Some("3")),
    ] {
        let answer = head(reply_head);
        let qa = Agent::with(move |call| answer(call)).await;
        let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
        for http in BOTH {
            let reply = gateway.ask_by(http, ask(method, "/agents/qa/x")).await;
            assert_eq!(reply.header("content-length"), length, "{http:?} {method} {reply_head:?}");
            let mut conn = Client::of(gateway.addr).connect().await;
            conn.ask(ask(method, "/agents/qa/x")).await;
            conn.ask(ask(method, "/agents/qa/x")).await;
        }
    }
}

#[tokio::test]
async fn a_request_without_a_body_gets_none_on_the_way() {
    let (mut qa, gateway) = one().await;
    for http in BOTH {
        let (got, _) = exchange(&gateway, &mut qa, http, get("/agents/qa/x"), "200 OK").await;
        assert!(!got.has("transfer-encoding") && !got.has("content-length"), "{http:?} {got:?}");
        let (got, _) =
            exchange(&gateway, &mut qa, http, post("/agents/qa/x", "abc"), "200 OK").await;
        assert_eq!((got.get("content-length"), got.has("transfer-encoding")), (Some("3"), false));
    }
}

#[tokio::test]
async fn two_lengths_never_reach_an_agent() {
    let (mut qa, gateway) = one().await;
    let chunked = "transfer-encoding: chunked\r\ncontent-length: 3";
    let mut conn = Client::of(gateway.addr).connect().await;
    conn.send(format!(
        "POST /agents/qa/x HTTP/1.1\r\nhost: x\r\n{chunked}\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    ))
    .await;
    // Refused, or taken as chunked (RFC 9112, 6.3): never both.
    let seen = tokio::select! {
        call = qa.call() => Some(call),
        reply = conn.reply() => { assert_eq!(reply.status, 400); None }
    };
    if let Some(mut call) = seen {
        assert!(!call.head.headers.has("content-length"), "{:?}", call.head.headers);
        assert_eq!(call.body().await, b"x");
        call.json("{}").await;
        conn.reply().await.ok();
    }
}
