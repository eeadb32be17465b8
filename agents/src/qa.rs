//! The `qa` agent: answers from a folder of documents, says where it has it from, and refuses what they don't hold.
//! Without a model it answers with the best passages themselves.

mod embedder;
mod files;
mod follow;
mod grounding;
mod index;
mod passages;
mod place;
mod retrieval;
mod searching;
mod update;
mod vectors;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::agent::{Answer, Ask, Event, Events, NO_MODEL, Step};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::model::Model;
use crate::settings::QaSettings;
use crate::steps::{Budget, Outcome};
use embedder::Embedder;
use files::Folder;
use follow::Follower;
use grounding::{Judged, Verdict, citation};
use index::{Hit, Index};
use place::Place;
use retrieval::{Found, Retrieval};
use searching::Searching;
use update::Updater;

/// Passages that are put before a model, and that are shown without one: the first few have the answer or none has.
const FOR_MODEL: usize = 6;
const FOR_PEOPLE: usize = 3;
/// Shown to people is what fits at least this well, against the best.
const WORTH_SHOWING: f32 = 0.3;
/// How long a question waits for the first index: no longer than most clients for a first byte.
const FIRST_INDEX: Duration = Duration::from_secs(30);
/// How far above the executable the project's folder may be: `target/debug/agent` lies three below.
const UP: usize = 4;

/// The agent.
pub struct Qa {
    /// The model, if there is one.
    pub model: Option<Model>,
    retrieval: Arc<Retrieval>,
    follower: Follower,
    budget: Budget,
    _embedding: Option<EndedWhenDropped>,
}

struct EndedWhenDropped(JoinHandle<()>);

impl Drop for EndedWhenDropped {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Qa {
    /// Begins to index the folder, or this project's own documents when none is named, and follows it from then on.
    /// To be called within a runtime.
    ///
    /// # Errors
    /// One line that says what is wrong and what to do.
    pub fn open(
        settings: &QaSettings,
        model: Option<Model>,
        embedder: Option<Model>,
        budget: Budget,
        metrics: &Metrics,
    ) -> Result<Self, String> {
        let folder = folder(settings.docs.as_deref())?;
        tracing::info!(folder = %folder.path.display(), "indexing");
        let index = Arc::new(Index::open(Place::open(settings.index.as_deref())?)?);
        let stop = Arc::new(AtomicBool::new(false));
        let updater = Updater::new(Arc::clone(&index), folder.clone(), Arc::clone(&stop));
        let follower = Follower::start(updater, &folder.path, stop, metrics.index.clone());
        let embedder = embedder.map(|model| Arc::new(Embedder::new(model, metrics.index.clone())));
        let embedding = embedder.as_ref().map(|embedder| {
            let commits = follower.state.clone();
            let job = Arc::clone(embedder).follow(Arc::clone(&index), commits);
            EndedWhenDropped(tokio::spawn(job))
        });
        let min_similarity = settings.min_similarity;
        let retrieval = Arc::new(Retrieval { index, embedder, min_similarity });
        let budget = Budget { way_out: Some(grounding::NO_SOURCE), ..budget };
        Ok(Self { model, retrieval, follower, budget, _embedding: embedding })
    }

    /// Whether the first index is in.
    pub fn is_ready(&self) -> bool {
        self.follower.state.borrow().commit > 0
    }

    /// Whether the index holds documents, and what the folder holds now.
    pub fn is_whole(&self) -> bool {
        let state = *self.follower.state.borrow();
        state.passages > 0 && state.true_to_folder
    }

    /// The model that makes embeddings, if there is one.
    pub fn embedder(&self) -> Option<&Model> {
        self.retrieval.embedder.as_ref().map(|embedder| &embedder.model)
    }

    /// Answers a question.
    ///
    /// # Errors
    /// When the index or the model fails.
    pub async fn work(&self, ask: &Ask, events: &Events) -> Result<Answer, Error> {
        self.wait_for_the_first_index().await?;
        events.send(Event::Step(Step::named("search"))).await;
        let most = if self.model.is_some() { FOR_MODEL } else { FOR_PEOPLE };
        let mut found = self.retrieval.find(&ask.input, &ask.onward, most).await?;
        let mut answer = match &self.model {
            // Within a session a question may go by what was said, and a model can search in its words.
            Some(model) if !found.hits.is_empty() || !ask.past.is_empty() => {
                let hits = std::mem::take(&mut found.hits);
                let searching = Searching::new(&self.retrieval, ask, hits);
                with_model(model, &searching, self.budget, ask, events).await?
            }
            None if !found.hits.is_empty() => without_model(&mut found, events).await,
            _ => refuse(self.no_source(), "no-source", &found.nearest, events).await,
        };
        answer.more.push(("retrieval", json!(found.how)));
        Ok(answer)
    }

    async fn wait_for_the_first_index(&self) -> Result<(), Error> {
        let mut state = self.follower.state.clone();
        let first = state.wait_for(|state| state.commit > 0);
        match tokio::time::timeout(FIRST_INDEX, first).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Error::Indexing),
        }
    }

    fn no_source(&self) -> String {
        let what =
            "The documents don't hold an answer: no passage has enough of the question's words";
        let meaning =
            if self.retrieval.embedder.is_some() { ", or is near it in meaning" } else { "" };
        match self.model {
            Some(_) => format!("{what}{meaning}."),
            None => format!("{NO_MODEL}, so this agent can only show passages. {what}{meaning}."),
        }
    }
}

/// The folder to answer from.
fn folder(named: Option<&Path>) -> Result<Folder, String> {
    let advice = "name a folder of Markdown or text with --docs or AGENT_DOCS";
    let path = match named {
        Some(path) if path.is_dir() => path.to_owned(),
        Some(path) => return Err(format!("{} is no folder; {advice}", path.display())),
        None => default_folder().ok_or_else(|| format!("there is no docs/ here; {advice}"))?,
    };
    let folder = Folder::new(&path);
    let listing = folder.list();
    let listing =
        listing.map_err(|error| format!("{} cannot be read: {error}; {advice}", path.display()))?;
    if listing.documents.is_empty() {
        return Err(format!("{} holds no Markdown or text; {advice}", path.display()));
    }
    Ok(folder)
}

/// One source in the metadata. `cited`: whether the answer names it; unknown without a model.
fn source(hit: &Hit, cited: Option<bool>) -> Value {
    let mut source = json!({
        "file": hit.file,
        "heading": hit.passage.trail,
        "line": hit.passage.line,
        "end": hit.passage.end,
        "score": (f64::from(hit.score) * 10_000.0).round() / 10_000.0,
    });
    if let Some(cited) = cited {
        source["cited"] = json!(cited);
    }
    source
}

async fn with_model(
    model: &Model,
    searching: &Searching<'_>,
    budget: Budget,
    ask: &Ask,
    events: &Events,
) -> Result<Answer, Error> {
    let Judged { outcome, verdict } =
        grounding::answer(model, searching, budget, ask, events).await?;
    let hits = searching.passages();
    let refusal = match verdict {
        Verdict::Grounded | Verdict::Stopped => return Ok(sourced(outcome, &hits, events).await),
        Verdict::NoSource => {
            let text = "The documents don't hold an answer: the model found none in the passages that fit best.";
            refuse(text.to_owned(), "no-source", &hits, events).await
        }
        Verdict::NotGrounded => {
            let text = "No answer: what the model said, twice, named no passage of the documents that it is from.";
            refuse(text.to_owned(), "not-grounded", &hits, events).await
        }
    };
    Ok(Answer { usage: outcome.usage, model: Some(outcome.model), ..refusal })
}

/// An answer with what its numbers mean; JSON is left as it is.
async fn sourced(outcome: Outcome, hits: &[Hit], events: &Events) -> Answer {
    let numbers = grounding::cited(&outcome.text);
    let is_json = outcome.data.is_some();
    let mut answer = Answer::from(outcome);
    if !is_json && !numbers.is_empty() {
        let list = list_of_sources(&numbers, hits);
        events.words(&list).await;
        answer.output.push_str(&list);
    }
    let sources = (1..).zip(hits).map(|(at, hit)| source(hit, Some(numbers.contains(&at))));
    answer.more.push(("sources", sources.collect()));
    answer
}

/// What the numbers in the answer mean.
fn list_of_sources(numbers: &[usize], hits: &[Hit]) -> String {
    let mut lines = "\n\nSources:\n".to_owned();
    for (number, hit) in (1..).zip(hits).filter(|(number, _)| numbers.contains(number)) {
        let _ = writeln!(lines, "[{number}] {}", citation(hit));
    }
    lines
}

/// No answer, and where one might be looked for.
async fn refuse(
    mut output: String,
    reason: &'static str,
    nearest: &[Hit],
    events: &Events,
) -> Answer {
    let mut headings: Vec<String> = Vec::new();
    for heading in nearest.iter().map(citation) {
        if headings.len() < FOR_PEOPLE && !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    if headings.is_empty() {
        output.push('\n');
    } else {
        let _ = writeln!(output, " Nearest to it:\n\n- {}", headings.join("\n- "));
    }
    events.words(&output).await;
    let more = vec![("finish_reason", json!(reason)), ("sources", json!([]))];
    Answer::without_model(output, more)
}

async fn without_model(found: &mut Found, events: &Events) -> Answer {
    let least = found.hits.first().map_or(0.0, |best| best.score * WORTH_SHOWING);
    found.hits.retain(|hit| hit.score >= least);
    let mut output = format!(
        "{NO_MODEL}: these are the passages of the documents that fit the question best.\n"
    );
    for hit in &found.hits {
        let _ = write!(
            output,
            "\n## {}\n\n{}\n\nSource: {} › line {}\n",
            if hit.passage.heading.is_empty() { &hit.file } else { &hit.passage.heading },
            hit.passage.text,
            citation(hit),
            hit.passage.line
        );
    }
    events.words(&output).await;
    let sources: Vec<Value> = found.hits.iter().map(|hit| source(hit, None)).collect();
    Answer::without_model(output, vec![("sources", json!(sources))])
}

/// `docs/` here, or the one of the project in which this executable was built.
fn default_folder() -> Option<PathBuf> {
    let here = PathBuf::from("docs");
    if here.is_dir() {
        return Some(here);
    }
    let executable = std::env::current_exe().ok()?;
    let above = executable.ancestors().skip(1).take(UP);
    above.map(|folder| folder.join("docs")).find(|docs| docs.join("agents.md").is_file())
}
