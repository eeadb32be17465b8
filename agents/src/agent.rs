//! One request to an agent, whichever it is: what is asked, what happens meanwhile, what comes out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::coding::Coding;
use crate::conversation::Trimmed;
use crate::error::Error;
use crate::model::{Model, Usage};
use crate::qa::Qa;
use crate::sessions::{Exchange, Memory, Sessions};
use crate::steps::Outcome;
use crate::store::Store;

/// Longest look at one dependency.
const LOOK: Duration = Duration::from_secs(2);
const NO_MEMORY: &str =
    "Redis is away: this goes on without what was said before, and is not remembered";

/// What a client asks.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The question, or the task.
    pub input: String,
    /// Names what is to be found again at the next request.
    pub session_id: Option<String>,
    /// A JSON Schema that the output is to keep.
    pub schema: Option<Value>,
    /// What was said in the session before.
    pub past: Vec<Exchange>,
    /// The type that the client named: an agent may serve several.
    pub agent: String,
    /// The `Idempotency-Key`: asked again with the same one, the same answer is given.
    pub key: Option<String>,
    /// Identifies the request from end to end.
    pub request_id: String,
    /// Headers for the model server: the request's id and its trace.
    pub onward: HeaderMap,
}

/// What happens while an answer is made. `docs/agents.schema.json` says the same.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A part of the work begins.
    Step(Step),
    /// The next piece of the output.
    Token(String),
    /// A tool is about to be used.
    ToolCall(ToolCall),
    /// What it gave.
    ToolResult(ToolResult),
}

/// A part of the work.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Which: `model`, `search`, `answer`, `block`, `trim`, `mend`, `memory`.
    pub name: &'static str,
    /// The how many-th of its kind, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// How many there can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<u32>,
    /// More about it, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Step {
    /// A step without a number.
    pub fn named(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }
}

/// A tool about to be used.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ToolCall {
    /// Names the call; the result has it, too.
    pub id: String,
    /// The tool.
    pub name: String,
    /// An object; a string where the model's were none.
    pub arguments: Value,
}

/// What a tool gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ToolResult {
    /// The call's.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Whether it did what was asked.
    pub ok: bool,
    /// Its text.
    pub output: String,
}

impl Event {
    /// The SSE event's name and data.
    pub fn parts(self) -> (&'static str, Value) {
        // Maps with string keys always become JSON.
        match self {
            Self::Step(data) => ("step", json!(data)),
            Self::Token(text) => ("token", json!({ "text": text })),
            Self::ToolCall(data) => ("tool_call", json!(data)),
            Self::ToolResult(data) => ("tool_result", json!(data)),
        }
    }
}

/// Where events go. A client that takes them slowly slows the work; one that wants none gets none.
#[derive(Debug, Clone)]
pub struct Events(Option<mpsc::Sender<Event>>);

impl Events {
    /// Events into a channel.
    pub fn into(channel: mpsc::Sender<Event>) -> Self {
        Self(Some(channel))
    }

    /// For a client that wants the reply in one piece.
    pub fn nowhere() -> Self {
        Self(None)
    }

    /// Waits until there is room.
    pub async fn send(&self, event: Event) {
        if let Some(channel) = &self.0 {
            // Nobody listens any more only when the whole request is being dropped.
            let _ = channel.send(event).await;
        }
    }

    /// Sends `text` word by word.
    pub async fn words(&self, text: &str) {
        if self.0.is_some() {
            for word in text.split_inclusive(char::is_whitespace) {
                self.send(Event::Token(word.to_owned())).await;
            }
        }
    }
}

/// What comes out.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The text.
    pub output: String,
    /// Tokens over all of the model's turns; `None` when its server does not count.
    pub usage: Option<Usage>,
    /// The model that answered; `None` when none did.
    pub model: Option<String>,
    /// What the agent adds to the metadata.
    pub more: Vec<(&'static str, Value)>,
}

impl Answer {
    /// An answer in which no model had a part.
    pub fn without_model(output: String, more: Vec<(&'static str, Value)>) -> Self {
        Self { output, usage: None, model: None, more }
    }
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        let mut more =
            vec![("steps", json!(outcome.steps)), ("finish_reason", json!(outcome.finish))];
        if outcome.trimmed != Trimmed::default() {
            let Trimmed { messages, shortened, tokens } = outcome.trimmed;
            let told = json!({"messages": messages, "shortened": shortened, "tokens": tokens});
            more.push(("trimmed", told));
        }
        more.extend(outcome.data.map(|data| ("data", data)));
        Self { output: outcome.text, usage: outcome.usage, model: Some(outcome.model), more }
    }
}

/// Which agent this process is.
pub enum Which {
    /// Answers from documents.
    Qa(Qa),
    /// Works with code.
    Coding(Coding),
}

/// An agent, ready to work.
pub struct Agent {
    which: Which,
    sessions: Sessions,
    store: Arc<Store>,
}

impl Agent {
    /// The agent, with its memory in `store`.
    pub fn new(which: Which, sessions: Sessions, store: Arc<Store>) -> Self {
        Self { which, sessions, store }
    }

    /// Where its memory is.
    pub fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store)
    }

    /// The name of the model in use, or `none`.
    pub fn model_name(&self) -> &str {
        self.model().map_or("none", Model::name)
    }

    /// Whether it can work yet.
    pub fn is_ready(&self) -> bool {
        match &self.which {
            Which::Qa(qa) => qa.is_ready(),
            Which::Coding(_) => true,
        }
    }

    /// Does the work. Dropping the future ends it at once, with every process that it started.
    ///
    /// # Errors
    /// When there is no answer; events that were sent until then stand.
    pub async fn work(&self, ask: &mut Ask, events: &Events) -> Result<Answer, Error> {
        let session = ask.session_id.clone();
        let (past, mut memory) = self.sessions.recall(&ask.agent, session.as_deref()).await;
        if memory == Memory::Down {
            let step = Step { note: Some(NO_MEMORY.to_owned()), ..Step::named("memory") };
            events.send(Event::Step(step)).await;
        }
        ask.past = past;
        let ask = &*ask;
        let mut answer = match &self.which {
            Which::Qa(qa) => qa.work(ask, events).await,
            Which::Coding(coding) => coding.work(ask, events).await,
        }?;
        if let (Some(session), Memory::In(_)) = (&session, memory)
            && !self.sessions.remember(&ask.agent, session, &ask.input, &answer.output).await
        {
            memory = Memory::Down;
        }
        answer.more.push(("memory", json!(memory)));
        Ok(answer)
    }

    /// The reply to the client: the JSON body, and the `final` event.
    pub fn reply(&self, ask: &Ask, answer: Answer) -> Value {
        let mut metadata = json!({
            "agent": ask.agent,
            "model": answer.model.as_deref().unwrap_or_else(|| self.model_name()),
            "usage": answer.usage,
            "request_id": ask.request_id,
            "session_id": ask.session_id,
        });
        for (name, value) in answer.more {
            metadata[name] = value;
        }
        json!({ "output": answer.output, "metadata": metadata })
    }

    /// Looks at every dependency, all at once: its name, and whether it works. One that doesn't say in time is down.
    pub async fn check(&self) -> BTreeMap<&'static str, bool> {
        let model = async {
            match self.model() {
                Some(model) => Some(model.reachable().await),
                None => None,
            }
        };
        let own = async {
            Some(match &self.which {
                Which::Qa(qa) => qa.is_whole(),
                Which::Coding(coding) => coding.is_ready().await,
            })
        };
        let embeddings = async {
            match &self.which {
                Which::Qa(qa) => Some(qa.embedder()?.reachable().await),
                Which::Coding(_) => None,
            }
        };
        let own_name = if matches!(self.which, Which::Qa(_)) { "index" } else { "workspace" };
        let (model, own, redis, embeddings) = tokio::join!(
            in_time(model),
            in_time(own),
            in_time(self.store.answers()),
            in_time(embeddings)
        );
        let looked =
            [("model", model), (own_name, own), ("redis", redis), ("embeddings", embeddings)];
        looked.into_iter().filter_map(|(name, works)| Some((name, works?))).collect()
    }

    fn model(&self) -> Option<&Model> {
        match &self.which {
            Which::Qa(qa) => qa.model.as_ref(),
            Which::Coding(coding) => coding.model.as_ref(),
        }
    }
}

/// What a look at a dependency found; down when it took longer than [`LOOK`].
async fn in_time(look: impl Future<Output = Option<bool>>) -> Option<bool> {
    tokio::time::timeout(LOOK, look).await.unwrap_or(Some(false))
}

/// What every output opens with when there is no model, before what was done instead.
pub const NO_MODEL: &str =
    "No language model is configured (OPENAI_API_KEY, or OPENAI_BASE_URL and AGENT_MODEL)";
