//! A streamed reply on a terminal: tokens on stdout as they come, what the agent does on the way
//! dimmed on stderr.

use std::io::{self, IsTerminal};

use serde_json::Value;

use super::problem;
use super::sse::Event;
use crate::cli::terminal;

/// How much of a step or tool call is shown, in characters.
const NOTE: usize = 200;

/// Where a streamed reply stands after an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More is to come.
    Open,
    /// The reply is complete.
    Final,
    /// The agent or the gateway gave up; the line says why.
    Failed(String),
}

/// One streamed reply as it is shown.
pub(super) struct Show {
    clean: bool,
    dim: bool,
    /// Whether stdout stands in the middle of a line.
    mid_line: bool,
    any_token: bool,
}

impl Show {
    pub(super) fn new() -> Show {
        Show {
            clean: io::stdout().is_terminal(),
            dim: terminal::colours(&io::stderr()),
            mid_line: false,
            any_token: false,
        }
    }

    /// Shows one event. Fails only where stdout can't be written.
    pub(super) fn event(&mut self, event: &Event) -> io::Result<Progress> {
        let data = serde_json::from_str(&event.data).unwrap_or(Value::Null);
        match event.name.as_str() {
            "token" => self.token(data.get("text").and_then(Value::as_str).unwrap_or_default())?,
            "step" | "tool_call" | "tool_result" => self.note(&event.name, &data, &event.data)?,
            "final" => {
                self.complete(&data)?;
                return Ok(Progress::Final);
            }
            "error" => {
                self.end_line()?;
                return Ok(Progress::Failed(problem::of_event(&event.data)));
            }
            _ => {}
        }
        Ok(Progress::Open)
    }

    /// Puts stdout at the start of a line.
    pub(super) fn end_line(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.mid_line) { terminal::write_out("\n") } else { Ok(()) }
    }

    fn token(&mut self, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.any_token = true;
        self.mid_line = !text.ends_with('\n');
        if self.clean {
            terminal::write_out(&terminal::clean(text))
        } else {
            terminal::write_out(text)
        }
    }

    fn note(&mut self, name: &str, data: &Value, raw: &str) -> io::Result<()> {
        self.end_line()?;
        let line = format!("{}: {}", name.replace('_', " "), described(data, raw));
        eprintln!("{}", terminal::paint(&line, "2", self.dim));
        Ok(())
    }

    /// The final event repeats the whole output: it is printed where no token has been.
    fn complete(&mut self, data: &Value) -> io::Result<()> {
        if !self.any_token {
            self.token(output(data).as_deref().unwrap_or_default())?;
        }
        self.end_line()
    }
}

/// The `output` of a reply: text as it is, other JSON in lines.
pub(super) fn output(reply: &Value) -> Option<String> {
    match reply.get("output")? {
        Value::String(text) => Some(text.clone()),
        other => Some(format!("{other:#}")),
    }
}

/// What a step or tool event says: the text it has, or its JSON, in one bounded line.
fn described(data: &Value, raw: &str) -> String {
    let text = ["text", "message", "title"].iter().find_map(|key| data.get(key)?.as_str());
    let name = ["tool", "name", "step"].iter().find_map(|key| data.get(key)?.as_str());
    let detail = ["arguments", "input", "output", "result"].iter().find_map(|key| data.get(key));
    let detail =
        detail.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    let parts: Vec<_> =
        [name.map(str::to_owned), text.map(str::to_owned), detail].into_iter().flatten().collect();
    let all = if parts.is_empty() { raw.to_owned() } else { parts.join(" ") };
    let line = terminal::clean(&all.replace(['\n', '\r'], " "));
    let short: String = line.chars().take(NOTE).collect();
    if short.len() < line.len() { format!("{short}…") } else { short }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn described_json(value: &Value) -> String {
        described(value, &value.to_string())
    }

    #[test]
    fn steps_and_tools_are_described_by_what_they_have() {
        assert_eq!(described_json(&json!({"text": "searching\ndocs"})), "searching docs");
        assert_eq!(
            described_json(&json!({"name": "run", "arguments": {"command": "ls"}})),
            r#"run {"command":"ls"}"#
        );
        assert_eq!(described_json(&json!({"n": 1})), r#"{"n":1}"#);
        assert_eq!(described_json(&json!({"text": "y".repeat(500)})).chars().count(), NOTE + 1);
    }

    #[test]
    fn output_is_text_or_json() {
        assert_eq!(output(&json!({"output": "hi"})).unwrap(), "hi");
        assert_eq!(output(&json!({"output": [1]})).unwrap(), "[\n  1\n]");
        assert_eq!(output(&json!({"answer": 1})), None);
    }
}
