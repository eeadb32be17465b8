//! The messages of one request, kept within the model's context. What has to go is replaced by a note, so that neither
//! the model nor the reader takes the rest for the whole.

use serde_json::{Value, json};

use crate::model::{Model, Turn, bytes};
use crate::sessions::Exchange;
use crate::text;

/// What stays of an old tool result before whole rounds have to go, bytes.
const OLD_RESULT: usize = 256;
/// The part of the context that is left to the answer: one in so many.
const FOR_ANSWER: u64 = 4;

/// What did not fit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Messages left out.
    pub messages: usize,
    /// Messages shortened.
    pub shortened: usize,
    /// About how many tokens that was.
    pub tokens: u64,
}

/// A conversation that grows round by round.
#[derive(Debug, Clone)]
pub struct Conversation {
    system: String,
    /// Earlier exchanges of the session, two messages each.
    past: Vec<Value>,
    /// What this request asks.
    input: Value,
    /// The model's turns with the results of their calls, a vector each.
    rounds: Vec<Vec<Value>>,
    /// What was left out until now.
    pub trimmed: Trimmed,
}

/// The system's text and the input alone are longer than the model reads: tokens, and the most that fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong(pub u64, pub u64);

impl Conversation {
    /// A conversation that begins with what was said before.
    pub fn new(system: &str, past: &[Exchange], input: &str) -> Self {
        let message = |role: &str, content: &str| json!({"role": role, "content": content});
        let pair = |exchange: &Exchange| {
            [message("user", &exchange.input), message("assistant", &exchange.output)]
        };
        Self {
            system: system.to_owned(),
            past: past.iter().flat_map(pair).collect(),
            input: message("user", input),
            rounds: Vec::new(),
            trimmed: Trimmed::default(),
        }
    }

    /// Adds the model's turn and what came of its calls.
    pub fn add(&mut self, turn: &Turn, results: Vec<Value>) {
        let mut round = vec![turn.message()];
        round.extend(results);
        self.rounds.push(round);
    }

    /// Adds what the model said, and what it is told of it.
    pub fn say(&mut self, said: &str, told: &str) {
        let message = |role: &str, content: &str| json!({"role": role, "content": content});
        self.rounds.push(vec![message("assistant", said), message("user", told)]);
    }

    /// All messages, in order.
    pub fn messages(&self) -> Vec<Value> {
        let system = self.system();
        std::iter::once(&system).chain(self.after_system()).cloned().collect()
    }

    /// The system's text, with the note where something was left out.
    fn system(&self) -> Value {
        let mut system = self.system.clone();
        if self.trimmed.messages + self.trimmed.shortened > 0 {
            system.push_str(&format!("\n\n[{}]", self.note()));
        }
        json!({"role": "system", "content": system})
    }

    fn after_system(&self) -> impl Iterator<Item = &Value> {
        let before = self.past.iter().chain(std::iter::once(&self.input));
        before.chain(self.rounds.iter().flatten())
    }

    /// What was left out, in words.
    pub fn note(&self) -> String {
        let Trimmed { messages, shortened, tokens } = self.trimmed;
        format!(
            "To fit the context, {messages} earlier messages were left out and {shortened} shortened: about {tokens} tokens"
        )
    }

    /// Bytes of everything that the model reads.
    pub fn size(&self) -> usize {
        bytes(&self.system()) + self.after_system().map(bytes).sum::<usize>()
    }

    /// Leaves out what doesn't fit into `context` tokens with `tools` bytes of tools: first the oldest exchanges, then the
    /// text of old results, then the oldest rounds. The last round stays. Whether anything had to go.
    ///
    /// # Errors
    /// When what has to stay is too long by itself.
    pub fn fit(&mut self, model: &Model, context: u64, tools: usize) -> Result<bool, TooLong> {
        let most = context - context / FOR_ANSWER;
        let before = self.trimmed;
        while model.tokens_in(self.size() + tools) > most {
            let size = self.size();
            if !self.leave_out() {
                return Err(TooLong(model.tokens_in(size + tools), most));
            }
            self.trimmed.tokens += model.tokens_in(size.saturating_sub(self.size()));
        }
        Ok(self.trimmed != before)
    }

    /// Leaves out the next thing; false when nothing is left that may go.
    fn leave_out(&mut self) -> bool {
        if !self.past.is_empty() {
            self.past.drain(..2);
            self.trimmed.messages += 2;
            return true;
        }
        let last = self.rounds.len().saturating_sub(1);
        if let Some(result) = self.rounds[..last].iter_mut().flatten().find(|m| is_long_result(m)) {
            shorten(result, OLD_RESULT);
            self.trimmed.shortened += 1;
            return true;
        }
        if last > 0 {
            self.trimmed.messages += self.rounds.remove(0).len();
            return true;
        }
        // The last round: its results may still become shorter, the longest first.
        let results = self.rounds.iter_mut().flatten().filter(|m| is_long_result(m));
        let Some(longest) = results.max_by_key(|message| bytes(message)) else { return false };
        let half = bytes(longest) / 2;
        shorten(longest, half.max(OLD_RESULT));
        self.trimmed.shortened += 1;
        true
    }
}

fn is_long_result(message: &Value) -> bool {
    // As long as a shortened one is with its note.
    message["role"] == "tool" && bytes(message) > OLD_RESULT + 64
}

fn shorten(message: &mut Value, most: usize) {
    let content = message["content"].as_str().unwrap_or_default();
    message["content"] = json!(text::shorten(content, most));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clap::Parser;

    use super::*;
    use crate::metrics::Metrics;
    use crate::settings::ModelSettings;

    /// Counts a token for three bytes.
    fn model() -> Model {
        let mut settings = ModelSettings::parse_from(["agent"]);
        settings.api_key = Some("k".to_owned());
        Model::new(&settings, Arc::new(Metrics::new())).unwrap().unwrap()
    }

    fn exchanges(count: usize) -> Vec<Exchange> {
        let exchange = |n| Exchange { input: format!("question {n}"), output: "x".repeat(1_000) };
        (0..count).map(exchange).collect()
    }

    fn result(text: &str) -> Vec<Value> {
        vec![json!({"role": "tool", "tool_call_id": "c", "content": text})]
    }

    #[test]
    fn what_fits_is_left_as_it_is() {
        let mut conversation = Conversation::new("S", &exchanges(2), "now");
        assert_eq!(conversation.fit(&model(), 4_000, 0), Ok(false));
        let messages = conversation.messages();
        assert_eq!(messages.len(), 6);
        assert_eq!(messages[0]["content"], "S");
    }

    #[test]
    fn the_oldest_exchanges_go_first_and_a_note_says_so() {
        let mut conversation = Conversation::new("S", &exchanges(10), "now");
        assert_eq!(conversation.fit(&model(), 2_000, 0), Ok(true));
        let messages = conversation.messages();
        assert!(model().tokens_in(conversation.size()) <= 1_500);
        let note = messages[0]["content"].as_str().unwrap();
        assert!(note.contains("earlier messages were left out"), "{note}");
        assert_eq!(messages.len() + conversation.trimmed.messages, 22);
        assert_eq!(messages[messages.len() - 2]["content"].as_str().unwrap().len(), 1_000);
        assert_eq!(messages.last().unwrap()["content"], "now");
    }

    #[test]
    fn old_results_are_shortened_before_rounds_go_and_calls_keep_their_results() {
        let mut conversation = Conversation::new("S", &[], "now");
        for _ in 0..6 {
            conversation.add(&Turn::default(), result(&"y".repeat(3_000)));
        }
        assert_eq!(conversation.fit(&model(), 3_000, 0), Ok(true));
        assert_eq!(conversation.rounds.len(), 6);
        assert!(conversation.trimmed.shortened >= 3);
        assert_eq!(conversation.fit(&model(), 700, 0), Ok(true));
        assert!(conversation.trimmed.messages > 0);
        assert!(conversation.rounds.iter().all(|round| round.len() == 2));
        assert!(!conversation.rounds.is_empty());
    }

    #[test]
    fn an_input_that_is_too_long_by_itself_is_an_error() {
        let mut conversation = Conversation::new("S", &exchanges(3), &"x".repeat(9_000));
        let TooLong(tokens, most) = conversation.fit(&model(), 1_000, 0).unwrap_err();
        assert!((3_000..3_100).contains(&tokens) && most == 750, "{tokens} {most}");
    }
}
