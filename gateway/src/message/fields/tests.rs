use super::*;

fn fields(lines: &[(&str, &str)]) -> Fields {
    lines.iter().copied().collect()
}

fn shown(fields: &Fields) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    fields.lines().map(|line| (text(line.name), text(line.value))).collect()
}

fn expect(fields: &Fields, lines: &[(&str, &str)]) {
    let lines: Vec<_> = lines.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    assert_eq!(shown(fields), lines);
}

#[test]
fn every_name_is_found_and_no_other() {
    for name in Name::ALL {
        let text = name.as_str().as_bytes();
        assert_eq!(Name::of(text), Some(*name));
        assert_eq!(Name::of(&text[1..]), None);
        for at in 0..text.len() {
            let mut other = text.to_vec();
            other[at] = b'~';
            assert_eq!(Name::of(&other), None);
        }
    }
    assert_eq!(Name::of(b""), None);
}

#[test]
fn lines_keep_their_order_and_names_become_lower_case() {
    let read = fields(&[("Host", "a"), ("X-A", "1"), ("VIA", "v"), ("x-a", "2"), ("via", "")]);
    expect(&read, &[("host", "a"), ("x-a", "1"), ("via", "v"), ("x-a", "2"), ("via", "")]);
    assert_eq!(read.get(Name::Via), Some(&b"v"[..]));
    assert_eq!(read.all(Name::Via).collect::<Vec<_>>(), [&b"v"[..], b""]);
    assert_eq!(read.named("X-a"), Some(&b"1"[..]));
    assert_eq!((read.get(Name::Date), read.named("x-b")), (None, None));
}

#[test]
fn what_is_set_is_the_only_one_and_what_is_removed_is_gone() {
    let mut changed = fields(&[("via", "1"), ("host", "a"), ("via", "2"), ("te", "x")]);
    changed.set(Name::Via, b"3");
    changed.copy(Name::Host, Name::ForwardedHost);
    changed.copy(Name::Date, Name::Te);
    changed.remove(Name::Host);
    changed.push(Name::Via, b"4");
    expect(&changed, &[("te", "x"), ("via", "3"), ("x-forwarded-host", "a"), ("via", "4")]);
    changed.change(Name::Via, |value| (value == b"4").then(|| b"five".to_vec()));
    changed.remove_all(Names::of(&[Name::Te, Name::Date, Name::ForwardedHost]));
    expect(&changed, &[("via", "3"), ("via", "five")]);
    assert!(!changed.contains(Name::Te) && !changed.may_have_any(Names::of(&[Name::Te])));
    changed.retain(|line| line.value != b"3");
    expect(&changed, &[("via", "five")]);
}

#[test]
fn a_map_and_back_is_the_same() {
    let lines = [("host", "a"), ("x-a", "1"), ("set-cookie", "b"), ("set-cookie", "c")];
    let map = HeaderMap::from(&fields(&lines));
    assert_eq!(map.get_all("set-cookie").iter().count(), 2);
    expect(&Fields::from(&map), &lines);
}

#[test]
fn lines_go_out_as_one_however_they_came() {
    let head = b"Host: a\r\nX-A:  b \r\nvia:c\nTE: d\r\n\r\n";
    let mut fields = Fields::of_head(head);
    for (name, value) in [(0..4, 6..7), (9..12, 15..16), (19..22, 23..24), (25..27, 29..30)] {
        fields.read(name, value);
    }
    fields.push(Name::Date, b"e");
    let written = |but| {
        let mut out = Vec::new();
        fields.write(Names::of(but), &mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(written(&[]), "host: a\r\nx-a: b\r\nvia: c\r\nte: d\r\ndate: e\r\n");
    assert_eq!(written(&[Name::Via, Name::Host]), "x-a: b\r\nte: d\r\ndate: e\r\n");
}
