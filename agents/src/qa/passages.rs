//! Cuts Markdown and text into passages: one per heading, a long one at its paragraphs, list items and table rows.
//! Line by line, in memory that grows with the text alone: a parser's tree of 4 MiB of brackets would not.

mod lines;

use lines::Fence;

/// Longest passage, bytes: a screen of text; a handful of them fit any model's context. One that has no good place to
/// be cut may be twice as long.
const MAX_PASSAGE: usize = 2000;
/// Longest heading, bytes: each passage below it carries it along.
const MAX_TITLE: usize = 200;
/// Longest head of a table, bytes, that is put before its further parts.
const MAX_HEAD: usize = 500;
/// Lines within which front matter must end, to be any.
const MAX_FRONT: usize = 200;

/// A piece of a document that can be cited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Passage {
    /// The headings above it, outermost first: `Agents › Adding an agent type`. Empty where there is none.
    pub(crate) trail: String,
    /// The nearest of them.
    pub(crate) heading: String,
    /// Where it begins, from 1, and the last line of it.
    pub(crate) line: u64,
    pub(crate) end: u64,
    /// The text, without the heading. The further parts of a table have its head, those of a code block its fence.
    pub(crate) text: String,
}

/// Cuts a document. `markdown`: whether `#` makes a heading.
pub(crate) fn cut(document: &str, markdown: bool) -> Vec<Passage> {
    let document = document.strip_prefix('\u{feff}').unwrap_or(document);
    let lines: Vec<&str> = document.lines().collect();
    let mut cutter = Cutter::default();
    let mut at = if markdown { cutter.front_matter(&lines) } else { 0 };
    while at < lines.len() {
        at += if markdown { cutter.markdown(&lines, at) } else { cutter.plain(lines[at], at + 1) };
    }
    cutter.end();
    cutter.passages
}

#[derive(Default)]
struct Cutter {
    passages: Vec<Passage>,
    trail: Vec<(usize, String)>,
    text: String,
    /// Of `text`, what was put before it and is no line of its own.
    carried: usize,
    line: usize,
    last: usize,
    fence: Option<Fence>,
    /// The head of the table that goes on.
    table: Option<String>,
    after_blank: bool,
}

impl Cutter {
    /// Takes what stands between `---` at the very top; its title is the outermost heading.
    fn front_matter(&mut self, lines: &[&str]) -> usize {
        let Some(length) = lines::front_matter(lines, MAX_FRONT) else { return 0 };
        if let Some(title) = lines[..length].iter().find_map(|line| line.strip_prefix("title:")) {
            self.heading(0, title.trim().trim_matches(['"', '\'']), 1);
            self.line = 0;
        }
        length
    }

    /// Takes the line at `at`, or a heading of two, and says how many.
    fn markdown(&mut self, lines: &[&str], at: usize) -> usize {
        let line = lines[at];
        if let Some(fence) = &self.fence {
            let closes = fence.closed_by(line);
            self.push(line, at + 1, true, closes);
            if closes {
                self.fence = None;
            }
            return 1;
        }
        if let Some((level, title)) = lines::heading(line) {
            self.heading(level, title, at + 1);
            return 1;
        }
        if let Some(level) = lines.get(at + 1).and_then(|next| lines::underline(line, next)) {
            self.heading(level, line.trim(), at + 1);
            return 2;
        }
        self.table(lines, at);
        let good = self.is_good_cut(line);
        self.push(line, at + 1, good, false);
        self.fence = Fence::opened_by(line);
        1
    }

    fn plain(&mut self, line: &str, number: usize) -> usize {
        let good = self.after_blank;
        self.push(line, number, good, false);
        1
    }

    /// Notes the head of a table that begins here, and forgets it where the table ends.
    fn table(&mut self, lines: &[&str], at: usize) {
        if self.table.is_some() {
            if !lines[at].contains('|') {
                self.table = None;
            }
        } else if let Some(next) = lines.get(at + 1).filter(|next| lines::is_table_rule(next))
            && lines[at].contains('|')
        {
            self.table = Some(format!("{}\n{next}\n", lines[at]));
        }
    }

    /// Whether a passage may well end before this line.
    fn is_good_cut(&self, line: &str) -> bool {
        let indented = line.starts_with([' ', '\t']);
        let head = self.table.as_ref().is_some_and(|head| head.lines().nth(1) == Some(line));
        !head && (self.table.is_some() || lines::is_item(line) || (self.after_blank && !indented))
    }

    fn heading(&mut self, level: usize, title: &str, line: usize) {
        self.end();
        let title = &title[..title.floor_char_boundary(MAX_TITLE)];
        // Front matter and first heading often say the same.
        self.trail.retain(|(above, other)| *above < level && !(*above == 0 && other == title));
        self.trail.push((level, title.to_owned()));
        (self.line, self.last, self.table) = (line, line, None);
    }

    /// Adds a line. `good`: the passage may end before it; `closing`: it must not.
    fn push(&mut self, line: &str, number: usize, good: bool, closing: bool) {
        if line.trim().is_empty() {
            self.after_blank = true;
            if self.text.len() > self.carried {
                self.text.push('\n');
            }
            return;
        }
        // A line longer than any passage (a data table, a minified file) is in several.
        for piece in lines::pieces(line, MAX_PASSAGE) {
            let long = self.text.len() + piece.len();
            let own = self.text.len() > self.carried;
            if own && !closing && ((good && long > MAX_PASSAGE) || long > 2 * MAX_PASSAGE) {
                self.split();
            }
            if self.line == 0 {
                self.line = number;
            }
            self.last = number;
            self.text.push_str(piece);
            self.text.push('\n');
        }
        self.after_blank = false;
    }

    /// Ends the passage within a block that goes on, and begins the next.
    fn split(&mut self) {
        let before = match (&self.fence, &self.table) {
            (Some(fence), _) => {
                self.text.push_str(fence.mark());
                self.text.push('\n');
                format!("{}\n", fence.line())
            }
            (None, Some(head)) if head.len() <= MAX_HEAD => head.clone(),
            _ => String::new(),
        };
        self.end();
        (self.carried, self.text) = (before.len(), before);
    }

    fn end(&mut self) {
        let text = std::mem::take(&mut self.text);
        let line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.carried) >= text.len() || text.trim().is_empty() {
            return;
        }
        let titles: Vec<&str> = self.trail.iter().map(|(_, title)| title.as_str()).collect();
        self.passages.push(Passage {
            trail: titles.join(" › "),
            heading: titles.last().copied().unwrap_or_default().to_owned(),
            line: line as u64,
            end: self.last as u64,
            text: text.trim_matches('\n').to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(document: &str, expected: &[(&str, u64, u64, &str)]) {
        let passages = cut(document, true);
        let found: Vec<_> =
            passages.iter().map(|p| (p.trail.as_str(), p.line, p.end, p.text.as_str())).collect();
        assert_eq!(found, expected);
    }

    /// Every passage is what stands on its lines, but for what is put around the parts of a block.
    fn check_lines(document: &str) -> Vec<Passage> {
        let lines: Vec<&str> = document.lines().collect();
        let passages = cut(document, true);
        for passage in &passages {
            let (first, last) = (passage.line as usize, passage.end as usize);
            let there = lines[first - 1..last].join("\n");
            let own: Vec<&str> = passage.text.lines().filter(|l| !there.contains(l)).collect();
            assert!(own.iter().all(|line| lines.contains(line)), "{passage:?} is not {there}");
            assert!(passage.text.len() <= 2 * MAX_PASSAGE + MAX_HEAD);
        }
        passages
    }

    #[test]
    fn each_heading_begins_a_passage_with_those_above_it() {
        check(
            "intro\n# A\na\n## B ##\nb\n\nb2\n\n# C\nc",
            &[("", 1, 1, "intro"), ("A", 2, 3, "a"), ("A › B", 4, 7, "b\n\nb2"), ("C", 9, 10, "c")],
        );
    }

    #[test]
    fn a_hash_in_code_is_no_heading() {
        check("# A\n```sh\n# comment\n```\nend", &[("A", 1, 5, "```sh\n# comment\n```\nend")]);
        check(
            "# A\n~~~\n```\n# no\n~~~\n#no\n    # no",
            &[("A", 1, 7, "~~~\n```\n# no\n~~~\n#no\n    # no")],
        );
    }

    #[test]
    fn underlined_headings_count() {
        check("A\n===\na\nB\n---\nb", &[("A", 1, 3, "a"), ("A › B", 4, 6, "b")]);
    }

    #[test]
    fn front_matter_is_no_text_and_its_title_is_a_heading() {
        let front = "---\ntitle: \"Guide\"\ntags: [a]\n---\n";
        check(&format!("{front}\nhello"), &[("Guide", 6, 6, "hello")]);
        check(&format!("{front}# Guide\n## Part\nhello"), &[("Guide › Part", 6, 7, "hello")]);
        check("---\nno end", &[("", 1, 2, "---\nno end")]);
    }

    #[test]
    fn long_texts_are_cut_at_paragraphs_with_their_lines() {
        let paragraph = "some words of a text\n".repeat(30);
        let passages = check_lines(&vec![paragraph; 20].join("\n"));
        assert!(passages.len() > 3);
        assert_eq!((passages[0].line, passages[0].end), (1, 123));
        assert_eq!(passages[1].line, 125);
        let last = passages.last().unwrap();
        assert_eq!(last.end, 619);
    }

    #[test]
    fn a_long_list_is_cut_at_its_outer_items() {
        let list = "- an item with some words\n  - and one in it, of its own\n".repeat(100);
        let passages = check_lines(&list);
        assert!(passages.len() > 2);
        assert!(passages.iter().all(|p| p.text.starts_with("- an item")));
    }

    #[test]
    fn the_parts_of_a_long_table_have_its_head() {
        let table = format!("# T\n| key | value |\n| --- | --- |\n{}", "| a | b |\n".repeat(600));
        let passages = check_lines(&table);
        assert!(passages.len() > 2);
        for passage in &passages {
            assert!(passage.text.starts_with("| key | value |\n| --- | --- |\n| a"), "{passage:?}");
        }
    }

    #[test]
    fn the_parts_of_long_code_are_code() {
        let code = format!("```rust\n{}```\nafter\n", "let x = 1; // a line\n".repeat(200));
        let passages = check_lines(&code);
        assert!(passages.len() > 2);
        for passage in &passages {
            assert!(passage.text.starts_with("```rust\nlet"), "{passage:?}");
            assert_eq!(passage.text.matches("```").count(), 2);
        }
    }

    #[test]
    fn nothing_of_a_line_without_end_is_lost() {
        let long = "word ".repeat(20_000);
        let passages = cut(&long, true);
        let all: usize = passages.iter().map(|p| p.text.matches("word").count()).sum();
        assert_eq!(all, 20_000);
        assert!(passages.iter().all(|p| p.line == 1 && p.text.len() <= 2 * MAX_PASSAGE));
        let unbroken = cut(&"é".repeat(5_000), true);
        assert_eq!(unbroken.iter().map(|p| p.text.matches('é').count()).sum::<usize>(), 5_000);
    }
}
