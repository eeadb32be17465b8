//! The store in this process: bounded in number and bytes; what was not touched for longest goes first.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most keys, and most bytes of all values: a replica without Redis remembers its last few hundred sessions, and stays
/// far below the smallest agent's memory.
const MAX_KEYS: usize = 4_096;
const MAX_BYTES: usize = 16 << 20;

/// Values and lists by key.
#[derive(Default)]
pub struct Process(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    entries: HashMap<String, Entry>,
    bytes: usize,
}

struct Entry {
    items: Vec<String>,
    expires: Instant,
    touched: Instant,
}

impl Process {
    /// The list under `key`; a value is a list of one.
    pub(super) fn list(&self, key: &str) -> Vec<String> {
        let mut kept = self.kept();
        kept.living(key).map(|entry| entry.items.clone()).unwrap_or_default()
    }

    pub(super) fn append(&self, key: &str, item: &str, keep: usize, ttl: Duration) {
        let mut kept = self.kept();
        let mut items = kept.living(key).map(|entry| entry.items.clone()).unwrap_or_default();
        items.push(item.to_owned());
        items.drain(..items.len().saturating_sub(keep));
        kept.put(key, items, ttl);
    }

    pub(super) fn claim(&self, key: &str, value: &str, ttl: Duration) -> bool {
        let mut kept = self.kept();
        let free = kept.living(key).is_none();
        if free {
            kept.put(key, vec![value.to_owned()], ttl);
        }
        free
    }

    pub(super) fn exchange(&self, key: &str, old: &str, new: &str, ttl: Duration) -> bool {
        let mut kept = self.kept();
        let there = kept.living(key).is_some_and(|entry| entry.items == [old]);
        if there {
            kept.put(key, vec![new.to_owned()], ttl);
        }
        there
    }

    pub(super) fn release(&self, key: &str, value: &str) {
        let mut kept = self.kept();
        if kept.living(key).is_some_and(|entry| entry.items == [value]) {
            kept.remove(key);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn living(&mut self, key: &str) -> Option<&mut Entry> {
        let now = Instant::now();
        if self.entries.get(key).is_some_and(|entry| entry.expires <= now) {
            self.remove(key);
        }
        let entry = self.entries.get_mut(key)?;
        entry.touched = now;
        Some(entry)
    }

    fn put(&mut self, key: &str, items: Vec<String>, ttl: Duration) {
        self.remove(key);
        let now = Instant::now();
        let entry = Entry { items, expires: now + ttl, touched: now };
        self.bytes += size(key, &entry);
        self.entries.insert(key.to_owned(), entry);
        while self.entries.len() > MAX_KEYS || self.bytes > MAX_BYTES {
            let oldest =
                self.entries.iter().min_by_key(|(_, entry)| (entry.expires > now, entry.touched));
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { return };
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &str) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= size(key, &entry);
        }
    }
}

fn size(key: &str, entry: &Entry) -> usize {
    /// Of a map's slot, a vector and two instants, about.
    const EACH: usize = 128;
    EACH + key.len() + entry.items.iter().map(|item| item.len() + EACH / 4).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_list_keeps_its_last_items() {
        let store = Process::default();
        for item in ["a", "b", "c"] {
            store.append("k", item, 2, LONG);
        }
        assert_eq!(store.list("k"), ["b", "c"]);
        assert!(store.list("other").is_empty());
    }

    #[test]
    fn a_claim_holds_until_it_is_released_by_its_own_value() {
        let store = Process::default();
        assert!(store.claim("k", "mine", LONG) && !store.claim("k", "theirs", LONG));
        store.release("k", "theirs");
        assert!(!store.exchange("k", "theirs", "x", LONG) && !store.claim("k", "theirs", LONG));
        store.release("k", "mine");
        assert!(store.claim("k", "theirs", LONG));
        assert!(store.exchange("k", "theirs", "done", LONG));
        assert_eq!(store.list("k"), ["done"]);
    }

    #[test]
    fn what_has_expired_is_gone() {
        let store = Process::default();
        store.append("k", "a", 9, Duration::ZERO);
        assert!(store.list("k").is_empty() && store.kept().entries.is_empty());
    }

    #[test]
    fn number_and_bytes_are_bounded_and_the_oldest_go_first() {
        let store = Process::default();
        for number in 0..MAX_KEYS + 10 {
            store.append(&number.to_string(), "a", 1, LONG);
        }
        assert_eq!(store.kept().entries.len(), MAX_KEYS);
        assert!(store.list("0").is_empty() && store.list("10") == ["a"]);
        store.append("large", &"x".repeat(MAX_BYTES - 1000), 1, LONG);
        assert!(store.kept().bytes <= MAX_BYTES && !store.list("large").is_empty());
        store.append("too large", &"x".repeat(MAX_BYTES), 1, LONG);
        let kept = store.kept();
        assert_eq!((kept.entries.len(), kept.bytes), (0, 0));
    }
}
