//! The `date` of answers (RFC 9110, section 6.6.1), written once a second and thread.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use http::HeaderValue;

thread_local! {
    static WRITTEN: RefCell<(u64, HeaderValue)> =
        const { RefCell::new((0, HeaderValue::from_static(""))) };
}

/// Now.
pub(super) fn now() -> HeaderValue {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).as_secs();
    WRITTEN.with_borrow_mut(|(second, text)| {
        if *second != since {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(since);
            let written = httpdate::fmt_http_date(time);
            *text = HeaderValue::try_from(written).expect("a date is ASCII");
            *second = since;
        }
        text.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_that_of_now() {
        let date = now();
        let date = httpdate::parse_http_date(date.to_str().unwrap()).unwrap();
        let apart = SystemTime::now().duration_since(date).unwrap();
        assert!(apart < Duration::from_secs(10), "{apart:?}");
        assert_eq!(now(), now());
    }
}
