//! The gateway under test: the real binary, its table on disk, its log, its memory.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::ask::{Ask, get};
use crate::client::Client;
use crate::open::Open;
use crate::reply::{Http, Reply};
use crate::wire::{eventually, soon};

/// How much of the log is kept.
const LOG_LINES: usize = 20_000;
/// How much of it a failed test shows.
const LOG_SHOWN: usize = 60;

/// A running `switchyard serve`; killed when dropped.
pub struct Gateway {
    /// Where clients connect.
    pub addr: SocketAddr,
    /// Where operators connect.
    pub admin: SocketAddr,
    /// The table's file.
    pub file: PathBuf,
    child: Child,
    log: Arc<Mutex<VecDeque<String>>>,
    _folder: Option<tempfile::TempDir>,
}

/// The `[agents.<name>]` table with these endpoints and these further lines.
pub fn agent(name: &str, endpoints: &[SocketAddr], more: &str) -> String {
    let urls: Vec<String> = endpoints.iter().map(|a| format!("\"http://{a}\"")).collect();
    format!("[agents.{name}]\nendpoints = [{}]\n{more}\n", urls.join(", "))
}

/// A table as the file has it: `text` with ports that are free and clocks that suit a test.
pub fn table(text: &str) -> String {
    let mut own = String::new();
    for (key, line) in [
        ("listen", "listen = \"127.0.0.1:0\"\n"),
        ("admin", "admin = \"127.0.0.1:0\"\n"),
        ("workers", "workers = 2\n"),
        ("drain_delay", "drain_delay = \"100ms\"\n"),
    ] {
        if !text.lines().any(|l| l.trim_start().starts_with(&format!("{key} ="))) {
            own.push_str(line);
        }
    }
    match text.split_once("[gateway]\n") {
        Some((before, after)) => format!("{before}[gateway]\n{own}{after}"),
        None => format!("[gateway]\n{own}\n{text}"),
    }
}

fn command(file: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchyard"));
    command.arg("serve").arg("--config").arg(file);
    command.env("SWITCHYARD_LOG_FORMAT", "json").env("SWITCHYARD_LOG", "info");
    for address in ["SWITCHYARD_LISTEN", "SWITCHYARD_ADMIN", "SWITCHYARD_EXTERNAL_METRICS"] {
        command.env_remove(address);
    }
    // No test meets the cluster of whoever runs it.
    command.env("KUBECONFIG", "/nonexistent/kubeconfig").env_remove("SWITCHYARD_PEER_KEY");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Starts `serve` with a table that it must refuse; its exit code and what it said.
pub async fn refused_start(text: &str) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("switchyard.toml");
    std::fs::write(&file, text).unwrap();
    let output = soon("serve exits", command(&file).output()).await.unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

impl Gateway {
    /// Starts the gateway with this table: see [`table`] for what is filled in.
    pub async fn start(text: &str) -> Gateway {
        Gateway::start_with(text, &[]).await
    }

    /// As [`Gateway::start`], with these in its environment.
    pub async fn start_with(text: &str, env: &[(&str, &str)]) -> Gateway {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("switchyard.toml");
        std::fs::write(&file, table(text)).unwrap();
        let mut gateway = Gateway::spawn(command(&file).envs(env.iter().copied()), &file).await;
        gateway._folder = Some(folder);
        gateway
    }

    /// As [`Gateway::start`], by a shell that has done this first.
    pub async fn start_after(text: &str, shell: &str) -> Gateway {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("switchyard.toml");
        std::fs::write(&file, table(text)).unwrap();
        let plain = command(&file);
        let mut after = Command::new("sh");
        after.arg("-c").arg(format!("{shell} && exec \"$0\" \"$@\""));
        after.arg(plain.as_std().get_program()).args(plain.as_std().get_args());
        after.envs(plain.as_std().get_envs().filter_map(|(name, value)| Some((name, value?))));
        after.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut gateway = Gateway::spawn(&mut after, &file).await;
        gateway._folder = Some(folder);
        gateway
    }

    /// Starts the gateway with a table that is there, and further arguments.
    pub async fn start_on(file: &Path, arguments: &[&str]) -> Gateway {
        Gateway::spawn(command(file).args(arguments), file).await
    }

    /// As [`Gateway::start_on`], with these in its environment in place of arguments.
    pub async fn start_on_with(file: &Path, env: &[(&str, &str)]) -> Gateway {
        Gateway::spawn(command(file).envs(env.iter().copied()), file).await
    }

    async fn spawn(command: &mut Command, file: &Path) -> Gateway {
        let mut child = command.spawn().expect("the binary starts");
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let stderr = child.stderr.take().unwrap().into_owned_fd().unwrap();
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(std::fs::File::from(stderr)).lines().map_while(Result::ok) {
                let mut log = kept.lock().unwrap();
                if log.len() == LOG_LINES {
                    log.pop_front();
                }
                log.push_back(line);
            }
        });
        let stdout = child.stdout.take().unwrap().into_owned_fd().unwrap();
        let (sender, mut lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in BufReader::new(std::fs::File::from(stdout)).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut gateway = Gateway {
            addr: SocketAddr::from(([0, 0, 0, 0], 0)),
            admin: SocketAddr::from(([0, 0, 0, 0], 0)),
            file: file.to_owned(),
            child,
            log,
            _folder: None,
        };
        gateway.addr = gateway.said(&mut lines, "listening on http://").await;
        gateway.admin = gateway.said(&mut lines, "admin on http://").await;
        gateway
    }

    async fn said(&self, lines: &mut mpsc::UnboundedReceiver<String>, begin: &str) -> SocketAddr {
        let line = soon("the gateway says where it listens", lines.recv()).await;
        let line = line.unwrap_or_else(|| panic!("the gateway ended:\n{}", self.shown()));
        let addr = line.strip_prefix(begin).unwrap_or_else(|| panic!("{line:?} is no {begin}…"));
        addr.parse().unwrap_or_else(|e| panic!("{line:?}: {e}"))
    }

    #[expect(clippy::disallowed_methods, reason = "a test that has failed is being dropped")]
    fn shown(&self) -> String {
        // The last lines may still be on their way through the pipe.
        std::thread::sleep(Duration::from_millis(50));
        let log = self.log.lock().unwrap();
        let skipped = log.len().saturating_sub(LOG_SHOWN);
        log.iter().skip(skipped).map(|l| format!("  {l}\n")).collect()
    }

    /// A client of the public port.
    pub fn client(&self) -> Client {
        Client::of(self.addr)
    }

    /// One request over HTTP/1.1, on a connection of its own.
    pub async fn ask(&self, ask: Ask) -> Reply {
        self.client().ask(Http::One, ask).await
    }

    /// One request over either protocol, on a connection of its own.
    pub async fn ask_by(&self, http: Http, ask: Ask) -> Reply {
        self.client().ask(http, ask).await
    }

    /// Begins one request, on a connection of its own.
    pub async fn open(&self, http: Http, ask: Ask) -> Open {
        self.client().open(http, ask).await
    }

    /// A GET on the admin port.
    pub async fn admin(&self, path: &str) -> Reply {
        Client::unchecked(self.admin).ask(Http::One, get(path)).await
    }

    /// The state of one agent: `/api/agents/<name>`.
    pub async fn state(&self, name: &str) -> Value {
        let reply = self.admin(&format!("/api/agents/{name}")).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    }

    /// The states of one agent's endpoints, in the order of `addresses`; "absent" where it has none.
    pub async fn endpoint_states(&self, name: &str, addresses: &[SocketAddr]) -> Vec<String> {
        let state = self.state(name).await;
        let endpoints = state["endpoints"].as_array().expect("endpoints").clone();
        let of = |address: &SocketAddr| {
            let is = |e: &&Value| {
                let written = e["address"].as_str().unwrap_or_default();
                written.trim_start_matches("http://").trim_end_matches('/') == address.to_string()
            };
            let found = endpoints.iter().find(is).and_then(|e| e["state"].as_str());
            found.unwrap_or("absent").to_owned()
        };
        addresses.iter().map(of).collect()
    }

    /// Waits until a number of one agent's state is `n`.
    pub async fn until_state(&self, name: &str, member: &str, n: u64) {
        let what = format!("{member} of {name} becomes {n}");
        eventually(&what, || async { self.state(name).await[member] == n }).await;
    }

    /// Lets the process open no descriptor at or above `soft`.
    pub fn limit_descriptors(&self, soft: u64) {
        use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
        let pid = Pid::from_raw(self.child.id().unwrap().cast_signed());
        let maximum = getrlimit(Resource::Nofile).maximum;
        prlimit(pid, Resource::Nofile, Rlimit { current: Some(soft), maximum }).unwrap();
    }

    /// Waits until an endpoint is in `state`.
    pub async fn until_endpoint(&self, name: &str, address: SocketAddr, state: &str) {
        eventually(&format!("{address} becomes {state}"), || async {
            self.endpoint_states(name, &[address]).await == [state]
        })
        .await;
    }

    /// The metrics' text.
    pub async fn metrics(&self) -> String {
        self.admin("/metrics").await.ok().text()
    }

    /// The sum of a metric's samples that have all of these labels; `None` where there is none.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        sample(&self.metrics().await, name, labels)
    }

    /// Waits until a metric's samples that have these labels sum up to `n`.
    pub async fn until_metric(&self, name: &str, labels: &[(&str, &str)], n: f64) {
        eventually(&format!("{name}{labels:?} becomes {n}"), || async {
            self.metric(name, labels).await == Some(n)
        })
        .await;
    }

    /// The log so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().iter().cloned().collect()
    }

    /// Waits for a log line that contains all of `words`.
    pub async fn logged(&self, words: &[&str]) -> String {
        let find = || self.log().into_iter().find(|l| words.iter().all(|w| l.contains(w)));
        eventually(&format!("a log line has {words:?}"), || async { find().is_some() }).await;
        find().expect("just found")
    }

    /// Writes the table's file in place; `text` as for [`Gateway::start`].
    pub fn write(&self, text: &str) {
        std::fs::write(&self.file, table(text)).unwrap();
    }

    /// Writes the table's file by renaming another over it.
    pub fn rename_over(&self, text: &str) {
        let beside = self.file.with_extension("toml.new");
        std::fs::write(&beside, table(text)).unwrap();
        std::fs::rename(beside, &self.file).unwrap();
    }

    /// What `/api/table` says.
    pub async fn table(&self) -> Value {
        self.admin("/api/table").await.ok().json()
    }

    /// The generation in force.
    pub async fn generation(&self) -> u64 {
        self.table().await["generation"].as_u64().expect("a generation")
    }

    /// Waits until a generation after `before` is in force.
    pub async fn until_after(&self, before: u64) -> u64 {
        eventually("the edit takes effect", || async { self.generation().await > before }).await;
        self.generation().await
    }

    /// Edits the table in place and waits until the edit is in force.
    pub async fn edit(&self, text: &str) {
        let before = self.generation().await;
        self.rename_over(text);
        self.until_after(before).await;
    }

    /// Edits the table and waits until the edit is refused; gives the problems.
    pub async fn edit_refused(&self, text: &str) -> Vec<String> {
        let before = self.table().await["refused"]["hash"].clone();
        self.rename_over(text);
        eventually("the edit is refused", || async {
            let refused = &self.table().await["refused"];
            !refused.is_null() && refused["hash"] != before
        })
        .await;
        let refused = self.table().await["refused"].clone();
        let problems = refused["problems"].as_array().expect("problems").clone();
        problems.iter().map(|p| p.as_str().expect("a problem is a line").to_owned()).collect()
    }

    fn pid(&self) -> Pid {
        let id = self.child.id().expect("the gateway runs");
        Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).expect("the gateway runs");
    }

    /// Sends SIGTERM.
    pub fn sigterm(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits for the gateway's end; its exit code, or 128 and the signal that ended it.
    pub async fn exit(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let status = soon("the gateway ends", self.child.wait()).await.unwrap();
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
    }

    /// Whether the gateway still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Resident memory now and at its peak since [`Gateway::reset_peak`], bytes.
    pub fn memory(&self) -> (u64, u64) {
        let path = format!("/proc/{}/status", self.child.id().expect("the gateway runs"));
        let status = std::fs::read_to_string(path).unwrap();
        let kib = |key: &str| -> u64 {
            let line = status.lines().find(|l| l.starts_with(key)).expect("a line of status");
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        (kib("VmRSS:") * 1024, kib("VmHWM:") * 1024)
    }

    /// Makes the present memory the peak (`clear_refs`, see proc(5)).
    pub fn reset_peak(&self) {
        let id = self.child.id().expect("the gateway runs");
        std::fs::write(format!("/proc/{id}/clear_refs"), "5").unwrap();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the gateway's last {LOG_SHOWN} log lines:\n{}", self.shown());
        }
    }
}

/// The sum of the samples of `name` in Prometheus text that have all of these labels.
pub fn sample(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let has = |series: &str| {
        labels.iter().all(|(label, value)| series.contains(&format!("{label}=\"{value}\"")))
    };
    let values: Vec<f64> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(series, _)| series.split('{').next() == Some(name) && has(series))
        .map(|(_, value)| value.parse().unwrap())
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}
