//! The single values of the table that HTTP, DNS and Kubernetes give their form.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::json;
use toml::de::DeValue;

use crate::kinds::{Scalar, is_label, text};
use crate::reader::{Wrong, quoted};
use crate::section::{Leaf, Name};
use crate::table::Endpoint;

/// One line of text.
pub(crate) struct Line;

impl Scalar for Line {
    type Value = String;

    fn leaf() -> Leaf {
        let example = "\"Writes and runs code\"".to_owned();
        Leaf { noun: "a line of text".to_owned(), example, schema: json!({"type": "string"}) }
    }

    fn parse(value: &DeValue<'_>) -> Result<String, Wrong> {
        let written = text(value)?;
        if written.contains(char::is_control) {
            return Err(Wrong::Because(
                "is one line of text, without control characters".to_owned(),
            ));
        }
        Ok(written.to_owned())
    }
}

/// One word of a command line.
pub(crate) struct Argument;

impl Scalar for Argument {
    type Value = String;
    const ECHO: bool = false;

    fn leaf() -> Leaf {
        let example = "[\"agent\", \"--type\", \"qa\"]".to_owned();
        Leaf { noun: "a string".to_owned(), example, schema: json!({"type": "string"}) }
    }

    fn parse(value: &DeValue<'_>) -> Result<String, Wrong> {
        let written = text(value)?;
        if written.contains('\0') {
            return Err(Wrong::Because("cannot hold a NUL".to_owned()));
        }
        Ok(written.to_owned())
    }
}

/// A container image.
pub(crate) struct Image;

impl Scalar for Image {
    type Value = String;

    fn leaf() -> Leaf {
        Leaf {
            noun: "a container image".to_owned(),
            example: "\"registry.example.com/agent:1.0.0\"".to_owned(),
            schema: json!({"type": "string", "pattern": "^[A-Za-z0-9][-A-Za-z0-9._/:@]*$"}),
        }
    }

    fn parse(value: &DeValue<'_>) -> Result<String, Wrong> {
        let written = text(value)?;
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._/:@".contains(&b);
        let starts = written.starts_with(|c: char| c.is_ascii_alphanumeric());
        if starts && written.bytes().all(fits) { Ok(written.to_owned()) } else { Err(Wrong::Kind) }
    }
}

/// A DNS-1123 label.
pub(crate) struct Label;

impl Scalar for Label {
    type Value = String;

    fn leaf() -> Leaf {
        Leaf {
            noun: "a DNS-1123 label (1 to 63 of a-z, 0-9 and -)".to_owned(),
            example: "\"ai-agents\"".to_owned(),
            schema: json!({"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"}),
        }
    }

    fn parse(value: &DeValue<'_>) -> Result<String, Wrong> {
        let written = text(value)?;
        if is_label(written) { Ok(written.to_owned()) } else { Err(Wrong::Kind) }
    }
}

/// A Kubernetes Service: `name` or `name.namespace`.
pub(crate) struct Service;

impl Scalar for Service {
    type Value = String;

    fn leaf() -> Leaf {
        let label = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?";
        Leaf {
            noun: "a Service's name, or name.namespace".to_owned(),
            example: "\"coding-agent\"".to_owned(),
            schema: json!({"type": "string", "pattern": format!("^{label}(\\.{label})?$")}),
        }
    }

    fn parse(value: &DeValue<'_>) -> Result<String, Wrong> {
        let written = text(value)?;
        let labels: Vec<&str> = written.split('.').collect();
        if !labels.iter().all(|label| is_label(label)) {
            return Err(Wrong::Kind);
        }
        match labels[..] {
            [_] | [_, _] => Ok(written.to_owned()),
            [name, namespace, "svc", ..] => Err(Wrong::Rather(
                "takes a Service's name, or name.namespace".to_owned(),
                format!("write \"{name}.{namespace}\""),
            )),
            _ => Err(Wrong::Kind),
        }
    }
}

/// The name of another agent.
pub(crate) struct Other;

impl Scalar for Other {
    type Value = String;

    fn leaf() -> Leaf {
        Leaf {
            noun: "the name of another agent".to_owned(),
            example: "\"qa\"".to_owned(),
            schema: json!({"type": "string"}),
        }
    }

    fn parse(value: &DeValue<'_>) -> Result<String, Wrong> {
        Ok(text(value)?.to_owned())
    }
}

/// A header's name, in lower case.
pub(crate) struct Header;

impl Scalar for Header {
    type Value = String;

    fn leaf() -> Leaf {
        Leaf {
            noun: "a header's name".to_owned(),
            example: "\"x-session-id\"".to_owned(),
            schema: json!({"type": "string", "pattern": "^[-!#$%&'*+.^_`|~0-9A-Za-z]+$"}),
        }
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
        Leaf {
            noun: "a path".to_owned(),
            example: "\"/readyz\"".to_owned(),
            schema: json!({"type": "string", "pattern": "^/[!-~]*$"}),
        }
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
        Leaf { noun: "a path".to_owned(), example, schema }
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
        Leaf {
            noun: "an address".to_owned(),
            example: "\"http://127.0.0.1:8001\"".to_owned(),
            schema: json!({"type": "string", "pattern": "^http://(\\[[0-9A-Fa-f:.]+\\]|[-._A-Za-z0-9]+)(:[0-9]{1,5})?/?$"}),
        }
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
            let hint = "agents are reached in the clear; let a mesh or sidecar add TLS".to_owned();
            return Err(Wrong::Rather(why, hint));
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
