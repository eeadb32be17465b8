//! One request to an agent, whichever it is: what is asked, what happens meanwhile, what comes out.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::coding::Coding;
use crate::error::Error;
use crate::model::{Model, Usage};
use crate::qa::Qa;

/// What a client asks.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The question, or the task.
    pub input: String,
    /// Names what is to be found again at the next request.
    pub session_id: Option<String>,
    /// The type that the client named: an agent may serve several.
    pub agent: String,
    /// Identifies the request from end to end.
    pub request_id: String,
    /// Headers for the model server: the request's id and its trace.
    pub onward: HeaderMap,
}

/// What happens while an answer is made.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A part of the work begins.
    Step(Value),
    /// The next piece of the output.
    Token(String),
    /// A tool is about to be used.
    ToolCall(Value),
    /// What it gave.
    ToolResult(Value),
}

impl Event {
    /// The SSE event's name and data.
    pub fn parts(self) -> (&'static str, Value) {
        match self {
            Self::Step(data) => ("step", data),
            Self::Token(text) => ("token", json!({ "text": text })),
            Self::ToolCall(data) => ("tool_call", data),
            Self::ToolResult(data) => ("tool_result", data),
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
    /// What the agent adds to the metadata.
    pub more: Vec<(&'static str, Value)>,
}

/// One of the agents, ready to work.
pub enum Agent {
    /// Answers from documents.
    Qa(Qa),
    /// Works with code.
    Coding(Coding),
}

impl Agent {
    /// The name of the model in use, or `none`.
    pub fn model_name(&self) -> &str {
        self.model().map_or("none", Model::name)
    }

    /// The model, if there is one.
    pub fn model(&self) -> Option<&Model> {
        match self {
            Self::Qa(qa) => qa.model.as_ref(),
            Self::Coding(coding) => coding.model.as_ref(),
        }
    }

    /// Does the work. Dropping the future ends it at once, with every process that it started.
    ///
    /// # Errors
    /// When there is no answer; events that were sent until then stand.
    pub async fn work(&self, ask: &Ask, events: &Events) -> Result<Answer, Error> {
        match self {
            Self::Qa(qa) => qa.work(ask, events).await,
            Self::Coding(coding) => coding.work(ask, events).await,
        }
    }

    /// The reply to the client: the JSON body, and the `final` event.
    pub fn reply(&self, ask: &Ask, answer: Answer) -> Value {
        let mut metadata = json!({
            "agent": ask.agent,
            "model": self.model_name(),
            "usage": answer.usage,
            "request_id": ask.request_id,
            "session_id": ask.session_id,
        });
        for (name, value) in answer.more {
            metadata[name] = value;
        }
        json!({ "output": answer.output, "metadata": metadata })
    }

    /// Looks at each dependency: its name, and whether it works. Bounded by the caller.
    pub async fn check(&self) -> BTreeMap<&'static str, bool> {
        let model = async {
            match self.model() {
                Some(model) => Some(model.reachable().await),
                None => None,
            }
        };
        let own = async {
            match self {
                Self::Qa(qa) => ("index", qa.is_ready()),
                Self::Coding(coding) => ("workspace", coding.is_ready().await),
            }
        };
        let limit = std::time::Duration::from_secs(2);
        let bounded_own = tokio::time::timeout(limit, own);
        let (model, own) = tokio::join!(tokio::time::timeout(limit, model), bounded_own);
        let mut checks = BTreeMap::new();
        match model {
            Ok(Some(works)) => drop(checks.insert("model", works)),
            Err(_) => drop(checks.insert("model", false)),
            Ok(None) => {}
        }
        let default = if matches!(self, Self::Qa(_)) { "index" } else { "workspace" };
        let (name, works) = own.unwrap_or((default, false));
        checks.insert(name, works);
        checks
    }
}

/// What every output opens with when there is no model, before what was done instead.
pub const NO_MODEL: &str =
    "No language model is configured (OPENAI_API_KEY, or OPENAI_BASE_URL and AGENT_MODEL)";
