//! Keeping the index true to the folder: what is new, changed or gone since the last commit, and nothing else, in one
//! commit. The commit itself says which state of which file it holds.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tantivy::indexer::IndexWriterOptions;
use tantivy::{IndexWriter, Term};

use super::files::{Document, Folder, LeftOut, Listing, Stamp, Unread};
use super::index::Index;
use super::passages;

/// Memory of the writer, bytes: the least that tantivy takes. More makes fewer segments, not a better index.
const WRITER_MEMORY: usize = 15_000_000;
/// Passages of all documents: what 64 MiB in paragraphs come to, twice.
const MAX_PASSAGES: usize = 200_000;
/// Passages of one document: headings without text make many of little.
const MAX_PASSAGES_OF_ONE: usize = 20_000;
/// How passages are cut and words are read: to be raised when that changes, so that kept indexes are made anew.
const VERSION: u32 = 1;

/// Why the folder could not be followed.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpdateError {
    /// The folder cannot be read.
    #[error("the folder cannot be read")]
    Folder(#[source] io::Error),
    /// The index cannot be written.
    #[error("the index cannot be written")]
    Index(#[from] tantivy::TantivyError),
    /// The agent ends.
    #[error("the agent ends")]
    Stopped,
}

/// What a commit holds.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Held {
    version: u32,
    files: BTreeMap<String, Entry>,
}

/// A file as it was indexed.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    /// `None`: so young that a further write might not show; to be read again.
    stamp: Option<Stamp>,
    hash: String,
    passages: usize,
}

/// What there is after an update.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Updated {
    /// Documents and passages in the index.
    pub(super) files: usize,
    pub(super) passages: usize,
    /// Files that are not in it, and why.
    pub(super) left_out: Vec<LeftOut>,
    /// Whether there is a new commit.
    pub(super) changed: bool,
    /// Whether something was just being written, so that the folder should be looked at again soon.
    pub(super) unsettled: bool,
}

/// Writes the index.
pub(super) struct Updater {
    index: Arc<Index>,
    folder: Folder,
    held: Held,
    /// Made at the first change, and again after a failure.
    writer: Option<IndexWriter>,
    /// Nothing was looked at yet: what is there is taken as it is.
    first: bool,
    stop: Arc<AtomicBool>,
}

impl Updater {
    /// Goes on from the index's last commit. `stop` ends an update before its time.
    pub(super) fn new(index: Arc<Index>, folder: Folder, stop: Arc<AtomicBool>) -> Self {
        let held = held_by(&index).unwrap_or_default();
        Self { index, folder, held, writer: None, first: true, stop }
    }

    /// Looks at the folder, and commits what has changed. On an error the last commit stands. `now` is what the age of
    /// files goes by.
    ///
    /// # Errors
    /// Says what failed; the next update begins anew.
    pub(super) fn update(&mut self, now: SystemTime) -> Result<Updated, UpdateError> {
        let listing = self.folder.list().map_err(UpdateError::Folder)?;
        let applied = self.apply(listing, now);
        match &applied {
            Ok(_) => self.first = false,
            Err(_) => {
                self.writer = None;
                self.held = held_by(&self.index).unwrap_or_default();
            }
        }
        applied
    }

    fn apply(&mut self, listing: Listing, now: SystemTime) -> Result<Updated, UpdateError> {
        let mut updated = Updated { left_out: listing.left_out, ..Updated::default() };
        if self.held.version != VERSION {
            self.writer()?.delete_all_documents()?;
            self.held = Held { version: VERSION, files: BTreeMap::new() };
            updated.changed = true;
        }
        let mut before = std::mem::take(&mut self.held.files);
        // Stamps that have grown old enough are noted with the next commit: they are worth none of their own.
        for document in &listing.documents {
            if self.stop.load(Ordering::Relaxed) {
                return Err(UpdateError::Stopped);
            }
            let entry = before.remove(&document.name);
            let settled = document.stamp.is_settled(now);
            let entry = self.document(document, settled, entry, &mut updated)?;
            if let Some(entry) = entry {
                updated.passages += entry.passages;
                self.held.files.insert(document.name.clone(), entry);
            }
        }
        for gone in before.keys() {
            self.remove(gone)?;
            updated.changed = true;
        }
        updated.files = self.held.files.len();
        if updated.changed {
            self.commit()?;
        }
        Ok(updated)
    }

    /// What the index holds of a document from now on.
    fn document(
        &mut self,
        document: &Document,
        settled: bool,
        entry: Option<Entry>,
        updated: &mut Updated,
    ) -> Result<Option<Entry>, UpdateError> {
        if let Some(entry) = &entry
            && entry.stamp == Some(document.stamp)
        {
            return Ok(Some(entry.clone()));
        }
        updated.unsettled |= !settled;
        // What was indexed before, or nothing, stands until the new text is whole.
        if !settled && !self.first {
            return Ok(entry);
        }
        let text = match document.read() {
            Ok(text) => text,
            Err(Unread::Changing) => {
                updated.unsettled = true;
                return Ok(entry);
            }
            Err(Unread::Never(why)) => {
                return self.leave_out(document, entry.as_ref(), why, updated);
            }
        };
        let stamp = settled.then_some(document.stamp);
        let hash = hash(&text);
        if let Some(mut entry) = entry.clone().filter(|entry| entry.hash == hash) {
            entry.stamp = stamp;
            return Ok(Some(entry));
        }
        let passages = passages::cut(&text, document.is_markdown());
        if passages.len() > MAX_PASSAGES_OF_ONE {
            return self.leave_out(
                document,
                entry.as_ref(),
                "it has over 20,000 passages",
                updated,
            );
        }
        if updated.passages + passages.len() > MAX_PASSAGES {
            let why = "the documents before it have 200,000 passages";
            return self.leave_out(document, entry.as_ref(), why, updated);
        }
        if entry.is_some() {
            self.remove(&document.name)?;
        }
        let made = Entry { stamp, hash, passages: passages.len() };
        for passage in passages {
            let stored = self.index.stored(&document.name, &passage);
            self.writer()?.add_document(stored)?;
        }
        updated.changed = true;
        Ok(Some(made))
    }

    fn leave_out(
        &mut self,
        document: &Document,
        entry: Option<&Entry>,
        why: &'static str,
        updated: &mut Updated,
    ) -> Result<Option<Entry>, UpdateError> {
        updated.left_out.push(LeftOut { name: document.name.clone(), why });
        if entry.is_some() {
            self.remove(&document.name)?;
            updated.changed = true;
        }
        Ok(None)
    }

    fn remove(&mut self, name: &str) -> Result<(), UpdateError> {
        let term = Term::from_field_text(self.index.fields.file, name);
        self.writer()?.delete_term(term);
        Ok(())
    }

    fn commit(&mut self) -> Result<(), UpdateError> {
        let held = serde_json::to_string(&self.held).expect("names and numbers are JSON");
        let mut prepared = self.writer()?.prepare_commit()?;
        prepared.set_payload(&held);
        prepared.commit()?;
        self.index.reload()?;
        Ok(())
    }

    fn writer(&mut self) -> tantivy::Result<&mut IndexWriter> {
        if self.writer.is_none() {
            // One thread each: changes are few, and questions want the processor.
            let options = IndexWriterOptions::builder()
                .num_worker_threads(1)
                .num_merge_threads(1)
                .memory_budget_per_thread(WRITER_MEMORY)
                .build();
            self.writer = Some(self.index.tantivy.writer_with_options(options)?);
        }
        Ok(self.writer.as_mut().expect("it was made just now"))
    }
}

fn held_by(index: &Index) -> Option<Held> {
    let payload = index.tantivy.load_metas().ok()?.payload?;
    serde_json::from_str(&payload).ok()
}

fn hash(text: &str) -> String {
    let hash = Sha256::digest(text);
    hash[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::files::SETTLED;
    use super::super::index::Hit;
    use super::super::place::Place;
    use super::*;

    struct Fixture {
        place: tempfile::TempDir,
        index: Arc<Index>,
        updater: Updater,
    }

    fn fixture(files: &[(&str, &[u8])]) -> Fixture {
        let place = tempfile::tempdir().unwrap();
        for (name, text) in files {
            write(place.path(), name, text);
        }
        fs::create_dir_all(place.path().join("docs")).unwrap();
        let (index, updater) = opened(place.path());
        let mut fixture = Fixture { place, index, updater };
        fixture.updater.update(SystemTime::now()).unwrap();
        fixture
    }

    fn opened(place: &Path) -> (Arc<Index>, Updater) {
        let index =
            Arc::new(Index::open(Place::open(Some(&place.join("index"))).unwrap()).unwrap());
        let folder = Folder::new(&place.join("docs"));
        let updater = Updater::new(Arc::clone(&index), folder, Arc::default());
        (index, updater)
    }

    fn write(place: &Path, name: &str, text: &[u8]) {
        let path = place.join("docs").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    impl Fixture {
        fn hits(&self, question: &str) -> Vec<Hit> {
            let searcher = self.index.searcher();
            let found = self.index.by_words(&searcher, question, 3).unwrap();
            let hit = |(score, address)| self.index.hit(&searcher, address, score).unwrap();
            found.into_iter().map(hit).collect()
        }

        fn files(&self, question: &str) -> Vec<String> {
            self.hits(question).into_iter().map(|hit| hit.file).collect()
        }

        /// As if nothing had been written for long.
        fn settle(&mut self) -> Updated {
            self.updater.update(later()).unwrap()
        }
    }

    fn later() -> SystemTime {
        SystemTime::now() + 2 * SETTLED
    }

    #[test]
    fn a_heading_outweighs_a_mention_and_forms_of_a_word_are_one() {
        let fixture = fixture(&[
            ("a.md", b"# Other\nOne may add many agents of one type, and types of agents."),
            ("sub/b.md", b"# Guide\n## Adding an agent type\nEdit the table."),
        ]);
        let hits = fixture.hits("How do I add agent types?");
        assert_eq!(hits[0].file, "docs/sub/b.md");
        assert_eq!(hits[0].passage.trail, "Guide › Adding an agent type");
        assert_eq!((hits[0].passage.line, hits[0].passage.end), (2, 3));
        assert_eq!(hits.len(), 2);
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        let fixture = fixture(&[("a.md", b"# Tower\nA tower of layers.")]);
        for question in
            ["How tall is the Eiffel tower in Paris?", "how do I", "", "\"(*:[", "zebra"]
        {
            assert_eq!(fixture.hits(question), [], "{question}");
        }
    }

    #[test]
    fn what_is_no_text_is_left_out_and_named() {
        let mut fixture = fixture(&[("a.txt", b"# plain text"), ("b.md", b"\xff\xfe\x00")]);
        let updated = fixture.settle();
        assert_eq!((updated.files, updated.passages), (1, 1));
        assert_eq!(updated.left_out[0].name, "docs/b.md");
        assert_eq!(fixture.hits("plain")[0].passage.trail, "");
        write(fixture.place.path(), "b.md", b"plain after all");
        assert_eq!(fixture.settle().left_out, []);
        assert_eq!(fixture.files("plain").len(), 2);
    }

    #[test]
    fn only_what_has_changed_is_read_again() {
        let mut fixture = fixture(&[("a.md", b"# A\napple"), ("b.md", b"# B\nbanana")]);
        fixture.settle();
        assert!(!fixture.settle().changed);
        write(fixture.place.path(), "b.md", b"# B\nberry");
        write(fixture.place.path(), "c.md", b"# C\ncherry");
        fixture.settle();
        assert_eq!(fixture.files("banana"), [] as [&str; 0]);
        assert_eq!(fixture.files("berry"), ["docs/b.md"]);
        assert_eq!(fixture.files("cherry"), ["docs/c.md"]);
        fs::remove_file(fixture.place.path().join("docs/a.md")).unwrap();
        let updated = fixture.settle();
        assert_eq!((updated.files, updated.passages), (2, 2));
        assert_eq!(fixture.files("apple"), [] as [&str; 0]);
    }

    #[test]
    fn a_touched_file_is_no_change() {
        let mut fixture = fixture(&[("a.md", b"# A\napple")]);
        fixture.settle();
        write(fixture.place.path(), "a.md", b"# A\napple");
        assert!(!fixture.settle().changed);
    }

    #[test]
    fn what_is_being_written_does_not_replace_what_was_whole() {
        let mut fixture = fixture(&[("a.md", b"# A\napple")]);
        fixture.settle();
        write(fixture.place.path(), "a.md", b"");
        write(fixture.place.path(), "b.md", b"# B\nban");
        let updated = fixture.updater.update(SystemTime::now()).unwrap();
        assert!(updated.unsettled && !updated.changed);
        assert_eq!(fixture.files("apple"), ["docs/a.md"]);
        write(fixture.place.path(), "a.md", b"# A\napricot");
        fixture.settle();
        assert_eq!(fixture.files("apricot"), ["docs/a.md"]);
        assert_eq!(fixture.files("ban"), ["docs/b.md"]);
    }

    #[test]
    fn a_kept_index_is_gone_on_from_and_one_of_another_version_is_made_anew() {
        let mut fixture = fixture(&[("a.md", b"# A\napple")]);
        fixture.settle();
        let Fixture { place, index, updater } = fixture;
        drop((index, updater));
        let (index, mut updater) = opened(place.path());
        let searcher = index.searcher();
        assert_eq!(index.by_words(&searcher, "apple", 3).unwrap().len(), 1);
        assert!(!updater.update(later()).unwrap().changed);
        updater.held.version = 0;
        assert!(updater.update(later()).unwrap().changed);
        assert_eq!(index.by_words(&index.searcher(), "apple", 3).unwrap().len(), 1);
        drop((searcher, index, updater));
        fs::write(place.path().join("index/switchyard-qa-0/meta.json"), "{}").unwrap();
        let (index, mut updater) = opened(place.path());
        assert!(updater.update(later()).unwrap().changed);
        assert_eq!(index.by_words(&index.searcher(), "apple", 3).unwrap().len(), 1);
    }

    #[test]
    fn a_config_maps_link_swap_is_noticed() {
        use std::os::unix::fs::symlink;
        let mut fixture = fixture(&[]);
        let docs = fixture.place.path().join("docs");
        for (version, text) in [("..1", "# A\napple"), ("..2", "# A\napricot")] {
            fs::create_dir_all(docs.join(version)).unwrap();
            fs::write(docs.join(version).join("a.md"), text).unwrap();
        }
        symlink("..1", docs.join("..data")).unwrap();
        symlink("..data/a.md", docs.join("a.md")).unwrap();
        fixture.settle();
        assert_eq!(fixture.files("apple"), ["docs/a.md"]);
        symlink("..2", docs.join("..new")).unwrap();
        fs::rename(docs.join("..new"), docs.join("..data")).unwrap();
        fixture.settle();
        assert_eq!(fixture.files("apple"), [] as [&str; 0]);
        assert_eq!(fixture.files("apricot"), ["docs/a.md"]);
    }

    #[test]
    fn when_the_folder_goes_the_last_index_stands() {
        let mut fixture = fixture(&[("a.md", b"# A\napple")]);
        fs::rename(fixture.place.path().join("docs"), fixture.place.path().join("x")).unwrap();
        assert!(matches!(fixture.updater.update(later()), Err(UpdateError::Folder(_))));
        assert_eq!(fixture.files("apple"), ["docs/a.md"]);
    }

    #[test]
    fn an_update_that_is_stopped_changes_nothing() {
        let mut fixture = fixture(&[("a.md", b"# A\napple")]);
        write(fixture.place.path(), "b.md", b"# B\nbanana");
        fixture.updater.stop.store(true, Ordering::Relaxed);
        assert!(matches!(fixture.updater.update(later()), Err(UpdateError::Stopped)));
        fixture.updater.stop.store(false, Ordering::Relaxed);
        fixture.settle();
        assert_eq!(fixture.files("apple"), ["docs/a.md"]);
        assert_eq!(fixture.files("banana"), ["docs/b.md"]);
    }
}
