//! The index of a folder's documents: on disk, mapped into memory, so that what is not in use can be given back to
//! whoever needs memory. Searches see the last commit; `update` makes the next.

use std::collections::{BTreeSet, HashMap};

use tantivy::collector::TopDocs;
use tantivy::directory::MmapDirectory;
use tantivy::query::{BooleanQuery, BoostQuery, DisjunctionMaxQuery, Query, TermQuery};
use tantivy::schema::{
    FAST, Field, INDEXED, IndexRecordOption, STORED, STRING, Schema, TextFieldIndexing,
    TextOptions, Value as _,
};
use tantivy::tokenizer::{
    Language, LowerCaser, RemoveLongFilter, SimpleTokenizer, Stemmer, StopWordFilter, TextAnalyzer,
    TokenizerManager,
};
use tantivy::{
    DocAddress, Index as Tantivy, IndexReader, ReloadPolicy, Searcher, TantivyDocument, Term, doc,
};

use super::passages::Passage;
use super::place::Place;

/// Most words of a question that are looked up.
const MAX_TERMS: usize = 32;
const ANALYZER: &str = "words";
/// What a word counts in the heading, and in those above it, against one in the text.
const HEADING_BOOST: f32 = 2.5;
const TRAIL_BOOST: f32 = 1.5;
/// Blocks of stored text (16 KiB each) that are kept unpacked, for each segment.
const STORE_BLOCKS: usize = 8;

/// A passage that fits a question.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Hit {
    /// The document, as cited: with the folder's own name.
    pub(crate) file: String,
    /// The passage.
    pub(crate) passage: Passage,
    /// How well it fits; comparable within one search.
    pub(crate) score: f32,
}

/// What is indexed.
pub(super) struct Index {
    pub(super) tantivy: Tantivy,
    reader: IndexReader,
    analyzer: TextAnalyzer,
    pub(super) fields: Fields,
    pub(super) place: Place,
}

#[derive(Clone, Copy)]
pub(super) struct Fields {
    pub(super) file: Field,
    pub(super) key: Field,
    trail: Field,
    heading: Field,
    line: Field,
    end: Field,
    text: Field,
}

impl Index {
    /// Opens the one that is in its place, or an empty one.
    ///
    /// # Errors
    /// One line, when there can be none.
    pub(super) fn open(place: Place) -> Result<Self, String> {
        let (tantivy, fields) = match open_in(&place) {
            Ok(opened) => opened,
            // Another version's, or damaged: it is made anew.
            Err(error) => {
                tracing::warn!(%error, "the index is made anew");
                let failed = |error: &dyn std::fmt::Display| {
                    format!("no index can be made in {}: {error}", place.path.display())
                };
                place.clear().map_err(|error| failed(&error))?;
                open_in(&place).map_err(|error| failed(&error))?
            }
        };
        let reader = tantivy
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .doc_store_cache_num_blocks(STORE_BLOCKS)
            .try_into()
            .map_err(|error| format!("the index cannot be read: {error}"))?;
        Ok(Self { tantivy, reader, analyzer: analyzer(), fields, place })
    }

    /// Makes the last commit the one that is searched.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn reload(&self) -> tantivy::Result<()> {
        self.reader.reload()
    }

    /// The commit that is searched.
    pub(super) fn searcher(&self) -> Searcher {
        self.reader.searcher()
    }

    /// A passage as it is stored.
    pub(super) fn stored(&self, file: &str, passage: &Passage) -> TantivyDocument {
        let fields = &self.fields;
        doc!(
            fields.file => file,
            fields.key => key(passage),
            fields.trail => passage.trail.as_str(),
            fields.heading => passage.heading.as_str(),
            fields.line => passage.line,
            fields.end => passage.end,
            fields.text => passage.text.as_str(),
        )
    }

    /// The `most` passages that have enough of the question's words, best first by BM25: half of them, and never more
    /// than three need be there.
    ///
    /// # Errors
    /// When the index fails.
    pub(super) fn by_words(
        &self,
        searcher: &Searcher,
        question: &str,
        most: usize,
    ) -> tantivy::Result<Vec<(f32, DocAddress)>> {
        let terms = self.terms(question);
        self.with_words(searcher, &terms, terms.len().div_ceil(2).min(3), most)
    }

    /// The `most` passages that have any of the question's words.
    ///
    /// # Errors
    /// When the index fails.
    pub(super) fn nearest(
        &self,
        searcher: &Searcher,
        question: &str,
        most: usize,
    ) -> tantivy::Result<Vec<(f32, DocAddress)>> {
        self.with_words(searcher, &self.terms(question), 1, most)
    }

    fn with_words(
        &self,
        searcher: &Searcher,
        terms: &BTreeSet<String>,
        needed: usize,
        most: usize,
    ) -> tantivy::Result<Vec<(f32, DocAddress)>> {
        if terms.is_empty() {
            return Ok(Vec::new());
        }
        let query = self.query(terms, needed);
        searcher.search(&query, &TopDocs::with_limit(most).order_by_score())
    }

    /// A passage with that key: several with the same words have one.
    ///
    /// # Errors
    /// When the index fails.
    pub(super) fn by_key(
        &self,
        searcher: &Searcher,
        key: u64,
    ) -> tantivy::Result<Option<DocAddress>> {
        let term = Term::from_field_u64(self.fields.key, key);
        let query = TermQuery::new(term, IndexRecordOption::Basic);
        let found = searcher.search(&query, &TopDocs::with_limit(1).order_by_score())?;
        Ok(found.first().map(|(_, address)| *address))
    }

    /// Every passage by its key, and where it stands.
    ///
    /// # Errors
    /// When the index fails.
    pub(super) fn live(&self, searcher: &Searcher) -> tantivy::Result<HashMap<u64, DocAddress>> {
        let mut live = HashMap::new();
        for (segment, reader) in (0..).zip(searcher.segment_readers()) {
            let column = reader.fast_fields().u64("key")?;
            let keys = reader.doc_ids_alive().filter_map(|document| {
                Some((column.first(document)?, DocAddress::new(segment, document)))
            });
            live.extend(keys);
        }
        Ok(live)
    }

    /// What is stored at an address.
    ///
    /// # Errors
    /// When the index fails.
    pub(super) fn hit(
        &self,
        searcher: &Searcher,
        address: DocAddress,
        score: f32,
    ) -> tantivy::Result<Hit> {
        let stored: TantivyDocument = searcher.doc(address)?;
        let text = |field: Field| {
            stored.get_first(field).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
        };
        let line =
            |field: Field| stored.get_first(field).and_then(|value| value.as_u64()).unwrap_or(1);
        let fields = &self.fields;
        let passage = Passage {
            trail: text(fields.trail),
            heading: text(fields.heading),
            line: line(fields.line),
            end: line(fields.end),
            text: text(fields.text),
        };
        Ok(Hit { file: text(fields.file), passage, score })
    }

    /// The question's words, as the index has them, each once.
    fn terms(&self, question: &str) -> BTreeSet<String> {
        let mut terms = BTreeSet::new();
        let mut analyzer = self.analyzer.clone();
        let mut stream = analyzer.token_stream(question);
        while stream.advance() && terms.len() < MAX_TERMS {
            terms.insert(stream.token().text.clone());
        }
        terms
    }

    /// Passages with that many of the words, each word counted where it weighs most.
    fn query(&self, terms: &BTreeSet<String>, needed: usize) -> BooleanQuery {
        let of_term = |term: &String| {
            let in_field = |field: Field, boost: f32| -> Box<dyn Query> {
                let query = TermQuery::new(
                    Term::from_field_text(field, term),
                    IndexRecordOption::WithFreqs,
                );
                Box::new(BoostQuery::new(Box::new(query), boost))
            };
            let places = vec![
                in_field(self.fields.heading, HEADING_BOOST),
                in_field(self.fields.trail, TRAIL_BOOST),
                in_field(self.fields.text, 1.0),
            ];
            Box::new(DisjunctionMaxQuery::with_tie_breaker(places, 0.5)) as Box<dyn Query>
        };
        BooleanQuery::union_with_minimum_required_clauses(
            terms.iter().map(of_term).collect(),
            needed,
        )
    }
}

/// What a passage says, as a number: the same for the same headings and text, wherever they stand.
pub(super) fn key(passage: &Passage) -> u64 {
    use sha2::{Digest, Sha256};
    let hash = Sha256::new().chain_update(&passage.trail).chain_update([0]);
    let hash = hash.chain_update(&passage.text).finalize();
    u64::from_le_bytes(std::array::from_fn(|at| hash[at]))
}

fn open_in(place: &Place) -> tantivy::Result<(Tantivy, Fields)> {
    let (schema, fields) = schema();
    let tokenizers = TokenizerManager::default();
    tokenizers.register(ANALYZER, analyzer());
    let directory = MmapDirectory::open(&place.path)?;
    let index = Tantivy::builder().schema(schema).tokenizers(tokenizers);
    Ok((index.open_or_create(directory)?, fields))
}

fn schema() -> (Schema, Fields) {
    let mut schema = Schema::builder();
    let indexing = TextFieldIndexing::default()
        .set_tokenizer(ANALYZER)
        .set_index_option(IndexRecordOption::WithFreqs);
    let words = TextOptions::default().set_indexing_options(indexing).set_stored();
    let fields = Fields {
        file: schema.add_text_field("file", STRING | STORED),
        key: schema.add_u64_field("key", INDEXED | FAST),
        trail: schema.add_text_field("trail", words.clone()),
        heading: schema.add_text_field("heading", words.clone()),
        line: schema.add_u64_field("line", STORED),
        end: schema.add_u64_field("end", STORED),
        text: schema.add_text_field("text", words),
    };
    (schema.build(), fields)
}

fn analyzer() -> TextAnalyzer {
    let stop_words =
        StopWordFilter::new(Language::English).expect("tantivy has English stop words");
    // Words that every question has, beside the grammar's.
    let asking = [
        "how", "what", "why", "when", "where", "which", "who", "do", "does", "can", "i", "you",
        "we", "my",
    ];
    TextAnalyzer::builder(SimpleTokenizer::default())
        .filter(RemoveLongFilter::limit(64))
        .filter(LowerCaser)
        .filter(stop_words)
        .filter(StopWordFilter::remove(asking.map(str::to_owned)))
        .filter(Stemmer::new(Language::English))
        .build()
}
