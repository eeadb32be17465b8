use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::*;

/// Reads a body in one piece, and byte by byte, which must come to the same.
fn read(body: &[u8]) -> Result<String, BodyError> {
    let mut whole = Scanner::new();
    let mut bytes = Scanner::new();
    let at_once = whole.feed(body);
    let one_by_one = body.chunks(1).try_for_each(|piece| bytes.feed(piece));
    assert_eq!(at_once, one_by_one);
    let outcome = whole.finish();
    assert_eq!(bytes.finish(), outcome, "{}", String::from_utf8_lossy(body));
    outcome
}

#[track_caller]
fn names(body: &str, expected: &str) {
    assert_eq!(read(body.as_bytes()).as_deref(), Ok(expected), "{body}");
}

#[track_caller]
fn fails(body: &str, expected: BodyError) {
    assert_eq!(read(body.as_bytes()), Err(expected), "{body}");
}

#[test]
fn the_top_level_member_names_the_agent() {
    names(r#"{"agent":"qa"}"#, "qa");
    names(" \t\r\n{ \"input\" : \"agent\" , \"agent\" : \"qa\" } \n", "qa");
    names(r#"{"a":{"agent":"x"},"b":["agent",{"agent":1}],"agent":"qa","c":{"agent":2}}"#, "qa");
    names(r#"{"n":[-0,0.5e+9,1E-2,true,false,null,[],{}],"agent":"qa"}"#, "qa");
    names(r#"{"agen":1,"agents":2,"Agent":3,"agent ":4,"":5,"agent":"qa"}"#, "qa");
    names(r#"{"agent":""}"#, "");
}

#[test]
fn escapes_are_read_as_what_they_stand_for() {
    names(r#"{"\u0061gent":"\u0071\u0061"}"#, "qa");
    names(r#"{"a\u0067en\u0074":"q\/\"\\\b\f\n\r\tä\u00e4"}"#, "q/\"\\\u{8}\u{c}\n\r\tää");
    names(r#"{"agent":"\ud83d\ude00€"}"#, "\u{fffd}\u{fffd}€");
    fails(r#"{"agent":"qa","\u0061\u0067\u0065\u006e\u0074":"qa"}"#, BodyError::Twice);
}

#[test]
fn what_does_not_name_one_agent_is_told_apart() {
    for body in
        ["", "  ", "hello", "[]", "\"agent\"", "[{\"agent\":\"qa\"}]", "agent=qa", "\u{feff}{}"]
    {
        fails(body, BodyError::NotAnObject);
    }
    for body in ["{}", r#"{"input":"x"}"#, r#"{"a":{"agent":"qa"}}"#] {
        fails(body, BodyError::Missing);
    }
    for value in ["1", "null", "true", "{}", "[\"qa\"]", "-"] {
        fails(&format!(r#"{{"agent": {value}}}"#), BodyError::NotAString);
    }
    for second in ["\"qa\"", "\"coding\"", "null", "1"] {
        fails(&format!(r#"{{"agent":"qa","x":[],"agent":{second}}}"#), BodyError::Twice);
    }
}

#[test]
fn what_is_not_quite_json_is_refused() {
    for body in [
        "{",
        "{\"",
        "{\"a",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":\"",
        "{\"agent\":\"qa\"",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":2}",
        "{a:1}",
        "{'a':1}",
        "{}{}",
        "{}x",
        "{} ]",
        "{]",
        "{\"a\":[}",
        "{\"a\":[1}]",
        "{\"a\":[1,]}",
        "{\"a\":[,1]}",
        "{\"a\":01}",
        "{\"a\":-}",
        "{\"a\":1.}",
        "{\"a\":.5}",
        "{\"a\":1e}",
        "{\"a\":1e+}",
        "{\"a\":+1}",
        "{\"a\":0x1}",
        "{\"a\":--1}",
        "{\"a\":1.2.3}",
        "{\"a\":NaN}",
        "{\"a\":tru}",
        "{\"a\":nulll}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12g4\"}",
        "{\"a\":\"\0\"}",
        "{/**/}",
        "{\"a\":1}//",
    ] {
        fails(body, BodyError::Invalid);
    }
    for text in [
        &b"\xff"[..],
        b"\x80",
        b"\xc0\xaf",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xc3",
    ] {
        assert_eq!(
            read(&[b"{\"agent\":\"", text, b"\"}"].concat()),
            Err(BodyError::Invalid),
            "{text:x?}"
        );
    }
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| {
        format!("{{\"a\":{}{},\"agent\":\"qa\"}}", "[".repeat(depth), "]".repeat(depth))
    };
    names(&nested(127), "qa");
    fails(&nested(128), BodyError::TooDeep);
    fails(&format!("{{\"a\":{}", "{\"a\":".repeat(100_000)), BodyError::TooDeep);
}

#[test]
fn a_name_is_kept_only_as_far_as_it_can_matter() {
    let long = "q".repeat(1_000_000);
    names(&format!(r#"{{"agent":"{long}"}}"#), &long[..128]);
}

#[test]
fn of_a_body_that_is_cut_the_agent_so_far_is_taken() {
    let cut = |start: &str| {
        let mut scanner = Scanner::new();
        scanner.feed(start.as_bytes()).unwrap();
        scanner.cut()
    };
    assert_eq!(cut(r#"{"agent":"qa""#).as_deref(), Ok("qa"));
    assert_eq!(cut(r#"{"agent":"qa","input":"long te"#).as_deref(), Ok("qa"));
    for start in ["", "  ", "{", r#"{"agent":"q"#, r#"{"agent""#, r#"{"input":"x"#] {
        assert_eq!(cut(start), Err(BodyError::Missing), "{start}");
    }
}

#[test]
fn a_failure_is_told_at_once_and_stays() {
    let mut scanner = Scanner::new();
    assert_eq!(scanner.feed(b"{\"agent\":"), Ok(()));
    assert_eq!(scanner.feed(b"7,\"x\":"), Err(BodyError::NotAString));
    assert_eq!(scanner.feed(b"1}"), Err(BodyError::NotAString));
    assert_eq!(scanner.finish(), Err(BodyError::NotAString));
}

/// A document's top-level members, doubles too, as serde reads them.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// What serde_json makes of a body; `None` where it refuses what RFC 8259 leaves open.
fn by_serde(body: &[u8]) -> Option<Result<String, ()>> {
    match serde_json::from_slice::<Members>(body) {
        Ok(Members(members)) => {
            let mut named = members.into_iter().filter(|(key, _)| key == "agent");
            Some(match (named.next(), named.next()) {
                (Some((_, Value::String(name))), None) => Ok(name),
                _ => Err(()),
            })
        }
        Err(error) => {
            let text = error.to_string();
            let open = ["surrogate", "hex escape", "out of range"];
            (!open.iter().any(|open| text.contains(open))).then_some(Err(()))
        }
    }
}

/// A random document, most of them valid.
fn document(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut body = value(random, 0);
    for _ in 0..random.usize(0..3).saturating_sub(1) {
        let at = random.usize(..=body.len());
        match random.u8(0..3) {
            0 if at < body.len() => drop(body.remove(at)),
            1 => body.truncate(at),
            _ => {
                body.insert(
                    at,
                    *random.choice(b"{}[]\",:\\u0 1.eE+-tn\n\x01\xc3\xa4\xff").unwrap(),
                );
            }
        }
    }
    body
}

fn value(random: &mut fastrand::Rng, depth: usize) -> Vec<u8> {
    let kind = if depth == 0 { 9 } else { random.usize(0..if depth < 4 { 10 } else { 7 }) };
    let space = random.choice([&b""[..], b"", b" ", b"\n\t\r "]).unwrap();
    let text = match kind {
        0 => random.choice(["0", "-0", "12", "-3.25", "1e5", "2E-3", "0.1e+2"]).unwrap().into(),
        1 => random.choice(["true", "false", "null"]).unwrap().into(),
        2..=6 => string(random),
        kind => {
            let members = (0..random.usize(0..5)).map(|_| {
                let value = value(random, depth + 1);
                if kind == 7 {
                    value
                } else {
                    [string(random).as_bytes(), b":", space, &value].concat()
                }
            });
            let inner = members.collect::<Vec<_>>().join(&b","[..]);
            let (open, close): (&[u8], &[u8]) = if kind == 7 { (b"[", b"]") } else { (b"{", b"}") };
            return [space, open, &inner, space, close, space].concat();
        }
    };
    [space, text.as_bytes(), space].concat()
}

fn string(random: &mut fastrand::Rng) -> String {
    let choices = [
        "agent",
        "agent",
        "agent",
        "\\u0061gent",
        "agen",
        "agents",
        "qa",
        "c\\u006fding",
        "\\\"agent\\\"",
        "",
        "€uro ä",
        "\\ud83d\\ude00",
        "\\n\\/\\\\",
        "a longer text, as an input would be",
    ];
    format!("\"{}\"", random.choice(choices).unwrap())
}

#[test]
fn it_agrees_with_serde_json_on_generated_documents() {
    let mut random = fastrand::Rng::with_seed(3);
    let (mut named, mut refused, mut left_open) = (0, 0, 0);
    for _ in 0..20_000 {
        let body = document(&mut random);
        let mut scanner = Scanner::new();
        let mut rest = &body[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(random.usize(1..=rest.len()));
            let _ = scanner.feed(piece);
            rest = after;
        }
        match (by_serde(&body), scanner.finish()) {
            (None, _) => left_open += 1,
            (Some(Err(())), ours) => {
                refused += 1;
                assert!(ours.is_err(), "{ours:?} for {}", String::from_utf8_lossy(&body));
            }
            (Some(Ok(theirs)), ours) => {
                named += 1;
                let theirs = theirs.replace('\u{1f600}', "\u{fffd}\u{fffd}");
                assert_eq!(ours, Ok(theirs), "{}", String::from_utf8_lossy(&body));
            }
        }
    }
    assert!(named > 2_000 && refused > 2_000 && left_open < 2_000, "{named} {refused} {left_open}");
}
