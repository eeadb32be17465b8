//! `switchyard check` and `switchyard schema`.

use serde_json::Value;
use tempfile::TempDir;

use super::run;

/// A folder with a table in it, and the table's path.
pub(crate) fn table(text: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.display().to_string();
    (folder, path)
}

const GOOD: &str = r#"
[agents.qa.deployment]
command = ["agent", "--type", "qa"]
secrets = { OPENAI_API_KEY = "agent-secrets/openai-api-key" }

[agents.coding]
endpoints = ["http://127.0.0.1:8001"]
"#;

#[test]
fn a_good_table_is_summed_up_with_its_secrets() {
    let (_folder, path) = table(GOOD);
    let (code, out, err) = run(&["check", "--config", &path]);
    let summary =
        "2 agents (coding, qa); needs secret agent-secrets/openai-api-key as OPENAI_API_KEY\n";
    assert_eq!((code, out, err.as_str()), (Some(0), format!("{path}: {summary}"), ""));
}

#[test]
fn problems_stand_on_stderr_with_their_places() {
    let (_folder, path) = table("[agents.qa]\nendpoint = [\"http://127.0.0.1:8001\"]\n");
    let (code, out, err) = run(&["check", "--config", &path]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.starts_with(&format!("{path}:2:1: ")) && err.contains("endpoints"), "{err}");
}

#[test]
fn problems_as_json_stand_on_stdout() {
    let (_folder, path) = table("[agents.qa]\nendpoint = [\"http://127.0.0.1:8001\"]\n");
    let (code, out, err) = run(&["check", "--config", &path, "--format", "json"]);
    assert_eq!((code, err.as_str()), (Some(1), ""));
    let problems: Value = serde_json::from_str(&out).unwrap();
    let first = &problems[0];
    assert_eq!(
        (&first["file"], &first["line"], &first["col"]),
        (&path.into(), &2.into(), &1.into())
    );
    assert_eq!(first["severity"], "error");
    assert!(first["message"].is_string() && first.get("hint").is_some());
}

#[test]
fn a_good_table_as_json_is_an_empty_array() {
    let (_folder, path) = table(GOOD);
    assert_eq!(
        run(&["check", "--config", &path, "--format=json"]),
        (Some(0), "[]\n".into(), String::new())
    );
}

#[test]
fn what_is_unwise_is_a_warning_and_strictly_a_problem() {
    let (_folder, path) = table(
        "[agents.qa]\nendpoints = [\"http://127.0.0.1:1\"]\ntimeout = \"10s\"\nidle_timeout = \"60s\"\n",
    );
    let (code, _, err) = run(&["check", "--config", &path]);
    assert_eq!(code, Some(0));
    assert!(err.starts_with(&format!("{path}:4:")) && err.contains(": warning: "), "{err}");
    let (code, out, strict) = run(&["check", "--config", &path, "--strict"]);
    assert_eq!((code, out.as_str(), strict), (Some(1), "", err.replace("warning: ", "")));
}

#[test]
fn a_file_that_is_not_there_is_a_problem_and_no_file_is_misuse() {
    let (code, _, err) = run(&["check", "--config", "/nonexistent/t.toml"]);
    assert_eq!(code, Some(1));
    assert!(err.starts_with("/nonexistent/t.toml:1:1: can't be read: "), "{err}");
    assert_eq!(run(&["check"]).0, Some(2));
}

#[test]
fn the_schema_is_json() {
    let (code, out, _) = run(&["schema"]);
    assert_eq!(code, Some(0));
    assert!(serde_json::from_str::<Value>(&out).unwrap().is_object());
}
