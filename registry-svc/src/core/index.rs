//! What is counted over all names as they come and go, so that a question costs no scan: the
//! sum of each counter over its owners, and which label keys there are.

use crate::core::key;
use parking_lot::RwLock;
use proto::registry::{Registration, registration::Spec};
use std::collections::{BTreeMap, HashMap};

/// A counter over all of its owners.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Total {
    // 2^64 owners of 64 bits each fit.
    pub(crate) sum: i128,
    pub(crate) holders: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    totals: RwLock<HashMap<Box<str>, Total>>,
    label_keys: RwLock<BTreeMap<Box<str>, usize>>,
}

impl Index {
    /// Counts a registration out and the one that takes its place in.
    pub(crate) fn replace(&self, old: Option<&Registration>, new: Option<&Registration>) {
        self.count_counters(old.and_then(value), new.and_then(value));
        let labels = |side: Option<&Registration>| side.is_some_and(|found| !found.labels.is_empty());
        if labels(old) || labels(new) {
            self.count_labels(old, new);
        }
    }

    /// The sum of a counter over its owners.
    pub(crate) fn total(&self, name: &str) -> Total {
        self.totals.read().get(name).copied().unwrap_or_default()
    }

    /// Whether any registration has a label of this key.
    pub(crate) fn has_label(&self, key: &str) -> bool {
        self.label_keys.read().contains_key(key)
    }

    /// The first label keys in order.
    pub(crate) fn label_keys(&self, most: usize) -> Vec<String> {
        self.label_keys.read().keys().take(most).map(|key| key.to_string()).collect()
    }

    fn count_counters(&self, old: Option<(&str, i64)>, new: Option<(&str, i64)>) {
        // Both are of one key.
        let Some((name, _)) = old.or(new) else {
            return;
        };
        let mut totals = self.totals.write();
        let total = totals.entry(name.into()).or_default();
        if let Some((_, value)) = old {
            total.sum -= i128::from(value);
            total.holders -= 1;
        }
        if let Some((_, value)) = new {
            total.sum += i128::from(value);
            total.holders += 1;
        }
        if total.holders == 0 {
            totals.remove(name);
        }
    }

    fn count_labels(&self, old: Option<&Registration>, new: Option<&Registration>) {
        let mut keys = self.label_keys.write();
        for key in new.into_iter().flat_map(|new| new.labels.keys()) {
            *keys.entry(key.as_str().into()).or_default() += 1;
        }
        for key in old.into_iter().flat_map(|old| old.labels.keys()) {
            if let Some(count) = keys.get_mut(key.as_str()) {
                *count -= 1;
                if *count == 0 {
                    keys.remove(key.as_str());
                }
            }
        }
    }
}

/// Name and value of a counter.
fn value(registration: &Registration) -> Option<(&str, i64)> {
    match &registration.spec {
        Some(Spec::Counter(counter)) => Some((key::name_of(&registration.name), counter.value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::registry::{Counter, Kind};

    fn counter(owner: &str, value: i64) -> Registration {
        Registration {
            name: key::key(Kind::Counter, "jobs", owner).unwrap(),
            spec: Some(Spec::Counter(Counter { value, ..Counter::default() })),
            ..Registration::default()
        }
    }

    #[test]
    fn a_total_follows_each_owner_and_goes_with_the_last() {
        let index = Index::default();
        let (a, b, b2) = (counter("a", i64::MAX), counter("b", 5), counter("b", -7));
        index.replace(None, Some(&a));
        index.replace(None, Some(&b));
        assert_eq!(index.total("jobs"), Total { sum: i128::from(i64::MAX) + 5, holders: 2 });
        index.replace(Some(&b), Some(&b2));
        index.replace(Some(&a), None);
        assert_eq!(index.total("jobs"), Total { sum: -7, holders: 1 });
        index.replace(Some(&b2), None);
        assert_eq!((index.total("jobs"), index.totals.read().len()), (Total::default(), 0));
    }

    #[test]
    fn a_label_key_is_known_while_somebody_has_it() {
        let labelled = |keys: &[&str]| Registration {
            labels: keys.iter().map(|key| (key.to_string(), String::new())).collect(),
            ..Registration::default()
        };
        let index = Index::default();
        let (one, two) = (labelled(&["team"]), labelled(&["team", "tier"]));
        index.replace(None, Some(&one));
        index.replace(None, Some(&two));
        index.replace(Some(&one), None);
        assert_eq!(index.label_keys(8), ["team", "tier"]);
        index.replace(Some(&two), Some(&one));
        assert!(index.has_label("team") && !index.has_label("tier"));
    }
}
