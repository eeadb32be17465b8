//! The shipped table, and edits of it such as its user makes.

use crate::harness::project;

/// The shipped table, on free ports.
pub fn shipped() -> String {
    shipped_on("127.0.0.1:0")
}

/// The shipped table with this address for clients.
pub fn shipped_on(listen: &str) -> String {
    let text = std::fs::read_to_string(project().join("config/switchyard.toml")).unwrap();
    let text = put(&text, "\"127.0.0.1:8080\"", &format!("\"{listen}\""));
    put(&text, "\"127.0.0.1:9090\"", "\"127.0.0.1:0\"")
}

/// `from` replaced where it stands first.
pub fn put(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no {from:?} in the table:\n{text}");
    text.replacen(from, to, 1)
}

/// The same, below the line `[section]`.
pub fn put_in(text: &str, section: &str, from: &str, to: &str) -> String {
    let heading = format!("[{section}]\n");
    let (before, after) = text.split_once(&heading).unwrap_or_else(|| panic!("no {heading}"));
    format!("{before}{heading}{}", put(after, from, to))
}

/// The line of that key below the line `[section]`, with another value.
pub fn put_key(text: &str, section: &str, key: &str, value: &str) -> String {
    let heading = format!("[{section}]\n");
    let (before, after) = text.split_once(&heading).unwrap_or_else(|| panic!("no {heading}"));
    let is_it = |line: &&str| line.split('=').next().is_some_and(|name| name.trim() == key);
    let line = after.lines().find(is_it).unwrap_or_else(|| panic!("no {key} in [{section}]"));
    format!("{before}{heading}{}", put(after, line, &format!("{key} = {value}")))
}

/// The memory that the shipped table allows a replica, bytes.
pub fn memory_limit(agent: &str) -> u64 {
    let text = shipped();
    let heading = format!("[agents.{agent}.deployment]\n");
    let after = text.split_once(&heading).unwrap_or_else(|| panic!("no {heading}")).1;
    let limits = after.lines().find(|line| line.starts_with("limits")).unwrap();
    let size = limits.split("memory = \"").nth(1).unwrap().split('"').next().unwrap();
    config::units::size(size).unwrap()
}

/// Takes the `#` from the example at the table's end: a third agent, in the replicas of `qa`.
pub fn with_example(text: &str) -> String {
    let (before, example) = text.split_at(text.find("#[agents.").expect("an example"));
    let lines = example.lines().map(|line| line.strip_prefix('#').unwrap_or(line));
    format!("{before}{}\n", lines.collect::<Vec<_>>().join("\n"))
}
