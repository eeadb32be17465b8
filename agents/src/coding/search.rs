//! Searching a workspace's text files by regular expression. Links are not followed and binary files are skipped; matches,
//! time and memory are bounded.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use globset::{GlobBuilder, GlobMatcher};
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder, sinks::Lossy};
use rustix::fs::{AtFlags, Dir, FileType, statat};

use super::beneath::{Inside, Root, file_in, folder_in};

/// Most lines that are shown: more are not read by anybody.
const MAX_MATCHES: usize = 200;
/// Most of a line that is shown, characters.
const MAX_LINE: usize = 300;
/// Longest search.
const MAX_TIME: Duration = Duration::from_secs(10);
/// How deep folders are followed.
const MAX_DEPTH: usize = 32;
/// Memory for one search, bytes: for the longest line, and for the expression in each of its forms.
const MAX_HEAP: usize = 4 << 20;

/// What is looked for, and where.
#[derive(Debug, Default)]
pub(super) struct Query {
    /// A regular expression, within a line.
    pub(super) pattern: String,
    /// A folder or file; everything without.
    pub(super) path: Option<String>,
    /// Of the files' names, or of their paths when it has a slash.
    pub(super) glob: Option<String>,
    /// Whether upper and lower case are the same.
    pub(super) ignore_case: bool,
}

/// The lines that match, as `file:line:text`.
///
/// # Errors
/// What is wrong with the query.
pub(super) fn search(root: &Root, query: &Query) -> Result<String, String> {
    let mut search = Search::new(query)?;
    let path = query.path.as_deref().unwrap_or(".");
    let inside = Inside::parse(path)?;
    match root.folder(&inside) {
        Ok(folder) => {
            let above = if inside.text().is_empty() { String::new() } else { inside.text() + "/" };
            search.folder(&folder, &above, 0);
        }
        Err(_) => {
            let file = root.file(&inside).map_err(|error| super::files::say(path, error))?;
            search.file(file, &inside.text());
        }
    }
    Ok(search.said(query))
}

struct Search {
    matcher: RegexMatcher,
    searcher: Searcher,
    glob: Option<(GlobMatcher, bool)>,
    deadline: Instant,
    files: usize,
    lines: Vec<String>,
    stopped: Option<&'static str>,
}

impl Search {
    fn new(query: &Query) -> Result<Self, String> {
        let matcher = RegexMatcherBuilder::new()
            .case_insensitive(query.ignore_case)
            .line_terminator(Some(b'\n'))
            .size_limit(MAX_HEAP)
            .dfa_size_limit(MAX_HEAP)
            .build(&query.pattern)
            .map_err(|error| format!("the pattern is no regular expression that works: {error}"))?;
        let glob = query.glob.as_deref().map(|glob| {
            let built = GlobBuilder::new(glob).literal_separator(true).build();
            let built = built.map_err(|error| format!("the glob is wrong: {error}"))?;
            Ok::<_, String>((built.compile_matcher(), glob.contains('/')))
        });
        let searcher = SearcherBuilder::new()
            .line_number(true)
            .binary_detection(BinaryDetection::quit(0))
            .heap_limit(Some(MAX_HEAP))
            .build();
        Ok(Self {
            matcher,
            searcher,
            glob: glob.transpose()?,
            deadline: Instant::now() + MAX_TIME,
            files: 0,
            lines: Vec::new(),
            stopped: None,
        })
    }

    fn folder(&mut self, folder: &OwnedFd, above: &str, depth: usize) {
        let mut names: Vec<_> = Dir::read_from(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_owned())
            .filter(|name| !matches!(name.to_bytes(), b"." | b".."))
            .collect();
        names.sort();
        for name in names {
            if self.stopped.is_some() {
                return;
            }
            let path = format!("{above}{}", name.to_string_lossy());
            self.entry(folder, &name, &path, depth);
        }
    }

    fn entry(&mut self, folder: &OwnedFd, name: &CStr, path: &str, depth: usize) {
        let Ok(stat) = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else { return };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if depth < MAX_DEPTH => {
                if let Ok(below) = folder_in(folder, name) {
                    self.folder(&below, &format!("{path}/"), depth + 1);
                }
            }
            FileType::RegularFile if self.is_meant(path) => {
                if let Ok(file) = file_in(folder, name) {
                    self.file(file, path);
                }
            }
            _ => {}
        }
    }

    fn is_meant(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        self.glob
            .as_ref()
            .is_none_or(|(glob, whole)| glob.is_match(if *whole { path } else { name }))
    }

    fn file(&mut self, file: File, path: &str) {
        self.files += 1;
        let (lines, stopped) = (&mut self.lines, &mut self.stopped);
        let sink = Lossy(|number, text| {
            if lines.len() >= MAX_MATCHES {
                *stopped = Some("more match");
                return Ok(false);
            }
            lines.push(format!("{path}:{number}:{}", shorten(text.trim_end())));
            Ok(true)
        });
        let reader = Timed { file, deadline: self.deadline };
        if let Err(error) = self.searcher.search_reader(&self.matcher, reader, sink) {
            match error.kind() {
                io::ErrorKind::TimedOut => self.stopped = Some("it took too long"),
                _ => self.lines.push(format!("{path}: not searched: {error}")),
            }
        }
    }

    fn said(self, query: &Query) -> String {
        let files = self.files;
        let mut text = self.lines.join("\n");
        match (text.is_empty(), self.stopped) {
            (true, None) => text = format!("no line of {files} files matches {}", query.pattern),
            (true, Some(why)) => {
                text = format!("nothing found in {files} files, and {why}; name a path or a glob");
            }
            (false, Some(why)) => {
                text.push_str(&format!(
                    "\n… not everything: {why}; name a narrower pattern, a path or a glob"
                ));
            }
            (false, None) => {}
        }
        text
    }
}

fn shorten(line: &str) -> String {
    match line.char_indices().nth(MAX_LINE) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}

/// A file that stops when the time is up.
struct Timed {
    file: File,
    deadline: Instant,
}

impl Read for Timed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if Instant::now() >= self.deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.file.read(into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, Root) {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("in");
        std::fs::create_dir_all(dir.join("src/deep")).unwrap();
        std::fs::write(dir.join("src/a.rs"), "fn one() {}\nfn two() {}\n").unwrap();
        std::fs::write(dir.join("src/deep/b.rs"), "fn Three() {}\n").unwrap();
        std::fs::write(dir.join("note.txt"), "fn in prose\n").unwrap();
        std::fs::write(dir.join("binary"), b"fn \0").unwrap();
        std::fs::write(place.path().join("outside"), "fn secret").unwrap();
        std::os::unix::fs::symlink("../outside", dir.join("link")).unwrap();
        std::os::unix::fs::symlink("..", dir.join("up")).unwrap();
        let root = Root::of(&dir, None).unwrap();
        (place, root)
    }

    fn check(pattern: &str, path: Option<&str>, glob: Option<&str>, expected: &str) {
        let (_place, root) = place();
        let own = |text: Option<&str>| text.map(str::to_owned);
        let (path, glob) = (own(path), own(glob));
        let query = Query { pattern: pattern.to_owned(), path, glob, ignore_case: false };
        let found = search(&root, &query).unwrap_or_else(|why| why);
        assert!(found.starts_with(expected), "{found}");
    }

    #[test]
    fn lines_are_found_with_file_and_number_and_nothing_outside() {
        let all = "note.txt:1:fn in prose\nsrc/a.rs:1:fn one() {}\nsrc/a.rs:2:fn two() {}\nsrc/deep/b.rs:1:fn Three() {}";
        check("^fn", None, None, all);
        check("secret", None, None, "no line of 4 files matches secret");
        check(r"fn t\w+\(", Some("src"), None, "src/a.rs:2:fn two");
        check("one", Some("src/a.rs"), None, "src/a.rs:1:fn one() {}");
        check("fn", None, Some("*.txt"), "note.txt:1:");
        check("Three", None, Some("src/**/*.rs"), "src/deep/b.rs:1:");
        check("fn", Some("link"), None, "link: ");
        check("fn", Some("../outside"), None, "../outside: paths stay in the workspace");
        check("(", None, None, "the pattern is no regular expression");
        check("a", None, Some("[a"), "the glob is wrong");
    }

    #[test]
    fn many_matches_and_long_lines_are_cut_and_it_says_so() {
        let (place, root) = place();
        std::fs::write(place.path().join("in/many"), "match\n".repeat(500)).unwrap();
        std::fs::write(place.path().join("in/long"), format!("{}match", "x".repeat(8 << 20)))
            .unwrap();
        let query = Query { pattern: "match".to_owned(), ..Query::default() };
        let found = search(&root, &query).unwrap();
        assert!(found.contains("long: not searched:"), "{found}");
        assert!(
            found.ends_with(
                "… not everything: more match; name a narrower pattern, a path or a glob"
            )
        );
        assert_eq!(found.lines().count(), MAX_MATCHES + 1);
    }

    #[test]
    fn a_search_whose_time_is_up_ends_and_says_so() {
        let (_place, root) = place();
        let query = Query { pattern: "two".to_owned(), ..Query::default() };
        let mut late = Search::new(&query).unwrap();
        late.deadline = Instant::now();
        late.folder(&root.folder(&Inside::parse(".").unwrap()).unwrap(), "", 0);
        assert!(late.said(&query).contains("it took too long"));
    }
}
