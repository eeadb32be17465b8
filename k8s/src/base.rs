//! The folder: which files there are, and in which order `kubectl apply -f` takes them.

use config::Table;
use serde_json::{Value, json};

use crate::{File, MARK, agent, gateway, object, overlays, plan, yaml};

/// All files of the table whose text is `text`: the Kustomize base, in the order in which it is to
/// be applied, then components and overlays. The same table always gives the same bytes.
#[must_use]
pub fn render(table: &Table, text: &str) -> Vec<File> {
    let mut files: Vec<File> = manifests(table, text)
        .into_iter()
        .map(|(name, objects)| file(&format!("base/{name}"), &objects))
        .collect();
    let names: Vec<_> =
        files.iter().map(|file| file.path.trim_start_matches("base/").to_owned()).collect();
    // Without an extension: `kubectl apply -f` on the folder leaves it alone, `-k` finds it.
    files.push(file(
        "base/Kustomization",
        &[json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": names,
        })],
    ));
    files.extend(overlays::files(table));
    files
}

/// The files with objects. Numbers put namespaces first: `kubectl apply -f` takes a folder's files
/// by name.
fn manifests(table: &Table, text: &str) -> Vec<(String, Vec<Value>)> {
    let own = table.kubernetes.namespace.as_str();
    let made = plan::namespaces(table).into_iter().filter(|name| !plan::is_given(name));
    let namespaces: Vec<_> = made.map(|name| object::namespace(name, name == own)).collect();
    let mut files = vec![
        ("00-namespace.yaml".to_owned(), namespaces),
        ("10-table.yaml".to_owned(), vec![gateway::config_map(table, text)]),
        ("20-switchyard.yaml".to_owned(), gateway::objects(table)),
    ];
    for run in plan::runs(table) {
        let workload = run.workload;
        let place = if workload.namespace == table.kubernetes.namespace {
            workload.name.to_owned()
        } else {
            format!("{}.{}", workload.name, workload.namespace)
        };
        files.push((format!("30-{place}.yaml"), agent::objects(&run, plan::gateway(table))));
    }
    files.retain(|(_, objects)| !objects.is_empty());
    files
}

/// A file as all of them are: the mark, then the objects.
pub(crate) fn file(path: &str, objects: &[Value]) -> File {
    File { path: path.to_owned(), contents: format!("{MARK}\n{}", yaml::stream(objects)) }
}
