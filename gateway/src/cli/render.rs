//! `switchyard render`: the Kubernetes manifests of a table, to stdout or into a folder.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use k8s::File;

use super::load::load_text_or_explain;
use super::{terminal, units};

/// What of a folder is ours: files in or below these that bear the mark. Others are never touched.
const FOLDERS: [&str; 3] = ["base", "components", "overlays"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The table.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Write a Kustomize folder here, instead of the base's documents to stdout.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Exit code 0 when everything was written, 1 when the table has problems or a file can't be
/// written.
pub(crate) fn run(args: &Args) -> ExitCode {
    let Some((checked, text)) = load_text_or_explain(&args.config) else {
        return ExitCode::FAILURE;
    };
    if text.len() > k8s::CONFIG_MAP_MAX {
        let (file, size) = (args.config.display(), units::bytes(text.len() as u64));
        eprintln!("error: {file} has {size}, and a ConfigMap holds 1 MiB");
        return ExitCode::FAILURE;
    }
    k8s::notes(&checked.table).iter().for_each(|note| eprintln!("note: {note}"));
    let files = k8s::render(&checked.table, &text);
    match &args.out {
        None => terminal::print(&documents(&files)),
        Some(folder) => match write(folder, &files) {
            Ok(done) => terminal::print(&format!("{}: {}\n", folder.display(), done.summary())),
            Err((path, error)) => {
                eprintln!("error: {}: {error}", path.display());
                ExitCode::FAILURE
            }
        },
    }
}

/// The base as one stream, for `kubectl apply -f -`: in order, without Kustomize's own file.
fn documents(files: &[File]) -> String {
    let objects = files
        .iter()
        .filter(|file| file.path.starts_with("base/") && file.path.ends_with(".yaml"))
        .map(|file| file.contents.as_str());
    objects.collect::<Vec<_>>().join("---\n")
}

/// What was done to a folder, in numbers of files.
#[derive(Default)]
struct Done {
    written: usize,
    unchanged: usize,
    removed: usize,
    left: usize,
}

impl Done {
    fn summary(&self) -> String {
        let mut text = format!("{} written", units::counted(self.written, "file"));
        let others =
            [(self.unchanged, "unchanged"), (self.removed, "removed"), (self.left, "left alone")];
        for (count, what) in others.into_iter().filter(|(count, _)| *count > 0) {
            text.push_str(&format!(", {count} {what}"));
        }
        text
    }
}

type Failed = (PathBuf, io::Error);

/// Makes a folder hold these files: writes what differs, removes what was rendered once and isn't
/// any more, and leaves alone what doesn't bear the mark.
fn write(folder: &Path, files: &[File]) -> Result<Done, Failed> {
    let mut done = Done::default();
    for file in files {
        let path = folder.join(&file.path);
        match present(&path)? {
            Some(text) if text == file.contents.as_bytes() => done.unchanged += 1,
            Some(text) if !is_marked(&text) => {
                eprintln!("note: {} doesn't begin as rendered: left alone", path.display());
                done.left += 1;
            }
            _ => {
                put(&path, &file.contents).map_err(|error| (path, error))?;
                done.written += 1;
            }
        }
    }
    let wanted: BTreeSet<PathBuf> = files.iter().map(|file| folder.join(&file.path)).collect();
    for name in FOLDERS {
        for path in below(&folder.join(name))?.difference(&wanted) {
            if present(path)?.is_some_and(|text| is_marked(&text)) {
                std::fs::remove_file(path).map_err(|error| (path.clone(), error))?;
                eprintln!("note: {} removed", path.display());
                done.removed += 1;
            }
        }
    }
    Ok(done)
}

fn is_marked(text: &[u8]) -> bool {
    text.starts_with(k8s::MARK.as_bytes())
}

fn present(path: &Path) -> Result<Option<Vec<u8>>, Failed> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err((path.to_owned(), error)),
    }
}

fn put(path: &Path, contents: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, contents)
}

/// All files below a folder; links are not followed.
fn below(folder: &Path) -> Result<BTreeSet<PathBuf>, Failed> {
    let failed = |error| (folder.to_owned(), error);
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            found.append(&mut below(&entry.path())?);
        } else if kind.is_file() {
            found.insert(entry.path());
        }
    }
    Ok(found)
}
