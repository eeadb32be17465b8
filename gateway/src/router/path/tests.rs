use super::*;

#[test]
fn a_safe_path_passes() {
    let safe = [
        "/",
        "/agents/qa/invoke",
        "/models/org%2Fmodel",
        "/models/org%252Fmodel",
        "/models/org%5Cmodel",
        "/a..b/c",
        "/...",
        "/..../x",
        "/.well-known/agent-card.json",
        "/.hidden",
        "/..hidden",
        "/v1.0/x.",
        "/x;v=1/y;w=..",
        "/x;..",
        "/tasks/7:cancel",
        "//double//slash/",
        "/100%",
        "/%zz/%2",
        "/a%20b%7e",
        "/%e2%82%ac/€/caf%E9/%C0",
        "/a%2e%2eb",
        "/%2e%2e%2e",
        "/%252e%252e%252e",
        "/%25252e%25252e/x",
        "/%u20ac",
        "/\"{x}\"",
        "/a\\b",
    ];
    for path in safe {
        assert_eq!(check(path), Ok(()), "{path}");
    }
}

#[test]
fn a_dot_segment_is_refused_however_it_is_hidden() {
    let dots = [
        "/.",
        "/..",
        "/./",
        "/../",
        "/agents/qa/../coding/invoke",
        "/agents/qa/./invoke",
        "/agents/qa/..",
        "/a/%2e%2e/b",
        "/a/%2E./b",
        "/a/.%2e",
        "/a/%2e",
        "/a/%252e%252e/b",
        "/a/%25%32%65%2e/b",
        "/a/%2%65%2%65/b",
        "/a/..%2fb",
        "/a%2f..%2fb",
        "/a%2F%2E%2E%2Fb",
        "/a/..%5cb",
        "/a/..\\b",
        "/a\\..\\b",
        "/a%5c..",
        "/a%252f..",
        "/a%255c%252e%252e%255cb",
        "/a/..;/b",
        "/a/..;x=1/b",
        "/a/.;x",
        "/a/..%3b/b",
        "/a/..%253bx/b",
        "/a/%2e%2e;x%2fb",
        "/a/..%3fb",
        "/a/..%23b",
        "/a/%c0%ae%c0%ae/b",
        "/a/.%c0%ae",
        "/a/..%c0%afb",
        "/a/..%c1%9cb",
        "/a/%e0%80%ae./b",
        "/a/%f0%80%80%ae./b",
        "/a/%25c0%25ae./b",
        "/a/%c0%a52e./b",
        "/a/%u002e%u002e/b",
        "/a/..%u002fb",
        "/a/..%U005cb",
    ];
    for path in dots {
        assert_eq!(check(path), Err(DOTS), "{path}");
    }
}

#[test]
fn a_control_character_is_refused() {
    let controls =
        ["/a\0", "/a\n", "/a\x7f", "/%00", "/a%0db", "/a%0A", "/%7F", "/%2500", "/%1f", "/%c0%80"];
    for path in controls {
        assert_eq!(check(path), Err(CONTROL), "{path}");
    }
}

#[test]
fn what_is_no_path_is_refused() {
    for path in ["", "*", "agents/qa", "\\agents", "%2fagents"] {
        assert_eq!(check(path), Err(NO_SLASH), "{path}");
    }
}

/// Every view that some reader could have of a path, spelled out one by one.
fn views(path: &str) -> Vec<Vec<u8>> {
    let as_chars = |bytes: &[u8]| bytes.iter().map(|&b| char::from(b)).collect::<String>();
    let mut views = vec![as_chars(path.as_bytes())];
    for depth in 0..2 {
        for view in views.clone().iter().skip(if depth == 0 { 0 } else { 1 }) {
            views.push(decode_slowly(view, false));
            views.push(decode_slowly(view, true));
        }
    }
    views
        .iter()
        .map(|view| view.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect())
        .collect()
}

/// Decodes one level by looking each escape up in the list of all of them.
fn decode_slowly(path: &str, overlong: bool) -> String {
    let mut decoded = String::new();
    let mut rest = path;
    while let Some(first) = rest.chars().next() {
        let all = if first == '%' { 0..256u16 } else { 0..0 };
        let found = all.filter_map(|b| u8::try_from(b).ok()).find_map(|b| {
            let forms = [format!("%{b:02x}"), format!("%u00{b:02x}")];
            forms.iter().find_map(|form| {
                let start = rest.get(..form.len())?;
                start.eq_ignore_ascii_case(form).then(|| (char::from(b), form.len()))
            })
        });
        let (c, width) = found.unwrap_or((first, first.len_utf8()));
        decoded.push(c);
        rest = &rest[width..];
    }
    if overlong && decoded.contains(['\u{c0}', '\u{c1}']) {
        for b in 0..128u8 {
            let long = [char::from(0xc0 | b >> 6), char::from(0x80 | b & 0x3f)];
            decoded = decoded.replace(&long.iter().collect::<String>(), &char::from(b).to_string());
        }
    }
    decoded
}

fn is_dangerous(view: &[u8]) -> bool {
    let separators: [&[u8]; 2] = [b"/", b"/\\"];
    let ends: [&[u8]; 3] = [b"", b";", b";?#"];
    view.iter().any(u8::is_ascii_control)
        || separators.iter().any(|separators| {
            view.split(|b| separators.contains(b)).any(|segment| {
                ends.iter().any(|ends| {
                    let start = segment.split(|b| ends.contains(b)).next().unwrap();
                    start == b"." || start == b".."
                })
            })
        })
}

#[test]
fn the_check_refuses_exactly_what_some_reader_could_take_for_another_path() {
    let mut random = fastrand::Rng::with_seed(11);
    let pieces = [
        "/", "/", ".", ".", "..", "a", "2", "5", "e", "%", "%2e", "%2E", "%2f", "%5c", "\\", ";",
        "%3b", "%25", "c0", "%c0", "%ae", "%af", "%25c0", "%25ae", "%00", "%0", "u002e", "%u00",
        "%3f", "é", "%09",
    ];
    let mut refused = 0;
    for _ in 0..5_000 {
        let path: String = std::iter::once("/")
            .chain((0..random.usize(0..8)).map(|_| pieces[random.usize(..pieces.len())]))
            .collect();
        let dangerous = views(&path).iter().any(|view| is_dangerous(view));
        assert_eq!(check(&path).is_err(), dangerous, "{path}");
        refused += usize::from(dangerous);
    }
    assert!((500..4_500).contains(&refused), "{refused}: the test must see both kinds");
}
