//! What is found again by its key for as long as somebody holds it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

/// Things by their keys; it keeps none of them. Keys come from the table and from discovery.
#[derive(Debug)]
pub(super) struct Known<K, V>(HashMap<K, Weak<V>, foldhash::fast::RandomState>);

impl<K, V> Default for Known<K, V> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<K: Hash + Eq, V> Known<K, V> {
    /// What is there under the key, or else what is made now.
    pub(super) fn or_make(&mut self, key: K, make: impl FnOnce() -> V) -> Arc<V> {
        let weak = self.0.entry(key).or_default();
        weak.upgrade().unwrap_or_else(|| {
            let made = Arc::new(make());
            *weak = Arc::downgrade(&made);
            made
        })
    }

    /// What is there under the key.
    pub(super) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<Arc<V>>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.0.get(key)?.upgrade()
    }

    /// All that somebody holds.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, Arc<V>)> {
        self.0.iter().filter_map(|(key, weak)| Some((key, weak.upgrade()?)))
    }

    /// As [`Known::iter`], without the keys.
    pub(super) fn alive(&self) -> impl Iterator<Item = Arc<V>> {
        self.0.values().filter_map(Weak::upgrade)
    }

    /// Forgets what nobody holds any more.
    pub(super) fn forget(&mut self) {
        self.0.retain(|_, weak| weak.strong_count() > 0);
    }
}
