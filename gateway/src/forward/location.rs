//! What an agent says of its own places, told as the client sees them: `location`,
//! `content-location` and the paths of cookies that point into the agent's root are moved under its
//! mount.
//!
//! What is left alone: other hosts (also the gateway's own, which only an agent that knows of its
//! mount can mean), relative references, and what is under the mount already, from an agent that
//! honours `x-forwarded-prefix`. After `POST /invoke`, locations are moved, for under its mount is
//! where the agent can be reached; cookies are not, or they would not come back to `/invoke`.

use crate::message::{Fields, Name};

/// Where an agent is, for itself and for the client.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// `/agents/<type>`.
    pub mount: &'a str,
    /// The `x-forwarded-prefix` that the agent was sent, where that was another than the mount.
    pub prefix: Option<&'a [u8]>,
    /// The endpoint that answered, `host:port`.
    pub authority: &'a str,
    /// Whether the request came by the mount.
    pub mounted: bool,
    /// Whether it came by the mount without a slash behind it, so that the client takes for a
    /// neighbour of `<type>` what the agent means to be below its root.
    pub bare: bool,
}

/// Moves the places in an agent's response.
pub fn relocate(fields: &mut Fields, place: &Place<'_>) {
    for name in [Name::Location, Name::ContentLocation] {
        fields.change(name, |reference| place.moved(reference));
    }
    if place.mounted {
        fields.change(Name::SetCookie, |cookie| place.moved_cookie(cookie));
    }
}

impl Place<'_> {
    /// A URI reference as the client needs it, where that is another.
    fn moved(&self, reference: &[u8]) -> Option<Vec<u8>> {
        if let Some((scheme, authority, rest)) = split(reference) {
            return self.is_ours(scheme, authority).then(|| match rest {
                [b'/', ..] if self.knows_its_mount(rest) => rest.to_vec(),
                [b'/', ..] => self.under_mount(rest),
                _ => self.under_mount(&[b"/", rest].concat()),
            });
        }
        match reference {
            [b'/', ..] => (!self.knows_its_mount(reference)).then(|| self.under_mount(reference)),
            _ if self.bare && is_relative_path(reference) => {
                Some([self.mount.as_bytes(), b"/", reference].concat())
            }
            _ => None,
        }
    }

    /// A cookie as the client needs it, where that is another. Without a path of its own a cookie
    /// belongs to where it was asked for, which is right but at the bare mount. `__Host-` cookies
    /// are left alone: with another path than `/` no client would take them.
    fn moved_cookie(&self, cookie: &[u8]) -> Option<Vec<u8>> {
        if cookie.get(..7).is_some_and(|start| start.eq_ignore_ascii_case(b"__Host-")) {
            return None;
        }
        let mut moved = Vec::with_capacity(cookie.len() + self.mount.len());
        let (mut has_path, mut changed) = (false, false);
        for (index, part) in cookie.split(|&b| b == b';').enumerate() {
            let (name, value) = attribute(part);
            let path = index > 0 && name.eq_ignore_ascii_case(b"path") && value.starts_with(b"/");
            let domain =
                index > 0 && name.eq_ignore_ascii_case(b"domain") && self.is_our_host(value);
            has_path |= path;
            changed |= domain;
            if domain {
                continue;
            }
            if index > 0 {
                moved.push(b';');
            }
            if path && !self.knows_its_mount(value) {
                changed = true;
                moved.extend_from_slice(b" Path=");
                moved.extend_from_slice(self.mount.as_bytes());
                moved.extend_from_slice(if value == b"/" { b"" } else { value });
            } else {
                moved.extend_from_slice(part);
            }
        }
        if !has_path && self.bare {
            changed = true;
            moved.extend_from_slice(b"; Path=");
            moved.extend_from_slice(self.mount.as_bytes());
        }
        changed.then_some(moved)
    }

    fn under_mount(&self, path: &[u8]) -> Vec<u8> {
        [self.mount.as_bytes(), path].concat()
    }

    /// Whether a path is one that an agent that knows of its mount would give.
    fn knows_its_mount(&self, path: &[u8]) -> bool {
        let below = |mount: &[u8]| {
            path.strip_prefix(mount)
                .is_some_and(|rest| matches!(rest.first(), None | Some(b'/' | b'?' | b'#')))
        };
        below(self.mount.as_bytes()) || self.prefix.is_some_and(below)
    }

    /// Whether an authority is the endpoint's; its port may be left out where the scheme says it.
    fn is_ours(&self, scheme: &[u8], authority: &[u8]) -> bool {
        let host = authority.rsplit(|&b| b == b'@').next().unwrap_or(authority);
        let port = if scheme.eq_ignore_ascii_case(b"https:") { ":443" } else { ":80" };
        let short = self.authority.strip_suffix(port).unwrap_or(self.authority);
        [self.authority, short].iter().any(|ours| host.eq_ignore_ascii_case(ours.as_bytes()))
    }

    /// Whether a cookie's domain is the endpoint's host, which the client never asked: only for the
    /// one that it did ask can it keep the cookie, and that is what a cookie without domain is for.
    fn is_our_host(&self, domain: &[u8]) -> bool {
        let domain = domain.strip_prefix(b".").unwrap_or(domain);
        let host = self.authority.rsplit_once(':').map_or(self.authority, |(host, _)| host);
        domain.eq_ignore_ascii_case(host.as_bytes())
    }
}

/// Scheme with its colon (empty where the reference has none), authority, and what follows, of a
/// reference to HTTP that has an authority.
fn split(reference: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let start = reference.windows(2).position(|two| two == b"//")?;
    let (scheme, rest) = reference.split_at(start);
    let is_http = [&b""[..], b"http:", b"https:"].iter().any(|s| scheme.eq_ignore_ascii_case(s));
    let rest = &rest[2..];
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    is_http.then(|| (scheme, &rest[..end], &rest[end..]))
}

/// Whether a reference has a path and nothing before it, and that path isn't absolute.
fn is_relative_path(reference: &[u8]) -> bool {
    let end = reference.iter().position(|b| matches!(b, b'/' | b'?' | b'#'));
    let first = &reference[..end.unwrap_or(reference.len())];
    !first.is_empty() && !first.contains(&b':')
}

/// A cookie's attribute: name, and value where it has one.
fn attribute(part: &[u8]) -> (&[u8], &[u8]) {
    let at = part.iter().position(|&b| b == b'=').unwrap_or(part.len());
    let value = part.get(at + 1..).unwrap_or_default();
    (part[..at].trim_ascii(), value.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTED: Place<'static> = Place {
        mount: "/agents/qa",
        prefix: None,
        authority: "127.0.0.1:8001",
        mounted: true,
        bare: false,
    };

    #[track_caller]
    fn check(place: &Place<'_>, name: &'static str, said: &str, expected: &str) {
        let mut fields = Fields::from_iter([(name, said)]);
        relocate(&mut fields, place);
        assert_eq!(fields.named(name), Some(expected.as_bytes()), "{name}: {said}");
    }

    #[test]
    fn a_location_in_the_agents_root_is_moved_under_the_mount() {
        for (said, expected) in [
            ("/", "/agents/qa/"),
            ("/runs/1?a=/b#c", "/agents/qa/runs/1?a=/b#c"),
            ("/agents/coding/x", "/agents/qa/agents/coding/x"),
            ("/agents/qant", "/agents/qa/agents/qant"),
            ("http://127.0.0.1:8001/runs/1", "/agents/qa/runs/1"),
            ("HTTPS://127.0.0.1:8001", "/agents/qa/"),
            ("http://127.0.0.1:8001?x=1", "/agents/qa/?x=1"),
            ("http://user@127.0.0.1:8001//evil.example/x", "/agents/qa//evil.example/x"),
            ("//127.0.0.1:8001/x", "/agents/qa/x"),
            ("http://127.0.0.1:8001/agents/qa/x", "/agents/qa/x"),
        ] {
            check(&MOUNTED, "location", said, expected);
            check(&MOUNTED, "content-location", said, expected);
            check(&Place { mounted: false, ..MOUNTED }, "location", said, expected);
        }
    }

    #[test]
    fn any_other_location_is_left_alone() {
        for said in [
            "",
            "runs/1",
            "./x",
            "../x",
            "?page=2",
            "#top",
            "/agents/qa",
            "/agents/qa/x",
            "/agents/qa?x",
            "https://example.com/x",
            "http://127.0.0.1:8002/x",
            "http://127.0.0.1/x",
            "http://127.0.0.1:8001.example.com/",
            "http://127.0.0.1:8001@example.com/",
            "//example.com/x",
            "mailto:x@y",
            "x-app://127.0.0.1:8001/x",
            "x?next=http://127.0.0.1:8001/x",
        ] {
            check(&MOUNTED, "location", said, said);
        }
    }

    #[test]
    fn the_schemes_port_may_be_left_out() {
        let place = Place { authority: "agent.local:80", ..MOUNTED };
        check(&place, "location", "http://Agent.local/x", "/agents/qa/x");
        check(&place, "location", "http://agent.local:80/x", "/agents/qa/x");
        check(&place, "location", "https://agent.local/x", "https://agent.local/x");
        let six = Place { authority: "[::1]:443", ..MOUNTED };
        check(&six, "location", "https://[::1]/x", "/agents/qa/x");
        check(&six, "location", "https://[::1]:1443/x", "https://[::1]:1443/x");
    }

    #[test]
    fn an_agent_that_knows_of_an_outer_prefix_is_left_alone() {
        let place = Place { prefix: Some(b"/bank/agents/qa"), ..MOUNTED };
        check(&place, "location", "/bank/agents/qa/x", "/bank/agents/qa/x");
        check(&place, "location", "/agents/qa/x", "/agents/qa/x");
        check(&place, "location", "/bank/x", "/agents/qa/bank/x");
    }

    #[test]
    fn at_the_bare_mount_relative_is_relative_to_the_agents_root() {
        let place = Place { bare: true, ..MOUNTED };
        for (said, expected) in [
            ("runs/1", "/agents/qa/runs/1"),
            ("./x", "/agents/qa/./x"),
            ("x?a=http://b", "/agents/qa/x?a=http://b"),
            ("?page=2", "?page=2"),
            ("mailto:x@y", "mailto:x@y"),
            ("", ""),
        ] {
            check(&place, "location", said, expected);
        }
        check(&place, "set-cookie", "a=1; Secure", "a=1; Secure; Path=/agents/qa");
    }

    #[test]
    fn a_cookies_path_is_moved_under_the_mount() {
        for (said, expected) in [
            ("a=1; Path=/", "a=1; Path=/agents/qa"),
            ("a=1; Path=/; HttpOnly; SameSite=Lax", "a=1; Path=/agents/qa; HttpOnly; SameSite=Lax"),
            ("a=1;path = /x/ ;Secure", "a=1; Path=/agents/qa/x/;Secure"),
            ("a=1; PATH=/agents/qant", "a=1; Path=/agents/qa/agents/qant"),
            ("a=1; Domain=127.0.0.1; Path=/x", "a=1; Path=/agents/qa/x"),
            ("a=1; domain=.127.0.0.1", "a=1"),
        ] {
            check(&MOUNTED, "set-cookie", said, expected);
        }
    }

    #[test]
    fn any_other_cookie_is_left_alone() {
        for said in [
            "a=1",
            "",
            "path=/",
            "domain=127.0.0.1",
            "a=1; Secure",
            "a=1; Path=",
            "a=1; Path=x",
            "a=1; path=/agents/qa",
            "a=1; path=/agents/qa/x",
            "a=1; Domain=example.com",
            "__Host-a=1; Path=/; Secure",
            "__host-a=1; Path=/; Secure",
        ] {
            check(&MOUNTED, "set-cookie", said, said);
        }
        check(&Place { mounted: false, ..MOUNTED }, "set-cookie", "a=1; Path=/", "a=1; Path=/");
    }

    #[test]
    fn every_cookie_is_moved() {
        let cookies = ["a=1; Path=/", "b=2", "c=3; Path=/x"];
        let mut fields: Fields = cookies.iter().map(|cookie| ("set-cookie", *cookie)).collect();
        relocate(&mut fields, &MOUNTED);
        let cookies: Vec<_> = fields.all(Name::SetCookie).collect();
        assert_eq!(cookies, [&b"a=1; Path=/agents/qa"[..], b"b=2", b"c=3; Path=/agents/qa/x"]);
    }
}
