//! What belongs to one connection and goes no further (RFC 9110, 7.6.1), and upgrades, which are
//! the exception.

use http::Version;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Whether a header is always of one connection, `connection` itself and `te` aside. `trailer`
/// isn't: announced trailers pass. `upgrade` is decided apart.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "transfer-encoding"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "keep-alive"
            | "proxy-connection"
            | "http2-settings"
            | "proxy-authentication-info"
    )
}

/// Removes what belongs to the connection that it came by. Of `te`, `trailers` stays; of an upgrade
/// that is passed on, `upgrade` does.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap, upgrade: bool) {
    let te = headers.contains_key(header::TE);
    let takes_trailers = te && lists(headers, &header::TE, "trailers");
    if headers.contains_key(header::CONNECTION) {
        remove_named(headers);
    }
    super::remove_all(headers, is_hop_by_hop);
    if takes_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    } else if te {
        headers.remove(header::TE);
    }
    if upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    } else {
        headers.remove(header::UPGRADE);
    }
}

/// Removes `connection` and what it names.
fn remove_named(headers: &mut HeaderMap) {
    let values = headers.get_all(header::CONNECTION).iter();
    let naming: Vec<HeaderValue> = values.filter(|value| !is_usual(value)).cloned().collect();
    headers.remove(header::CONNECTION);
    for name in naming.iter().flat_map(tokens).filter(|name| !is_kept(name)) {
        headers.remove(name);
    }
}

/// Whether a `connection` value names no header at all, as nearly every one.
fn is_usual(value: &HeaderValue) -> bool {
    ["keep-alive", "close"]
        .iter()
        .any(|usual| value.as_bytes().eq_ignore_ascii_case(usual.as_bytes()))
}

/// Whether a header stays although `connection` names it. A client could otherwise take away what a
/// proxy before us has said of it, or unframe the body. (`upgrade` is decided apart.)
fn is_kept(name: &str) -> bool {
    let kept = [
        "host",
        "content-length",
        "content-encoding",
        "content-type",
        "forwarded",
        "via",
        "upgrade",
    ];
    kept.iter().any(|kept| name.eq_ignore_ascii_case(kept))
        || name.get(..12).is_some_and(|start| start.eq_ignore_ascii_case("x-forwarded-"))
}

/// Whether a request asks for an upgrade that we pass on: HTTP/1.1, and none to another version of
/// HTTP or to TLS, which are between us and the client.
#[must_use]
pub fn upgrade(version: Version, headers: &HeaderMap) -> bool {
    version == Version::HTTP_11
        && headers.contains_key(header::UPGRADE)
        && lists(headers, &header::CONNECTION, "upgrade")
        && !headers.get_all(header::UPGRADE).iter().flat_map(tokens).any(is_of_the_connection)
}

/// Whether an `upgrade` token stands for the connection's own protocol.
fn is_of_the_connection(protocol: &str) -> bool {
    let name = protocol.split('/').next().unwrap_or(protocol);
    ["h2c", "h2", "h3", "http", "tls"].iter().any(|own| name.eq_ignore_ascii_case(own))
}

/// Whether a list header holds a token, parameters aside.
fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers.get_all(name).iter().flat_map(tokens).any(|listed| {
        listed.split(';').next().is_some_and(|listed| listed.trim().eq_ignore_ascii_case(token))
    })
}

/// The elements of a list header's value; those that aren't ASCII are no tokens.
fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    let text = value.to_str().unwrap_or("");
    text.split(',').map(str::trim).filter(|token| !token.is_empty())
}
