//! The manifests from outside: a table in, files out.

#![allow(clippy::unwrap_used)]

mod agents;
mod drift;
mod faults;
mod gateway;
mod generated;
mod lint;
mod overlays;

use std::path::{Path, PathBuf};

use config::Table;
use serde_json::Value;

/// A path in this crate's folder.
fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn table(text: &str) -> Table {
    config::parse(text, "table.toml").unwrap_or_else(|problems| panic!("{problems:#?}")).table
}

/// What a table is rendered as.
struct Rendered {
    files: Vec<k8s::File>,
}

fn render(text: &str) -> Rendered {
    Rendered { files: k8s::render(&table(text), text) }
}

impl Rendered {
    fn text(&self, path: &str) -> &str {
        let file = self.files.iter().find(|file| file.path == path);
        &file.unwrap_or_else(|| panic!("no {path}")).contents
    }

    /// The base's objects, in the order in which they are applied.
    fn objects(&self) -> Vec<Value> {
        let base =
            |file: &&k8s::File| file.path.starts_with("base/") && file.path.ends_with(".yaml");
        let base = self.files.iter().filter(base);
        base.flat_map(|file| k8s::documents(&file.contents).unwrap()).collect()
    }

    fn find(&self, kind: &str, name: &str) -> Option<Value> {
        let same = |object: &Value| object["kind"] == kind && object["metadata"]["name"] == name;
        self.objects().into_iter().find(same)
    }

    fn get(&self, kind: &str, name: &str) -> Value {
        self.find(kind, name).unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    /// The pod template of a Deployment.
    fn pod(&self, name: &str) -> Value {
        self.get("Deployment", name)["spec"]["template"]["spec"].clone()
    }

    fn container(&self, name: &str) -> Value {
        self.pod(name)["containers"][0].clone()
    }

    /// A variable's value, or where it comes from.
    fn env(&self, name: &str, variable: &str) -> Option<Value> {
        let all = self.container(name)["env"].clone();
        let all = all.as_array().cloned().unwrap_or_default();
        let mut found = all.into_iter().filter(|entry| entry["name"] == variable);
        let one = found.next()?;
        assert!(found.next().is_none(), "{variable} stands there twice");
        Some(one.get("value").unwrap_or(&one["valueFrom"]).clone())
    }
}
