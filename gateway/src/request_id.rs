//! The id of a request: the client's, where it is fit to be passed on, else one of ours.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use uuid::{NoContext, Timestamp, Uuid};

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

/// The client's id, when it sent exactly one and that is valid.
#[must_use]
pub fn of(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut ids = headers.get_all(&NAME).iter();
    match (ids.next(), ids.next()) {
        (Some(id), None) if valid(id.as_bytes()) => Some(id.clone()),
        _ => None,
    }
}

/// A new id, a UUIDv7: sorts by time, to the millisecond. Takes no lock, unlike [`Uuid::now_v7`].
#[must_use]
pub fn fresh() -> HeaderValue {
    let id = Uuid::new_v7(Timestamp::now(NoContext));
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let text: &str = id.hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(text).expect("hexadecimal digits fit in a header")
}

/// Gives every request a valid id: what [`of`] finds stays, anything else is replaced by a
/// [`fresh`] one. The id is also what the headers hold from then on.
pub fn settle(headers: &mut HeaderMap) -> HeaderValue {
    of(headers).unwrap_or_else(|| {
        let id = fresh();
        headers.insert(&NAME, id.clone());
        id
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(ids: &[&str]) -> HeaderMap {
        ids.iter().map(|id| (NAME.clone(), HeaderValue::from_str(id).unwrap())).collect()
    }

    #[test]
    fn one_valid_id_is_kept() {
        for id in ["a", "0191-7f.A_z:/+=-", &"x".repeat(128)] {
            assert_eq!(settle(&mut headers(&[id])), id);
        }
    }

    #[test]
    fn anything_else_is_replaced() {
        let long = "x".repeat(129);
        for ids in [&[""][..], &["a b"], &["a,b"], &["ü"], &[&long], &["a", "b"], &["a", "a"], &[]]
        {
            let mut headers = headers(ids);
            let id = settle(&mut headers);
            assert_eq!(of(&headers).as_ref(), Some(&id), "{ids:?}");
            assert!(!ids.contains(&id.to_str().unwrap()));
        }
    }

    #[test]
    fn a_fresh_id_is_a_valid_uuid_of_version_7_and_of_now() {
        let before = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let id = fresh();
        let uuid = Uuid::parse_str(id.to_str().unwrap()).unwrap();
        assert!(valid(id.as_bytes()));
        assert_eq!((uuid.get_version_num(), uuid.get_variant()), (7, uuid::Variant::RFC4122));
        let (seconds, _) = uuid.get_timestamp().unwrap().to_unix();
        assert!((before..before + 60).contains(&seconds));
    }

    #[test]
    fn fresh_ids_differ() {
        let ids: std::collections::HashSet<HeaderValue> = (0..10_000).map(|_| fresh()).collect();
        assert_eq!(ids.len(), 10_000);
    }
}
