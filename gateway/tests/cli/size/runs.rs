//! Loads that come by themselves, and runs that end early, against an agent that runs already: this process.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::agent::Known;
use super::{Yard, outcome, switchyard};

/// Answers every request with 200; gives its URL, and each first line and body as they come.
pub(super) fn agent() -> (String, mpsc::Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/base", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "threads of a test, and nobody waits to send")]
    let (seen, requests) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, seen) = (stream.unwrap(), seen.clone());
            // The client may leave at any time.
            thread::spawn(move || drop(serve(&stream, &seen)));
        }
    });
    (url, requests)
}

fn serve(stream: &TcpStream, seen: &mpsc::Sender<(String, String)>) -> io::Result<()> {
    let mut from = BufReader::new(stream);
    loop {
        let (mut length, mut first, mut line) = (0, String::new(), String::new());
        while from.read_line(&mut line)? > 2 {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if first.is_empty() {
                first = line.trim().to_owned();
            }
            line.clear();
        }
        if first.is_empty() {
            return Ok(());
        }
        let mut body = String::new();
        (&mut from).take(length).read_to_string(&mut body)?;
        // The test may have seen enough.
        let _ = seen.send((first, body));
        let mut to = stream;
        to.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
    }
}

#[test]
fn a_recording_is_played_at_its_own_times_and_the_run_is_kept() {
    let (url, requests) = agent();
    let yard = Yard::new(Known::default());
    let table = yard.path("t.toml");
    let text =
        std::fs::read_to_string(&table).unwrap() + "[agents.known.paths]\n\"/invoke\" = \"/run\"\n";
    std::fs::write(&table, text).unwrap();
    let recording = yard.path("r.jsonl");
    let lines = "{\"at_ms\": 1500, \"body\": {\"input\": \"second\"}}\n{\"at_ms\": 0, \"path\": \"/x?y=1\", \"body\": \"first\"}\n";
    std::fs::write(&recording, lines).unwrap();
    let out = yard.path("out");
    let settings =
        ["--replay", &recording, "--url", &url, "--time", "5s", "--window", "200ms", "--out", &out];
    let (code, report, err) = yard.size(&settings);
    assert_eq!(code, Some(1), "{err}");
    let all: Vec<_> = requests.try_iter().collect();
    let expected = [
        ("POST /base/x?y=1 HTTP/1.1", "first"),
        ("POST /base/run HTTP/1.1", "{\"input\":\"second\"}"),
    ];
    assert_eq!(all, expected.map(|(line, body)| (line.to_owned(), body.to_owned())));
    assert_eq!(
        (&report["requests"]["done"], &report["requests"]["failed"]),
        (&2.into(), &0.into())
    );
    let read = |name: &str| std::fs::read_to_string(format!("{out}/{name}")).unwrap();
    let kept: Value = serde_json::from_str(&read("report.json")).unwrap();
    assert_eq!(kept["memory"], report["memory"]);
    assert!(
        kept["command"].as_str().unwrap().starts_with("switchyard size known --config t.toml "),
        "{kept}"
    );
    assert!(kept["machine"]["cores"].is_number());
    assert!(read("plot.svg").contains("<svg ") && read("report.txt").contains("requests.memory"));
    let first = read("windows.jsonl").lines().next().unwrap().to_owned();
    assert!(
        serde_json::from_str::<Value>(&first).unwrap()["peak"].as_u64() > Some(1 << 20),
        "{first}"
    );
}

#[test]
fn requests_arrive_by_themselves_at_their_rate() {
    let (url, requests) = agent();
    let yard = Yard::new(Known::default());
    let mix = yard.path("mix.toml");
    let text = "arrival = { rate = 40, max = 8 }\n[[request]]\nsize = \"100\"\nheaders = { x-n = \"{{n}}\" }\n";
    std::fs::write(&mix, text).unwrap();
    let (_, report, err) =
        yard.size(&["--mix", &mix, "--url", &url, "--time", "7s", "--window", "100ms"]);
    // 5 s of a Poisson process, of which 200 are expected: 6 deviations to each side.
    let count = requests.try_iter().count();
    assert!((115..285).contains(&count), "{count} requests: {err}{report:#}");
    assert!(report["recommended"]["max_in_flight"].is_null(), "{report:#}");
}

#[test]
fn an_interrupted_run_reports_what_it_has() {
    let (url, requests) = agent();
    let yard = Yard::new(Known::default());
    let table = yard.path("t.toml");
    let all = [
        "size",
        "known",
        "--config",
        &table,
        "--format",
        "json",
        "--url",
        &url,
        "--concurrency",
        "1",
    ];
    let mut command = switchyard(&all);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    requests.recv().unwrap();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let (code, out, err) = outcome(child.wait_with_output().unwrap());
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    assert_eq!((code, &report["ended_early"]), (Some(1), &"it was interrupted".into()));
    assert_eq!(report["answer"], "no");
}
