//! The chat-completions protocol: what is sent, what comes back, and the pieces put together.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ModelError;

/// Most tool calls in one turn, and most text or arguments, bytes: a model that exceeds them has lost its way.
const MAX_CALLS: usize = 16;
const MAX_TEXT: usize = 1 << 20;

/// Tokens, as the server counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Read by the model.
    pub prompt_tokens: u64,
    /// Written by the model.
    pub completion_tokens: u64,
    /// Both.
    pub total_tokens: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
        self.total_tokens += other.total_tokens;
    }
}

/// A tool that the model asks for. Nothing in it has been checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Call {
    /// The server's name for this call.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// Its arguments: meant to be a JSON object.
    pub arguments: String,
}

/// One whole answer of the model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turn {
    /// What it says.
    pub text: String,
    /// What it wants done.
    pub calls: Vec<Call>,
    /// Why it ended; `None` while it has not.
    pub finish: Option<String>,
    /// `None` when the server does not count.
    pub usage: Option<Usage>,
    /// Which model said it.
    pub model: String,
    /// The server's index of each of `calls`, for putting pieces together.
    slots: Vec<Option<usize>>,
}

#[derive(Deserialize)]
struct Chunk {
    choices: Option<Vec<Choice>>,
    usage: Option<Usage>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    /// In a stream.
    delta: Option<Delta>,
    /// In an answer in one piece, from servers that do not stream.
    message: Option<Delta>,
    finish_reason: Option<String>,
    index: Option<u64>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    tool_calls: Option<Vec<CallDelta>>,
}

#[derive(Deserialize)]
struct CallDelta {
    index: Option<usize>,
    id: Option<String>,
    function: Option<FunctionDelta>,
}

#[derive(Deserialize)]
struct FunctionDelta {
    name: Option<String>,
    arguments: Option<Value>,
}

impl Turn {
    /// Adds one chunk (or a whole answer, which has the same shape) and returns the text in it.
    ///
    /// # Errors
    /// When it is no chat completion, reports an error of the server's, or exceeds the bounds.
    pub fn add(&mut self, json: &str) -> Result<String, ModelError> {
        let chunk: Chunk = serde_json::from_str(json).map_err(|_| ModelError::Nonsense)?;
        if let Some(error) = chunk.error {
            return Err(ModelError::Failed { status: 200, detail: message(&error) });
        }
        if chunk.usage.is_some() {
            self.usage = chunk.usage;
        }
        let mut text = String::new();
        for choice in chunk.choices.unwrap_or_default() {
            if choice.index.unwrap_or(0) != 0 {
                continue;
            }
            if choice.finish_reason.is_some() {
                self.finish = choice.finish_reason;
            }
            let Some(delta) = choice.delta.or(choice.message) else { continue };
            text.push_str(&delta.content.unwrap_or_default());
            for call in delta.tool_calls.unwrap_or_default() {
                self.add_call(call)?;
            }
        }
        self.text.push_str(&text);
        let size = self.text.len() + self.calls.iter().map(|c| c.arguments.len()).sum::<usize>();
        if size > MAX_TEXT { Err(ModelError::TooLong) } else { Ok(text) }
    }

    /// Finds the call that the piece belongs to: by index; a new id under an old index begins a new call,
    /// and without an index, a piece without an id continues the last.
    fn add_call(&mut self, piece: CallDelta) -> Result<(), ModelError> {
        let id = piece.id.unwrap_or_default();
        let known = match piece.index {
            Some(_) => self.slots.iter().rposition(|slot| *slot == piece.index),
            None if id.is_empty() => self.calls.len().checked_sub(1),
            None => None,
        };
        let known = known.filter(|at| {
            let old = &self.calls[*at].id;
            id.is_empty() || old.is_empty() || *old == id
        });
        let at = match known {
            Some(at) => at,
            None if self.calls.len() == MAX_CALLS => return Err(ModelError::TooLong),
            None => {
                self.slots.push(piece.index);
                self.calls.push(Call::default());
                self.calls.len() - 1
            }
        };
        let call = &mut self.calls[at];
        if !id.is_empty() {
            call.id = id;
        }
        if let Some(function) = piece.function {
            call.name.push_str(&function.name.unwrap_or_default());
            match function.arguments {
                Some(Value::String(text)) => call.arguments.push_str(&text),
                Some(Value::Null) | None => {}
                // Some servers send the object itself.
                Some(other) => call.arguments.push_str(&other.to_string()),
            }
        }
        Ok(())
    }

    /// The text was calls: takes them instead of it.
    ///
    /// # Errors
    /// When there are more than may be.
    pub(super) fn take_calls(&mut self, calls: Vec<Call>) -> Result<(), ModelError> {
        if calls.len() > MAX_CALLS {
            return Err(ModelError::TooLong);
        }
        self.text.clear();
        self.calls = calls;
        Ok(())
    }

    /// Ends the turn: calls get the ids that the server left out. `number` makes them unique in a conversation.
    pub fn end(mut self, number: usize) -> Self {
        for (at, call) in self.calls.iter_mut().enumerate() {
            if call.id.is_empty() {
                call.id = format!("call_{number}_{at}");
            }
        }
        self
    }

    /// The turn as a message of the conversation. Arguments that are no JSON object are left out: servers
    /// that parse them again would refuse the whole conversation.
    pub fn message(&self) -> Value {
        if self.calls.is_empty() {
            return json!({"role": "assistant", "content": self.text});
        }
        let calls: Vec<Value> = self.calls.iter().map(|call| {
            let valid = serde_json::from_str::<serde_json::Map<String, Value>>(&call.arguments).is_ok();
            let arguments = if valid { call.arguments.as_str() } else { "{}" };
            json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
        }).collect();
        json!({"role": "assistant", "content": self.text, "tool_calls": calls})
    }
}

/// The text of a server's error, shortened: it may be a whole page.
pub(crate) fn message(error: &Value) -> String {
    let inner = error.get("error").unwrap_or(error);
    let text = inner.get("message").unwrap_or(inner);
    let text = text.as_str().map_or_else(|| text.to_string(), str::to_owned);
    text.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_tool_calls_are_put_together_by_index() {
        let mut turn = Turn::default();
        for chunk in [
            r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"id":"b","function":{"name":"read","arguments":""}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"run","arguments":"{\"co"}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"mmand\":\"ls\"}"}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]},"finish_reason":"tool_calls"}]}"#,
        ] {
            turn.add(chunk).unwrap();
        }
        let calls: Vec<_> = turn
            .calls
            .iter()
            .map(|c| (c.id.as_str(), c.name.as_str(), c.arguments.as_str()))
            .collect();
        assert_eq!(calls, [("b", "read", "{}"), ("a", "run", r#"{"command":"ls"}"#)]);
    }

    #[test]
    fn arguments_that_are_no_object_are_not_sent_back() {
        let mut turn = Turn::default();
        turn.add(r#"{"choices":[{"message":{"content":null,"tool_calls":[{"function":{"name":"run","arguments":"{oops"}}]}}]}"#).unwrap();
        let turn = turn.end(3);
        assert_eq!(turn.message()["tool_calls"][0]["function"]["arguments"], "{}");
        assert_eq!(turn.calls[0].id, "call_3_0");
    }

    #[test]
    fn an_error_in_the_stream_is_an_error() {
        let failed = Turn::default().add(r#"{"error":{"message":"out of memory"}}"#).unwrap_err();
        assert!(failed.to_string().contains("out of memory"));
    }
}
