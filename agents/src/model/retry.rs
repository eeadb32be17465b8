//! How long to wait before the model server is asked again.

use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, header};

/// Further attempts after the first.
pub(crate) const MAX_RETRIES: u32 = 3;
/// The wait before the second attempt, without jitter; it doubles from there.
const FIRST: Duration = Duration::from_millis(250);
/// The longest wait that is worth a client's time. A server that asks for more is answered with an error.
const LONGEST: Duration = Duration::from_secs(20);

/// How long before attempt `attempt + 1` (from 0), or `None` when the server asks for too long a wait. What the
/// server asks for is kept to; a fifth is added at most, so that clients that were refused together do not come back together.
pub(crate) fn wait(attempt: u32, asked: Option<Duration>, random: f64) -> Option<Duration> {
    match asked {
        Some(asked) if asked > LONGEST => None,
        Some(asked) => Some(asked + asked.min(Duration::from_secs(1)).mul_f64(0.2 * random)),
        None => {
            let ceiling = FIRST.saturating_mul(1 << attempt.min(10)).min(LONGEST);
            Some(ceiling.mul_f64(0.5 + 0.5 * random))
        }
    }
}

/// `Retry-After`, in seconds or as a date. A date that has passed is no wait.
pub(crate) fn asked(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, text.parse().unwrap());
        headers
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(asked(&headers("7"), now), Some(Duration::from_secs(7)));
        let date = asked(&headers("Sun, 06 Nov 1994 08:49:40 GMT"), now);
        assert_eq!(date, Some(Duration::from_secs(3)));
        let past = asked(&headers("Sun, 06 Nov 1994 08:00:00 GMT"), now);
        assert_eq!(past, Some(Duration::ZERO));
        assert_eq!(asked(&headers("soon"), now), None);
    }

    #[test]
    fn a_wait_is_never_shorter_than_asked_nor_too_long() {
        let second = Duration::from_secs(1);
        for random in [0.0, 0.5, 0.999] {
            assert!(wait(0, Some(second), random).unwrap() >= second);
            assert!(wait(9, None, random).unwrap() <= LONGEST);
        }
        assert_eq!(wait(0, Some(Duration::from_secs(3600)), 0.5), None);
    }
}
