use http::{Uri, Version};

use super::*;

/// A request as a test wishes it; the rest is the usual.
struct Case {
    peer: &'static str,
    scheme: Scheme,
    trusted: bool,
    mounted: bool,
    version: Version,
    uri: &'static str,
}

const USUAL: Case = Case {
    peer: "192.0.2.7",
    scheme: Scheme::Http,
    trusted: false,
    mounted: true,
    version: Version::HTTP_11,
    uri: "/agents/qa/x",
};

/// Header lines as a client would write them.
fn fields(lines: &[&str]) -> Fields {
    lines.iter().map(|line| line.split_once(": ").unwrap_or((line, ""))).collect()
}

fn lines(fields: &Fields) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut lines: Vec<String> =
        fields.lines().map(|line| format!("{}: {}", text(line.name), text(line.value))).collect();
    lines.sort();
    lines
}

impl Case {
    fn send(&self, sent: &[&str]) -> Fields {
        let mut fields = fields(sent);
        let uri: Uri = self.uri.parse().unwrap();
        let context = RequestContext {
            agent: &AgentHeaders::new("qa"),
            mounted: self.mounted,
            peer: &Peer::new(self.peer.parse().unwrap(), self.scheme),
            trusted: self.trusted,
            version: self.version,
            uri: &uri,
            request_id: b"id-1",
            upgrade: upgrade(self.version, &fields),
        };
        request(&mut fields, &context);
        fields
    }

    /// Sends `sent`; beside what is always set, the agent gets exactly `expected`.
    #[track_caller]
    fn check(&self, sent: &[&str], expected: &[&str]) {
        let mut sent_on = self.send(sent);
        let mut take = |name| {
            let value = sent_on.get(name).map(<[u8]>::to_vec);
            sent_on.remove(name);
            value
        };
        assert_eq!(take(Name::AgentType).as_deref(), Some(&b"qa"[..]));
        assert_eq!(take(Name::RequestId).as_deref(), Some(&b"id-1"[..]));
        let mut expected: Vec<&str> = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(lines(&sent_on), expected, "{sent:?}");
    }
}

const SET: [&str; 4] = [
    "via: 1.1 switchyard",
    "x-forwarded-for: 192.0.2.7",
    "x-forwarded-prefix: /agents/qa",
    "x-forwarded-proto: http",
];

#[track_caller]
fn passes(sent: &[&str], expected: &[&str]) {
    USUAL.check(sent, &[&SET[..], expected].concat());
}

#[test]
fn the_agent_learns_who_asks_and_how() {
    passes(&["host: gw.example:8080"], &["x-forwarded-host: gw.example:8080"]);
    let case =
        Case { peer: "::ffff:192.0.2.9", scheme: Scheme::Https, version: Version::HTTP_2, ..USUAL };
    let case = Case { uri: "https://u:p@gw.example/agents/qa/x", ..case };
    case.check(
        &[],
        &[
            "via: 2 switchyard",
            "x-forwarded-for: 192.0.2.9",
            "x-forwarded-host: gw.example",
            "x-forwarded-prefix: /agents/qa",
            "x-forwarded-proto: https",
        ],
    );
}

#[test]
fn nothing_is_said_of_a_mount_that_was_not_used() {
    let case = Case { mounted: false, version: Version::HTTP_10, ..USUAL };
    let expected = ["via: 1.0 switchyard", "x-forwarded-for: 192.0.2.7", "x-forwarded-proto: http"];
    case.check(&["x-forwarded-prefix: /mine"], &expected);
}

#[test]
fn what_a_stranger_claims_is_dropped() {
    let claims = [
        "x-forwarded-for: 10.0.0.1",
        "x-forwarded-for: 10.0.0.2",
        "x-forwarded-proto: https",
        "x-forwarded-host: bank.example",
        "x-forwarded-prefix: /bank",
        "x-forwarded-port: 443",
        "x-forwarded-user: root",
        "x-real-ip: 10.0.0.1",
        "forwarded: for=10.0.0.1",
        "x-agent-type: coding",
        "x-request-id: not ours",
        "x-switchyard-not-begun: 1",
        "x-switchyard-anything: 1",
        "x_forwarded_for: 10.0.0.1",
        "x-forwarded_user: root",
        "x_agent_type: coding",
        "x_real_ip: 10.0.0.1",
        "x_switchyard_token: 1",
    ];
    passes(&claims, &[]);
    passes(&["x_other: 1", "x-real-ip-2: 1"], &["x_other: 1", "x-real-ip-2: 1"]);
}

#[test]
fn a_trusted_proxy_is_believed_and_continued() {
    let sent = [
        "host: inner",
        "x-forwarded-for: 10.0.0.1",
        "x-forwarded-for: 10.0.0.2, 10.0.0.3",
        "x-forwarded-proto: https",
        "x-forwarded-host: bank.example",
        "x-forwarded-prefix: /bank/",
        "x-forwarded-port: 443",
        "x-real-ip: 10.0.0.1",
        "forwarded: for=10.0.0.1;proto=https",
        "via: 1.1 edge",
    ];
    let expected = [
        "x-forwarded-for: 10.0.0.1, 10.0.0.2, 10.0.0.3, 192.0.2.7",
        "x-forwarded-proto: https",
        "x-forwarded-host: bank.example",
        "x-forwarded-prefix: /bank/agents/qa",
        "x-forwarded-port: 443",
        "x-real-ip: 10.0.0.1",
        "forwarded: for=10.0.0.1;proto=https, for=192.0.2.7;proto=http",
        "via: 1.1 edge",
        "via: 1.1 switchyard",
    ];
    Case { trusted: true, ..USUAL }.check(&sent, &expected);
}

#[test]
fn a_trusted_proxy_that_says_nothing_is_a_client_like_any_other() {
    let case = Case { trusted: true, ..USUAL };
    case.check(&[], &SET);
    case.check(&["x-forwarded-for: ", "x-forwarded-prefix: junk"], &SET);
    case.check(&["x-forwarded-prefix: /"], &SET);
    let v6 = Case { peer: "2001:db8::1", ..case };
    let sent = v6.send(&["forwarded: for=_x"]);
    let forwarded = sent.get(Name::Forwarded).unwrap();
    assert_eq!(forwarded, b"for=_x, for=\"[2001:db8::1]\";proto=http");
}

#[test]
fn hop_by_hop_headers_go_no_further() {
    let hops = [
        "connection: keep-alive, X-Mine ,, Keep-Alive",
        "connection: x-other",
        "x-mine: 1",
        "x-other: 1",
        "keep-alive: timeout=5",
        "proxy-connection: keep-alive",
        "proxy-authenticate: Basic",
        "proxy-authorization: Basic eDp5",
        "transfer-encoding: chunked",
        "te: gzip",
        "upgrade: h2c",
        "http2-settings: AAMAAABkAAQAAP__",
        "expect: 100-continue",
    ];
    passes(&hops, &[]);
}

#[test]
fn end_to_end_headers_pass_as_they_are() {
    let ends = [
        "authorization: Bearer x",
        "content-length: 3",
        "content-type: application/json",
        "cookie: a=1; b=2",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate: a=1",
        "tracestate: b=2",
        "baggage: k=v",
        "trailer: x-checksum",
        "idempotency-key: \"k\"",
        "accept: text/event-stream",
        "x-session-id: s",
    ];
    passes(&ends, &ends);
}

#[test]
fn connection_takes_away_neither_the_framing_nor_what_a_proxy_said() {
    let sent = [
        "connection: host, Content-Length, x-forwarded-for, X-Forwarded-Proto, via, x-agent-type, x-request-id",
        "host: h",
        "content-length: 3",
        "x-forwarded-for: 10.0.0.1",
        "x-forwarded-proto: https",
        "via: 1.1 edge",
    ];
    let expected = [
        "content-length: 3",
        "via: 1.1 edge",
        "via: 1.1 switchyard",
        "x-forwarded-for: 10.0.0.1, 192.0.2.7",
        "x-forwarded-host: h",
        "x-forwarded-prefix: /agents/qa",
        "x-forwarded-proto: https",
    ];
    Case { trusted: true, ..USUAL }.check(&sent, &expected);
}

#[test]
fn of_te_only_trailers_goes_on() {
    passes(&["te: trailers"], &["te: trailers"]);
    passes(&["connection: TE", "te: gzip;q=0.5, Trailers;q=1"], &["te: trailers"]);
    passes(&["connection: te", "te: gzip, deflate"], &[]);
}

#[test]
fn an_upgrade_is_passed_on_but_not_one_of_the_connection_itself() {
    let web_socket =
        ["connection: keep-alive, Upgrade", "upgrade: websocket", "sec-websocket-version: 13"];
    passes(
        &web_socket,
        &["connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13"],
    );
    for upgrade in
        ["upgrade: h2c", "upgrade: websocket, H2C", "upgrade: TLS/1.2", "upgrade: HTTP/3.0"]
    {
        passes(&["connection: upgrade", upgrade], &[]);
    }
    passes(&["upgrade: websocket"], &[]);
    passes(&["connection: upgrade"], &[]);
    assert!(!upgrade(Version::HTTP_2, &fields(&web_socket)));
    assert!(!upgrade(Version::HTTP_10, &fields(&web_socket)));
}

#[test]
fn cookies_on_several_lines_become_one() {
    passes(&["cookie: a=1", "cookie: b=2; c=3", "cookie: d=4"], &["cookie: a=1; b=2; c=3; d=4"]);
}

#[test]
fn what_an_agent_says_of_its_connection_stays_behind() {
    let mut fields = fields(&[
        "connection: close, x-mine",
        "x-mine: 1",
        "keep-alive: timeout=5",
        "transfer-encoding: chunked",
        "upgrade: h2c",
        "proxy-authenticate: Basic",
        "alt-svc: h3=\":443\"",
        "x-request-id: agents",
        "x-switchyard-error: queue-full",
        "x-switchyard-not-begun: 1",
        "proxy-status: sidecar; error=dns_error",
        "content-type: text/event-stream",
        "content-length: 12",
        "set-cookie: a=1",
        "set-cookie: b=2",
        "trailer: x-checksum",
        "via: 1.1 sidecar",
    ]);
    response(&mut fields, ResponseContext { version: Version::HTTP_11, upgraded: false });
    let expected = [
        "content-length: 12",
        "content-type: text/event-stream",
        "proxy-status: sidecar; error=dns_error",
        "set-cookie: a=1",
        "set-cookie: b=2",
        "trailer: x-checksum",
        "via: 1.1 sidecar",
        "via: 1.1 switchyard",
    ];
    assert_eq!(lines(&fields), expected);
}

#[test]
fn a_101_keeps_its_upgrade() {
    let mut fields =
        fields(&["connection: Upgrade", "upgrade: websocket", "sec-websocket-accept: x"]);
    response(&mut fields, ResponseContext { version: Version::HTTP_11, upgraded: true });
    let expected = [
        "connection: upgrade",
        "sec-websocket-accept: x",
        "upgrade: websocket",
        "via: 1.1 switchyard",
    ];
    assert_eq!(lines(&fields), expected);
}

#[test]
fn trailers_carry_no_framing_and_no_claims() {
    let mut trailers = HeaderMap::from(&fields(&[
        "content-length: 1",
        "transfer-encoding: chunked",
        "host: h",
        "te: trailers",
        "connection: x",
        "x: 1",
        "x-forwarded-for: 10.0.0.1",
        "x-agent-type: coding",
        "x-switchyard-error: x",
        "grpc-status: 0",
        "x-checksum: abc",
    ]));
    super::trailers(&mut trailers);
    assert_eq!(lines(&Fields::from(&trailers)), ["grpc-status: 0", "x-checksum: abc"]);
}
