//! The index of a folder's documents, in memory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tantivy::collector::TopDocs;
use tantivy::directory::RamDirectory;
use tantivy::query::{BooleanQuery, BoostQuery, DisjunctionMaxQuery, Query, TermQuery};
use tantivy::schema::{
    Field, IndexRecordOption, STORED, Schema, TextFieldIndexing, TextOptions, Value as _,
};
use tantivy::tokenizer::{
    Language, LowerCaser, RemoveLongFilter, SimpleTokenizer, Stemmer, StopWordFilter, TextAnalyzer,
    TokenizerManager,
};
use tantivy::{Index as Tantivy, IndexReader, ReloadPolicy, TantivyDocument, Term, doc};

use super::passages::{self, Passage};

/// Bounds of what is read: documents for people, not a disk.
const MAX_FILES: usize = 5_000;
const MAX_FILE: u64 = 4 << 20;
const MAX_BYTES: u64 = 64 << 20;
const MAX_DEPTH: usize = 16;
/// Most words of a question that are looked up.
const MAX_TERMS: usize = 32;
/// Memory for building, bytes: the least that tantivy takes.
const BUILD_MEMORY: usize = 15_000_000;
const ANALYZER: &str = "words";
/// What a word counts in the heading, and in those above it, against one in the text.
const HEADING_BOOST: f32 = 2.5;
const TRAIL_BOOST: f32 = 1.5;

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
pub(crate) struct Index {
    reader: IndexReader,
    analyzer: TextAnalyzer,
    fields: Fields,
    /// Documents in it.
    pub(crate) files: usize,
    /// Passages in it.
    pub(crate) passages: usize,
}

#[derive(Clone, Copy)]
struct Fields {
    file: Field,
    trail: Field,
    heading: Field,
    line: Field,
    text: Field,
}

impl Index {
    /// Reads every Markdown and text file in `folder` and below.
    ///
    /// # Errors
    /// When it holds none, or the index cannot be built: one line.
    pub(crate) fn of(folder: &Path) -> Result<Self, String> {
        let failed = |error: tantivy::TantivyError| format!("the index cannot be built: {error}");
        let (schema, fields) = schema();
        let tokenizers = TokenizerManager::default();
        tokenizers.register(ANALYZER, analyzer());
        // In one go and on this thread: the usual writer and reader keep threads for changes that never come here.
        let mut writer = Tantivy::builder()
            .schema(schema)
            .tokenizers(tokenizers)
            .single_segment_index_writer(RamDirectory::create(), BUILD_MEMORY)
            .map_err(failed)?;
        let (mut files, mut count) = (0, 0);
        for (path, text) in documents(folder) {
            let name = cited_name(folder, &path);
            let markdown = !has_ending(&path, &["txt", "text"]);
            for passage in passages::cut(&text, markdown) {
                writer
                    .add_document(doc!(
                        fields.file => name.as_str(),
                        fields.trail => passage.trail,
                        fields.heading => passage.heading,
                        fields.line => passage.line,
                        fields.text => passage.text,
                    ))
                    .map_err(failed)?;
                count += 1;
            }
            files += 1;
        }
        if count == 0 {
            return Err(format!("{} holds no Markdown or text", folder.display()));
        }
        let index = writer.finalize().map_err(failed)?;
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual);
        let reader = reader.try_into().map_err(failed)?;
        Ok(Self { reader, analyzer: analyzer(), fields, files, passages: count })
    }

    /// The `most` passages that fit the question best, best first. None, when no passage has enough of its words.
    ///
    /// # Errors
    /// When the index fails.
    pub(crate) fn search(
        &self,
        question: &str,
        most: usize,
    ) -> Result<Vec<Hit>, tantivy::TantivyError> {
        let terms = self.terms(question);
        if terms.is_empty() {
            return Ok(Vec::new());
        }
        let searcher = self.reader.searcher();
        let query = self.query(&terms);
        let top = searcher.search(&query, &TopDocs::with_limit(most).order_by_score())?;
        top.into_iter()
            .map(|(score, address)| {
                let stored: TantivyDocument = searcher.doc(address)?;
                Ok(self.hit(&stored, score))
            })
            .collect()
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

    /// Passages with at least half of the words (never more than three need be there), each word counted where it weighs most.
    fn query(&self, terms: &BTreeSet<String>) -> BooleanQuery {
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
        let needed = terms.len().div_ceil(2).min(3);
        BooleanQuery::union_with_minimum_required_clauses(
            terms.iter().map(of_term).collect(),
            needed,
        )
    }

    fn hit(&self, stored: &TantivyDocument, score: f32) -> Hit {
        let text = |field: Field| {
            stored.get_first(field).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
        };
        let line = stored.get_first(self.fields.line).and_then(|value| value.as_u64());
        let passage = Passage {
            trail: text(self.fields.trail),
            heading: text(self.fields.heading),
            line: line.unwrap_or(1),
            text: text(self.fields.text),
        };
        Hit { file: text(self.fields.file), passage, score }
    }
}

fn schema() -> (Schema, Fields) {
    let mut schema = Schema::builder();
    let indexing = TextFieldIndexing::default()
        .set_tokenizer(ANALYZER)
        .set_index_option(IndexRecordOption::WithFreqs);
    let words = TextOptions::default().set_indexing_options(indexing).set_stored();
    let fields = Fields {
        file: schema.add_text_field("file", STORED),
        trail: schema.add_text_field("trail", words.clone()),
        heading: schema.add_text_field("heading", words.clone()),
        line: schema.add_u64_field("line", STORED),
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

/// The documents with their text, in the order of their names.
fn documents(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut paths = Vec::new();
    find(folder, 0, &mut paths);
    paths.sort();
    let mut left = MAX_BYTES;
    let mut documents = Vec::new();
    for path in paths {
        match text(&path, left) {
            Ok(text) => {
                left -= text.len() as u64;
                documents.push((path, text));
            }
            Err(why) => tracing::warn!(file = %path.display(), why, "left out of the index"),
        }
    }
    documents
}

/// A file's text, when there is room for it.
fn text(path: &Path, left: u64) -> Result<String, &'static str> {
    let size = std::fs::metadata(path).map_err(|_| "it cannot be read")?.len();
    if size > MAX_FILE.min(left) {
        return Err("it is too large");
    }
    let bytes = std::fs::read(path).map_err(|_| "it cannot be read")?;
    let text = String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
    text.filter(|text| text.len() as u64 <= left).ok_or("it is no text")
}

/// Collects the files. Links to files count (a mounted ConfigMap is made of them), links to folders do not: they may
/// lead in a circle.
fn find(folder: &Path, depth: usize, paths: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if paths.len() >= MAX_FILES || entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if depth < MAX_DEPTH {
                find(&path, depth + 1, paths);
            }
        } else if has_ending(&path, &["md", "markdown", "txt", "text"]) && path.is_file() {
            paths.push(path);
        }
    }
}

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    ending.is_some_and(|ending| endings.contains(&ending.as_str()))
}

fn cited_name(folder: &Path, path: &Path) -> String {
    let inner = path.strip_prefix(folder).unwrap_or(path);
    match folder.file_name() {
        Some(name) => Path::new(name).join(inner).display().to_string(),
        None => inner.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(files: &[(&str, &[u8])]) -> Index {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("docs");
        for (name, text) in files {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Index::of(&folder).unwrap()
    }

    #[test]
    fn a_heading_outweighs_a_mention_and_forms_of_a_word_are_one() {
        let index = index(&[
            ("a.md", b"# Other\nOne may add many agents of one type, and types of agents."),
            ("sub/b.md", b"# Guide\n## Adding an agent type\nEdit the table."),
        ]);
        let hits = index.search("How do I add agent types?", 3).unwrap();
        assert_eq!(hits[0].file, "docs/sub/b.md");
        assert_eq!(hits[0].passage.trail, "Guide › Adding an agent type");
        assert_eq!(hits[0].passage.line, 2);
        assert_eq!(hits.len(), 2);
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        let index = index(&[("a.md", b"# Tower\nA tower of layers.")]);
        for question in
            ["How tall is the Eiffel tower in Paris?", "how do I", "", "\"(*:[", "zebra"]
        {
            assert_eq!(index.search(question, 3).unwrap(), [], "{question}");
        }
    }

    #[test]
    fn what_is_no_text_is_left_out() {
        let index = index(&[
            ("a.txt", b"# plain text"),
            ("b.md", b"\xff\xfe\x00"),
            ("c.png", b"plain"),
            (".hidden/d.md", b"plain"),
        ]);
        assert_eq!(index.files, 1);
        assert_eq!(index.search("plain", 3).unwrap()[0].passage.trail, "");
    }
}
