//! The `coding` agent: works on a task in a workspace with tools, in a bounded loop of model calls. Without a model
//! it runs the fenced code blocks of the input, in the same sandbox.

mod beneath;
mod blocks;
mod edit;
mod files;
mod search;
mod tools;
mod workspace;

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::agent::{Answer, Ask, Event, Events, NO_MODEL, Step, ToolCall, ToolResult};
use crate::conversation::Conversation;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::model::Model;
use crate::sandbox::{SHELL, Sandbox};
use crate::settings::Settings;
use crate::steps::{self, Budget};
use blocks::Block;
use tools::{Tools, describe};
use workspace::{Lease, MAX_SESSIONS, Workspaces};

/// Most blocks that are run without a model.
const MAX_BLOCKS: usize = 16;
const PROMPT: &str = "You are a careful programmer. You work in a workspace, which is a folder of its own, with the \
tools list, read, search, write, edit and run. Paths are relative to it. Commands have no network and little time. Try \
out what you write before you say that it works. When the task is done, answer briefly: what you did, and what you saw.";

const MOVED: &str = "The workspace is new: files of earlier requests are not in it.";

/// An image without a shell is the usual reason why no command can be run: said by its name.
fn has_shell(shell: &Path) -> Result<(), String> {
    if shell.is_file() {
        return Ok(());
    }
    Err(format!(
        "the coding agent runs commands with {shell}, and there is none here; use an image that has one, such as the one \
         that k8s/images/build makes, or Debian's or Alpine's with this program in it",
        shell = shell.display()
    ))
}

/// The agent.
pub struct Coding {
    /// The model, if there is one.
    pub model: Option<Model>,
    sandbox: Box<Sandbox>,
    workspaces: Arc<Workspaces>,
    budget: Budget,
    metrics: Arc<Metrics>,
}

impl Coding {
    /// Makes the place for workspaces and finds out what confines commands on this machine.
    ///
    /// # Errors
    /// One line that says what is wrong and what to do.
    pub async fn open(
        settings: &Settings,
        model: Option<Model>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, String> {
        has_shell(Path::new(SHELL))?;
        let parent = settings.workspace.clone().unwrap_or_else(std::env::temp_dir);
        let parent = std::path::absolute(&parent).unwrap_or(parent);
        let no_place = |why: String| {
            format!(
                "no workspace in {}: {why}; name another existing folder with --workspace",
                parent.display()
            )
        };
        let workspaces = Workspaces::new(&parent).map_err(|error| no_place(error.to_string()))?;
        let bounds = settings.sandbox.bounds();
        let trial = workspaces.path().join("trial");
        std::fs::create_dir(&trial).map_err(|error| no_place(error.to_string()))?;
        let sandbox =
            Sandbox::probe(&trial, workspace::first_user(), bounds).await.map_err(no_place)?;
        std::fs::remove_dir_all(&trial).map_err(|error| no_place(error.to_string()))?;
        sandbox.require(&settings.sandbox.require_sandbox)?;
        sandbox.tell();
        let sandbox = Box::new(sandbox);
        let budget = settings.budget();
        Ok(Self { model, sandbox, workspaces, budget, metrics })
    }

    /// Whether workspaces can be made.
    pub async fn is_ready(&self) -> bool {
        let probe =
            self.workspaces.path().join(format!(".health-{}", uuid::Uuid::now_v7().simple()));
        tokio::fs::write(&probe, b"").await.is_ok() && tokio::fs::remove_file(&probe).await.is_ok()
    }

    /// Does the work, in the session's workspace.
    ///
    /// # Errors
    /// When there is no workspace, or the model fails.
    pub async fn work(&self, ask: &Ask, events: &Events) -> Result<Answer, Error> {
        let own_user = self.sandbox.has_own_user();
        // Types that share a process don't share their workspaces.
        let session = ask.session_id.as_ref().map(|session| format!("{}/{session}", ask.agent));
        let opened = self.workspaces.open(session.as_deref(), own_user);
        let lease: Lease = opened
            .map_err(|error| Error::internal("making a workspace")(error.into()))?
            .ok_or(Error::NoWorkspace(MAX_SESSIONS))?;
        let tools = Tools { sandbox: &self.sandbox, session: &lease, metrics: &self.metrics };
        let mut answer = match &self.model {
            Some(model) => {
                let prompt = prompt(lease.is_new && !ask.past.is_empty(), events).await;
                let mut conversation = Conversation::new(&prompt, &ask.past, &ask.input);
                let tools = Some(&tools);
                steps::run(model, tools, &mut conversation, self.budget, ask, events).await?.into()
            }
            None => without_model(&tools, ask, events).await,
        };
        answer.more.push(("sandbox", self.sandbox.describe()));
        Ok(answer)
    }
}

/// What the model is told of its place. `moved`: the session goes on here, and its files are elsewhere or gone.
async fn prompt(moved: bool, events: &Events) -> String {
    if !moved {
        return PROMPT.to_owned();
    }
    let note = Some(MOVED.to_owned());
    events.send(Event::Step(Step { note, ..Step::named("workspace") })).await;
    format!("{PROMPT}\n\n{MOVED}")
}

async fn without_model(tools: &Tools<'_>, ask: &Ask, events: &Events) -> Answer {
    let found = blocks::find(&ask.input);
    let mut output = match found.len() {
        0 => format!(
            "{NO_MODEL}, and the input has no fenced code block to run. Without a model this agent runs the code \
             blocks of its input: put the code between ```sh and ``` lines (or bash, python, javascript, …).\n"
        ),
        _ => format!("{NO_MODEL}: the code blocks of the input were run as they are.\n"),
    };
    events.words(&output).await;
    let mut runs = Vec::new();
    for (at, block) in found.iter().take(MAX_BLOCKS).enumerate() {
        let (text, run) = run_block(tools, at + 1, block, events).await;
        events.words(&text).await;
        output.push_str(&text);
        runs.push(run);
    }
    if found.len() > MAX_BLOCKS {
        let text = format!("\nOnly the first {MAX_BLOCKS} of {} blocks were run.\n", found.len());
        events.words(&text).await;
        output.push_str(&text);
    }
    Answer::without_model(output, vec![("runs", Value::from(runs))])
}

/// Runs one block; returns the text about it and its entry in the metadata.
async fn run_block(
    tools: &Tools<'_>,
    number: usize,
    block: &Block,
    events: &Events,
) -> (String, Value) {
    let language = &block.language;
    let note = Some(language.clone());
    let step = Step { step: Some(number as u32), note, ..Step::named("block") };
    events.send(Event::Step(step)).await;
    let id = format!("block-{number}");
    let told = ToolCall {
        id: id.clone(),
        name: "run".to_owned(),
        arguments: json!({"language": language, "code": block.code}),
    };
    events.send(Event::ToolCall(told)).await;
    let ran = async {
        let interpreter = block.interpreter()?;
        let name = format!("{id}.{}", interpreter.ending);
        tools.write(name.clone(), block.code.clone()).await?;
        tools.run(vec![interpreter.program, name]).await
    };
    let (text, run, ok, output) = match ran.await {
        Ok(outcome) => {
            let line = describe(&outcome);
            let fence = fence(&outcome.output);
            let end =
                if outcome.output.ends_with('\n') || outcome.output.is_empty() { "" } else { "\n" };
            let text = format!(
                "\nBlock {number} ({language}): {line}\n{fence}\n{}{end}{fence}\n",
                outcome.output
            );
            let run = json!({
                "block": number,
                "language": language,
                "exit": outcome.exit,
                "signal": outcome.signal,
                "timed_out": outcome.timed_out,
                "time_ms": outcome.time.as_millis() as u64,
                "cpu_ms": outcome.cpu.as_millis() as u64,
                "peak_memory_bytes": outcome.peak_memory,
            });
            let output = format!("{}\n[{line}]", outcome.output);
            (text, run, outcome.exit == Some(0), output)
        }
        Err(why) => {
            let text = format!("\nBlock {number} ({language}) was not run: {why}\n");
            let run = json!({"block": number, "language": language, "error": why});
            (text, run, false, why)
        }
    };
    events.send(Event::ToolResult(ToolResult { id, name: "run".to_owned(), ok, output })).await;
    (text, run)
}

/// A fence longer than any in the text.
fn fence(text: &str) -> String {
    let mut longest = 0;
    let mut run = 0;
    for c in text.chars() {
        run = if c == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    "`".repeat(3.max(longest + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_a_shell_is_named_as_what_is_wrong() {
        assert_eq!(has_shell(Path::new(SHELL)), Ok(()));
        let why = has_shell(Path::new("/nonexistent/sh")).unwrap_err();
        assert!(why.contains("/nonexistent/sh, and there is none here; use an image"), "{why}");
    }
}
