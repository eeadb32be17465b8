//! The promises of `docs/architecture.md`, kept by looking at the source: a module of the gateway
//! uses only modules below it in `lib.rs`; crates depend on each other in one direction only; and
//! the table's crate does no I/O.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which crates of this workspace each may depend on. A new one has its line here.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("agents", &["config"]),
    ("benches", &[]),
    ("config", &[]),
    ("e2e", &[]),
    ("k8s", &["config"]),
    ("micro", &[]),
    ("switchyard", &["config", "k8s"]),
];

/// All that `config` may depend on: text, numbers and networks as values, nothing that opens
/// a file or a socket.
const PURE: &[&str] = &["ipnet", "serde_json", "sha2", "strsim", "toml"];

/// What of the standard library does I/O. (Addresses of `std::net` are values.)
const IMPURE: &[&str] = &[
    "env",
    "fs",
    "process",
    "thread",
    "File",
    "TcpListener",
    "TcpStream",
    "ToSocketAddrs",
    "UdpSocket",
    "UnixStream",
];

#[test]
fn a_module_uses_only_modules_below_it() {
    let src = workspace().join("gateway/src");
    let order = modules(&tokens(&read(&src.join("lib.rs"))));
    assert!(order.len() > 10, "lib.rs names the modules: {order:?}");
    let mut wrong = String::new();
    for file in sources(&src) {
        let Some(path) = module_path(&src, &file) else { continue };
        for (line, used) in uses(&tokens(&read(&file)), path.len()) {
            if let Some(why) = objection(&order, &path[0], &used) {
                let file = file.strip_prefix(workspace()).expect("it is in the workspace");
                writeln!(wrong, "{}:{line}: {why}", file.display()).expect("a string takes all");
            }
        }
    }
    assert!(wrong.is_empty(), "the order is that of gateway/src/lib.rs\n{wrong}");
}

#[test]
fn crates_depend_on_each_other_in_one_direction() {
    let packages = packages();
    for (name, dependencies) in &packages {
        let allowed = DIRECTIONS.iter().find(|(package, _)| package == name);
        let Some((_, allowed)) = allowed else {
            panic!("say in DIRECTIONS which crates of ours {name} may depend on");
        };
        let ours = dependencies.iter().filter(|dependency| packages.contains_key(*dependency));
        for dependency in ours.filter(|dependency| *dependency != name) {
            assert!(allowed.contains(&dependency.as_str()), "{name} depends on {dependency}");
        }
    }
}

#[test]
fn the_tables_crate_does_no_io() {
    for dependency in &packages()["config"] {
        let pure = PURE.contains(&dependency.as_str());
        assert!(pure, "config depends on {dependency}: if that does no I/O, add it to PURE");
    }
    for file in sources(&workspace().join("config/src")) {
        for used in std_paths(&tokens(&read(&file))) {
            let impure = IMPURE.contains(&used.text.as_str());
            assert!(!impure, "{}:{}: {} of std", file.display(), used.line, used.text);
        }
    }
}

/// Every word of every path that begins with `std::`.
fn std_paths(tokens: &[Token]) -> impl Iterator<Item = &Token> {
    let begins = |i: &usize| tokens[*i].text == "std" && *i + 1 < tokens.len();
    (0..tokens.len()).filter(begins).flat_map(|i| {
        let path = |token: &&Token| !matches!(token.text.as_str(), ";" | "(" | ")" | "=" | "*");
        tokens[i..].iter().take_while(path)
    })
}

/// Why a module may not use another, if it may not.
fn objection(order: &[String], module: &str, used: &str) -> Option<String> {
    let place = |name: &str| order.iter().position(|other| other == name);
    match (place(module), place(used)) {
        (None, _) => Some(format!("{module} is not in lib.rs")),
        (_, None) => Some(format!("crate::{used} is no module of lib.rs")),
        (Some(own), Some(other)) if other < own => {
            Some(format!("{module} uses {used}, which is above it"))
        }
        _ => None,
    }
}

/// A word, or a character that is none, and its line.
#[derive(Debug, PartialEq)]
struct Token {
    text: String,
    line: usize,
}

/// A source's tokens, without comments, strings and character literals.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let (mut tokens, mut i, mut line) = (Vec::new(), 0, 1);
    while i < chars.len() {
        let end = match at(i) {
            '/' if at(i + 1) == '/' => until(&chars, i, |c| c == '\n'),
            '/' if at(i + 1) == '*' => block_comment(&chars, i),
            '"' => string(&chars, i + 1),
            'r' | 'b' | 'c' if raw_string(&chars, i).is_some() => {
                raw_string(&chars, i).unwrap_or(i + 1)
            }
            '\'' if at(i + 1) == '\\' => until(&chars, i + 3, |c| c == '\'') + 1,
            '\'' if at(i + 2) == '\'' => i + 3,
            c if is_word(c) => until(&chars, i, |c| !is_word(c)),
            _ => i + 1,
        };
        let is_token = is_word(at(i)) && !matches!(at(end - 1), '"' | '#');
        if is_token || "{}();:,*=".contains(at(i)) {
            tokens.push(Token { text: chars[i..end].iter().collect(), line });
        }
        line += chars[i..end.min(chars.len())].iter().filter(|c| **c == '\n').count();
        i = end;
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn until(chars: &[char], from: usize, stop: impl Fn(char) -> bool) -> usize {
    chars.iter().skip(from).position(|c| stop(*c)).map_or(chars.len(), |n| from + n)
}

fn block_comment(chars: &[char], from: usize) -> usize {
    let (mut depth, mut i) = (0, from);
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    i
}

/// The end of a string whose text begins at `from`.
fn string(chars: &[char], from: usize) -> usize {
    let mut i = from;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// The end of `r"…"`, `r#"…"#`, `b"…"`, `br"…"`, `c"…"` at `from`, if there is one.
fn raw_string(chars: &[char], from: usize) -> Option<usize> {
    let prefix = until(chars, from, |c| !matches!(c, 'r' | 'b' | 'c'));
    let quote = until(chars, prefix, |c| c != '#');
    if prefix - from > 2 || chars.get(quote) != Some(&'"') {
        return None;
    }
    if !chars[from..prefix].contains(&'r') {
        return (quote == prefix).then(|| string(chars, quote + 1));
    }
    let hashes = quote - prefix;
    let closes = |i: usize| {
        chars[i] == '"'
            && chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
    };
    (quote + 1..chars.len()).find(|i| closes(*i)).map(|i| i + 1 + hashes)
}

/// The modules that `mod x;` lines name, in their order.
fn modules(tokens: &[Token]) -> Vec<String> {
    let named = tokens.windows(3).filter(|w| w[0].text == "mod" && w[2].text == ";");
    named.map(|w| w[1].text.clone()).collect()
}

/// The modules of `lib.rs` that a file uses, each with its line: what follows `crate::`, or as
/// many `super::` as lead out of a file this deep, alone or in a group.
fn uses(tokens: &[Token], depth: usize) -> Vec<(usize, String)> {
    let text = |i: usize| tokens.get(i).map_or("", |token| token.text.as_str());
    let mut found = Vec::new();
    let (mut braces, mut inline) = (0usize, Vec::new());
    for i in 0..tokens.len() {
        match text(i) {
            "{" if i >= 2 && text(i - 2) == "mod" => {
                inline.push(braces);
                braces += 1;
            }
            "{" => braces += 1,
            "}" => {
                braces = braces.saturating_sub(1);
                inline.pop_if(|begun| *begun == braces);
            }
            "crate" if text(i + 1) == ":" => found.extend(firsts(tokens, i + 3)),
            "super" if text(i + 1) == ":" && (i < 3 || text(i - 3) != "super") => {
                let chain =
                    (i..tokens.len()).step_by(3).take_while(|n| text(*n) == "super").count();
                if chain >= depth + inline.len() {
                    found.extend(firsts(tokens, i + 3 * chain));
                }
            }
            _ => {}
        }
    }
    found
}

/// The first words of the path, or of each path of the group, at `at`.
fn firsts(tokens: &[Token], at: usize) -> Vec<(usize, String)> {
    let Some(first) = tokens.get(at) else { return Vec::new() };
    if first.text != "{" {
        return vec![(first.line, first.text.clone())];
    }
    let (mut depth, mut begins, mut found) = (0, true, Vec::new());
    for token in &tokens[at..] {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," => begins = depth == 1,
            _ if begins => {
                found.push((token.line, token.text.clone()));
                begins = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found
}

/// The names of a file's module and of the modules around it; `None` for the crate's roots and
/// for what belongs to the command.
fn module_path(src: &Path, file: &Path) -> Option<Vec<String>> {
    let inner = file.strip_prefix(src).expect("it was found there").with_extension("");
    let path: Vec<_> = inner.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let outside = matches!(path[0].as_str(), "lib" | "main" | "cli");
    (!outside).then_some(path)
}

/// Every Rust file below a folder, in alphabetical order.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the gateway is a folder of the workspace")
}

/// The workspace's packages, each with what it depends on when it runs or is built.
fn packages() -> BTreeMap<String, Vec<String>> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]);
    let output = cargo.current_dir(workspace()).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let name = |value: &serde_json::Value| value["name"].as_str().expect("a name").to_owned();
    let dependencies = |package: &serde_json::Value| {
        let all = list(&package["dependencies"]);
        all.iter().filter(|dependency| dependency["kind"] != "dev").map(name).collect()
    };
    list(&metadata["packages"])
        .iter()
        .map(|package| (name(package), dependencies(package)))
        .collect()
}

#[track_caller]
fn check(source: &str, depth: usize, expected: &[(usize, &str)]) {
    let found = uses(&tokens(source), depth);
    let found: Vec<_> = found.iter().map(|(line, name)| (*line, name.as_str())).collect();
    assert_eq!(found, expected, "{source}");
}

#[test]
fn every_way_to_name_a_module_is_seen() {
    check("use crate::pool::Lease;", 1, &[(1, "pool")]);
    check(
        "use crate::{\n    pool::{Lease, now_ms},\n    table,\n};",
        1,
        &[(2, "pool"), (3, "table")],
    );
    check("fn f() {\n    crate::pool::now_ms()\n}", 1, &[(2, "pool")]);
    check("pub(crate) use x; pub(in crate::pool) fn f() {}", 1, &[(1, "pool")]);
    check("use super::pool; use super::{a, b::{c, d}};", 1, &[(1, "pool"), (1, "a"), (1, "b")]);
    check("use super::own; use super::super::pool;", 2, &[(1, "pool")]);
    check(
        "mod tests {\n use super::*;\n use super::super::pool;\n}\nuse super::x;",
        1,
        &[(3, "pool"), (5, "x")],
    );
}

#[test]
fn what_is_only_said_is_not_used() {
    check("//! See [`crate::pool`].\n/* crate::pool /* */ crate::a */", 1, &[]);
    check("\"crate::pool \\\" crate::a\" r#\"crate::\"b\"# b\"crate::c\" '\"'", 1, &[]);
    check("fn f<'a>(x: &'a str, c: char) { c == '\\'' } use crate::pool;", 1, &[(1, "pool")]);
    check("\"one\n\ntwo\"\nuse crate::pool;", 1, &[(4, "pool")]);
}

#[test]
fn io_is_seen_in_paths_and_groups() {
    let words = |source: &str| -> Vec<String> {
        std_paths(&tokens(source)).map(|token| token.text.clone()).collect()
    };
    assert!(words("use std::fs::File;").contains(&"fs".to_owned()));
    assert!(words("use std::{fmt, net::{IpAddr, TcpStream}};").contains(&"TcpStream".to_owned()));
    assert!(!words("use std::fmt; fn fs() {}").contains(&"fs".to_owned()));
}

#[test]
fn what_is_above_is_objected_to() {
    let order = ["proxy", "table", "pool"].map(str::to_owned);
    assert_eq!(objection(&order, "table", "pool"), None);
    assert_eq!(objection(&order, "table", "table"), None);
    assert!(objection(&order, "pool", "table").is_some());
    assert!(objection(&order, "pool", "Lease").is_some(), "only modules stand in lib.rs");
}
