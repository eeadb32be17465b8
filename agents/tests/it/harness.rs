//! An agent as a process, and a client that checks what holds for every reply.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Far longer than anything here takes on a slow machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// An agent to be started.
pub(crate) struct Builder {
    command: Command,
    place: tempfile::TempDir,
    log: tempfile::NamedTempFile,
}

/// A running agent; killed when dropped.
pub(crate) struct Agent {
    pub(crate) url: String,
    pub(crate) child: Child,
    pub(crate) client: Client,
    log: tempfile::NamedTempFile,
    _place: tempfile::TempDir,
}

/// An agent on any free port.
pub(crate) fn agent(kind: &str) -> Builder {
    agent_on(kind, "0")
}

pub(crate) fn agent_on(kind: &str, port: &str) -> Builder {
    let place = open_place();
    let mut command = Command::new(env!("CARGO_BIN_EXE_agent"));
    command
        .env_clear()
        .env("TMPDIR", place.path())
        .args(["--type", kind, "--port", port])
        .current_dir(project())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let log = tempfile::NamedTempFile::new().unwrap();
    command.stderr(log.reopen().unwrap());
    Builder { command, place, log }
}

/// A folder that agents and commands of any user can work in.
pub(crate) fn open_place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(place.path(), open).unwrap();
    place
}

/// The workspace's root, where the project's `docs/` is.
pub(crate) fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

impl Builder {
    pub(crate) fn flag(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(name).arg(value);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Command)) -> Self {
        change(&mut self.command);
        self
    }

    /// Starts it and waits until it has indexed what there is to index.
    pub(crate) async fn start(self) -> Agent {
        let agent = self.listen().await;
        let begun = Instant::now();
        while agent.get("/readyz").await.1 == "indexing\n" {
            assert!(begun.elapsed() < LONG, "never indexed: {}", agent.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        agent
    }

    /// Starts it and waits until it listens.
    pub(crate) async fn listen(mut self) -> Agent {
        let mut child = self.command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(LONG, lines.next_line()).await.unwrap().unwrap();
        let log = || std::fs::read_to_string(self.log.path()).unwrap();
        let line = line.unwrap_or_else(|| panic!("the agent did not start: {}", log()));
        let url = line.strip_prefix("listening on ").unwrap().to_owned();
        let client = Client::builder().no_proxy().timeout(LONG).build().unwrap();
        Agent { url, child, client, log: self.log, _place: self.place }
    }

    /// Starts it and waits until it has ended: its exit status and what it said.
    pub(crate) async fn fail(mut self) -> (Option<i32>, String) {
        let status = tokio::time::timeout(LONG, self.command.status()).await.unwrap().unwrap();
        (status.code(), std::fs::read_to_string(self.log.path()).unwrap())
    }
}

impl Agent {
    pub(crate) fn post(&self, body: &Value) -> RequestBuilder {
        self.client.post(format!("{}/invoke", self.url)).body(body.to_string())
    }

    /// Asks for JSON, successfully.
    pub(crate) async fn ask(&self, input: &str) -> Value {
        let response = self.post(&json!({"input": input})).send().await.unwrap();
        reply(response).await
    }

    /// Asks for events, and collects them all.
    pub(crate) async fn events(&self, body: &Value) -> Vec<(String, Value)> {
        let mut body = body.clone();
        body["stream"] = json!(true);
        let response = self.post(&body).send().await.unwrap();
        assert_eq!(response.status(), 200);
        for (name, value) in [
            ("content-type", "text/event-stream"),
            ("cache-control", "no-cache"),
            ("x-accel-buffering", "no"),
        ] {
            assert_eq!(response.headers()[name], value);
        }
        parse_events(&response.text().await.unwrap())
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let response = self.client.get(format!("{}{path}", self.url)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    pub(crate) fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end: the exit status, 128 + the signal when one killed it.
    pub(crate) async fn ended(&mut self) -> i32 {
        let status = tokio::time::timeout(LONG, self.child.wait()).await.unwrap().unwrap();
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
    }
}

/// A good JSON reply, checked for what holds for each.
pub(crate) async fn reply(response: Response) -> Value {
    let status = response.status();
    let id = response.headers().get("x-request-id").unwrap().to_str().unwrap().to_owned();
    let text = response.text().await.unwrap();
    assert_eq!(status, 200, "{text}");
    let reply: Value = serde_json::from_str(&text).unwrap();
    keeps(Some("reply"), &reply);
    assert_eq!(reply["metadata"]["request_id"], id);
    assert!(reply["output"].is_string() && reply["metadata"]["model"].is_string(), "{reply}");
    reply
}

/// A problem, checked for what holds for each.
pub(crate) async fn problem(response: Response) -> Value {
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let begun = !response.headers().contains_key("x-switchyard-not-begun");
    assert!(status != 503 || response.headers().contains_key("retry-after"));
    let problem: Value = response.json().await.unwrap();
    keeps(Some("problem"), &problem);
    assert_eq!(problem["status"], status);
    let code = problem["code"].as_str().unwrap();
    assert_eq!(problem["type"], format!("urn:switchyard:agent:{code}"));
    assert_eq!(begun, !matches!(code, "at-limit" | "draining" | "dependency-down"), "{code}");
    problem
}

/// A stream's events, each as docs/agents.schema.json has it, and one end at its end.
pub(crate) fn parse_events(text: &str) -> Vec<(String, Value)> {
    let events = events_in(text);
    for (at, (name, data)) in events.iter().enumerate() {
        keeps(None, &json!({"event": name, "data": data}));
        let is_last = at + 1 == events.len();
        assert_eq!(is_last, matches!(name.as_str(), "final" | "error"), "{name} at {at}");
    }
    events
}

/// Asserts that a value is as docs/agents.schema.json has it: an event, or one of its `$defs`.
pub(crate) fn keeps(part: Option<&str>, value: &Value) {
    static SCHEMA: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| {
        let text = std::fs::read_to_string(project().join("docs/agents.schema.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    });
    let mut schema = SCHEMA.clone();
    if let Some(part) = part {
        schema = json!({"$ref": format!("#/$defs/{part}"), "$defs": schema["$defs"]});
    }
    let validator = jsonschema::validator_for(&schema).unwrap();
    let wrong: Vec<String> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert!(wrong.is_empty(), "{value}: {wrong:?}");
}

fn events_in(text: &str) -> Vec<(String, Value)> {
    let events = text.split_terminator("\n\n").map(|event| {
        let (name, data) = event.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        (name.to_owned(), serde_json::from_str(data).unwrap())
    });
    events.collect()
}

/// The tokens of a stream put together.
pub(crate) fn tokens(events: &[(String, Value)]) -> String {
    let tokens = events.iter().filter(|(name, _)| name == "token");
    tokens.map(|(_, data)| data["text"].as_str().unwrap()).collect()
}

/// Whether a process runs with `marker` among its arguments.
pub(crate) fn runs(marker: &str) -> bool {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .any(|line| line.split(|byte| *byte == 0).any(|word| word == marker.as_bytes()))
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < LONG, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An argument that no other process has: as a number of seconds for `sleep`.
pub(crate) fn marker() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("9{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
