//! What a single line of Markdown is. CommonMark's rules, as far as passages go by them.

/// A fence of code that is open.
pub(super) struct Fence {
    line: String,
    mark: String,
}

impl Fence {
    /// The fence that this line opens.
    pub(super) fn opened_by(line: &str) -> Option<Self> {
        let start = line.trim_start();
        let mark = start.chars().next().filter(|mark| matches!(mark, '`' | '~'))?;
        let length = start.chars().take_while(|c| *c == mark).count();
        // Backticks after the mark: code within a line.
        if length < 3 || (mark == '`' && start[length..].contains('`')) {
            return None;
        }
        let line = &start[..start.floor_char_boundary(100)];
        Some(Self { line: line.to_owned(), mark: start[..length].to_owned() })
    }

    /// Whether this line closes it: as many marks or more, and nothing else.
    pub(super) fn closed_by(&self, line: &str) -> bool {
        let line = line.trim();
        line.starts_with(&self.mark) && line.chars().all(|c| self.mark.starts_with(c))
    }

    /// How it was opened: with the language.
    pub(super) fn line(&self) -> &str {
        &self.line
    }

    /// What closes it.
    pub(super) fn mark(&self) -> &str {
        &self.mark
    }
}

/// How many lines front matter takes at the top: from `---` to `---` or `...`.
pub(super) fn front_matter(lines: &[&str], most: usize) -> Option<usize> {
    if lines.first()?.trim_end() != "---" {
        return None;
    }
    let end = |line: &&str| matches!(line.trim_end(), "---" | "...");
    lines.iter().take(most).skip(1).position(end).map(|at| at + 2)
}

/// `## A heading`: its level and text.
pub(super) fn heading(line: &str) -> Option<(usize, &str)> {
    let start = line.trim_start_matches(' ');
    let level = start.bytes().take_while(|byte| *byte == b'#').count();
    let rest = &start[level..];
    let indented = line.len() - start.len() > 3;
    if indented || !(1..=6).contains(&level) || !(rest.is_empty() || rest.starts_with([' ', '\t']))
    {
        return None;
    }
    Some((level, rest.trim().trim_end_matches('#').trim_end()))
}

/// A line of text with `===` or `---` under it.
pub(super) fn underline(line: &str, next: &str) -> Option<usize> {
    let is_text = line.starts_with(|c: char| c.is_alphanumeric()) && !line.contains('|');
    let of = |mark: char| next.len() >= 3 && next.trim_end().chars().all(|c| c == mark);
    match (is_text, of('='), of('-')) {
        (true, true, _) => Some(1),
        (true, _, true) => Some(2),
        _ => None,
    }
}

/// `| --- | :-: |`: what follows the head of a table.
pub(super) fn is_table_rule(line: &str) -> bool {
    let line = line.trim();
    line.contains('|') && line.contains('-') && line.chars().all(|c| "|-: \t".contains(c))
}

/// `- an item` or `1. an item`, of an outermost list.
pub(super) fn is_item(line: &str) -> bool {
    let number = line.bytes().take_while(u8::is_ascii_digit).count();
    let rest = match number {
        0 => line.strip_prefix(['-', '*', '+']),
        1..=9 => line[number..].strip_prefix(['.', ')']),
        _ => None,
    };
    rest.is_some_and(|rest| rest.starts_with([' ', '\t']))
}

/// The line in pieces of at most `most` bytes, cut after blanks where there are any.
pub(super) fn pieces(line: &str, most: usize) -> impl Iterator<Item = &str> {
    let mut rest = line;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let all = rest.floor_char_boundary(most);
        let at = match rest[..all].rfind([' ', '\t']) {
            Some(blank) if all < rest.len() => blank + 1,
            _ => all,
        };
        let (piece, after) = rest.split_at(at);
        rest = after;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_line_is() {
        assert_eq!(heading("   ## A b ##"), Some((2, "A b")));
        for none in ["    # code", "#no", "####### seven", "text # no"] {
            assert_eq!(heading(none), None, "{none}");
        }
        assert!(Fence::opened_by("  ```rust").is_some_and(|fence| fence.closed_by("````  ")));
        assert!(Fence::opened_by("```one line```").is_none());
        assert!(is_table_rule("|---|:-:|") && !is_table_rule("---") && !is_table_rule("| a | - |"));
        assert!(is_item("- a") && is_item("12. a") && !is_item("-a") && !is_item("  - a"));
    }
}
