//! Whatever the file holds, the answer is a table or problems, never a panic, and it comes soon.

use std::fmt::Write;
use std::time::Instant;

use crate::shipped;

/// Mutations tried for each shipped table.
const MUTATIONS: u64 = 400;

fn check(text: &str) {
    if let Err(problems) = config::parse(text, "soup.toml") {
        assert!(!problems.is_empty());
        let lines = text.split('\n').count();
        for problem in problems {
            assert!(problem.line <= lines && problem.line > 0 && problem.col > 0, "{problem}");
        }
    }
}

#[test]
fn soup_of_pieces_of_tables_never_panics() {
    let pieces = [
        "[agents.a]",
        "[[agents.a]]",
        "[agents",
        "]",
        "\n",
        "\n",
        "\n",
        "=",
        " = ",
        "\"",
        "'",
        "\"\"\"",
        "{",
        "}",
        "[",
        ",",
        ".",
        "#",
        "queue",
        "timeout",
        "defaults",
        "[defaults]",
        "shares = \"a\"",
        "endpoints",
        "\"5s\"",
        "5",
        "-1",
        "1e400",
        "0x_f",
        "99999999999999999999",
        "true",
        "1979-05-27",
        "inf",
        "é",
        "\u{0}",
        "\r",
        "\t",
        "scale = { min = 0, max = 0 }",
        "versions = [{}]",
        "env.A",
        "\\u0000",
        "deployment",
        "\u{feff}",
        "nan",
    ];
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..4_000 {
        let count = random.usize(1..40);
        let soup: String = (0..count).map(|_| *random.choice(&pieces).unwrap()).collect();
        check(&soup);
    }
}

#[test]
fn mutated_tables_never_panic() {
    for path in shipped() {
        let text = std::fs::read_to_string(&path).unwrap();
        let mut random = fastrand::Rng::with_seed(2);
        for _ in 0..MUTATIONS {
            let mut bytes = text.clone().into_bytes();
            for _ in 0..random.usize(1..6) {
                if bytes.is_empty() {
                    break;
                }
                let at = random.usize(..bytes.len());
                match random.u8(..4) {
                    0 => bytes[at] = random.u8(..),
                    1 => drop(bytes.remove(at)),
                    2 => bytes.insert(at, *random.choice(b"\"'[]{}=,.#\n-09azA\\").unwrap()),
                    _ => bytes.truncate(at),
                }
            }
            check(&String::from_utf8_lossy(&bytes));
        }
    }
}

#[test]
fn deep_nesting_is_a_problem_and_no_overflow() {
    check(&format!("a = {}", "[".repeat(100_000)));
    check(&format!("a = {}", "{a = ".repeat(10_000)));
    check(&format!("{}a = 1", "a.".repeat(100_000)));
}

#[test]
#[allow(clippy::print_stdout)] // for people: how long it took asserts nothing
fn ten_thousand_agents_are_read_at_once() {
    let mut good = String::from("[defaults]\nqueue = { max = 5 }\n");
    let mut bad = String::new();
    for i in 0..10_000 {
        let _ = write!(
            good,
            "[agents.a{i}]\nservice = \"a{i}\"\n[agents.a{i}.scale]\nmin = 1\nmax = 2\ncpu = 50\n"
        );
        let _ = write!(good, "[agents.a{i}.deployment]\nrequests = {{ cpu = 1 }}\nimage = \"i\"\n");
        let _ = write!(
            good,
            "[agents.b{i}]\nshares = \"{}\"\n",
            if i == 0 { "a0".into() } else { format!("b{}", i - 1) }
        );
        let _ = write!(
            bad,
            "[agents.A{i}]\nendpoint = 5\ntiemout = \"5\"\nshares = \"nobody-{i}\"\nservice = \"s\"\n"
        );
    }
    let began = Instant::now();
    let table = config::parse(&good, "good.toml").unwrap().table;
    assert_eq!(table.agents.len(), 20_000);
    assert_eq!(table.agents["b9999"].shares.as_deref(), Some("a0"));
    println!("20,000 agents: {:?}", began.elapsed());
    let began = Instant::now();
    let problems = config::parse(&bad, "bad.toml").unwrap_err();
    assert!(problems.len() >= 40_000, "{}", problems.len());
    println!("{} problems: {:?}", problems.len(), began.elapsed());
}
