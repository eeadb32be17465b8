//! One definition per section of the table: `section!` makes the type as written, its reader, its
//! merging with what stands under it, and the list of keys that schema and reference page print.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::DeValue;

use crate::reader::{Origin, Reader};

/// A value and where it was written: a table or a map's entry at its key, anything else itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) at: Origin,
}

/// What a key can hold.
pub(crate) trait Kind {
    /// As read.
    type Value: Clone;

    /// How schema and reference page describe it.
    fn shape() -> Shape;

    /// Reads it, or tells the reader why not.
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self::Value>;

    /// Puts one over another. Tables merge key by key, anything else replaces.
    fn merge(over: Self::Value, _under: &Self::Value) -> Self::Value {
        over
    }

    /// Puts it over the built-in defaults of the sections in it.
    fn fill(value: Self::Value) -> Self::Value {
        value
    }
}

/// What a key can hold, for people and editors.
pub(crate) enum Shape {
    /// A single value.
    Leaf(Leaf),
    /// A table of known keys.
    Section(Section),
    /// `"off"`, or.
    OrOff(Box<Shape>),
    /// An array.
    List(Box<Shape>),
    /// A table whose keys are the user's.
    Map {
        /// What stands for a key on the reference page.
        name: &'static str,
        /// What a key must be.
        key: Leaf,
        /// What stands under it.
        value: Box<Shape>,
    },
}

/// A single value, for people and editors.
pub(crate) struct Leaf {
    /// With its article: `a duration`.
    pub(crate) noun: String,
    /// As written in the file, quotes included.
    pub(crate) example: String,
    /// What an editor checks.
    pub(crate) schema: serde_json::Value,
    /// The words it is one of, each with its meaning; empty when it is none of a few words.
    pub(crate) words: Vec<(&'static str, &'static str)>,
}

impl Leaf {
    /// A value that isn't one of a few words.
    pub(crate) fn new(
        noun: impl Into<String>,
        example: impl Into<String>,
        schema: serde_json::Value,
    ) -> Self {
        Self { noun: noun.into(), example: example.into(), schema, words: Vec::new() }
    }
}

/// A table of known keys, for people and editors.
pub(crate) struct Section {
    /// What the schema calls it.
    pub(crate) name: &'static str,
    /// What it is about.
    pub(crate) about: &'static str,
    /// Its keys in the order of the reference page.
    pub(crate) fields: Vec<Field>,
}

/// A key, for people and editors.
pub(crate) struct Field {
    /// As written in the file.
    pub(crate) key: &'static str,
    /// What it means.
    pub(crate) doc: String,
    /// What it can hold.
    pub(crate) shape: Shape,
    /// Its built-in default, as written in a file.
    pub(crate) default: Option<&'static str>,
    /// Its built-in default in words, where other keys decide.
    pub(crate) computed: Option<&'static str>,
    /// A value, as written in a file.
    pub(crate) example: Option<String>,
    /// The section is nothing without it.
    pub(crate) needed: bool,
}

impl Shape {
    /// The section that it is, or may be.
    pub(crate) fn section(&self) -> Option<&Section> {
        match self {
            Self::Section(section) => Some(section),
            Self::OrOff(inner) | Self::List(inner) => inner.section(),
            Self::Leaf(_) | Self::Map { .. } => None,
        }
    }

    /// Something to write there.
    pub(crate) fn example(&self) -> String {
        match self {
            Self::Leaf(leaf) => leaf.example.split(" or ").next().unwrap_or_default().to_owned(),
            _ => self.section().map_or_else(String::new, Section::example),
        }
    }

    /// Where in the whole table a key of this name would be right, each as the path to its section.
    pub(crate) fn sections_with(&self, key: &str) -> Vec<Vec<&'static str>> {
        let mut found = Vec::new();
        self.collect_sections_with(key, &mut Vec::new(), &mut found);
        found
    }

    fn collect_sections_with(
        &self,
        key: &str,
        path: &mut Vec<&'static str>,
        found: &mut Vec<Vec<&'static str>>,
    ) {
        match self {
            Self::Leaf(_) => {}
            Self::OrOff(inner) | Self::List(inner) => inner.collect_sections_with(key, path, found),
            Self::Map { name, value, .. } => {
                path.push(name);
                value.collect_sections_with(key, path, found);
                path.pop();
            }
            Self::Section(section) => {
                if !path.is_empty() && section.fields.iter().any(|field| field.key == key) {
                    found.push(path.clone());
                }
                for field in &section.fields {
                    path.push(field.key);
                    field.shape.collect_sections_with(key, path, found);
                    path.pop();
                }
            }
        }
    }
}

/// `"off"`, or a value of the kind.
pub(crate) struct OrOff<K>(std::marker::PhantomData<K>);

/// An array of the kind.
pub(crate) struct List<K>(std::marker::PhantomData<K>);

/// A table with keys of one kind and values of another.
pub(crate) struct Map<N, K>(std::marker::PhantomData<(N, K)>);

/// What the keys of a [`Map`] must be.
pub(crate) trait Name {
    /// Placeholder on the reference page.
    const PLACEHOLDER: &'static str;

    /// How schema and reference page describe it.
    fn leaf() -> Leaf;

    /// What is wrong with it, and what to write instead.
    fn check(name: &str) -> Result<(), (String, Option<String>)>;
}

impl<K: Kind> Kind for OrOff<K> {
    type Value = Option<K::Value>;

    fn shape() -> Shape {
        Shape::OrOff(Box::new(K::shape()))
    }

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self::Value> {
        match value.get_ref() {
            DeValue::String(text) if text == "off" => Some(None),
            DeValue::Boolean(false) => {
                let message = format!("`{}` is switched off with a word", reader.key());
                reader.say(value, message, Some("write \"off\"".to_owned()));
                None
            }
            _ => {
                reader.or_off = true;
                let read = K::read(value, reader);
                reader.or_off = false;
                read.map(Some)
            }
        }
    }

    fn merge(over: Self::Value, under: &Self::Value) -> Self::Value {
        match (over, under) {
            (Some(over), Some(under)) => Some(K::merge(over, under)),
            (over, _) => over,
        }
    }

    fn fill(value: Self::Value) -> Self::Value {
        value.map(K::fill)
    }
}

impl<K: Kind> Kind for List<K> {
    type Value = Vec<At<K::Value>>;

    fn shape() -> Shape {
        Shape::List(Box::new(K::shape()))
    }

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self::Value> {
        let Some(items) = value.get_ref().as_array() else {
            let message = format!("`{}` takes an array", reader.key());
            let hint = format!("for example [{}]", K::shape().example());
            reader.say(value, message, Some(hint));
            return None;
        };
        let mut read = Vec::with_capacity(items.len());
        let mut whole = true;
        for item in items {
            match K::read(item, reader) {
                Some(value) => read.push(At { value, at: reader.origin(item.span().start) }),
                None => whole = false,
            }
        }
        whole.then_some(read)
    }

    fn fill(value: Self::Value) -> Self::Value {
        value.into_iter().map(|At { value, at }| At { value: K::fill(value), at }).collect()
    }
}

impl<N: Name, K: Kind> Kind for Map<N, K> {
    type Value = BTreeMap<String, At<K::Value>>;

    fn shape() -> Shape {
        Shape::Map { name: N::PLACEHOLDER, key: N::leaf(), value: Box::new(K::shape()) }
    }

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self::Value> {
        let table = reader.table(value, || "a table".to_owned())?;
        let mut read = BTreeMap::new();
        for (key, value) in table {
            let at = reader.origin(key.span().start);
            if let Err((message, hint)) = N::check(key.get_ref()) {
                reader.notes.add(at, message, hint);
            }
            if let Some(At { value, .. }) = reader.field::<K>(key, value) {
                read.insert(key.get_ref().to_string(), At { value, at });
            }
        }
        Some(read)
    }

    fn merge(mut over: Self::Value, under: &Self::Value) -> Self::Value {
        for (key, value) in under {
            over.entry(key.clone()).or_insert_with(|| value.clone());
        }
        over
    }

    fn fill(value: Self::Value) -> Self::Value {
        value
            .into_iter()
            .map(|(key, At { value, at })| (key, At { value: K::fill(value), at }))
            .collect()
    }
}

/// One key of two sections, the upper over the lower.
pub(crate) fn merge_field<K: Kind>(
    over: Option<At<K::Value>>,
    under: Option<&At<K::Value>>,
) -> Option<At<K::Value>> {
    match (over, under) {
        (Some(over), Some(under)) => {
            Some(At { value: K::merge(over.value, &under.value), at: over.at })
        }
        (over, under) => over.or_else(|| under.cloned()),
    }
}

/// A built-in default from its spelling. `None` when it can't be read, which a test rules out.
pub(crate) fn built_in<K: Kind>(spelling: &str) -> Option<At<K::Value>> {
    let value = DeValue::parse(spelling).ok()?;
    let mut notes = crate::reader::Notes::default();
    let read = K::read(&value, &mut Reader::new(&mut notes, K::shape))?;
    Some(At { value: K::fill(read), at: Origin::BuiltIn })
}

/// Tokens as they stand in a line: `stringify!` breaks long ones.
pub(crate) fn one_line(tokens: &str) -> String {
    tokens.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Defines a section: `/// about` `Name { /// doc` `key: Kind = default => "computed default"; eg
/// example, … }`.
macro_rules! section {
    ($(#[doc = $about:literal])* $name:ident {
        $($(#[doc = $doc:literal])* $key:ident: $kind:ty $(as $needed:ident)?
            $(= $default:tt)? $(=> $computed:literal)? $(; eg $example:tt)?,)*
    }) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, Default)]
        pub(crate) struct $name {
            $($(#[doc = $doc])* pub(crate) $key: Option<At<<$kind as Kind>::Value>>,)*
            /// Something in it could not be read: what isn't there may still have been meant.
            pub(crate) partial: bool,
        }

        impl $name {
            $($(
                #[doc = concat!("By default `", stringify!($default), "`; once filled.")]
                pub(crate) fn $key(&self) -> &At<<$kind as Kind>::Value> {
                    self.$key.as_ref().expect("a filled section has every key with a default")
                }
            )?)*
        }

        impl Kind for $name {
            type Value = Self;

            fn shape() -> Shape {
                Shape::Section(Section {
                    name: stringify!($name),
                    about: concat!($($about),*).trim(),
                    fields: vec![$(Field {
                        key: stringify!($key),
                        doc: concat!($($doc),*).trim().to_owned(),
                        shape: <$kind as Kind>::shape(),
                        default: None$(.or(Some(stringify!($default))))?,
                        computed: None$(.or(Some($computed)))?,
                        example: None$(.or(Some(one_line(stringify!($example)))))?,
                        needed: false $(|| stringify!($needed) == "needed")?,
                    }),*],
                })
            }

            fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
                let mut section = Self::default();
                let table = reader.table(value, || Self::shape().example())?;
                for (key, value) in table {
                    let read = match key.get_ref().as_ref() {
                        $(stringify!($key) => {
                            section.$key = reader.field::<$kind>(key, value);
                            section.$key.is_some()
                        })*
                        _ => {
                            reader.unknown(key, &[$(stringify!($key)),*]);
                            false
                        }
                    };
                    section.partial |= !read;
                }
                Some(section)
            }

            fn merge(over: Self, under: &Self) -> Self {
                Self {
                    $($key: merge_field::<$kind>(over.$key, under.$key.as_ref()),)*
                    partial: over.partial || under.partial,
                }
            }

            fn fill(mut value: Self) -> Self {
                static BUILT_IN: std::sync::LazyLock<$name> = std::sync::LazyLock::new(|| $name {
                    $($key: None$(.or_else(|| built_in::<$kind>(stringify!($default))))?,)*
                    partial: false,
                });
                value = Self::merge(value, &BUILT_IN);
                $(value.$key = value.$key.map(|key| At {
                    value: <$kind as Kind>::fill(key.value),
                    at: key.at,
                });)*
                value
            }
        }
    };
}
pub(crate) use section;

impl Section {
    /// The smallest thing to write in its place.
    pub(crate) fn example(&self) -> String {
        let needed = self.fields.iter().find(|field| field.needed);
        let typical = || self.fields.iter().find(|f| f.example.is_some() && f.default.is_none());
        let any = || self.fields.iter().find(|field| field.default.is_some());
        let field = needed.or_else(typical).or_else(any);
        let value = |field: &Field| Some(field.example.as_deref().or(field.default)?.to_owned());
        field
            .and_then(|field| Some(format!("{{ {} = {} }}", field.key, value(field)?)))
            .unwrap_or_else(|| "{}".to_owned())
    }
}
