//! YAML: objects to text and text to objects.

use serde_json::Value;
use serde_saphyr::SerializerOptions;

/// Text that is no YAML, and where it stops being it.
#[derive(Debug)]
pub struct Unreadable(serde_saphyr::Error);

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Unreadable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// The documents of a YAML stream, in order. Empty ones are left out.
///
/// # Errors
///
/// When the text is no YAML, or holds what JSON can't (a key that is no string).
pub fn documents(yaml: &str) -> Result<Vec<Value>, Unreadable> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).map_err(Unreadable)?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// One YAML stream of these objects, each key in the order in which it was written.
pub(crate) fn stream(objects: &[Value]) -> String {
    let mut text = String::new();
    for (n, object) in objects.iter().enumerate() {
        if n > 0 {
            text.push_str("---\n");
        }
        text.push_str(&document(object));
    }
    text
}

/// One object. What the emitter can't say exactly (odd line ends in the table) is said as JSON,
/// which is YAML too.
pub(crate) fn document(object: &Value) -> String {
    let mut options = SerializerOptions::default();
    options.prefer_block_scalars = true;
    options.folded_wrap_chars = usize::MAX;
    let mut text = String::new();
    let written = serde_saphyr::to_fmt_writer_with_options(&mut text, object, options);
    let exact = written.is_ok() && documents(&text).is_ok_and(|read| read == [object.clone()]);
    if !exact {
        text = format!("{object:#}");
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}
