//! A message's header fields on their way through: a list in the order of the lines, not a map.
//!
//! Nearly every field is passed on as it came, and few are ever asked for. So a field is two places
//! in the bytes of its head, names that the gateway has to do with are known by number, and what
//! it adds is put behind. Nothing is hashed, and nothing allocated: the memory of a message that
//! is gone serves the next one of the thread.

mod name;
mod spare;
#[cfg(test)]
mod tests;

use std::ops::Range;

use http::header::{HeaderMap, HeaderName, HeaderValue};

pub use self::name::{Name, Names};

/// See the module.
#[derive(Debug, Default)]
pub struct Fields {
    /// The head that came, with its names in lower case, and what was added.
    raw: Vec<u8>,
    list: Vec<Field>,
    /// A bit for each [`Name`] that may be there, so that most questions need no look.
    present: u64,
}

#[derive(Debug, Clone, Copy)]
struct Field {
    known: Option<Name>,
    name: Span,
    value: Span,
}

/// A part of [`Fields::raw`].
#[derive(Debug, Clone, Copy)]
struct Span {
    begin: u32,
    end: u32,
}

impl Span {
    /// A head is far smaller than 4 GiB.
    fn new(range: &Range<usize>) -> Self {
        Self { begin: range.start as u32, end: range.end as u32 }
    }

    fn of(self, raw: &[u8]) -> &[u8] {
        &raw[self.begin as usize..self.end as usize]
    }
}

impl Field {
    fn is(&self, name: Name) -> bool {
        self.known == Some(name)
    }

    fn name<'a>(&self, raw: &'a [u8]) -> &'a [u8] {
        self.known.map_or_else(|| self.name.of(raw), |known| known.as_str().as_bytes())
    }

    fn line<'a>(&self, raw: &'a [u8]) -> Line<'a> {
        Line { known: self.known, name: self.name(raw), value: self.value.of(raw) }
    }
}

/// One line of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its name, where that is one of ours.
    pub known: Option<Name>,
    /// Its name, in lower case.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
}

impl Fields {
    /// No fields yet, of the head whose bytes these are.
    #[must_use]
    pub fn of_head(head: &[u8]) -> Self {
        let mut fields = spare::take();
        fields.raw.extend_from_slice(head);
        fields
    }

    /// Adds a line whose name and value stand at these places of the head; both are as RFC 9110
    /// (section 5) has them.
    pub fn read(&mut self, name: Range<usize>, value: Range<usize>) {
        let (at, value) = (Span::new(&name), Span::new(&value));
        let name = &mut self.raw[name];
        name.make_ascii_lowercase();
        let known = Name::of(name);
        self.add(Field { known, name: at, value });
    }

    /// Whether there is such a line.
    #[must_use]
    pub fn contains(&self, name: Name) -> bool {
        self.find(name).is_some()
    }

    /// The value of the first such line.
    #[must_use]
    pub fn get(&self, name: Name) -> Option<&[u8]> {
        self.find(name).map(|field| field.value.of(&self.raw))
    }

    /// The values of all such lines.
    pub fn all(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        let list = if self.may_have(name) { self.list.as_slice() } else { &[] };
        list.iter().filter(move |field| field.is(name)).map(|field| field.value.of(&self.raw))
    }

    /// The first value of a field whose name, in whatever case, the table says.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&[u8]> {
        let is = |line: &Line<'_>| line.name.eq_ignore_ascii_case(name.as_bytes());
        self.lines().find(is).map(|line| line.value)
    }

    /// All lines, in their order.
    pub fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.list.iter().map(|field| field.line(&self.raw))
    }

    /// Adds a line. The value must be fit for one.
    pub fn push(&mut self, name: Name, value: &[u8]) {
        let value = self.put(value);
        self.add(Field { known: Some(name), name: value, value });
    }

    /// Makes this the only line of that name.
    pub fn set(&mut self, name: Name, value: &[u8]) {
        self.remove(name);
        self.push(name, value);
    }

    /// Makes a line with the value of another the only one of its name.
    pub fn copy(&mut self, from: Name, to: Name) {
        if let Some(value) = self.find(from).map(|field| field.value) {
            self.remove(to);
            self.add(Field { known: Some(to), name: value, value });
        }
    }

    /// Takes every line of that name out.
    pub fn remove(&mut self, name: Name) {
        if self.may_have(name) {
            self.list.retain(|field| !field.is(name));
            self.present &= !name.bit();
        }
    }

    /// Whether there may be a line of one of these names; if not, there is none.
    #[must_use]
    pub fn may_have_any(&self, names: Names) -> bool {
        self.present & names.bits() != 0
    }

    /// Takes every line of these names out.
    pub fn remove_all(&mut self, names: Names) {
        if self.may_have_any(names) {
            self.list.retain(|field| !field.known.is_some_and(|name| names.contains(name)));
            self.present &= !names.bits();
        }
    }

    /// Keeps the lines for which `keep` says so.
    pub fn retain(&mut self, keep: impl Fn(Line<'_>) -> bool) {
        let raw = &self.raw;
        self.list.retain(|field| keep(field.line(raw)));
    }

    /// Changes the values of that name for which `change` has another.
    pub fn change(&mut self, name: Name, change: impl Fn(&[u8]) -> Option<Vec<u8>>) {
        if !self.may_have(name) {
            return;
        }
        for at in 0..self.list.len() {
            let field = self.list[at];
            if let Some(changed) =
                field.is(name).then(|| change(field.value.of(&self.raw))).flatten()
            {
                self.list[at].value = self.put(&changed);
            }
        }
    }

    fn add(&mut self, field: Field) {
        self.present |= field.known.map_or(0, Name::bit);
        self.list.push(field);
    }

    fn put(&mut self, value: &[u8]) -> Span {
        let begin = self.raw.len();
        self.raw.extend_from_slice(value);
        Span::new(&(begin..self.raw.len()))
    }

    fn may_have(&self, name: Name) -> bool {
        self.present & name.bit() != 0
    }

    fn find(&self, name: Name) -> Option<&Field> {
        let list = if self.may_have(name) { self.list.as_slice() } else { &[] };
        list.iter().find(|field| field.is(name))
    }
}

/// Of lines that are put down as text, as in tests.
impl<'a> FromIterator<(&'a str, &'a str)> for Fields {
    fn from_iter<T: IntoIterator<Item = (&'a str, &'a str)>>(lines: T) -> Self {
        let mut fields = Self::of_head(&[]);
        for (name, value) in lines {
            let begin = fields.raw.len();
            fields.raw.extend_from_slice(name.as_bytes());
            let end = fields.raw.len();
            fields.raw.extend_from_slice(value.as_bytes());
            fields.read(begin..end, end..end + value.len());
        }
        fields
    }
}

/// Of a message over HTTP/2, or one that the gateway itself made.
impl From<&HeaderMap> for Fields {
    fn from(map: &HeaderMap) -> Self {
        let mut fields = Self::of_head(&[]);
        for (name, value) in map {
            let known = Name::of(name.as_str().as_bytes());
            let name = match known {
                Some(_) => Span { begin: 0, end: 0 },
                None => fields.put(name.as_str().as_bytes()),
            };
            let value = fields.put(value.as_bytes());
            fields.add(Field { known, name, value });
        }
        fields
    }
}

/// For HTTP/2.
impl From<&Fields> for HeaderMap {
    fn from(fields: &Fields) -> Self {
        let mut map = HeaderMap::with_capacity(fields.list.len());
        for line in fields.lines() {
            // What came as a field can be one again.
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(line.name), HeaderValue::from_bytes(line.value))
            {
                map.append(name, value);
            }
        }
        map
    }
}

impl Drop for Fields {
    fn drop(&mut self) {
        spare::give_back(self);
    }
}
