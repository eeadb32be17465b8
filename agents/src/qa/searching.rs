//! The passages of one request: those found for the question, and those that the model looks for itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use serde_json::{Value, json};

use super::FOR_MODEL;
use super::grounding::material;
use super::index::Hit;
use super::retrieval::Retrieval;
use crate::agent::Ask;
use crate::steps;

/// Most passages of one request: four searches full. Each is up to a screen of text.
const MAX_PASSAGES: usize = 4 * FOR_MODEL;
/// Longest query, bytes: longer ones find nothing better.
const MAX_QUERY: usize = 1 << 10;

/// The passages so far, and the tool that finds more.
pub(super) struct Searching<'a> {
    retrieval: &'a Arc<Retrieval>,
    ask: &'a Ask,
    hits: Mutex<Vec<Hit>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SearchArguments {
    query: String,
}

impl<'a> Searching<'a> {
    /// Begins with what was found for the question.
    pub(super) fn new(retrieval: &'a Arc<Retrieval>, ask: &'a Ask, hits: Vec<Hit>) -> Self {
        Self { retrieval, ask, hits: Mutex::new(hits) }
    }

    /// How many passages there are; they are numbered from 1.
    pub(super) fn count(&self) -> usize {
        self.hits().len()
    }

    /// All of them, in the order of their numbers.
    pub(super) fn passages(&self) -> Vec<Hit> {
        self.hits().clone()
    }

    fn hits(&self) -> MutexGuard<'_, Vec<Hit>> {
        self.hits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives numbers to those that are new; what the model is told of all of them.
    fn add(&self, found: Vec<Hit>) -> String {
        let mut hits = self.hits();
        let mut told = String::new();
        for hit in found {
            let is = |other: &Hit| other.file == hit.file && other.passage.line == hit.passage.line;
            match hits.iter().position(is) {
                Some(at) => told.push_str(&format!("Passage {} again.\n", at + 1)),
                None if hits.len() < MAX_PASSAGES => {
                    told.push_str(&material(hits.len() + 1, std::slice::from_ref(&hit)));
                    hits.push(hit);
                }
                None => break,
            }
        }
        told
    }
}

impl steps::Tools for Searching<'_> {
    fn described(&self) -> Value {
        json!([{"type": "function", "function": {
            "name": "search",
            "description": "Finds more passages of the documents, for other words than the question's.",
            "parameters": {
                "type": "object",
                "properties": {"query": {"type": "string", "description": "the words that the documents would use"}},
                "required": ["query"],
                "additionalProperties": false,
            },
        }}])
    }

    fn only_looks(&self, _name: &str) -> bool {
        true
    }

    async fn call(&self, name: &str, arguments: &str) -> Result<String, String> {
        if name != "search" {
            let name: String = name.chars().take(64).collect();
            return Err(format!("there is no tool `{name}`; there is search"));
        }
        let SearchArguments { query } = serde_json::from_str(arguments)
            .map_err(|error| format!("the arguments of `search` are not what it takes: {error}"))?;
        if query.len() > MAX_QUERY {
            return Err("the query is too long; a few words find more".to_owned());
        }
        if self.count() >= MAX_PASSAGES {
            return Err("enough was searched; answer from the passages that are there".to_owned());
        }
        let found = self.retrieval.find(&query, &self.ask.onward, FOR_MODEL).await;
        let found = found.map_err(|error| error.to_string())?;
        let told = self.add(found.hits);
        Ok(if told.is_empty() { "No passage has enough of these words.".to_owned() } else { told })
    }
}
