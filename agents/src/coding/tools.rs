//! What a model can do in a workspace: list, read, search, write, edit, run. Its calls are checked here; a wrong one is
//! answered with what is wrong.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::files::Files;
use super::search::Query;
use super::workspace::Session;
use crate::metrics::Metrics;
use crate::sandbox::disk::{Space, measure};
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
    start_line: Option<u64>,
    end_line: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WriteArguments {
    path: String,
    content: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EditArguments {
    path: String,
    old_string: String,
    new_string: String,
    #[serde(default)]
    replace_all: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SearchArguments {
    pattern: String,
    path: Option<String>,
    glob: Option<String>,
    #[serde(default)]
    ignore_case: bool,
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
    let text = |description: &str| json!({"type": "string", "description": description});
    let path = text("relative to the workspace");
    let line =
        |description: &str| json!({"type": "integer", "minimum": 1, "description": description});
    json!([
        tool(
            "list",
            "Lists a folder of the workspace and those below it.",
            json!({"path": path}),
            &[]
        ),
        tool(
            "read",
            "Reads a text file of the workspace, or some lines of it.",
            json!({
                "path": path,
                "start_line": line("the first line to read, from 1"),
                "end_line": line("the last line to read"),
            }),
            &["path"]
        ),
        tool(
            "write",
            "Writes a text file of the workspace, replacing it whole when it is there.",
            json!({"path": path, "content": {"type": "string"}}),
            &["path", "content"]
        ),
        tool(
            "edit",
            "Replaces a piece of a text file. old_string must be in the file exactly, white space included, and once.",
            json!({
                "path": path,
                "old_string": text("what is there"),
                "new_string": text("what is to be there instead"),
                "replace_all": {"type": "boolean", "description": "replace every occurrence"},
            }),
            &["path", "old_string", "new_string"]
        ),
        tool(
            "search",
            "Finds the lines of the workspace's text files that match a regular expression, as file:line:text.",
            json!({
                "pattern": text("a regular expression, matched within a line"),
                "path": text("a folder or file to search in; everything without"),
                "glob": text("which files, such as *.rs or src/**/*.py"),
                "ignore_case": {"type": "boolean"},
            }),
            &["pattern"]
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
                let ReadArguments { path, start_line, end_line } = parse(name, arguments)?;
                let (first, last) = (start_line.unwrap_or(1), end_line.unwrap_or(u64::MAX));
                self.files(move |files| files.read(&path, first, last)).await
            }
            "search" => {
                let SearchArguments { pattern, path, glob, ignore_case } = parse(name, arguments)?;
                let query = Query { pattern, path, glob, ignore_case };
                self.files(move |files| files.search(&query)).await
            }
            "write" => {
                let WriteArguments { path, content } = parse(name, arguments)?;
                let said = format!("wrote {} bytes to {path}", content.len());
                self.write(path, content).await.map(|()| said)
            }
            "edit" => {
                let EditArguments { path, old_string, new_string, replace_all } =
                    parse(name, arguments)?;
                self.make_room(new_string.len() as u64).await?;
                self.change(move |files| {
                    let lines = files.edit(&path, &old_string, &new_string, replace_all)?;
                    Ok(format!("edited {path} {lines}"))
                })
                .await
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
                Err(format!(
                    "there is no tool `{name}`; there are list, read, search, write, edit and run"
                ))
            }
        }
    }
}

impl Tools<'_> {
    /// Runs a command in the workspace. It may be run over the workspace's bound, to make room, but not grow it.
    ///
    /// # Errors
    /// When it could not be started.
    pub(crate) async fn run(&self, command: Vec<String>) -> Result<Outcome, String> {
        self.metrics.run();
        let ran = self.sandbox.run(&self.session.dir, self.session.user, command).await;
        self.session.set_used(None);
        ran.map_err(|error| error.to_string())
    }

    /// Writes a file.
    ///
    /// # Errors
    /// When it cannot be a file in the workspace, or the workspace is full.
    pub(crate) async fn write(&self, path: String, content: String) -> Result<(), String> {
        self.make_room(content.len() as u64).await?;
        self.change(move |files| files.write(&path, &content)).await
    }

    /// Looks at the files, off the threads that serve. Several may look at once, but none while one changes them.
    async fn files<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Files) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let held = Arc::clone(&self.session.files).read_owned().await;
        self.act(held, act).await
    }

    /// Changes the files, alone: what two calls do to one file is done one after the other.
    async fn change<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Files) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let held = Arc::clone(&self.session.files).write_owned().await;
        self.act(held, act).await
    }

    /// `held` is given back when it is done, also when nobody waits for it any more.
    async fn act<T: Send + 'static>(
        &self,
        held: impl Send + 'static,
        act: impl FnOnce(&Files) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let dir = self.session.dir.clone();
        let owner = self.sandbox.has_own_user().then_some(self.session.user);
        let acting = tokio::task::spawn_blocking(move || {
            let done = act(&Files::of(&dir, owner)?);
            drop(held);
            done
        });
        acting.await.unwrap_or_else(|_| Err("the tool failed".to_owned()))
    }

    /// Checks that the workspace may hold so many bytes more, in a file more.
    async fn make_room(&self, bytes: u64) -> Result<(), String> {
        let bounds = self.sandbox.limits().disk;
        let with = |used: Space| Space { bytes: used.bytes + bytes, files: used.files + 1 };
        // What was written was added up, also where it replaced something: only a measurement says no.
        if let Some(used) = self.session.used()
            && !with(used).exceeds(bounds)
        {
            self.session.set_used(Some(with(used)));
            return Ok(());
        }
        let dir = self.session.dir.clone();
        let measuring = tokio::task::spawn_blocking(move || measure(&dir, bounds, true));
        let used = measuring.await.map_err(|_| "the tool failed".to_owned())?;
        if with(used).exceeds(bounds) {
            return Err(format!(
                "the workspace is full: it holds {} MiB in {} files, of {} MiB and {} files; remove what is not \
                 needed, with run",
                used.bytes >> 20,
                used.files,
                bounds.bytes >> 20,
                bounds.files
            ));
        }
        self.session.set_used(Some(with(used)));
        Ok(())
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
