//! The fenced code blocks of a text, as CommonMark has them.

use crate::sandbox;

/// One fenced block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// The first word after the fence, lower case; may be empty.
    pub(crate) language: String,
    /// What is in it.
    pub(crate) code: String,
}

/// Finds the blocks, in order. One that is not closed goes to the end.
pub(crate) fn find(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<(char, usize, Block)> = None;
    for line in text.lines() {
        match &mut open {
            None => open = opening(line),
            Some((mark, length, block)) => {
                if is_closing(line, *mark, *length) {
                    blocks.extend(open.take().map(|(_, _, block)| block));
                } else {
                    block.code.push_str(line);
                    block.code.push('\n');
                }
            }
        }
    }
    blocks.extend(open.map(|(_, _, block)| block));
    blocks
}

fn opening(line: &str) -> Option<(char, usize, Block)> {
    let text = line.trim_start_matches(' ');
    let mark = text.chars().next().filter(|mark| matches!(mark, '`' | '~'))?;
    let length = text.chars().take_while(|c| *c == mark).count();
    let info = text[length..].trim();
    if length < 3 || line.len() - text.len() > 3 || (mark == '`' && info.contains('`')) {
        return None;
    }
    let word = info.split(|c: char| c.is_whitespace() || c == '{' || c == ',').next();
    let language = word.unwrap_or_default().to_ascii_lowercase();
    Some((mark, length, Block { language, code: String::new() }))
}

fn is_closing(line: &str, mark: char, length: usize) -> bool {
    let text = line.trim();
    text.len() >= length && text.chars().all(|c| c == mark)
}

/// What runs a block: the program, and what its file's name ends in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interpreter {
    /// Its path.
    pub(crate) program: String,
    /// For example `py`.
    pub(crate) ending: &'static str,
}

impl Block {
    /// What runs it on this machine.
    ///
    /// # Errors
    /// Says why it cannot be run.
    pub(crate) fn interpreter(&self) -> Result<Interpreter, String> {
        let (name, ending) = match self.language.as_str() {
            "sh" | "shell" => ("sh", "sh"),
            "bash" => ("bash", "sh"),
            "python" | "py" | "python3" => ("python3", "py"),
            "javascript" | "js" | "node" | "mjs" => ("node", "mjs"),
            "ruby" | "rb" => ("ruby", "rb"),
            "perl" | "pl" => ("perl", "pl"),
            "lua" => ("lua", "lua"),
            "php" => ("php", "php"),
            "" => return Err("it names no language after its fence".to_owned()),
            other => {
                let name: String = other.chars().take(32).collect();
                return Err(format!("no interpreter for `{name}` is known here"));
            }
        };
        let program = sandbox::find_program(name)
            .ok_or_else(|| format!("this machine has no {name}"))?
            .display()
            .to_string();
        Ok(Interpreter { program, ending })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let found = find(text);
        let found: Vec<_> = found.iter().map(|b| (b.language.as_str(), b.code.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn blocks_are_found_with_their_language() {
        check(
            "a\n```sh\nls\n```\nb\n~~~ Python title=x\nprint()\n\n~~~",
            &[("sh", "ls\n"), ("python", "print()\n\n")],
        );
    }

    #[test]
    fn a_longer_fence_holds_a_shorter_one() {
        check("````\n```sh\nls\n```\n````", &[("", "```sh\nls\n```\n")]);
    }

    #[test]
    fn what_is_no_fence_is_no_block() {
        check("``sh``\n    ```sh\n``` a`b\ntext", &[]);
        check("```js\nopen to the end", &[("js", "open to the end\n")]);
    }
}
