//! `switchyard status` against an admin port.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::{nobody, reply, run, server, switchyard};

const AGENTS: &str = r#"{"agents":[{"type":"qa","description":"","in_flight":1,"queued":0,"held":0,"load":1,"ready":2,
    "desired":2,"capacity":null,"requests":10,"errors":0,"rate":1.5,"p50_ms":20.0,"p99_ms":2500.0,"memory_bytes":52428800,
    "endpoints":[]}]}"#;
const TABLE: &str = r#"{"generation":7,"hash":"0123456789abcdef","table":{},"refused":null}"#;

const SHOWN: &str = "\
TYPE  READY  IN-FLIGHT  QUEUED   RATE    P50    P99  ERRORS  MEMORY
qa      2/2          1       0  1.5/s  20 ms  2.5 s       0  50 MiB

table: generation 7, hash 0123456789ab
";

fn json(body: &str) -> String {
    reply("200 OK", "application/json", body)
}

#[test]
fn agents_are_shown_as_a_table() {
    let (url, requests) = server(&[&json(AGENTS), &json(TABLE)]);
    assert_eq!(run(&["status", "--url", &url]), (Some(0), SHOWN.into(), String::new()));
    let requests = requests.join().unwrap();
    assert!(
        requests[0].starts_with("GET /api/agents ") && requests[1].starts_with("GET /api/table ")
    );
}

#[test]
fn watching_repeats_blocks_in_a_pipe_also_while_the_gateway_is_away() {
    let (url, _) = server(&[&json(AGENTS), &json(TABLE), &json(AGENTS), &json(TABLE)]);
    let mut command = switchyard(&["status", "--watch"]);
    command.env("SWITCHYARD_ADMIN_URL", &url).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    for _ in 0..2 {
        let block: Vec<_> = lines.by_ref().take(5).collect();
        assert_eq!(block.join("\n"), SHOWN);
    }
    assert!(lines.next().unwrap().starts_with("no gateway's admin port at "));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn where_nobody_listens_it_says_what_to_do() {
    let (code, out, err) = run(&["status", "--url", &nobody()]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("Connection refused") && err.contains("switchyard up"), "{err}");
    assert_eq!(err.lines().count(), 1);
}

#[test]
fn the_clients_port_is_told_from_the_admin_port() {
    let (url, _) = server(&[&reply("404 Not Found", "application/problem+json", "{}")]);
    let (code, _, err) = run(&["status", "--url", &url]);
    assert_eq!(code, Some(1));
    assert!(err.contains("is it the admin port"), "{err}");
}
