//! What belongs to one connection and goes no further (RFC 9110, 7.6.1), and upgrades, which are
//! the exception.

use http::Version;

use crate::message::{Fields, Name, Names};

/// What is always of one connection, `connection` itself and `te` aside. `trailer` isn't: announced
/// trailers pass. `upgrade` is decided apart.
const HOP_BY_HOP: Names = Names::of(&[
    Name::TransferEncoding,
    Name::ProxyAuthenticate,
    Name::ProxyAuthorization,
    Name::KeepAlive,
    Name::ProxyConnection,
    Name::Http2Settings,
    Name::ProxyAuthenticationInfo,
]);

/// Removes what belongs to the connection that it came by. Of `te`, `trailers` stays; of an upgrade
/// that is passed on, `upgrade` does.
pub(super) fn remove_hop_by_hop(fields: &mut Fields, upgrade: bool) {
    let te = fields.contains(Name::Te);
    let takes_trailers = te && lists(fields, Name::Te, "trailers");
    if fields.contains(Name::Connection) {
        remove_named(fields);
    }
    fields.remove_all(HOP_BY_HOP);
    fields.remove(Name::Te);
    if takes_trailers {
        fields.push(Name::Te, b"trailers");
    }
    if upgrade {
        fields.set(Name::Connection, b"upgrade");
    } else {
        fields.remove(Name::Upgrade);
    }
}

/// Removes `connection` and what it names.
fn remove_named(fields: &mut Fields) {
    let naming = fields.all(Name::Connection).filter(|value| !is_usual(value));
    let named: Vec<String> = naming.flat_map(tokens).map(str::to_ascii_lowercase).collect();
    fields.remove(Name::Connection);
    if !named.is_empty() {
        let is_named = |name: &[u8]| named.iter().any(|named| named.as_bytes() == name);
        fields.retain(|line| !is_named(line.name) || is_kept(line.name));
    }
}

/// Whether a `connection` value names no header at all, as nearly every one.
fn is_usual(value: &[u8]) -> bool {
    ["keep-alive", "close"].iter().any(|usual| value.eq_ignore_ascii_case(usual.as_bytes()))
}

/// Whether a header stays although `connection` names it. A client could otherwise take away what a
/// proxy before us has said of it, or unframe the body. (`upgrade` is decided apart.)
fn is_kept(name: &[u8]) -> bool {
    let kept = [
        Name::Host,
        Name::ContentLength,
        Name::ContentEncoding,
        Name::ContentType,
        Name::Forwarded,
        Name::Via,
        Name::Upgrade,
    ];
    kept.iter().any(|kept| kept.as_str().as_bytes() == name) || name.starts_with(super::FORWARDED)
}

/// Whether a request asks for an upgrade that we pass on: HTTP/1.1, and none to another version of
/// HTTP or to TLS, which are between us and the client.
#[must_use]
pub fn upgrade(version: Version, fields: &Fields) -> bool {
    version == Version::HTTP_11
        && fields.contains(Name::Upgrade)
        && lists(fields, Name::Connection, "upgrade")
        && !fields.all(Name::Upgrade).flat_map(tokens).any(is_of_the_connection)
}

/// Whether an `upgrade` token stands for the connection's own protocol.
fn is_of_the_connection(protocol: &str) -> bool {
    let name = protocol.split('/').next().unwrap_or(protocol);
    ["h2c", "h2", "h3", "http", "tls"].iter().any(|own| name.eq_ignore_ascii_case(own))
}

/// Whether a list header holds a token, parameters aside.
fn lists(fields: &Fields, name: Name, token: &str) -> bool {
    fields.all(name).flat_map(tokens).any(|listed| {
        listed.split(';').next().is_some_and(|listed| listed.trim().eq_ignore_ascii_case(token))
    })
}

/// The elements of a list header's value; those that aren't text are no tokens.
fn tokens(value: &[u8]) -> impl Iterator<Item = &str> {
    let text = std::str::from_utf8(value).unwrap_or("");
    text.split(',').map(str::trim).filter(|token| !token.is_empty())
}
