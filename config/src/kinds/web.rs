//! Values that HTTP and IP give their form: addresses, networks, endpoints, headers, paths.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use serde_json::json;
use toml::de::DeValue;

use crate::kinds::{Scalar, text};
use crate::names::TENANT_MAX;
use crate::reader::{Wrong, quoted};
use crate::section::{Leaf, Name};
use crate::table::Endpoint;

/// An address and port to listen on.
pub(crate) struct Address;

impl Scalar for Address {
    type Value = SocketAddr;

    fn leaf() -> Leaf {
        Leaf::new(
            "an IP address and port",
            "\"127.0.0.1:8080\" or \"[::]:8080\"",
            json!({"type": "string", "pattern": "^([0-9.]+|\\[[0-9A-Fa-f:.]+\\]):[0-9]{1,5}$"}),
        )
    }

    fn parse(value: &DeValue<'_>) -> Result<SocketAddr, Wrong> {
        let written = match value.as_integer() {
            Some(port) => port.as_str(),
            None => text(value)?,
        };
        if let Ok(address) = written.parse() {
            return Ok(address);
        }
        let port = written.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
        let rather = |address: String| {
            let why = format!("takes an IP address and port, not `{}`", quoted(written));
            Err(Wrong::Rather(why, format!("write \"{address}\"")))
        };
        match (written.rsplit_once(':'), port) {
            (None, Some(port)) => rather(format!("127.0.0.1:{port}")),
            (Some(("" | "*", _)), Some(port)) => rather(format!("0.0.0.0:{port}")),
            (Some(("localhost", _)), Some(port)) => rather(format!("127.0.0.1:{port}")),
            _ => Err(Wrong::Kind),
        }
    }
}

/// A network in CIDR notation; a bare address is a network of one.
pub(crate) struct Network;

impl Scalar for Network {
    type Value = IpNet;

    fn leaf() -> Leaf {
        Leaf::new(
            "a network",
            "\"10.0.0.0/8\" or \"fd00::/8\"",
            json!({"type": "string", "pattern": "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$"}),
        )
    }

    fn parse(value: &DeValue<'_>) -> Result<IpNet, Wrong> {
        let written = text(value)?;
        if let Ok(address) = written.parse::<std::net::IpAddr>() {
            return Ok(IpNet::from(address));
        }
        let network = written.parse::<IpNet>().map_err(|_| Wrong::Kind)?;
        if network.addr() == network.network() {
            return Ok(network);
        }
        let why = format!("takes a network, but `{}` is an address in one", quoted(written));
        Err(Wrong::Rather(why, format!("write \"{}\"", network.trunc())))
    }
}

/// A header's name, in lower case.
pub(crate) struct Header;

impl Scalar for Header {
    type Value = String;

    fn leaf() -> Leaf {
        Leaf::new(
            "a header's name",
            "\"x-session-id\"",
            json!({"type": "string", "pattern": "^[-!#$%&'*+.^_`|~0-9A-Za-z]+$"}),
        )
    }

    fn parse(value: &DeValue<'_>) -> Result<String, Wrong> {
        let written = text(value)?;
        // RFC 9110, section 5.6.2: a token.
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if written.is_empty() || !written.bytes().all(fits) {
            return Err(Wrong::Kind);
        }
        Ok(written.to_ascii_lowercase())
    }
}

/// The name of a tenant, as its header says it.
pub(crate) struct TenantName;

impl Name for TenantName {
    const PLACEHOLDER: &'static str = "TENANT";

    fn leaf() -> Leaf {
        Leaf::new(
            "a tenant's name",
            "\"acme\"",
            json!({"type": "string", "pattern": "^[A-Za-z0-9._:/+=@-]{1,128}$"}),
        )
    }

    fn check(name: &str) -> Result<(), (String, Option<String>)> {
        if crate::names::is_tenant(name.as_bytes()) {
            return Ok(());
        }
        let message = format!("`{}` can't be a tenant's name", quoted(name));
        let hint = format!("1 to {TENANT_MAX} of A-Z a-z 0-9 . _ : / + = @ -");
        Err((message, Some(hint)))
    }
}

/// What of a path is wrong, if anything. `query`: one may follow.
fn path_fault(path: &str, query: bool) -> Option<String> {
    let shown = quoted(path);
    if !path.starts_with('/') {
        return Some(format!("`{shown}` is no path: it doesn't begin with /"));
    }
    if path.bytes().any(|b| !b.is_ascii_graphic()) {
        return Some(format!("`{shown}` has a character that must be percent-encoded"));
    }
    let end = path.find('?').filter(|_| query).unwrap_or(path.len());
    if path[..end].contains(['?', '#']) || path.contains('#') {
        return Some(format!("`{shown}` is more than a path: leave out what follows it"));
    }
    if path[..end].split('/').any(|segment| segment == "." || segment == "..") {
        return Some(format!("`{shown}` has a dot segment, which is never routed"));
    }
    None
}

/// A path to ask, with or without a query.
pub(crate) struct ProbePath;

impl Scalar for ProbePath {
    type Value = String;

    fn leaf() -> Leaf {
        Leaf::new("a path", "\"/readyz\"", json!({"type": "string", "pattern": "^/[!-~]*$"}))
    }

    fn parse(value: &DeValue<'_>) -> Result<String, Wrong> {
        let written = text(value)?;
        match path_fault(written, true) {
            Some(fault) => Err(Wrong::Because(format!("takes a path, and {fault}"))),
            None => Ok(written.to_owned()),
        }
    }
}

/// A path without query, on either side of a rename.
pub(crate) struct Path;

impl Scalar for Path {
    type Value = String;

    fn leaf() -> Leaf {
        let example = "\"/run\"".to_owned();
        let schema = json!({"type": "string", "pattern": "^/[!-~]*$"});
        Leaf::new("a path", example, schema)
    }

    fn parse(value: &DeValue<'_>) -> Result<String, Wrong> {
        let written = text(value)?;
        match path_fault(written, false) {
            Some(fault) => Err(Wrong::Because(format!("takes a path, and {fault}"))),
            None => Ok(written.to_owned()),
        }
    }
}

impl Name for Path {
    const PLACEHOLDER: &'static str = "\"/PATH\"";

    fn leaf() -> Leaf {
        <Self as Scalar>::leaf()
    }

    fn check(name: &str) -> Result<(), (String, Option<String>)> {
        match path_fault(name, false) {
            Some(fault) => Err((fault, Some("for example \"/invoke\" = \"/run\"".to_owned()))),
            None => Ok(()),
        }
    }
}

/// `http://host:port`.
pub(crate) struct Http;

impl Scalar for Http {
    type Value = Endpoint;

    fn leaf() -> Leaf {
        Leaf::new(
            "an address",
            "\"http://127.0.0.1:8001\"",
            json!({"type": "string", "pattern": "^http://(\\[[0-9A-Fa-f:.]+\\]|[-._A-Za-z0-9]+)(:[0-9]{1,5})?/?$"}),
        )
    }

    fn parse(value: &DeValue<'_>) -> Result<Endpoint, Wrong> {
        let written = text(value)?;
        let because = |why: &str| Err(Wrong::Because(why.to_owned()));
        if written.contains('@') {
            // Not repeated: it may hold a password.
            return because("takes an address without user and password");
        }
        let Some((scheme, rest)) = written.split_once("://") else {
            let why = format!("takes an address with its scheme, not `{}`", quoted(written));
            return match authority(written) {
                Some(endpoint) => Err(Wrong::Rather(why, format!("write \"http://{endpoint}\""))),
                None => Err(Wrong::Because(why)),
            };
        };
        if !scheme.eq_ignore_ascii_case("http") {
            let why = format!("takes http:// addresses, not {}://", quoted(scheme));
            if scheme.eq_ignore_ascii_case("https") {
                let hint = "agents are reached in the clear; let a mesh or sidecar add TLS";
                return Err(Wrong::Rather(why, hint.to_owned()));
            }
            return Err(Wrong::Because(why));
        }
        let (host, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let Some(endpoint) = authority(host) else {
            return Err(Wrong::Because(format!(
                "takes http://host:port, not `{}`",
                quoted(written)
            )));
        };
        if !matches!(rest, "" | "/") {
            let why =
                format!("takes http://host:port, but `{}` goes on after that", quoted(written));
            return Err(Wrong::Rather(
                why,
                format!("write \"http://{endpoint}\", and rename paths with `paths`"),
            ));
        }
        Ok(endpoint)
    }
}

/// `host`, `host:port`, `[v6]:port`; the port is 80 without one.
fn authority(written: &str) -> Option<Endpoint> {
    if let Some(rest) = written.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        let host = host.parse::<Ipv6Addr>().ok()?.to_string();
        let port = if port.is_empty() { 80 } else { parse_port(port.strip_prefix(':')?)? };
        return Some(Endpoint { host, port });
    }
    let (host, port) = match written.split_once(':') {
        Some((host, port)) => (host, parse_port(port)?),
        None => (written, 80),
    };
    is_host(host).then(|| Endpoint { host: host.to_ascii_lowercase(), port })
}

fn parse_port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

/// An IPv4 address or a DNS name; a name that ends in a number would be an address.
fn is_host(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|b| b.is_ascii_digit()) {
        return host.parse::<Ipv4Addr>().is_ok();
    }
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Option<String> {
        Http::parse(&DeValue::String(text.into())).ok().map(|endpoint| endpoint.to_string())
    }

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        let check = |text: &str, shown: &str| assert_eq!(endpoint(text).as_deref(), Some(shown));
        check("http://127.0.0.1:8001", "127.0.0.1:8001");
        check("http://qa-agent", "qa-agent:80");
        check("http://QA.Example.com:81/", "qa.example.com:81");
        check("http://[::1]:8000", "[::1]:8000");
        check("http://[2001:DB8::1]", "[2001:db8::1]:80");
        for wrong in [
            "",
            "http://",
            "http://:80",
            "127.0.0.1:80",
            "https://a",
            "http://a/b",
            "http://a?b",
            "http://u:p@a",
            "http://a:0",
            "http://a:70000",
            "http://a:+1",
            "http://300.1.1.1",
            "http://1",
            "http://[::1",
            "http://::1",
            "http://a b",
            "http://-a",
            "unix:///x",
        ] {
            assert_eq!(endpoint(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_path_has_no_dot_segments_and_no_rest() {
        for fine in ["/", "/run", "/v1/chat/completions", "/a%2Fb", "/a..b/.c"] {
            assert_eq!(path_fault(fine, false), None);
        }
        for wrong in ["", "run", "/a/../b", "/.", "/a b", "/a\u{0}", "/a?b", "/a#b", "/é"] {
            assert!(path_fault(wrong, false).is_some(), "{wrong:?}");
        }
        assert_eq!(path_fault("/readyz?full=1", true), None);
    }
}
