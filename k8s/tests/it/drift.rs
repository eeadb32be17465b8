//! Whether a folder is what the table says.

use k8s::{File, MARK, drift};

use crate::render;

const TABLE: &str = r#"
[agents.qa]
service = "qa-agent"
deployment = { image = "r.example.com/qa:1.0.0", limits = { memory = "512Mi" } }
"#;

/// What is found after something was done to the rendered files: `path:line:col: message`.
#[track_caller]
fn check(spoil: impl Fn(&mut Vec<File>), expected: &[&str]) {
    let rendered = render(TABLE).files;
    let mut found = rendered.clone();
    spoil(&mut found);
    let findings = drift(&rendered, &found, "render it");
    let said: Vec<_> = findings
        .iter()
        .map(|it| format!("{}:{}:{}: {} [{}]", it.file, it.line, it.col, it.message, it.id))
        .collect();
    assert_eq!(said, expected);
    assert!(findings.iter().all(|finding| finding.hint == "render it"));
}

fn find<'f>(files: &'f mut [File], path: &str) -> &'f mut File {
    files.iter_mut().find(|file| file.path == path).unwrap()
}

fn add(files: &mut Vec<File>, path: &str, contents: String) {
    files.push(File { path: path.to_owned(), contents });
}

/// Only the base, as its own folder.
fn base_alone(files: &mut Vec<File>) {
    files.retain_mut(|file| {
        let inner = file.path.strip_prefix("base/").map(str::to_owned);
        inner.map(|inner| file.path = inner).is_some()
    });
}

#[test]
fn what_was_rendered_is_the_tables() {
    check(|_| {}, &[]);
    check(base_alone, &[]);
}

#[test]
fn a_missing_file_is_named() {
    let says = "base/30-qa-agent.yaml:1:1: is missing: the table asks for it [missing]";
    check(|files| files.retain(|file| file.path != "base/30-qa-agent.yaml"), &[says]);
    let without = |files: &mut Vec<File>| {
        base_alone(files);
        files.retain(|file| file.path != "30-qa-agent.yaml");
    };
    check(without, &["30-qa-agent.yaml:1:1: is missing: the table asks for it [missing]"]);
}

#[test]
fn a_folder_of_something_else_is_one_finding() {
    let says = ":1:1: nothing here was rendered from a table [missing]";
    check(|files| files.clear(), &[says]);
    check(|files| *files = vec![File { path: "a.yaml".into(), contents: "a: 1".into() }], &[says]);
}

#[test]
fn a_leftover_is_named_and_somebodys_own_file_is_not() {
    let both = |files: &mut Vec<File>| {
        add(files, "base/30-old-agent.yaml", format!("{MARK}\n"));
        add(files, "overlays/mine/kustomization.yaml", "resources: [../../base]\n".to_owned());
        add(files, "elsewhere/copy.yaml", format!("{MARK}\n"));
    };
    let says = "base/30-old-agent.yaml:1:1: was rendered once, and the table asks for it no more [leftover]";
    check(both, &[says]);
    check(|files| find(files, "base/30-qa-agent.yaml").contents = "kind: Mine\n".into(), &[]);
}

#[test]
fn a_difference_is_shown_at_its_first_line() {
    let edit = |files: &mut Vec<File>| {
        let file = find(files, "base/30-qa-agent.yaml");
        file.contents = file.contents.replace("    port: 80\n", "    port: 81\n");
    };
    let rendered = render(TABLE);
    let text = rendered.text("base/30-qa-agent.yaml");
    let line = text.lines().position(|line| line == "    port: 80").unwrap() + 1;
    let says = format!(
        "base/30-qa-agent.yaml:{line}:12: is `port: 81`, and the table says `port: 80` [different]"
    );
    check(edit, &[&says]);
}

#[test]
fn more_and_less_than_the_table_says_are_differences() {
    let longer = |files: &mut Vec<File>| {
        find(files, "base/00-namespace.yaml").contents.push_str("extra: 1\n");
    };
    let lines = render(TABLE).text("base/00-namespace.yaml").lines().count();
    let says = format!(
        "base/00-namespace.yaml:{}:1: is `extra: 1`, and the table says nothing more [different]",
        lines + 1
    );
    check(longer, &[&says]);
    let shorter = |files: &mut Vec<File>| {
        let file = find(files, "base/00-namespace.yaml");
        file.contents = format!("{MARK}\n");
    };
    let says = "base/00-namespace.yaml:2:1: ends, and the table says `apiVersion: v1` [different]";
    check(shorter, &[says]);
    let ends = |files: &mut Vec<File>| {
        let file = find(files, "base/00-namespace.yaml");
        file.contents = file.contents.replace('\n', "\r\n");
    };
    check(ends, &["base/00-namespace.yaml:1:1: differs in its line ends [different]"]);
}
