//! The loop of both agents: the model's turn, the tools that it calls, their results, the model again. Bounded in steps,
//! tokens, bytes and, by whoever runs it, time; every step is told as it happens. Dropping it ends everything in it.

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use crate::agent::{Ask, Event, Events, Step, ToolCall, ToolResult};
use crate::conversation::{Conversation, TooLong};
use crate::error::Error;
use crate::model::{self, Call, Model, ModelError, Request, Turn, Usage};
use crate::text;

/// Tools at work at once in one request: those of a turn may be 16, and each may hold a file or a search.
const MAX_PARALLEL: usize = 4;
/// Most of a tool's result that goes back to the model, bytes: twenty of them must fit a small context.
const MAX_RESULT: usize = 16 << 10;
/// Most bytes of one request's conversation, whatever its tokens: what a request may add to the agent's memory.
const MAX_BYTES: usize = 8 << 20;
/// How often an answer that does not keep the schema is asked for again.
const MAX_MENDS: u32 = 2;
/// How often a context that the server finds too long is made smaller, by a half each time.
const MAX_HALVINGS: u32 = 3;

/// What a request may use.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Turns of the model.
    pub steps: u32,
    /// Tokens, read and written, over all turns.
    pub tokens: u64,
    /// An answer that begins with this ends the loop, also where a schema is asked for.
    pub way_out: Option<&'static str>,
}

/// What a model can do beside talking.
pub trait Tools {
    /// The protocol's `tools`.
    fn described(&self) -> Value;

    /// Whether a call of this tool only looks: such calls run beside each other. Others run alone, in the order in which
    /// the model put them.
    fn only_looks(&self, name: &str) -> bool;

    /// Carries out one call. Both results are told to the model.
    ///
    /// # Errors
    /// What was wrong with the call, or why it failed.
    fn call(&self, name: &str, arguments: &str) -> impl Future<Output = Result<String, String>>;
}

/// How the loop ended.
#[derive(Debug)]
pub struct Outcome {
    /// The model's last words.
    pub text: String,
    /// The same as JSON, where a schema was asked for.
    pub data: Option<Value>,
    /// Over all turns.
    pub usage: Option<Usage>,
    /// Which model spoke last.
    pub model: String,
    /// Turns.
    pub steps: u32,
    /// `stop` or what else the model said, `max-steps`, `max-tokens` or `max-memory`.
    pub finish: String,
    /// What of the conversation did not fit.
    pub trimmed: crate::conversation::Trimmed,
}

impl Outcome {
    /// Whether a bound ended it, and not the model.
    pub fn is_at_bound(&self) -> bool {
        matches!(self.finish.as_str(), "max-steps" | "max-tokens" | "max-memory")
    }
}

/// A loop under way.
struct Loop<'a, T> {
    model: &'a Model,
    tools: Option<(&'a T, Value)>,
    ask: &'a Ask,
    events: &'a Events,
    conversation: &'a mut Conversation,
    budget: Budget,
    context: u64,
    usage: Option<Usage>,
    step: u32,
}

/// Runs the loop to its end. `conversation` has all turns then but the last, which is the outcome.
///
/// # Errors
/// When the model fails, or the input alone is longer than it reads.
pub async fn run<T: Tools>(
    model: &Model,
    tools: Option<&T>,
    conversation: &mut Conversation,
    budget: Budget,
    ask: &Ask,
    events: &Events,
) -> Result<Outcome, Error> {
    let tools = tools.map(|tools| (tools, tools.described()));
    let context = model.context_tokens;
    let mut run =
        Loop { model, tools, ask, events, conversation, budget, context, usage: None, step: 0 };
    let mut mends = 0;
    loop {
        if let Some(bound) = run.at_bound() {
            return Ok(run.stopped(bound).await);
        }
        let turn = run.turn().await?;
        if !turn.calls.is_empty() {
            run.carry_out(&turn).await;
            continue;
        }
        match run.data(&turn) {
            Ok(data) => return Ok(run.finished(turn, data)),
            Err(why) if mends == MAX_MENDS => return Err(Error::OutputInvalid(why)),
            Err(why) => {
                mends += 1;
                run.mend(&turn, &why).await;
            }
        }
    }
}

impl<T: Tools> Loop<'_, T> {
    fn at_bound(&self) -> Option<&'static str> {
        let budget = self.budget;
        let used = self.usage.map_or(0, |usage| usage.total_tokens);
        if self.step >= budget.steps {
            Some("max-steps")
        } else if used >= budget.tokens {
            Some("max-tokens")
        } else if self.conversation.size() > MAX_BYTES {
            Some("max-memory")
        } else {
            None
        }
    }

    /// One turn of the model.
    async fn turn(&mut self) -> Result<Turn, Error> {
        self.step += 1;
        let step =
            Step { step: Some(self.step), of: Some(self.budget.steps), ..Step::named("model") };
        self.events.send(Event::Step(step)).await;
        let mut halvings = 0;
        loop {
            self.fit().await?;
            let messages = self.conversation.messages();
            let tools = self.tools.as_ref().map(|(_, described)| described);
            let request = Request { messages: &messages, tools, schema: self.ask.schema.as_ref() };
            match self.model.chat(request, &self.ask.onward, self.events).await {
                // The estimate was too low for this model: nothing was answered yet, so once more with less.
                Err(ModelError::ContextTooLong { .. }) if halvings < MAX_HALVINGS => {
                    halvings += 1;
                    let now = self.model.tokens_in(self.conversation.size());
                    self.context = self.context.min(now.saturating_mul(2) / 3);
                }
                Err(failed) => return Err(failed.into()),
                Ok(turn) => {
                    if let Some(used) = turn.usage {
                        *self.usage.get_or_insert_default() += used;
                    }
                    return Ok(turn);
                }
            }
        }
    }

    async fn fit(&mut self) -> Result<(), Error> {
        let tools = self.tools.as_ref().map_or(0, |(_, described)| described.to_string().len());
        let fitted = self.conversation.fit(self.model, self.context, tools);
        let trimmed =
            fitted.map_err(|TooLong(tokens, most)| Error::InputTooLong { tokens, most })?;
        if trimmed {
            let step = Step { note: Some(self.conversation.note()), ..Step::named("trim") };
            self.events.send(Event::Step(step)).await;
        }
        Ok(())
    }

    /// Carries out a turn's calls: neighbours that only look beside each other, the others alone.
    async fn carry_out(&mut self, turn: &Turn) {
        let Some((tools, _)) = &self.tools else { return self.conversation.add(turn, Vec::new()) };
        let looks = |call: &Call| tools.only_looks(&call.name);
        let mut results = Vec::new();
        for group in turn.calls.chunk_by(|one, next| looks(one) && looks(next)) {
            let mut calls = Vec::with_capacity(group.len());
            for call in group {
                calls.push(carry_out(*tools, call, self.events));
            }
            let mut calls = stream::iter(calls).buffered(MAX_PARALLEL);
            while let Some(result) = calls.next().await {
                results.push(result);
            }
        }
        self.conversation.add(turn, results);
    }

    /// The answer as the schema has it, where there is one.
    fn data(&self, turn: &Turn) -> Result<Option<Value>, String> {
        let Some(schema) = &self.ask.schema else { return Ok(None) };
        if self.budget.way_out.is_some_and(|way_out| turn.text.trim().starts_with(way_out)) {
            return Ok(None);
        }
        let data = model::value(&turn.text).ok_or("it is no JSON")?;
        // Whoever took the request has seen that the schema is one.
        let validator = jsonschema::validator_for(schema).map_err(|error| error.to_string())?;
        let wrong = validator.iter_errors(&data).next();
        match wrong.map(|error| format!("{error} at `{}`", error.instance_path())) {
            None => Ok(Some(data)),
            Some(why) => Err(why),
        }
    }

    async fn mend(&mut self, turn: &Turn, why: &str) {
        let step = Step { note: Some(why.to_owned()), ..Step::named("mend") };
        self.events.send(Event::Step(step)).await;
        let again = format!(
            "Your answer does not keep the schema: {why}. Send the whole answer again, as JSON only."
        );
        self.conversation.add(turn, vec![json!({"role": "user", "content": again})]);
    }

    fn finished(self, turn: Turn, data: Option<Value>) -> Outcome {
        let text = data.as_ref().map_or(turn.text, Value::to_string);
        let finish = turn.finish.unwrap_or_else(|| "stop".to_owned());
        Outcome {
            text,
            data,
            usage: self.usage,
            model: turn.model,
            steps: self.step,
            finish,
            trimmed: self.conversation.trimmed,
        }
    }

    async fn stopped(self, bound: &'static str) -> Outcome {
        let text = format!("Stopped after {} steps without coming to an end ({bound}).", self.step);
        self.events.words(&text).await;
        Outcome {
            text,
            data: None,
            usage: self.usage,
            model: self.model.name().to_owned(),
            steps: self.step,
            finish: bound.to_owned(),
            trimmed: self.conversation.trimmed,
        }
    }
}

/// Carries out a call, wrong or right, and returns the message that tells the model.
async fn carry_out(tools: &impl Tools, call: &Call, events: &Events) -> Value {
    // What is nearly JSON is mended; what is not is told as it is.
    let arguments = model::object(&call.arguments).map(Value::Object);
    let given = arguments.as_ref().map_or_else(|| call.arguments.clone(), Value::to_string);
    let told = arguments.unwrap_or_else(|| Value::from(call.arguments.as_str()));
    let (id, name) = (call.id.clone(), call.name.clone());
    events.send(Event::ToolCall(ToolCall { id, name, arguments: told })).await;
    let (ok, output) = match tools.call(&call.name, &given).await {
        Ok(output) => (true, output),
        Err(error) => (false, format!("error: {error}")),
    };
    let message = json!({"role": "tool", "tool_call_id": call.id, "content": text::shorten(&output, MAX_RESULT)});
    let (id, name) = (call.id.clone(), call.name.clone());
    events.send(Event::ToolResult(ToolResult { id, name, ok, output })).await;
    message
}
