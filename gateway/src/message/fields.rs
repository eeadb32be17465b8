//! A message's header fields on their way through: a list in the order of the lines, not a map.
//!
//! Nearly every field is passed on as it came, and few are ever asked for. So a field is a line among
//! the bytes of its head, names that the gateway has to do with are known by number, and what it
//! adds are more lines behind. Nothing is hashed, nothing allocated for each field, and lines that
//! stand together go out together. The memory of a message that is gone serves the next one of
//! the thread.

mod name;
mod spare;
#[cfg(test)]
mod tests;

use std::ops::{Deref, DerefMut, Range};

use http::header::{HeaderMap, HeaderName, HeaderValue};

pub use self::name::{Name, Names};

/// See the module. It moves often, so it is small.
#[derive(Debug)]
pub struct Fields(Option<Box<List>>);

/// What [`Fields`] are as long as they are used.
#[derive(Debug, Default)]
pub struct List {
    /// The head that came, with its names in lower case, and what was added.
    raw: Vec<u8>,
    list: Vec<Field>,
    /// A bit for each [`Name`] that may be there, so that most questions need no look.
    present: u64,
}

/// A line of [`List::raw`]: name, colon, blank, value, CR LF. A head is far smaller than 4 GiB.
#[derive(Debug, Clone, Copy)]
struct Field {
    known: Option<Name>,
    /// Where the name begins and ends.
    begin: u32,
    colon: u32,
    /// Where the value ends.
    end: u32,
}

/// What stands between a name and its value, and behind that.
const COLON: &[u8] = b": ";
const BREAK: &[u8] = b"\r\n";

impl Field {
    fn new(known: Option<Name>, name: Range<usize>, end: usize) -> Self {
        Self { known, begin: name.start as u32, colon: name.end as u32, end: end as u32 }
    }

    fn is(&self, name: Name) -> bool {
        self.known == Some(name)
    }

    fn name(self) -> Range<usize> {
        self.begin as usize..self.colon as usize
    }

    fn value(self) -> Range<usize> {
        self.colon as usize + COLON.len()..self.end as usize
    }

    fn whole(self) -> Range<usize> {
        self.begin as usize..self.end as usize + BREAK.len()
    }

    fn line(self, raw: &[u8]) -> Line<'_> {
        Line { known: self.known, name: &raw[self.name()], value: &raw[self.value()] }
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
        let mut list = spare::take();
        list.raw.extend_from_slice(head);
        Self(Some(list))
    }
}

impl Deref for Fields {
    type Target = List;

    fn deref(&self) -> &List {
        self.0.as_deref().expect(THERE)
    }
}

impl DerefMut for Fields {
    fn deref_mut(&mut self) -> &mut List {
        self.0.as_deref_mut().expect(THERE)
    }
}

const THERE: &str = "a list is there until it is dropped";

impl List {
    /// Adds a line whose name and value stand at these places of the head; both are as RFC 9110
    /// (section 5) has them.
    pub fn read(&mut self, name: Range<usize>, value: Range<usize>) {
        self.raw[name.clone()].make_ascii_lowercase();
        let known = Name::of(&self.raw[name.clone()]);
        let is_plain = self.raw.get(name.end..value.start) == Some(COLON)
            && self.raw.get(value.end..value.end + BREAK.len()) == Some(BREAK);
        let field = match is_plain {
            true => Field::new(known, name, value.end),
            false => self.put(
                known,
                |raw| raw.extend_from_within(name),
                |raw| {
                    raw.extend_from_within(value);
                },
            ),
        };
        self.add(field);
    }

    /// Whether there is such a line.
    #[must_use]
    pub fn contains(&self, name: Name) -> bool {
        self.find(name).is_some()
    }

    /// The value of the first such line.
    #[must_use]
    pub fn get(&self, name: Name) -> Option<&[u8]> {
        self.find(name).map(|field| &self.raw[field.value()])
    }

    /// The values of all such lines.
    pub fn all(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        let list = if self.may_have(name) { self.list.as_slice() } else { &[] };
        list.iter().filter(move |field| field.is(name)).map(|field| &self.raw[field.value()])
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

    /// Appends all lines but those of some names.
    pub fn write(&self, but: Names, out: &mut Vec<u8>) {
        let mut run = 0..0;
        let skips = self.may_have_any(but);
        for field in &self.list {
            if skips && field.known.is_some_and(|name| but.contains(name)) {
                continue;
            }
            let line = field.whole();
            if line.start == run.end {
                run.end = line.end;
            } else {
                out.extend_from_slice(&self.raw[run]);
                run = line;
            }
        }
        out.extend_from_slice(&self.raw[run]);
    }

    /// Adds a line. The value must be fit for one.
    pub fn push(&mut self, name: Name, value: &[u8]) {
        let field = self.known(name, |raw| raw.extend_from_slice(value));
        self.add(field);
    }

    /// Makes this the only line of that name.
    pub fn set(&mut self, name: Name, value: &[u8]) {
        self.remove(name);
        self.push(name, value);
    }

    /// Makes a line with the value of another the only one of its name.
    pub fn copy(&mut self, from: Name, to: Name) {
        if let Some(value) = self.find(from).map(|field| field.value()) {
            self.remove(to);
            let field = self.known(to, |raw| raw.extend_from_within(value));
            self.add(field);
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
            let changed = field.is(name).then(|| change(&self.raw[field.value()])).flatten();
            if let Some(value) = changed {
                self.list[at] = self.known(name, |raw| raw.extend_from_slice(&value));
            }
        }
    }

    fn add(&mut self, field: Field) {
        self.present |= field.known.map_or(0, Name::bit);
        self.list.push(field);
    }

    /// Adds a line. The name is in lower case.
    fn text(&mut self, name: &str, value: &[u8]) {
        let (known, name) = (Name::of(name.as_bytes()), name.as_bytes());
        let field =
            self.put(known, |raw| raw.extend_from_slice(name), |raw| raw.extend_from_slice(value));
        self.add(field);
    }

    /// A line of its own, of a name that is known.
    fn known(&mut self, name: Name, value: impl FnOnce(&mut Vec<u8>)) -> Field {
        self.put(Some(name), |raw| raw.extend_from_slice(name.as_str().as_bytes()), value)
    }

    fn put(
        &mut self,
        known: Option<Name>,
        name: impl FnOnce(&mut Vec<u8>),
        value: impl FnOnce(&mut Vec<u8>),
    ) -> Field {
        let begin = self.raw.len();
        name(&mut self.raw);
        let colon = self.raw.len();
        self.raw.extend_from_slice(COLON);
        value(&mut self.raw);
        let field = Field::new(known, begin..colon, self.raw.len());
        self.raw.extend_from_slice(BREAK);
        field
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
            fields.text(&name.to_ascii_lowercase(), value.as_bytes());
        }
        fields
    }
}

/// Of a message over HTTP/2, or one that the gateway itself made.
impl From<&HeaderMap> for Fields {
    fn from(map: &HeaderMap) -> Self {
        let mut fields = Self::of_head(&[]);
        for (name, value) in map {
            fields.text(name.as_str(), value.as_bytes());
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

impl Default for Fields {
    fn default() -> Self {
        Self::of_head(&[])
    }
}

impl Drop for Fields {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(spare::give_back);
    }
}
