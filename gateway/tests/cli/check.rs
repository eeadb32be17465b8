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

const RUNS: &str = r#"
[agents.qa]
service = "qa-agent"

[agents.qa.deployment]
image   = "r.example.com/qa:1.0.0"
limits  = { memory = "512Mi" }
secrets = { OPENAI_API_KEY = "agent-secrets/openai-api-key" }
"#;

/// A table, and the folder that is rendered from it.
fn rendered() -> (TempDir, String, String) {
    let (folder, path) = table(RUNS);
    let out = folder.path().join("k8s").display().to_string();
    assert_eq!(run(&["render", "--config", &path, "--out", &out]).0, Some(0));
    (folder, path, out)
}

#[test]
fn rendered_manifests_are_summed_up_beside_the_tables_secrets() {
    let (_folder, path, out) = rendered();
    for folder in [out.clone(), format!("{out}/base")] {
        let (code, said, err) = run(&["check", "--config", &path, "--k8s", &folder]);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{said}");
        let lines: Vec<_> = said.lines().collect();
        assert!(lines[0].ends_with("needs secret agent-secrets/openai-api-key as OPENAI_API_KEY"));
        let all_is_well = " objects: the table's, and sound";
        let second = lines[1].strip_prefix(&format!("{folder}: ")).unwrap();
        assert!(second.contains(" files, ") && second.ends_with(all_is_well), "{said}");
    }
}

/// Replaces a text in a file.
fn edit(file: &str, from: &str, to: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(file, text.replace(from, to)).unwrap();
}

#[test]
fn what_differs_from_the_table_is_named_with_the_command_that_mends_it() {
    let (_folder, path, out) = rendered();
    let file = format!("{out}/base/30-qa-agent.yaml");
    edit(&file, "port: 80\n", "port: 81\n");
    let (code, said, err) = run(&["check", "--config", &path, "--k8s", &out]);
    assert_eq!((code, said.as_str()), (Some(1), ""));
    let says = "is `port: 81`, and the table says `port: 80` [different]";
    let hint = format!("(switchyard render --config {path} --out {out})\n");
    assert!(
        err.starts_with(&format!("{file}:")) && err.contains(says) && err.ends_with(&hint),
        "{err}"
    );
    let (code, _, err) = run(&["check", "--config", &path, "--k8s", &format!("{out}/base")]);
    assert!(code == Some(1) && err.ends_with(&hint), "{err}");
    assert_eq!(run(&["render", "--config", &path, "--out", &out]).0, Some(0));
    assert_eq!(run(&["check", "--config", &path, "--k8s", &out]).0, Some(0));
}

#[test]
fn an_unsound_manifest_is_a_problem_with_who_says_so() {
    let (_folder, path, out) = rendered();
    let mine = format!("{out}/overlays/mine/budget.yaml");
    std::fs::create_dir_all(format!("{out}/overlays/mine")).unwrap();
    let budget = "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata:\n  name: all\nspec:\n  \
                  maxUnavailable: 0\n  unhealthyPodEvictionPolicy: AlwaysAllow\n  selector:\n    matchLabels: {app: qa-agent}\n";
    std::fs::write(&mine, budget).unwrap();
    let (code, said, err) = run(&["check", "--config", &path, "--k8s", &out]);
    assert_eq!((code, said.as_str()), (Some(1), ""));
    let says = format!(
        "{mine}:6:19: PodDisruptionBudget all: maxUnavailable is 0, so that no pod may ever be \
         evicted [pdb-blocks-every-eviction] (maxUnavailable: 1)\n    see: Kubernetes documentation, "
    );
    assert!(err.starts_with(&says), "{err}");
    let arguments = ["check", "--config", &path, "--k8s", &out, "--format", "json"];
    let (code, said, err) = run(&arguments);
    assert_eq!((code, err.as_str()), (Some(1), ""));
    let findings: Value = serde_json::from_str(&said).unwrap();
    let [only] = findings.as_array().unwrap().as_slice() else { panic!("{said}") };
    assert_eq!(
        (&only["file"], &only["line"], &only["severity"]),
        (&mine.into(), &6.into(), &"error".into())
    );
    assert_eq!(only["id"], "pdb-blocks-every-eviction");
    assert!(only["source"].as_str().unwrap().contains("https://kubernetes.io/"));
    assert!(only["hint"].is_string() && only["col"] == 19 && only["message"].is_string());
}

#[test]
fn a_table_with_warnings_and_bad_manifests_are_told_together() {
    let (_folder, path, out) = rendered();
    edit(&path, "[agents.qa]", "[agents.qa]\nidle_timeout = \"10m\"");
    let (code, _, err) = run(&["check", "--config", &path, "--k8s", &out, "--strict"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("never fires") && err.contains("[different]"), "{err}");
}

#[test]
fn a_folder_that_is_not_there_is_a_problem() {
    let (_folder, path) = table(RUNS);
    let (code, _, err) = run(&["check", "--config", &path, "--k8s", "/nowhere/at/all"]);
    assert_eq!(code, Some(1));
    assert!(err.starts_with("/nowhere/at/all:1:1: can't be read: "), "{err}");
}
