//! Cuts Markdown and text into passages: one per heading, a long one at its paragraphs.

/// Longest passage, bytes: a screen of text; a handful of them fit any model's context.
const MAX_PASSAGE: usize = 2000;

/// A piece of a document that can be cited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Passage {
    /// The headings above it, outermost first: `Agents › Adding an agent type`. Empty where there is none.
    pub(crate) trail: String,
    /// The nearest of them.
    pub(crate) heading: String,
    /// Where it begins, from 1.
    pub(crate) line: u64,
    /// The text, without the heading.
    pub(crate) text: String,
}

/// Cuts a document. `markdown`: whether `#` makes a heading.
pub(crate) fn cut(document: &str, markdown: bool) -> Vec<Passage> {
    let mut cutter = Cutter::default();
    let lines: Vec<&str> = document.lines().collect();
    let mut fence: Option<&str> = None;
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        let start = line.trim_start();
        match fence {
            Some(mark) if start.starts_with(mark) => fence = None,
            None if start.starts_with("```") || start.starts_with("~~~") => {
                fence = Some(&start[..3]);
            }
            _ => {}
        }
        let in_code = fence.is_some() || start.starts_with("```") || start.starts_with("~~~");
        if markdown && !in_code {
            if let Some((level, title)) = heading(line) {
                cutter.heading(level, title, at + 1);
                at += 1;
                continue;
            }
            if let Some(level) = lines.get(at + 1).and_then(|next| underline(line, next)) {
                cutter.heading(level, line.trim(), at + 1);
                at += 2;
                continue;
            }
        }
        cutter.line(line, at + 1, in_code);
        at += 1;
    }
    cutter.end();
    cutter.passages
}

#[derive(Default)]
struct Cutter {
    passages: Vec<Passage>,
    trail: Vec<(usize, String)>,
    text: String,
    line: usize,
}

impl Cutter {
    fn heading(&mut self, level: usize, title: &str, line: usize) {
        self.end();
        self.trail.retain(|(above, _)| *above < level);
        self.trail.push((level, title.to_owned()));
        self.line = line;
    }

    fn line(&mut self, line: &str, number: usize, in_code: bool) {
        if self.line == 0 {
            self.line = number;
        }
        // A passage ends at a blank line where it can; within code, or a paragraph that never ends, only when it must.
        let full = self.text.len() + line.len() > MAX_PASSAGE;
        let must = self.text.len() + line.len() > 2 * MAX_PASSAGE;
        if (full && !in_code && line.trim().is_empty()) || must {
            self.end();
            self.line = number;
        }
        // A single line longer than any passage (a data table, a minified file) is cut short.
        let line = &line[..line.floor_char_boundary(2 * MAX_PASSAGE)];
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn end(&mut self) {
        let text = std::mem::take(&mut self.text);
        if text.trim().is_empty() {
            return;
        }
        let titles: Vec<&str> = self.trail.iter().map(|(_, title)| title.as_str()).collect();
        self.passages.push(Passage {
            trail: titles.join(" › "),
            heading: titles.last().copied().unwrap_or_default().to_owned(),
            line: self.line as u64,
            text: text.trim_matches('\n').to_owned(),
        });
    }
}

fn heading(line: &str) -> Option<(usize, &str)> {
    let level = line.bytes().take_while(|byte| *byte == b'#').count();
    let rest = &line[level..];
    if !(1..=6).contains(&level) || !(rest.is_empty() || rest.starts_with([' ', '\t'])) {
        return None;
    }
    Some((level, rest.trim().trim_end_matches('#').trim_end()))
}

/// A line of text with `===` or `---` under it.
fn underline(line: &str, next: &str) -> Option<usize> {
    let is_text = line.starts_with(|c: char| c.is_alphanumeric()) && !line.contains('|');
    let of = |mark: char| next.len() >= 3 && next.trim_end().chars().all(|c| c == mark);
    match (is_text, of('='), of('-')) {
        (true, true, _) => Some(1),
        (true, _, true) => Some(2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(document: &str, expected: &[(&str, u64, &str)]) {
        let passages = cut(document, true);
        let found: Vec<_> =
            passages.iter().map(|p| (p.trail.as_str(), p.line, p.text.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn each_heading_begins_a_passage_with_those_above_it() {
        check(
            "intro\n# A\na\n## B ##\nb\n\nb2\n# C\nc",
            &[("", 1, "intro"), ("A", 2, "a"), ("A › B", 4, "b\n\nb2"), ("C", 8, "c")],
        );
    }

    #[test]
    fn a_hash_in_code_is_no_heading() {
        check("# A\n```sh\n# comment\n```\nend", &[("A", 1, "```sh\n# comment\n```\nend")]);
    }

    #[test]
    fn underlined_headings_count() {
        check("A\n===\na\nB\n---\nb", &[("A", 1, "a"), ("A › B", 4, "b")]);
    }

    #[test]
    fn long_texts_are_cut_at_paragraphs() {
        let paragraph = "word ".repeat(100);
        let passages = cut(&vec![paragraph; 20].join("\n\n"), false);
        assert!(passages.len() > 3);
        assert!(passages.iter().all(|p| p.text.len() <= 2 * MAX_PASSAGE));
        assert!(cut(&"x".repeat(100_000), true)[0].text.len() <= 2 * MAX_PASSAGE);
    }
}
