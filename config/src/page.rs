//! The reference page `docs/table.md`, from the same list of keys that the reader goes by.

use std::collections::VecDeque;
use std::fmt::Write;

use crate::raw::Root;
use crate::schema::words;
use crate::section::{Field, Kind, Section, Shape};

/// The smallest table that works.
pub(crate) const SMALLEST: &str = "[agents.qa]\nendpoints = [\"http://127.0.0.1:8001\"]\n";

const INTRODUCTION: &str = "\
# The table

<!-- Made from config/src/raw.rs. To refresh: UPDATE=1 cargo test -p config generated -->

One TOML file says what the agents are, how big, how they scale and how requests reach them. The gateway
routes from it, `switchyard up` runs it, `switchyard render` turns it into manifests. `config/switchyard.toml`
is the one that `up` takes by default; `config/examples/` has more. The smallest table that works is one agent
and where it is:

```toml
";

const SPELLINGS: &str = "\
```

`switchyard check --config FILE` names everything that is wrong with a table, each with file, line, column and
what to write instead. It also warns of what is legal but unwise; with `--strict` that is an error too. For
completion in an editor, `config/switchyard.schema.json` is its JSON Schema (`switchyard schema` prints it).

## Spellings

| what | how |
| --- | --- |
| a duration | `\"300ms\"`, `\"5s\"`, `\"1.5s\"`, `\"2m\"`, `\"1m30s\"`, `\"1h\"`; a year at most |
| a size | `\"64KiB\"`, `\"32MiB\"`, `\"4GiB\"`; Kubernetes' `\"4Gi\"` and `\"500M\"`; a plain number is bytes |
| an amount of CPU | cores, `2` or `\"0.5\"`, or thousandths, `\"500m\"` |
| an address | `\"http://host:port\"`; the port is 80 without one. Agents are reached in the clear, and the path is the request's |
| an IP address and port | `\"127.0.0.1:8080\"`, `\"[::]:8080\"`; port 0 takes a free one |
| a network | `\"10.0.0.0/8\"`, `\"fd00::/8\"`, or a single address |
| switched off | `\"off\"`, where a key says so |

## What wins

An agent's own key, else `[defaults]`, else the built-in default. Tables are merged key by key: under
`[defaults] queue = { max = 5 }`, an agent with `queue = { timeout = \"10s\" }` has a queue of 5 that waits for 10
seconds. Lists are replaced. An agent that `shares` runs where the other runs, so `[defaults]` gives it no
`endpoints`, `service`, `versions`, `deployment` or `scale`; everything else is its own.

A table header and an inline table mean the same: `[agents.qa.queue]` with `max = 5` under it, or
`queue = { max = 5 }` in `[agents.qa]`.
";

/// The whole page.
pub(crate) fn page() -> String {
    let mut page = format!("{INTRODUCTION}{SMALLEST}{SPELLINGS}");
    let root = Root::shape();
    for (section, headers) in sections(&root) {
        let (gateways, own): (Vec<&String>, Vec<&String>) =
            headers.iter().partition(|header| header.starts_with("[gateway."));
        let _ = write!(page, "\n## {}\n\n{}", codes(&own), section.about);
        if !gateways.is_empty() {
            let _ = write!(page, " The same keys stand under {}.", codes(&gateways));
        }
        page.push_str("\n\n| key | takes | default | meaning |\n| --- | --- | --- | --- |\n");
        for field in &section.fields {
            row(&mut page, field);
        }
    }
    page
}

/// Every section of the table but the root, each once, with the headers under which it can stand.
fn sections(root: &Shape) -> Vec<(&Section, Vec<String>)> {
    let mut found: Vec<(&Section, Vec<String>)> = Vec::new();
    let mut ahead = VecDeque::from([(String::new(), false, root)]);
    while let Some((path, list, shape)) = ahead.pop_front() {
        match shape {
            Shape::Leaf(_) => {}
            Shape::OrOff(inner) => ahead.push_back((path, list, inner)),
            Shape::List(inner) => ahead.push_back((path, true, inner)),
            Shape::Map { name, value, .. } => {
                ahead.push_back((format!("{path}.{name}"), list, value));
            }
            // What goes for an agent's tables goes for those of `[defaults]`.
            Shape::Section(_) if path.starts_with("defaults.") => {}
            Shape::Section(section) => {
                for field in &section.fields {
                    let dot = if path.is_empty() { "" } else { "." };
                    ahead.push_back((format!("{path}{dot}{}", field.key), false, &field.shape));
                }
                let header = if list { format!("[[{path}]]") } else { format!("[{path}]") };
                match found.iter_mut().find(|(known, _)| known.name == section.name) {
                    Some((_, headers)) => headers.push(header),
                    None => found.push((section, vec![header])),
                }
            }
        }
    }
    found.retain(|(section, _)| section.name != "Root");
    found
}

fn row(page: &mut String, field: &Field) {
    let default = match (field.default, field.computed) {
        _ if field.needed => "needed".to_owned(),
        (Some("{}"), _) if field.shape.section().is_some() => "see its keys".to_owned(),
        (Some(default), _) => format!("`{default}`"),
        (None, Some(computed)) => computed.to_owned(),
        (None, None) => "none".to_owned(),
    };
    let mut meaning = field.doc.clone();
    for (word, what) in words(&field.shape) {
        let _ = write!(meaning, " `\"{word}\"`: {what}.");
    }
    if let Some(example) = &field.example {
        let _ = write!(meaning, " For example `{example}`.");
    }
    let takes = takes(&field.shape);
    let _ = writeln!(page, "| `{}` | {takes} | {default} | {meaning} |", field.key);
}

/// What a key takes, in a few words.
fn takes(shape: &Shape) -> String {
    match shape {
        Shape::Leaf(leaf) if leaf.words.is_empty() => {
            let article = ["a ", "an ", "the "].iter().find_map(|a| leaf.noun.strip_prefix(a));
            article.unwrap_or(&leaf.noun).to_owned()
        }
        Shape::Leaf(leaf) => leaf.noun.clone(),
        Shape::Section(_) => "table".to_owned(),
        Shape::OrOff(inner) => format!("\"off\" or {}", takes(inner)),
        Shape::List(inner) => format!("list of: {}", takes(inner)),
        Shape::Map { name, value, .. } => format!("table: {name} = {}", takes(value)),
    }
}

fn codes(texts: &[&String]) -> String {
    let codes: Vec<String> = texts.iter().map(|text| format!("`{text}`")).collect();
    codes.join(", ")
}
