//! What is rendered of our own table is committed and true.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::here;

#[test]
fn generated_manifests_of_our_own_table_are_committed() {
    let text = std::fs::read_to_string(here("../config/switchyard.toml")).unwrap();
    let table = config::parse(&text, "switchyard.toml").unwrap().table;
    let files = k8s::render(&table, &text);
    let rendered: BTreeSet<PathBuf> = files.iter().map(|file| here(&file.path)).collect();
    let folders = ["base", "components", "overlays"].map(here);
    let strays = || -> Vec<PathBuf> {
        let found = folders.iter().flat_map(|folder| marked(folder));
        found.filter(|path| !rendered.contains(path)).collect()
    };
    if std::env::var_os("UPDATE").is_some() {
        for file in &files {
            let path = here(&file.path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, &file.contents).unwrap();
        }
        strays().iter().for_each(|path| std::fs::remove_file(path).unwrap());
    }
    for file in &files {
        let was = std::fs::read_to_string(here(&file.path)).unwrap_or_default();
        assert!(
            was == file.contents,
            "k8s/{} is not what it should be; `UPDATE=1 cargo test -p k8s generated` refreshes it",
            file.path
        );
    }
    let strays = strays();
    assert!(strays.is_empty(), "rendered no more, `UPDATE=1` removes them: {strays:?}");
}

/// The files below a folder that begin as rendered ones do.
fn marked(folder: &std::path::Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.append(&mut marked(&path));
        } else if std::fs::read_to_string(&path).unwrap().starts_with(k8s::MARK) {
            found.insert(path);
        }
    }
    found
}
