//! A yard as a process: its table, what it prints, and the calls that go through it.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::processes;
use crate::stream::Stream;

/// Far longer than anything here takes on a slow machine.
pub const CEILING: Duration = Duration::from_secs(60);

/// Between two looks at what no event tells.
const LOOK: Duration = Duration::from_millis(20);

/// Settings of the caller that would change what is tested.
const SETTINGS: [&str; 4] = ["SWITCHYARD_", "AGENT_", "OPENAI_", "TINY_"];

/// Waits for `future`, or fails the test: `what` did not happen.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(CEILING, future).await {
        Ok(output) => output,
        Err(_) => panic!("did not happen within {CEILING:?}: {what}"),
    }
}

/// Asks until the answer is yes, or fails the test: `what` did not come true.
pub async fn until(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    soon(what, async {
        while !ask().await {
            tokio::time::sleep(LOOK).await;
        }
    })
    .await;
}

/// The project's folder, which has the shipped table and `docs/`.
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A command of `switchyard`, with nothing of the caller's settings, in the project's folder.
pub fn switchyard(arguments: &[&str]) -> Command {
    build_agents();
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchyard"));
    command.args(arguments).current_dir(project()).stdin(Stdio::null()).kill_on_drop(true);
    for (name, _) in std::env::vars_os() {
        if SETTINGS.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

/// `agent` has to lie beside `switchyard`. `./test` builds both; cargo by itself builds only the
/// binaries of the package under test.
fn build_agents() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = Path::new(env!("CARGO_BIN_EXE_switchyard")).parent().unwrap();
        if folder.join("agent").is_file() {
            return;
        }
        let profile = match folder.file_name().unwrap().to_str().unwrap() {
            "debug" => "dev",
            other => other,
        };
        let built = std::process::Command::new(env!("CARGO"))
            .args(["build", "--locked", "-p", "agents", "--bins", "--profile", profile])
            .arg("--target-dir")
            .arg(folder.parent().unwrap())
            .current_dir(project())
            .status();
        assert!(built.unwrap().success(), "the agents can't be built");
    });
}

/// Exit code, stdout, stderr.
pub fn outcome(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A yard to be started.
pub struct Builder {
    command: Command,
    place: TempDir,
}

/// A running yard; killed when dropped, with its replicas.
pub struct Yard {
    /// Where clients connect.
    pub url: String,
    /// Where operators connect.
    pub admin: String,
    /// Keeps its connections open.
    pub http: reqwest::Client,
    pub out: Lines,
    pub log: Lines,
    child: Child,
    place: TempDir,
}

/// `up` on this table.
pub fn yard(table: &str) -> Builder {
    let place = tempfile::tempdir().unwrap();
    // Commands in the sandbox may run as other users.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(place.path(), open).unwrap();
    std::fs::create_dir(place.path().join("tmp")).unwrap();
    let file = place.path().join("switchyard.toml");
    std::fs::write(&file, table).unwrap();
    let mut command = switchyard(&["up", "--config", file.to_str().unwrap()]);
    command.env("TMPDIR", place.path().join("tmp"));
    // As a shell starts it: Ctrl-C reaches the whole process group.
    command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
    Builder { command, place }
}

impl Builder {
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts it and waits until it listens.
    pub async fn start(mut self) -> Yard {
        let mut child = self.command.spawn().unwrap();
        let out = Lines::follow(child.stdout.take().unwrap());
        let log = Lines::follow(child.stderr.take().unwrap());
        let url = out.starting("listening on ").await;
        let admin = out.starting("admin on ").await;
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Yard { url, admin, http, out, log, child, place: self.place }
    }

    /// Starts it and waits until it has ended.
    pub async fn fail(mut self) -> (Option<i32>, String, String) {
        outcome(soon("up ends by itself", self.command.output()).await.unwrap())
    }
}

impl Yard {
    /// The table's file.
    pub fn file(&self) -> PathBuf {
        self.place.path().join("switchyard.toml")
    }

    /// Where its agents keep their files.
    pub fn tmp(&self) -> PathBuf {
        self.place.path().join("tmp")
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("up runs")
    }

    /// Edits the table in place, as an editor does.
    pub fn edit(&self, change: impl FnOnce(&str) -> String) {
        let before = std::fs::read_to_string(self.file()).unwrap();
        let after = change(&before);
        assert_ne!(before, after, "the edit changes nothing");
        std::fs::write(self.file(), after).unwrap();
    }

    /// Runs another command of `switchyard` against it.
    pub async fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        outcome(soon("the command ends", self.command(arguments).output()).await.unwrap())
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = switchyard(arguments);
        command.env("SWITCHYARD_URL", &self.url).env("SWITCHYARD_ADMIN_URL", &self.admin);
        command
    }

    /// A shell that stops at the first error, with `switchyard` in its path.
    pub fn shell(&self, script: &str) -> Command {
        let binaries = Path::new(env!("CARGO_BIN_EXE_switchyard")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new("sh");
        command.args(["-eu", "-c", script]).current_dir(project()).kill_on_drop(true);
        command.env("PATH", format!("{}:{path}", binaries.display()));
        command.env("SWITCHYARD_URL", &self.url).env("SWITCHYARD_ADMIN_URL", &self.admin);
        command
    }

    /// Calls an agent; the reply may be an error.
    pub async fn post(&self, agent: &str, body: &Value) -> reqwest::Response {
        let url = format!("{}/agents/{agent}/invoke", self.url);
        let sent = self.http.post(url).json(body).send();
        soon("the reply begins", sent).await.unwrap()
    }

    /// Calls an agent, successfully, for JSON.
    pub async fn ask(&self, agent: &str, input: &str) -> Value {
        let reply = self.post(agent, &json!({"input": input})).await;
        let (status, id) = (reply.status(), reply.headers()["x-request-id"].clone());
        let text = soon("the reply ends", reply.text()).await.unwrap();
        assert_eq!(status, 200, "{text}");
        let reply: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(reply["metadata"]["request_id"], id.to_str().unwrap());
        reply
    }

    /// Calls an agent, successfully, for events.
    pub async fn open(&self, agent: &str, input: &str) -> Stream {
        let reply = self.post(agent, &json!({"input": input, "stream": true})).await;
        assert_eq!(reply.status(), 200);
        assert_eq!(reply.headers()["content-type"], "text/event-stream");
        Stream::new(reply)
    }

    /// What the admin port answers as JSON.
    pub async fn api(&self, path: &str) -> Value {
        let reply = self.http.get(format!("{}/api/{path}", self.admin)).send();
        soon("the admin port answers", reply).await.unwrap().json().await.unwrap()
    }

    /// Waits until the admin port says that so many replicas of an agent are ready and wanted.
    pub async fn until_replicas(&self, agent: &str, count: u64) {
        until(&format!("{agent} has {count} replicas"), async || {
            let state = self.api(&format!("agents/{agent}")).await;
            state["ready"] == count && state["desired"] == count
        })
        .await;
    }

    /// Waits until the table so far has been taken, or refused, `generations` in force.
    pub async fn until_generation(&self, generation: u64) {
        until(&format!("generation {generation}"), async || {
            self.api("table").await["generation"] == generation
        })
        .await;
    }

    /// The process ids of its replicas, those of one agent by its type's flag.
    pub fn replicas(&self, kind: &str) -> Vec<u32> {
        let is = |pid: &u32| processes::arguments(*pid).windows(2).any(|w| w == ["--type", kind]);
        processes::children(self.pid()).into_iter().filter(is).collect()
    }

    /// The cgroup under which its replicas are, where the machine lets it make one.
    pub async fn group(&self) -> Option<PathBuf> {
        let line = self.log.line("up | memory limits are enforced by ").await;
        let (_, of_version) = line.split_once(" enforced by cgroup v")?;
        Some(of_version.split_once('(')?.1.strip_suffix(')')?.into())
    }

    /// Ctrl-C.
    pub fn interrupt(&self) {
        let group = Pid::from_raw(self.pid().cast_signed()).unwrap();
        kill_process_group(group, Signal::INT).unwrap();
    }

    /// Ends it, when nothing is left to be finished.
    pub async fn end(mut self) {
        self.interrupt();
        assert_eq!(self.ended().await, Some(0));
    }

    /// Waits for its end and gives its exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        soon("up ends", self.child.wait()).await.unwrap().code()
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for line in self.out.all().iter().chain(&self.log.all()) {
                eprintln!("    {line}");
            }
        }
    }
}

/// What a process prints, line by line.
#[derive(Clone)]
pub struct Lines(watch::Receiver<Vec<String>>);

impl Lines {
    pub fn follow(from: impl AsyncRead + Unpin + Send + 'static) -> Lines {
        let (sender, receiver) = watch::channel(Vec::new());
        tokio::spawn(async move {
            let mut lines = BufReader::new(from).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                sender.send_modify(|all: &mut Vec<String>| all.push(line));
            }
        });
        Lines(receiver)
    }

    pub fn all(&self) -> Vec<String> {
        self.0.borrow().clone()
    }

    /// Those that have this in them.
    pub fn with(&self, text: &str) -> Vec<String> {
        self.all().into_iter().filter(|line| line.contains(text)).collect()
    }

    /// Waits for a line that has this in it.
    pub async fn line(&self, text: &str) -> String {
        let mut all = self.0.clone();
        let said = all.wait_for(|all| all.iter().any(|line| line.contains(text)));
        let said = tokio::time::timeout(CEILING, said).await.is_ok_and(|said| said.is_ok());
        assert!(said, "no {text:?} in:\n{}", self.all().join("\n"));
        self.with(text).remove(0)
    }

    /// Waits for a line that starts with this; gives the rest.
    pub async fn starting(&self, text: &str) -> String {
        let line = self.line(text).await;
        line.strip_prefix(text).unwrap_or_else(|| panic!("{line}")).to_owned()
    }
}
