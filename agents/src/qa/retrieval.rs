//! Finding the passages for a question: by its words (BM25) and, where there is an embedding model, by its meaning; the
//! two rankings are put together by reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009).

use std::collections::HashMap;
use std::sync::Arc;

use axum::http::HeaderMap;
use tantivy::{DocAddress, Searcher};

use super::embedder::Embedder;
use super::index::{Hit, Index};
use crate::error::Error;

/// Passages of each ranking that are put together.
const DEPTH: usize = 50;
/// How little the first ranks count more than those after them: the paper's constant.
const FUSION: f32 = 60.0;
/// Headings that are named when no passage is good enough.
const NEAREST: usize = 3;

/// What was found.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    /// The passages that are good enough, best first.
    pub(super) hits: Vec<Hit>,
    /// Without any: those that come nearest.
    pub(super) nearest: Vec<Hit>,
    /// `bm25` or `hybrid`.
    pub(super) how: &'static str,
}

/// Index and embeddings.
pub(super) struct Retrieval {
    pub(super) index: Arc<Index>,
    pub(super) embedder: Option<Arc<Embedder>>,
    /// Least cosine of a passage that has too few of the question's words.
    pub(super) min_similarity: f32,
}

impl Retrieval {
    /// The `most` best passages for a question.
    ///
    /// # Errors
    /// When the index fails. An embedding server that does is done without.
    pub(super) async fn find(
        self: &Arc<Self>,
        question: &str,
        headers: &HeaderMap,
        most: usize,
    ) -> Result<Found, Error> {
        let vector = match &self.embedder {
            Some(embedder) => embedder.question(question, headers).await,
            None => None,
        };
        let (own, question) = (Arc::clone(self), question.to_owned());
        let search = move || own.search(&question, vector.as_deref(), most);
        let failed = Error::internal("searching the documents");
        match tokio::task::spawn_blocking(search).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(failed(error.into())),
            Err(error) => Err(failed(error.into())),
        }
    }

    fn search(
        &self,
        question: &str,
        vector: Option<&[f32]>,
        most: usize,
    ) -> tantivy::Result<Found> {
        let index = &self.index;
        let searcher = index.searcher();
        let hits = |ranked: Vec<(f32, DocAddress)>| -> tantivy::Result<Vec<Hit>> {
            let hit = |(score, address)| index.hit(&searcher, address, score);
            ranked.into_iter().map(hit).collect()
        };
        let words = index.by_words(&searcher, question, DEPTH)?;
        let meaning = self.by_meaning(&searcher, vector, &words)?;
        let (how, mut best) = match meaning {
            None => ("bm25", words),
            Some(meaning) => {
                let words: Vec<_> = words.into_iter().map(|(_, address)| address).collect();
                ("hybrid", fuse(&[words, meaning]))
            }
        };
        best.truncate(most);
        let nearest = if best.is_empty() {
            hits(index.nearest(&searcher, question, NEAREST)?)?
        } else {
            Vec::new()
        };
        Ok(Found { hits: hits(best)?, nearest, how })
    }

    /// The passages nearest in meaning: those that are near enough, or have the words.
    fn by_meaning(
        &self,
        searcher: &Searcher,
        vector: Option<&[f32]>,
        words: &[(f32, DocAddress)],
    ) -> tantivy::Result<Option<Vec<DocAddress>>> {
        let (Some(embedder), Some(vector)) = (&self.embedder, vector) else { return Ok(None) };
        let mut ranking = Vec::new();
        for (cosine, key) in embedder.nearest(vector, DEPTH) {
            // One whose passage has just gone is no more.
            let Some(address) = self.index.by_key(searcher, key)? else { continue };
            let has_words = words.iter().any(|(_, other)| *other == address);
            if cosine >= self.min_similarity || has_words {
                ranking.push(address);
            }
        }
        Ok(Some(ranking))
    }
}

/// Puts rankings together: each adds 1 / (60 + rank) to what it has. Best first; ties in the order of appearance.
fn fuse(rankings: &[Vec<DocAddress>]) -> Vec<(f32, DocAddress)> {
    let mut order: Vec<(f32, DocAddress)> = Vec::new();
    let mut places = HashMap::new();
    for ranking in rankings {
        for (rank, address) in (1_u16..).zip(ranking) {
            let at = *places.entry(*address).or_insert_with(|| {
                order.push((0.0, *address));
                order.len() - 1
            });
            order[at].0 += 1.0 / (FUSION + f32::from(rank));
        }
    }
    order.sort_by(|one, other| other.0.total_cmp(&one.0));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_rankings_have_comes_before_what_one_has_first() {
        let at = |number| DocAddress::new(0, number);
        let fused = fuse(&[vec![at(1), at(2), at(3)], vec![at(4), at(2)]]);
        let order: Vec<u32> = fused.iter().map(|(_, address)| address.doc_id).collect();
        assert_eq!(order, [2, 1, 4, 3]);
        assert!((fused[0].0 - 2.0 / 62.0).abs() < 1e-6);
        assert_eq!(fuse(&[vec![], vec![]]), []);
    }
}
