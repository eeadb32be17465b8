//! Replacing a piece of a text that names itself: what is to be replaced must be there, and be there once.

/// The text with `old` replaced by `new`, and the lines in which that was; everywhere with `all`.
///
/// # Errors
/// Says what is wrong, and where to look.
pub(super) fn replace(
    text: &str,
    old: &str,
    new: &str,
    all: bool,
) -> Result<(String, Vec<usize>), String> {
    if old.is_empty() {
        return Err("old_string is empty; to make a file, use write".to_owned());
    }
    if old == new {
        return Err("old_string and new_string are the same".to_owned());
    }
    let lines: Vec<usize> = text.match_indices(old).map(|(at, _)| line_of(text, at)).collect();
    match lines.len() {
        0 => Err(missing(text, old)),
        1 => Ok((text.replacen(old, new, 1), lines)),
        _ if all => Ok((text.replace(old, new), lines)),
        times => Err(format!(
            "old_string occurs {times} times, {}; give more of the text around the one that is meant, or set \
             replace_all",
            said(&lines)
        )),
    }
}

/// `in line 3`, `in lines 3, 8 and more`.
pub(super) fn said(lines: &[usize]) -> String {
    const SHOWN: usize = 10;
    let list: Vec<String> = lines.iter().take(SHOWN).map(usize::to_string).collect();
    let more = if lines.len() > SHOWN { " and more" } else { "" };
    let s = if lines.len() == 1 { "" } else { "s" };
    format!("in line{s} {}{more}", list.join(", "))
}

fn missing(text: &str, old: &str) -> String {
    if text.contains("\r\n") && text.replace("\r\n", "\n").contains(&old.replace("\r\n", "\n")) {
        return "old_string is not there like this: the file's lines end in CR LF, write \\r\\n"
            .to_owned();
    }
    match alike(text, old) {
        Some((first, last)) => format!(
            "old_string is not there, but lines {first} to {last} differ from it in white space only; read them and \
             copy them exactly"
        ),
        None => "old_string is not in the file; read the file and copy the text exactly".to_owned(),
    }
}

/// The lines that are those of `old` but for the white space around them.
fn alike(text: &str, old: &str) -> Option<(usize, usize)> {
    let trimmed = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
    let (text, old) = (trimmed(text), trimmed(old.trim()));
    if old.iter().all(String::is_empty) {
        return None;
    }
    let at = text.windows(old.len()).position(|window| window == old)?;
    Some((at + 1, at + old.len()))
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, old: &str, all: bool, expected: Result<&str, &str>) {
        match (replace(text, old, "new", all), expected) {
            (Ok((text, _)), Ok(expected)) => assert_eq!(text, expected),
            (Err(why), Err(part)) => assert!(why.contains(part), "{why}"),
            (got, expected) => panic!("{got:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn one_is_replaced_and_several_only_when_all_are_meant() {
        check("a\nold\n", "old", false, Ok("a\nnew\n"));
        check("old\nold\n", "old", true, Ok("new\nnew\n"));
        check("old\n\nold\n", "old", false, Err("occurs 2 times, in lines 1, 3; give more"));
        assert_eq!(replace("a\nb\nb", "b", "c", true).unwrap().1, [2, 3]);
    }

    #[test]
    fn what_is_not_there_is_told_with_what_is_nearly_there() {
        check("a\n", "b", false, Err("not in the file; read the file"));
        check("fn a() {\n    b();\n}\n", "fn a() {\n  b();\n}", false, Err("lines 1 to 3 differ"));
        check("a\r\nb\r\n", "a\nb", false, Err("end in CR LF"));
        check("a", "", false, Err("is empty"));
        check("a", "new", false, Err("are the same"));
    }
}
