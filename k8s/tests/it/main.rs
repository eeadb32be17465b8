//! The manifests from outside: a table in, files out.

#![allow(clippy::unwrap_used)]

mod generated;

use std::path::{Path, PathBuf};

/// A path in this crate's folder.
fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
