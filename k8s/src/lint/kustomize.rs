//! What Kustomizations say of other files and objects: patches are no objects, but what they add is
//! there.

use std::collections::BTreeSet;

use super::node::{self, Node, Value};

/// The names of Kustomize's own files.
const FILES: [&str; 3] = ["Kustomization", "kustomization.yaml", "kustomization.yml"];

/// Lists of files that aren't applied as they are.
const LISTS: [&str; 8] = [
    "patches",
    "patchesStrategicMerge",
    "patchesJson6902",
    "replacements",
    "transformers",
    "configurations",
    "generators",
    "validators",
];

/// A part of an object: what is to be put on it, or a list of operations.
pub(crate) struct Patch {
    /// Kind and name of what is patched; of a list of operations its Kustomization says them.
    target: (Option<String>, Option<String>),
    body: Node,
}

impl Patch {
    /// A patch that names its object itself.
    pub(crate) fn of(body: Node) -> Self {
        let text = |path: &str| body.text_at(path).map(str::to_owned);
        Self { target: (text("kind"), text("metadata/name")), body }
    }

    /// A patch of what `target` names, or else of what it names itself.
    fn aimed(body: Node, target: Option<&Node>) -> Self {
        let of = Self::of(body);
        let text = |key: &str| target?.text_at(key).map(str::to_owned);
        let (kind, name) = of.target;
        Self { target: (text("kind").or(kind), text("name").or(name)), body: of.body }
    }

    /// Whether it may be for an object of this kind and name.
    pub(crate) fn is_of(&self, kind: &str, name: &str) -> bool {
        let (its_kind, its_name) = &self.target;
        its_kind.as_ref().is_none_or(|its| its == kind)
            && its_name.as_ref().is_none_or(|its| its == name)
    }

    /// Every port of a container that it has.
    pub(crate) fn ports(&self) -> Vec<&Node> {
        let (mut found, mut rest) = (Vec::new(), vec![&self.body]);
        while let Some(node) = rest.pop() {
            if node.key("containerPort").is_some() {
                found.push(node);
            }
            match &node.value {
                Value::Map(entries) => rest.extend(entries.iter().map(|(_, value)| value)),
                Value::List(elements) => rest.extend(elements),
                _ => {}
            }
        }
        found
    }
}

/// The files that Kustomizations name as patches, or as anything else that isn't applied as it is;
/// and the patches that stand in them.
pub(crate) fn patches(read: &[(&str, Vec<Node>)]) -> (BTreeSet<String>, Vec<Patch>) {
    let (mut files, mut patches) = (BTreeSet::new(), Vec::new());
    for (path, documents) in read {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        if !FILES.contains(&name) {
            continue;
        }
        let lists = documents.iter().flat_map(|file| LISTS.map(|list| file.list_at(list)));
        for entry in lists.flatten() {
            if let Some(file) = entry.text_at("path").or_else(|| entry.text()) {
                files.insert(joined(folder, file));
            }
            let inline = entry.text_at("patch").and_then(|patch| node::read(patch).ok());
            let target = entry.key("target");
            patches.extend(inline.into_iter().flatten().map(|body| Patch::aimed(body, target)));
        }
    }
    (files, patches)
}

/// A path as seen from a folder, without `.` and `..`.
fn joined(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
