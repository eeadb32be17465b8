//! `switchyard render`: what it prints, and what it does to a folder.

use std::fs;
use std::path::Path;

use crate::run;

const TABLE: &str = r#"
[agents.qa]
service = "qa-agent"

[agents.qa.deployment]
command = ["agent", "--type", "qa"]

[agents.old]
service = "old-agent"

[agents.old.deployment]
command = ["old"]
"#;

fn table(folder: &Path, text: &str) -> String {
    let path = folder.join("table.toml");
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn the_base_goes_to_stdout_in_the_order_of_applying() {
    let folder = tempfile::tempdir().unwrap();
    let (code, out, err) = run(&["render", "--config", &table(folder.path(), TABLE)]);
    assert_eq!(code, Some(0), "{err}");
    let objects = k8s::documents(&out).unwrap();
    assert_eq!(objects[0]["kind"], "Namespace");
    let is_kustomize = |object: &serde_json::Value| object["kind"] == "Kustomization";
    assert!(!objects.iter().any(is_kustomize));
    let named = |name: &str| objects.iter().any(|object| object["metadata"]["name"] == name);
    assert!(named("qa-agent") && named("old-agent") && named("switchyard"));
}

#[test]
fn a_folder_follows_the_table_and_what_is_not_rendered_stays() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("k8s");
    let shown = out.display().to_string();
    let render = |text| run(&["render", "--config", &table(folder.path(), text), "--out", &shown]);

    let (code, _, err) = render(TABLE);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.join("overlays/production/Kustomization").exists());
    let own = out.join("base/40-own.yaml");
    fs::write(&own, "kind: Mine\n").unwrap();
    let taken = out.join("components/production/Kustomization");
    fs::write(&taken, "kind: Component # mine\n").unwrap();

    let (shorter, _) = TABLE.split_once("[agents.old]").unwrap();
    let (code, summary, err) = render(shorter);
    assert_eq!(code, Some(0), "{err}");
    assert!(summary.contains("1 removed") && summary.contains("1 left alone"), "{summary}");
    assert!(!out.join("base/30-old-agent.yaml").exists(), "rendered once, and not any more");
    assert!(out.join("base/30-qa-agent.yaml").exists());
    assert_eq!(fs::read_to_string(own).unwrap(), "kind: Mine\n");
    assert_eq!(fs::read_to_string(taken).unwrap(), "kind: Component # mine\n");

    let (code, summary, _) = render(shorter);
    assert_eq!(code, Some(0));
    assert!(summary.contains("0 files written"), "the same again: {summary}");
}

#[test]
fn what_is_not_rendered_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[agents.lone]\nendpoints = [\"http://127.0.0.1:1\"]\n\
                [agents.lone.deployment]\ncommand = [\"lone\"]\n";
    let (code, _, err) = run(&["render", "--config", &table(folder.path(), text)]);
    assert_eq!(code, Some(0));
    assert!(err.contains("note: agents.lone: nothing is rendered: it has no `service`"), "{err}");
}

#[test]
fn a_table_that_no_config_map_holds_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{TABLE}# {}\n", "x".repeat(1 << 20));
    let (code, out, err) = run(&["render", "--config", &table(folder.path(), &text)]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("a ConfigMap holds 1 MiB"), "{err}");
}

#[test]
fn a_bad_table_renders_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("k8s");
    let bad = table(folder.path(), "[agents.qa]\nservise = \"x\"\n");
    let (code, _, err) = run(&["render", "--config", &bad, "--out", &out.display().to_string()]);
    assert_eq!(code, Some(1));
    assert!(err.contains("servise"), "{err}");
    assert!(!out.exists());
}
