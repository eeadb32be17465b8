//! Header maps whose messages are gone, for the next ones of the thread. One takes more memory than an
//! allocator hands out cheaply, and every request takes two.

use std::cell::RefCell;

use http::HeaderMap;

/// Maps that are kept though nobody uses them: as many as requests of one worker are usually under
/// way at once.
const MAPS_MAX: usize = 64;
/// A map with room for more fields was for an unusual message, and is not kept.
const ROOM_MAX: usize = 64;

thread_local! {
    static MAPS: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// An empty map with room for so many fields.
#[must_use]
pub fn take(fields: usize) -> HeaderMap {
    let mut map = MAPS.with_borrow_mut(Vec::pop).unwrap_or_default();
    map.reserve(fields);
    map
}

/// Takes back a map whose message is gone.
pub fn give_back(mut map: HeaderMap) {
    if (1..=ROOM_MAX).contains(&map.capacity()) {
        map.clear();
        MAPS.with_borrow_mut(|maps| {
            if maps.len() < MAPS_MAX {
                maps.push(map);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_map_that_comes_back_is_empty() {
        let mut map = take(4);
        map.append("a", HeaderValue::from_static("1"));
        map.append("a", HeaderValue::from_static("2"));
        give_back(map);
        let map = take(4);
        assert!(map.is_empty() && map.get("a").is_none() && map.capacity() >= 4);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        for _ in 0..2 * MAPS_MAX {
            give_back(HeaderMap::with_capacity(8));
        }
        give_back(HeaderMap::with_capacity(1000));
        assert_eq!(MAPS.with_borrow(Vec::len), MAPS_MAX);
    }
}
