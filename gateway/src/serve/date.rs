//! The `date` of answers (RFC 9110, section 6.6.1), written once a second and thread.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

thread_local! {
    static WRITTEN: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// Tells `whom` what time it is.
pub(super) fn tell<T>(whom: impl FnOnce(&str) -> T) -> T {
    // Seconds are all that is told.
    let since = clock_gettime(ClockId::RealtimeCoarse).tv_sec.max(0) as u64;
    WRITTEN.with_borrow_mut(|(second, text)| {
        if *second != since {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(since);
            *text = httpdate::fmt_http_date(time);
            *second = since;
        }
        whom(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_that_of_now() {
        let date = tell(httpdate::parse_http_date).unwrap();
        let apart = SystemTime::now().duration_since(date).unwrap();
        assert!(apart < Duration::from_secs(10), "{apart:?}");
        assert_eq!(tell(str::len), "Sun, 29 Nov 2026 00:00:00 GMT".len());
    }
}
