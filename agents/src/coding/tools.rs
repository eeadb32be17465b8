//! What a model can do in a workspace: list, read, write, run. Its calls are checked here; a wrong one is
//! answered with what is wrong.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::files::Files;
use super::workspace::Session;
use crate::metrics::Metrics;
use crate::sandbox::{Outcome, Sandbox, find_program};
use crate::steps;

/// Longest command, bytes; longer programs belong into a file.
const MAX_COMMAND: usize = 64 << 10;

/// The tools of one workspace.
pub(crate) struct Tools<'a> {
    /// Where commands run.
    pub(crate) sandbox: &'a Sandbox,
    /// The workspace.
    pub(crate) session: &'a Session,
    /// Counts runs.
    pub(crate) metrics: &'a Metrics,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListArguments {
    path: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadArguments {
    path: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WriteArguments {
    path: String,
    content: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RunArguments {
    command: String,
}

/// The tools as the model is told of them.
fn described() -> Value {
    let tool = |name: &str, description: &str, properties: Value, required: &[&str]| {
        json!({"type": "function", "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": false,
            },
        }})
    };
    let path = json!({"type": "string", "description": "relative to the workspace"});
    json!([
        tool(
            "list",
            "Lists a folder of the workspace and those below it.",
            json!({"path": path}),
            &[]
        ),
        tool("read", "Reads a text file of the workspace.", json!({"path": path}), &["path"]),
        tool(
            "write",
            "Writes a text file of the workspace, replacing it when it is there.",
            json!({"path": path, "content": {"type": "string"}}),
            &["path", "content"]
        ),
        tool(
            "run",
            "Runs a shell command in the workspace, without network, and gives its output and exit status.",
            json!({"command": {"type": "string"}}),
            &["command"]
        ),
    ])
}

impl steps::Tools for Tools<'_> {
    fn described(&self) -> Value {
        described()
    }

    fn only_looks(&self, name: &str) -> bool {
        matches!(name, "list" | "read" | "search")
    }

    async fn call(&self, name: &str, arguments: &str) -> Result<String, String> {
        // Some models leave the arguments empty where none is required.
        let arguments = if arguments.trim().is_empty() { "{}" } else { arguments };
        match name {
            "list" => {
                let ListArguments { path } = parse(name, arguments)?;
                self.files(move |files| files.list(path.as_deref().unwrap_or("."))).await
            }
            "read" => {
                let ReadArguments { path } = parse(name, arguments)?;
                self.files(move |files| files.read(&path)).await
            }
            "write" => {
                let WriteArguments { path, content } = parse(name, arguments)?;
                let said = format!("wrote {} bytes to {path}", content.len());
                self.files(move |files| files.write(&path, &content)).await.map(|()| said)
            }
            "run" => {
                let RunArguments { command } = parse(name, arguments)?;
                if command.len() > MAX_COMMAND {
                    return Err("the command is too long; write a file and run that".to_owned());
                }
                let shell = if find_program("bash").is_some() { "bash" } else { "sh" };
                let command = [shell, "-c", &command].map(str::to_owned);
                let outcome = self.run(command.to_vec()).await?;
                Ok(format!("{}\n[{}]", outcome.output, describe(&outcome)))
            }
            other => {
                let name: String = other.chars().take(64).collect();
                Err(format!("there is no tool `{name}`; there are list, read, write and run"))
            }
        }
    }
}

impl Tools<'_> {
    /// Runs a command in the workspace.
    ///
    /// # Errors
    /// When it could not be started.
    pub(crate) async fn run(&self, command: Vec<String>) -> Result<Outcome, String> {
        self.metrics.run();
        let ran = self.sandbox.run(&self.session.dir, self.session.user, command).await;
        ran.map_err(|error| error.to_string())
    }

    /// Does something with the files, off the threads that serve.
    ///
    /// # Errors
    /// Those of `act`.
    pub(crate) async fn files<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Files) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let dir = Arc::new(self.session.dir.clone());
        let owner = self.sandbox.has_own_user().then_some(self.session.user);
        let acting = tokio::task::spawn_blocking(move || act(&Files::of(&dir, owner)?));
        acting.await.unwrap_or_else(|_| Err("the tool failed".to_owned()))
    }
}

fn parse<'a, T: Deserialize<'a>>(name: &str, arguments: &'a str) -> Result<T, String> {
    serde_json::from_str(arguments)
        .map_err(|error| format!("the arguments of `{name}` are not what it takes: {error}"))
}

/// How a command ended, in one line.
pub(crate) fn describe(outcome: &Outcome) -> String {
    let end = match (outcome.timed_out, outcome.exit, outcome.signal) {
        _ if outcome.killed.is_some() => {
            let why = outcome.killed.as_deref().unwrap_or_default();
            format!("killed: {why}, after {}", seconds(outcome.time))
        }
        (true, ..) => format!("stopped after {}, its time limit", seconds(outcome.time)),
        (_, Some(status), _) => format!("exit status {status} in {}", seconds(outcome.time)),
        (_, _, Some(signal)) => {
            format!("killed by signal {signal} after {}", seconds(outcome.time))
        }
        _ => format!("ended after {}", seconds(outcome.time)),
    };
    format!("{end}, peak memory {:.1} MiB", outcome.peak_memory as f64 / f64::from(1 << 20))
}

fn seconds(time: Duration) -> String {
    if time.as_secs() == 0 {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}
