//! Embeddings of the passages, made in the background after each commit, and of a question. A server that is away
//! costs the searches by meaning, and nothing else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use futures_util::{StreamExt, TryStreamExt, stream};
use tantivy::DocAddress;
use tokio::sync::watch;

use super::follow::State;
use super::index::Index;
use super::vectors::{Cache, Vectors};
use crate::metrics::IndexGauges;
use crate::model::{Model, ModelError};

/// Passages in one request: their vectors of 3,072 numbers are still a reply of 1 MiB.
const BATCH: usize = 16;
/// Requests at once: enough to keep a server at work, and it has questions to answer, too.
const AT_ONCE: usize = 2;
/// Passages whose texts are in memory for it.
const ROUND: usize = 512;
/// Of a text, bytes: what most embedding models read (512 tokens); some refuse more.
const MAX_TEXT: usize = 1600;
/// How long a question waits for its own embedding before it is answered by its words alone.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long questions do not ask a server that has just failed.
const AWAY: Duration = Duration::from_secs(5);
/// Between attempts at the passages; doubled up to the second.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Why passages were not embedded.
#[derive(Debug, thiserror::Error)]
enum EmbedError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("the index cannot be read")]
    Index(#[from] tantivy::TantivyError),
    #[error("the work was cut off")]
    Cut(#[from] tokio::task::JoinError),
    #[error(
        "the server's vectors have another length than before, or over 8,192 numbers; all are made anew"
    )]
    OtherLength,
}

/// The embedding model, and what it made.
pub(super) struct Embedder {
    pub(super) model: Model,
    vectors: RwLock<Vectors>,
    /// Until when questions leave the server alone.
    away: Mutex<Option<Instant>>,
    gauges: IndexGauges,
}

impl Embedder {
    /// With nothing embedded yet.
    pub(super) fn new(model: Model, gauges: IndexGauges) -> Self {
        Self { model, vectors: RwLock::default(), away: Mutex::default(), gauges }
    }

    /// The vector of a question; `None` when it has to do without.
    pub(super) async fn question(&self, question: &str, headers: &HeaderMap) -> Option<Vec<f32>> {
        if self.read().len() == 0 || self.is_away() {
            return None;
        }
        let texts = [question[..question.floor_char_boundary(MAX_TEXT)].to_owned()];
        let asked = tokio::time::timeout(PATIENCE, self.model.embed(&texts, headers)).await;
        let code = match asked {
            Ok(Ok(mut vectors)) => return vectors.pop(),
            Ok(Err(error)) => error.code(),
            Err(_) => "model-timeout",
        };
        tracing::warn!(code, "no embedding of a question; for 5 s words alone are searched");
        *self.away.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + AWAY);
        None
    }

    fn is_away(&self) -> bool {
        let until = *self.away.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// The passages nearest to a question, as cosine and key, nearest first.
    pub(super) fn nearest(&self, question: &[f32], most: usize) -> Vec<(f32, u64)> {
        self.read().nearest(question, most, -1.0)
    }

    /// Embeds what is missing after each commit, for ever.
    pub(super) async fn follow(
        self: Arc<Self>,
        index: Arc<Index>,
        mut commits: watch::Receiver<State>,
    ) {
        let folder = index.place.path.clone();
        let model = self.model.name().to_owned();
        let opened = tokio::task::spawn_blocking(move || Cache::open(&folder, &model)).await;
        let Ok((cache, vectors)) = opened else { return };
        *self.write() = vectors;
        let cache = Arc::new(Mutex::new(cache));
        let mut pause = FIRST_PAUSE;
        loop {
            // What comes during the round is seen after it.
            let commit = commits.borrow_and_update().commit;
            let done = if commit == 0 { Ok(()) } else { self.catch_up(&index, &cache).await };
            let again = match done {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    None
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "passages wait for their embeddings");
                    let again = pause;
                    pause = (2 * pause).min(LONGEST_PAUSE);
                    Some(again)
                }
            };
            let wait = tokio::time::sleep(again.unwrap_or_default());
            tokio::select! {
                changed = commits.changed() => if changed.is_err() { return },
                () = wait, if again.is_some() => {}
            }
        }
    }

    async fn catch_up(
        self: &Arc<Self>,
        index: &Arc<Index>,
        cache: &Arc<Mutex<Cache>>,
    ) -> Result<(), EmbedError> {
        loop {
            let missing = self.missing(index).await?;
            if missing.is_empty() {
                return Ok(());
            }
            let batches: Vec<Vec<(u64, String)>> =
                missing.chunks(BATCH).map(<[_]>::to_vec).collect();
            stream::iter(batches)
                .map(|batch| self.embed(batch))
                .buffer_unordered(AT_ONCE)
                .try_for_each(|made| self.keep(made, Arc::clone(cache)))
                .await?;
        }
    }

    /// Forgets what is gone; the first of what has no vector yet, with its text.
    async fn missing(
        self: &Arc<Self>,
        index: &Arc<Index>,
    ) -> Result<Vec<(u64, String)>, EmbedError> {
        let (own, index) = (Arc::clone(self), Arc::clone(index));
        let look = move || -> tantivy::Result<Vec<(u64, String)>> {
            let searcher = index.searcher();
            let live = index.live(&searcher)?;
            let missing = own.forget_and_pick(&live);
            let text = |(key, address): (u64, DocAddress)| {
                let hit = index.hit(&searcher, address, 0.0)?;
                let mut text = format!("{}\n\n{}", hit.passage.trail, hit.passage.text);
                text.truncate(text.floor_char_boundary(MAX_TEXT));
                Ok((key, text))
            };
            missing.into_iter().map(text).collect()
        };
        Ok(tokio::task::spawn_blocking(look).await??)
    }

    fn forget_and_pick(&self, live: &HashMap<u64, DocAddress>) -> Vec<(u64, DocAddress)> {
        let mut vectors = self.write();
        vectors.retain(|key| live.contains_key(&key));
        let missing = live.iter().filter(|(key, _)| !vectors.has(**key));
        let room = vectors.room();
        let mut missing: Vec<_> = missing.map(|(key, address)| (*key, *address)).collect();
        if room == 0 && !missing.is_empty() {
            let (kept, all) = (vectors.len(), live.len());
            tracing::warn!(kept, all, "too many passages: those beyond are found by words alone");
        }
        self.gauges.vectors.set(vectors.len() as f64);
        drop(vectors);
        // In the order of the files, so that their texts are read once.
        missing.sort_by_key(|(_, address)| *address);
        missing.truncate(room.min(ROUND));
        missing
    }

    async fn embed(&self, batch: Vec<(u64, String)>) -> Result<Vec<(u64, Vec<f32>)>, EmbedError> {
        let (keys, texts): (Vec<u64>, Vec<String>) = batch.into_iter().unzip();
        let vectors = self.model.embed(&texts, &HeaderMap::new()).await?;
        Ok(keys.into_iter().zip(vectors).collect())
    }

    async fn keep(
        self: &Arc<Self>,
        made: Vec<(u64, Vec<f32>)>,
        cache: Arc<Mutex<Cache>>,
    ) -> Result<(), EmbedError> {
        let own = Arc::clone(self);
        tokio::task::spawn_blocking(move || own.keep_now(&made, &cache)).await?
    }

    fn keep_now(&self, made: &[(u64, Vec<f32>)], cache: &Mutex<Cache>) -> Result<(), EmbedError> {
        let mut vectors = self.write();
        let other = |(_, vector): &(u64, Vec<f32>)| !vectors.takes(vector.len());
        if made.iter().any(other) {
            *vectors = Vectors::default();
            return Err(EmbedError::OtherLength);
        }
        for (key, vector) in made {
            vectors.add(*key, vector);
        }
        self.gauges.vectors.set(vectors.len() as f64);
        drop(vectors);
        let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = cache.add(&self.read(), made) {
            tracing::warn!(%error, "embeddings are not kept for the next start");
        }
        Ok(())
    }

    fn read(&self) -> RwLockReadGuard<'_, Vectors> {
        self.vectors.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vectors> {
        self.vectors.write().unwrap_or_else(PoisonError::into_inner)
    }
}
