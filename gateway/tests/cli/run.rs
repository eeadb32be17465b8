//! `switchyard serve` and `switchyard up` as processes: what they print, and how they end.

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStderr, ChildStdout, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::check::table;
use super::{run, switchyard};

/// Makes this test binary an agent.
const AGENT: &str = "SWITCHYARD_TEST_AGENT";

/// A running command with its output line by line.
struct Yard {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    err: Lines<BufReader<ChildStderr>>,
}

impl Yard {
    fn start(arguments: &[&str]) -> Yard {
        let mut command = switchyard(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap()).lines();
        let err = BufReader::new(child.stderr.take().unwrap()).lines();
        Yard { child, out, err }
    }

    fn out(&mut self) -> String {
        self.out.next().unwrap().unwrap()
    }

    /// The next line on stderr that has this in it.
    fn logged(&mut self, text: &str) -> String {
        let mut lines = self.err.by_ref().map(Result::unwrap);
        lines.find(|line| line.contains(text)).unwrap_or_else(|| panic!("no {text:?} in the log"))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

const ANY_PORTS: &str =
    "[gateway]\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\ndrain_delay = \"100ms\"\n";

fn external() -> String {
    format!("{ANY_PORTS}[agents.qa]\nendpoints = [\"http://127.0.0.1:1\"]\n")
}

/// A table with one agent, this binary.
fn with_agent(env: &str) -> String {
    let exe = std::env::current_exe().unwrap();
    let exe = exe.display();
    format!(
        "{ANY_PORTS}[agents.qa.deployment]\n\
         command = [\"{exe}\", \"run::this_binary_as_an_agent\", \"--exact\", \"--nocapture\"]\n\
         env = {{ {AGENT} = \"1\"{env} }}\nlimits = {{ memory = \"256MiB\" }}\n"
    )
}

#[test]
fn this_binary_as_an_agent() {
    if std::env::var_os(AGENT).is_none() {
        return;
    }
    let port: u16 = std::env::var("PORT").unwrap().parse().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    for stream in listener.incoming() {
        // The other side may have gone.
        let _ = stream.unwrap().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    }
}

#[test]
fn serve_prints_two_lines_and_drains_at_sigterm() {
    let (_folder, path) = table(&external());
    let mut yard = Yard::start(&["serve", "--config", &path]);
    assert!(yard.out().starts_with("listening on http://127.0.0.1:"));
    assert!(yard.out().starts_with("admin on http://127.0.0.1:"));
    yard.signal(Signal::TERM);
    assert!(yard.out.next().is_none());
    assert_eq!(yard.code(), Some(0));
}

#[test]
fn serve_does_not_start_from_a_bad_table() {
    let (_folder, path) = table("[agents.qa]\n");
    let (code, out, err) = run(&["serve", "--config", &path]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.starts_with(&format!("{path}:1:")), "{err}");
}

#[test]
fn a_taken_port_is_named_in_one_line_with_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (_folder, path) = table(&external());
    for (flag, key) in [("--listen", "listen"), ("--admin", "admin")] {
        let (code, _, err) = run(&["serve", "--config", &path, flag, &address]);
        assert_eq!(code, Some(1));
        let line = err.lines().find(|line| line.starts_with("error: ")).unwrap();
        assert!(line.contains(&address) && line.contains(key), "{err}");
    }
}

#[test]
fn up_says_what_runs_and_ends_its_replicas_in_order() {
    let (_folder, path) = table(&with_agent(""));
    let mut yard = Yard::start(&["up", "--config", &path]);
    assert!(yard.out().starts_with("listening on http://127.0.0.1:"));
    assert!(yard.out().starts_with("admin on http://127.0.0.1:"));
    assert!(yard.out().starts_with("qa: 1 replica of at most 256 MiB, "));
    assert!(yard.out().starts_with("try: curl -N http://127.0.0.1:"));
    let enforced = yard.logged("up | memory limits are enforced by ");
    yard.logged("up | qa-1 is ready on 127.0.0.1:");
    yard.signal(Signal::INT);
    yard.logged("up | qa-1 stopped: it was killed by SIGTERM");
    assert_eq!(yard.code(), Some(0));
    if let Some((_, group)) = enforced.split_once('(') {
        assert!(!std::path::Path::new(group.trim_end_matches(')')).exists(), "{enforced}");
    }
}

#[test]
fn a_second_signal_ends_up_at_once() {
    // `sh` in front of the agent takes no notice of SIGTERM.
    let text = with_agent("").replace(
        "command = [",
        "command = [\"sh\", \"-c\", \"trap '' TERM; \\\"$0\\\" \\\"$@\\\"; sleep 600\", ",
    );
    let (_folder, path) = table(&text);
    let mut yard = Yard::start(&["up", "--config", &path]);
    yard.logged("up | qa-1 is ready on ");
    yard.signal(Signal::TERM);
    yard.logged("up | finishing what is open");
    yard.signal(Signal::TERM);
    assert_eq!(yard.code(), Some(143));
}
