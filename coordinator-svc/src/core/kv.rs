//! Keys with revisions: the revision of a key is the index of the entry that changed it last.

use super::command::{Outcome, Rejection};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most keys.
pub const KEYS_MAX: usize = 100_000;
/// Most bytes of keys and values together.
pub const BYTES_MAX: usize = 64 * 1024 * 1024;

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versioned {
    /// The value.
    pub value: Bytes,
    /// Index of the entry that set it.
    pub revision: u64,
}

/// The keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kv {
    entries: BTreeMap<String, Versioned>,
    bytes: usize,
}

impl Kv {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Versioned> {
        self.entries.get(key)
    }

    /// Sets or deletes a key at log index `index`.
    pub fn put(&mut self, index: u64, key: &str, value: Option<Bytes>, expected: Option<u64>) -> Outcome {
        let current = self.entries.get(key).map_or(0, |old| old.revision);
        if expected.is_some_and(|expected| expected != current) {
            return Outcome::Rejected(Rejection::Revision { current });
        }
        match value {
            None => self.remove(key),
            Some(value) => {
                if let Some(limit) = self.full(key, &value) {
                    return Outcome::Rejected(Rejection::Full { limit: limit.into() });
                }
                self.remove(key);
                self.bytes += key.len() + value.len();
                self.entries.insert(key.to_owned(), Versioned { value, revision: index });
            }
        }
        Outcome::Put { revision: index }
    }

    fn remove(&mut self, key: &str) {
        if let Some(old) = self.entries.remove(key) {
            self.bytes -= key.len() + old.value.len();
        }
    }

    /// The limit that a new value would break.
    fn full(&self, key: &str, value: &Bytes) -> Option<&'static str> {
        let old = self.entries.get(key).map(|old| key.len() + old.value.len());
        if old.is_none() && self.entries.len() >= KEYS_MAX {
            return Some("keys");
        }
        let after = self.bytes - old.unwrap_or(0) + key.len() + value.len();
        (after > BYTES_MAX).then_some("key_bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected_at(current: u64) -> Outcome {
        Outcome::Rejected(Rejection::Revision { current })
    }

    #[test]
    fn compare_and_set_applies_only_at_the_expected_revision() {
        let mut kv = Kv::default();
        assert_eq!(kv.put(3, "k", Some("a".into()), Some(0)), Outcome::Put { revision: 3 });
        assert_eq!(kv.put(4, "k", Some("b".into()), Some(0)), rejected_at(3));
        assert_eq!(kv.put(5, "k", Some("b".into()), Some(3)), Outcome::Put { revision: 5 });
        assert_eq!(kv.get("k").unwrap().value, "b");
    }

    #[test]
    fn a_deleted_key_is_absent_again() {
        let mut kv = Kv::default();
        kv.put(1, "k", Some("a".into()), None);
        assert_eq!(kv.put(2, "k", None, Some(1)), Outcome::Put { revision: 2 });
        assert_eq!(kv.get("k"), None);
        assert_eq!(kv.bytes, 0);
        assert_eq!(kv.put(3, "k", Some("b".into()), Some(2)), rejected_at(0));
    }

    #[test]
    fn bytes_are_limited_and_freed() {
        let mut kv = Kv { bytes: BYTES_MAX, ..Kv::default() };
        let full = Outcome::Rejected(Rejection::Full { limit: "key_bytes".into() });
        assert_eq!(kv.put(1, "k", Some("a".into()), None), full);
        kv.bytes = BYTES_MAX - 2;
        assert_eq!(kv.put(2, "k", Some("a".into()), None), Outcome::Put { revision: 2 });
        assert_eq!(kv.put(3, "k", Some("b".into()), None), Outcome::Put { revision: 3 });
    }
}
