//! YAML whose every value knows its line and column.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A value and where it is written.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) value: Value,
    /// From 1.
    pub(crate) line: usize,
    /// From 1, in characters.
    pub(crate) col: usize,
}

/// What a value is. Numbers that are no integers are `Float`; who needs them reads them as text.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

/// Why a text is no YAML, and where.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) line: usize,
    pub(crate) col: usize,
    pub(crate) why: String,
}

/// The documents of a YAML stream, empty ones left out.
pub(crate) fn read(yaml: &str) -> Result<Vec<Node>, Unreadable> {
    let documents: Vec<Placed> = serde_saphyr::from_multiple(yaml).map_err(|error| {
        let at = error.location();
        let place = |of: fn(&serde_saphyr::Location) -> u64| at.as_ref().map_or(1, of) as usize;
        // The rest of it is a drawing of the place.
        let why = error.to_string().lines().next().unwrap_or_default().to_owned();
        Unreadable { line: place(|at| at.line()).max(1), col: place(|at| at.column()).max(1), why }
    })?;
    Ok(documents.into_iter().map(Node::from).filter(|node| !node.is_null()).collect())
}

impl Node {
    /// The value of a key of this map. A null is no value.
    pub(crate) fn key(&self, name: &str) -> Option<&Node> {
        self.entry(name).map(|(_, value)| value).filter(|value| !value.is_null())
    }

    /// A key of this map as it is written, and its value.
    pub(crate) fn entry(&self, name: &str) -> Option<(&Node, &Node)> {
        let found = self.entries().iter().find(|(key, _)| key.text() == Some(name))?;
        Some((&found.0, &found.1))
    }

    /// The value at the end of keys that are separated by slashes.
    pub(crate) fn at(&self, path: &str) -> Option<&Node> {
        path.split('/').try_fold(self, |node, key| node.key(key))
    }

    /// The place of a path, or of as much of it as is written: where a missing field belongs. A
    /// list's or map's place is that of its key.
    pub(crate) fn nearest(&self, path: &str) -> &Node {
        let (mut node, mut place) = (self, self);
        for key in path.split('/') {
            let Some((written, value)) = node.entry(key) else { break };
            place = if value.is_collection() { written } else { value };
            node = value;
        }
        place
    }

    /// The text at the end of a path.
    pub(crate) fn text_at(&self, path: &str) -> Option<&str> {
        self.at(path)?.text()
    }

    /// The entries of a map; none of anything else.
    pub(crate) fn entries(&self) -> &[(Node, Node)] {
        if let Value::Map(entries) = &self.value { entries } else { &[] }
    }

    /// The elements of a list; none of anything else.
    pub(crate) fn list(&self) -> &[Node] {
        if let Value::List(elements) = &self.value { elements } else { &[] }
    }

    /// The elements of the list at the end of a path.
    pub(crate) fn list_at(&self, path: &str) -> &[Node] {
        self.at(path).map_or(&[], Node::list)
    }

    pub(crate) fn text(&self) -> Option<&str> {
        if let Value::Text(text) = &self.value { Some(text) } else { None }
    }

    pub(crate) fn int(&self) -> Option<i64> {
        if let Value::Int(number) = self.value { Some(number) } else { None }
    }

    /// The number at the end of a path.
    pub(crate) fn int_at(&self, path: &str) -> Option<i64> {
        self.at(path)?.int()
    }

    /// Whether this path leads to `true`.
    pub(crate) fn is_true(&self, path: &str) -> bool {
        self.bool_at(path) == Some(true)
    }

    pub(crate) fn bool_at(&self, path: &str) -> Option<bool> {
        if let Value::Bool(truth) = self.at(path)?.value { Some(truth) } else { None }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    fn is_collection(&self) -> bool {
        matches!(self.value, Value::List(_) | Value::Map(_))
    }
}

impl fmt::Display for Node {
    /// A scalar as people write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::Null => f.write_str("null"),
            Value::Bool(truth) => truth.fmt(f),
            Value::Int(number) => number.fmt(f),
            Value::Float(number) => number.fmt(f),
            Value::Text(text) => f.write_str(text),
            Value::List(_) => f.write_str("[…]"),
            Value::Map(_) => f.write_str("{…}"),
        }
    }
}

/// A node as the reader gives it: the place is around the value.
struct Placed(Spanned<Raw>);

enum Raw {
    Scalar(Value),
    List(Vec<Placed>),
    Map(Vec<(Placed, Placed)>),
}

impl From<Placed> for Node {
    fn from(Placed(spanned): Placed) -> Self {
        let value = match spanned.value {
            Raw::Scalar(value) => value,
            Raw::List(elements) => Value::List(elements.into_iter().map(Node::from).collect()),
            Raw::Map(entries) => Value::Map(
                entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
            ),
        };
        let at = spanned.referenced;
        Self { value, line: (at.line() as usize).max(1), col: (at.column() as usize).max(1) }
    }
}

impl<'de> Deserialize<'de> for Placed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Bool(truth)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Int(number)))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Raw, E> {
        let int = i64::try_from(number).map(Value::Int);
        Ok(Raw::Scalar(int.unwrap_or(Value::Float(number as f64))))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Float(number)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Text(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Raw, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = from.next_element()? {
            elements.push(element);
        }
        Ok(Raw::List(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = from.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str, path: &str, expected: (usize, usize)) {
        let documents = read(yaml).unwrap();
        let node = documents[0].nearest(path);
        assert_eq!((node.line, node.col), expected, "{path} of {yaml:?}");
    }

    #[test]
    fn a_value_knows_its_place() {
        check("a:\n  b: 1\n", "a/b", (2, 6));
        check("---\n# note\na:\n- x\n", "a", (3, 1));
        check("{\"a\": {\"b\": true}}", "a/b", (1, 13));
        check("a: |\n  text\n", "a", (2, 3));
    }

    #[test]
    fn what_is_missing_is_where_it_could_be() {
        check("a:\n  b: 1\n", "a/c", (1, 1));
        check("x: 1\na:\n  b:\n    c: 1\n", "a/b/d", (3, 3));
        check("x: 1\na: 2\n", "b", (1, 1));
    }

    #[test]
    fn a_path_leads_through_maps_only() {
        let node =
            read("a: {b: [1, 2], c: null, d: 'yes', e: 1.5, f: &x 7, g: *x}").unwrap().remove(0);
        assert_eq!(node.list_at("a/b").len(), 2);
        assert!(node.at("a/c").is_none() && node.at("a/b/c").is_none());
        assert_eq!((node.text_at("a/d"), node.int_at("a/g")), (Some("yes"), Some(7)));
        assert_eq!(node.at("a/e").unwrap().to_string(), "1.5");
    }

    #[test]
    fn what_is_no_yaml_says_where() {
        let error = read("a: 1\nb: [\n").unwrap_err();
        assert!(error.line >= 2 && !error.why.is_empty(), "{error:?}");
    }
}
