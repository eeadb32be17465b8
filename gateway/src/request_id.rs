//! The id of a request: the client's, where it is fit to be passed on, else one of ours.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use rustix::time::{ClockId, clock_gettime};
use uuid::Builder;
use uuid::fmt::Hyphenated;

use crate::message::{Fields, Name};

/// Longest id that is taken over, bytes. It stands in every log line and comes back.
pub const LONGEST: usize = 128;

static NAME: HeaderName = HeaderName::from_static(config::names::REQUEST_ID);

/// Whether these bytes may be an id: 1–128 of `[A-Za-z0-9._:/+=-]`.
#[must_use]
pub fn valid(id: &[u8]) -> bool {
    (1..=LONGEST).contains(&id.len())
        && id.iter().all(|b| {
            b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'/' | b'+' | b'=' | b'-')
        })
}

/// The id of one request.
#[derive(Debug, Clone)]
pub struct RequestId(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Fresh([u8; Hyphenated::LENGTH]),
    Taken(Box<[u8]>),
}

impl RequestId {
    /// A new one, a UUIDv7 (RFC 9562, section 5.7): sorts by time, to a few milliseconds. It takes
    /// no lock, and isn't a secret.
    #[must_use]
    pub fn fresh() -> Self {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        let ms = now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000;
        let mut random = [0; 10];
        fastrand::fill(&mut random);
        let id = Builder::from_unix_timestamp_millis(ms, &random).into_uuid();
        let mut text = [0; Hyphenated::LENGTH];
        id.hyphenated().encode_lower(&mut text);
        Self(Kind::Fresh(text))
    }

    /// The client's, when it sent exactly one and that is valid; else a new one.
    #[must_use]
    pub fn of(fields: &Fields) -> Self {
        one(fields.all(Name::RequestId)).map_or_else(Self::fresh, |id| Self(Kind::Taken(id.into())))
    }

    /// As bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Kind::Fresh(text) => text,
            Kind::Taken(text) => text,
        }
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Whatever the kind, it is ASCII.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

/// The only one, where it is valid.
fn one<'a>(mut ids: impl Iterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
    match (ids.next(), ids.next()) {
        (Some(id), None) if valid(id) => Some(id),
        _ => None,
    }
}

/// The id that headers hold, when that is exactly one and it is valid.
#[must_use]
pub fn held(headers: &HeaderMap) -> Option<HeaderValue> {
    let ids = headers.get_all(&NAME).iter();
    one(ids.map(HeaderValue::as_bytes)).and_then(|_| headers.get(&NAME).cloned())
}

/// Gives every request a valid id: what [`held`] finds stays, anything else is replaced by a
/// fresh one.
pub fn settle(headers: &mut HeaderMap) {
    if held(headers).is_none() {
        let id = HeaderValue::from_str(RequestId::fresh().as_str());
        headers.insert(&NAME, id.expect("hexadecimal digits fit in a header"));
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id(ids: &[&str]) -> String {
        let fields: Fields = ids.iter().map(|id| ("X-Request-Id", *id)).collect();
        RequestId::of(&fields).as_str().to_owned()
    }

    fn settled(ids: &[&str]) -> String {
        let ids = ids.iter().map(|id| (NAME.clone(), HeaderValue::from_str(id).unwrap()));
        let mut headers: HeaderMap = ids.collect();
        settle(&mut headers);
        assert_eq!(headers.get_all(&NAME).iter().count(), 1);
        headers[&NAME].to_str().unwrap().to_owned()
    }

    #[test]
    fn one_valid_id_is_kept() {
        for given in ["a", "0191-7f.A_z:/+=-", &"x".repeat(128)] {
            assert_eq!((id(&[given]), settled(&[given])), (given.to_owned(), given.to_owned()));
        }
    }

    #[test]
    fn anything_else_is_replaced() {
        let long = "x".repeat(129);
        for ids in [&[""][..], &["a b"], &["a,b"], &["ü"], &[&long], &["a", "b"], &["a", "a"], &[]]
        {
            for id in [id(ids), settled(ids)] {
                assert!(valid(id.as_bytes()), "{ids:?}");
                assert!(!ids.contains(&id.as_str()), "{ids:?}");
            }
        }
    }

    #[test]
    fn a_fresh_id_is_a_valid_uuid_of_version_7_and_of_now() {
        let before = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let id = RequestId::fresh();
        let uuid = Uuid::parse_str(id.as_str()).unwrap();
        assert!(valid(id.as_bytes()));
        assert_eq!((uuid.get_version_num(), uuid.get_variant()), (7, uuid::Variant::RFC4122));
        let (seconds, _) = uuid.get_timestamp().unwrap().to_unix();
        assert!((before..before + 60).contains(&seconds));
    }

    #[test]
    fn fresh_ids_differ() {
        let ids: std::collections::HashSet<String> =
            (0..10_000).map(|_| RequestId::fresh().as_str().to_owned()).collect();
        assert_eq!(ids.len(), 10_000);
    }
}
