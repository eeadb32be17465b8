//! The manifests of `check --k8s`: what is in the folder, and what is wrong with it.

use std::path::{Path, PathBuf};
use std::{fs, io};

use config::Table;
use k8s::File;
use k8s::lint::Finding;

/// What of a rendered folder counts, beside files right in it: other folders there belong to
/// something else, such as tests.
const FOLDERS: [&str; 3] = ["base", "components", "overlays"];

/// What came of a folder.
pub(super) struct Inspected {
    /// Each with the path of its file, not only below the folder.
    pub(super) findings: Vec<Finding>,
    pub(super) files: usize,
    pub(super) objects: usize,
}

/// Compares the manifests in `folder` with the table in `config`, whose text is `text`, and judges
/// them.
///
/// # Errors
///
/// What can't be read, and why.
pub(super) fn inspect(
    (config, table, text): (&Path, &Table, &str),
    folder: &Path,
) -> Result<Inspected, (PathBuf, io::Error)> {
    let found = read(folder)?;
    let command = command(config, folder);
    let mut findings = k8s::drift(&k8s::render(table, text), &found, &command);
    findings.extend(k8s::lint::lint(table, &found));
    for finding in &mut findings {
        let path = if finding.file.is_empty() { folder } else { &folder.join(&finding.file) };
        finding.file = path.display().to_string();
    }
    findings.sort();
    let objects = k8s::lint::count(table, &found);
    Ok(Inspected { findings, files: found.len(), objects })
}

/// What makes the folder the table's. A base alone is a part of what `render` writes.
fn command(config: &Path, folder: &Path) -> String {
    let render = |out: &Path| {
        format!("switchyard render --config {} --out {}", config.display(), out.display())
    };
    match folder.parent().filter(|_| !folder.join("base").is_dir()) {
        None => render(folder),
        Some(parent) if folder.ends_with("base") => {
            render(if parent == Path::new("") { Path::new(".") } else { parent })
        }
        Some(_) => format!("{}, and take its base/", render(Path::new("DIR"))),
    }
}

/// The manifests of a folder, by their paths below it, in alphabetical order.
fn read(folder: &Path) -> Result<Vec<File>, (PathBuf, io::Error)> {
    let rendered = folder.join("base").is_dir();
    let mut paths = Vec::new();
    collect(folder, &mut paths, &|name| !rendered || FOLDERS.contains(&name))?;
    paths.sort();
    let file = |path: PathBuf| {
        let bytes = fs::read(&path).map_err(|error| (path.clone(), error))?;
        let parts: Vec<_> = path
            .strip_prefix(folder)
            .unwrap_or(&path)
            .iter()
            .map(|part| part.to_string_lossy())
            .collect();
        Ok(File { path: parts.join("/"), contents: String::from_utf8_lossy(&bytes).into_owned() })
    };
    paths.into_iter().map(file).collect()
}

/// Adds what may be a manifest. Links and hidden files are passed over, and of folders right in
/// this one those that `enter` doesn't name.
fn collect(
    folder: &Path,
    found: &mut Vec<PathBuf>,
    enter: &dyn Fn(&str) -> bool,
) -> Result<(), (PathBuf, io::Error)> {
    let failed = |error| (folder.to_owned(), error);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if kind.is_dir() && !name.starts_with('.') && enter(&name) {
            collect(&entry.path(), found, &|_| true)?;
        } else if kind.is_file() && is_manifest(&name) {
            found.push(entry.path());
        }
    }
    Ok(())
}

fn is_manifest(name: &str) -> bool {
    let known = [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end));
    !name.starts_with('.') && (known || name == "Kustomization")
}
