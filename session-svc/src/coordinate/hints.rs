//! Which owners are known to miss the last state of which sessions. In memory and bounded: what
//! is forgotten here is found by the pass over all sessions when the owner comes back.

use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};

/// Sessions remembered for all owners together.
const HINTS_MAX: usize = 65_536;

#[derive(Default)]
pub(crate) struct Hints {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    by_owner: BTreeMap<String, BTreeSet<String>>,
    count: usize,
    overflowed: BTreeSet<String>,
}

impl Hints {
    /// The owner misses the session's last state.
    pub(crate) fn add(&self, owner: &str, id: &str) {
        let mut inner = self.inner.lock();
        if inner.count >= HINTS_MAX {
            inner.overflowed.insert(owner.to_owned());
            return;
        }
        if inner.by_owner.entry(owner.to_owned()).or_default().insert(id.to_owned()) {
            inner.count += 1;
        }
    }

    /// The owner has it.
    pub(crate) fn settle(&self, owner: &str, id: &str) {
        let mut inner = self.inner.lock();
        let Some(ids) = inner.by_owner.get_mut(owner) else { return };
        if ids.remove(id) {
            inner.count -= 1;
        }
    }

    /// Up to `limit` sessions that owners which are `up` miss.
    pub(crate) fn due(&self, limit: usize, up: impl Fn(&str) -> bool) -> BTreeSet<String> {
        let inner = self.inner.lock();
        let due = inner.by_owner.iter().filter(|(owner, _)| up(owner)).flat_map(|(_, ids)| ids);
        due.take(limit).cloned().collect()
    }

    /// Owners of which more was missed than is remembered; they need a pass over everything.
    pub(crate) fn take_overflowed(&self, up: impl Fn(&str) -> bool) -> Vec<String> {
        let mut inner = self.inner.lock();
        let owners: Vec<String> = inner.overflowed.iter().filter(|owner| up(owner)).cloned().collect();
        for owner in &owners {
            inner.overflowed.remove(owner);
        }
        owners
    }

    /// Owners that left the ring need nothing any more.
    pub(crate) fn keep(&self, member: impl Fn(&str) -> bool) {
        let mut inner = self.inner.lock();
        inner.by_owner.retain(|owner, ids| !ids.is_empty() && member(owner));
        inner.count = inner.by_owner.values().map(BTreeSet::len).sum();
        inner.overflowed.retain(|owner| member(owner));
    }

    /// Sessions pending by owner, and distinct sessions.
    pub(crate) fn pending(&self) -> (Vec<(String, usize)>, usize) {
        let inner = self.inner.lock();
        let distinct: BTreeSet<&String> = inner.by_owner.values().flatten().collect();
        let by_owner = inner.by_owner.iter().map(|(owner, ids)| (owner.clone(), ids.len())).collect();
        (by_owner, distinct.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_bounded_and_an_overflow_is_remembered() {
        let hints = Hints::default();
        for i in 0..HINTS_MAX + 1 {
            hints.add("n1", &i.to_string());
        }
        hints.add("n2", "x");
        assert_eq!(hints.pending().1, HINTS_MAX);
        assert_eq!(hints.take_overflowed(|owner| owner == "n2"), ["n2"]);
        hints.settle("n1", "0");
        assert_eq!(hints.due(HINTS_MAX, |_| true).len(), HINTS_MAX - 1);
        assert!(hints.due(10, |_| false).is_empty());
        hints.keep(|_| false);
        assert_eq!(hints.pending(), (vec![], 0));
    }
}
