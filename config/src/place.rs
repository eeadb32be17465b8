//! What others have to say of a key: a problem that points at where it is written.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::problem::Problem;
use crate::reader::{Notes, Origin};

/// A problem at the value of `path` (such as `["gateway", "listen"]`), or at the innermost section
/// of it that is written, or at the beginning of the file.
#[must_use]
pub fn problem_at(
    text: &str,
    file: &str,
    path: &[&str],
    message: impl Into<String>,
    hint: Option<String>,
) -> Problem {
    let (root, _) = DeTable::parse_recoverable(text);
    let (message, mut notes) = (message.into(), Notes::default());
    notes.add(Origin::Here(byte_of(&root, path)), message, hint);
    notes.problems(text, file).swap_remove(0)
}

fn byte_of(root: &Spanned<DeTable<'_>>, path: &[&str]) -> usize {
    let (mut table, mut byte) = (root.get_ref(), 0);
    for key in path {
        let Some(value) = table.get(*key) else { break };
        byte = value.span().start;
        let DeValue::Table(inner) = value.get_ref() else { break };
        table = inner;
    }
    byte
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let problem = problem_at(text, "t.toml", &["gateway", "listen"], "no", None);
        assert_eq!(problem.to_string(), expected);
    }

    #[test]
    fn a_key_is_found_however_it_is_written() {
        check("\n[gateway]\nworkers = 1\nlisten = \"x\"", "t.toml:4:10: no");
        check("gateway.listen = 1", "t.toml:1:18: no");
        check("gateway = { listen = 1 }", "t.toml:1:22: no");
    }

    #[test]
    fn what_is_not_written_is_where_it_could_be() {
        check("\n[gateway]\nworkers = 1", "t.toml:2:1: no");
        check("\n[agents.qa]", "t.toml:1:1: no");
    }
}
