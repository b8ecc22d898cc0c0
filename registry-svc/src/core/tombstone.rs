//! Names that were freed. A peer that was away when a name was freed still has it; without a
//! tombstone it would come back (RELIABILITY F14).

use crate::core::{merge::Stamp, name::Name};
use proto::registry::Removed;
use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

#[derive(Debug, Clone)]
struct Tombstone {
    stamp: Stamp,
    since: Instant,
}

/// At most `limit` tombstones; over it the oldest goes first.
#[derive(Debug)]
pub(crate) struct Tombstones {
    by_name: BTreeMap<Name, Tombstone>,
    // Oldest first. What was lifted or dug again since stays here until it comes up.
    by_age: VecDeque<(Stamp, Name)>,
    limit: usize,
}

impl Tombstones {
    pub(crate) fn new(limit: usize) -> Self {
        Self { by_name: BTreeMap::new(), by_age: VecDeque::new(), limit }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Stamp> {
        self.by_name.get(name.as_bytes()).map(|tombstone| &tombstone.stamp)
    }

    /// Returns the names whose tombstones had to go.
    pub(crate) fn put(&mut self, name: Name, stamp: Stamp, now: Instant) -> Vec<Name> {
        self.by_age.push_back((stamp.clone(), name.clone()));
        self.by_name.insert(name, Tombstone { stamp, since: now });
        let mut dropped = Vec::new();
        while self.by_name.len() > self.limit || self.by_age.len() > 2 * self.limit {
            match self.by_age.pop_front() {
                Some((stamp, name)) if self.is(&name, &stamp) => {
                    self.by_name.remove(&name);
                    dropped.push(name);
                }
                Some(_) => {}
                None => break,
            }
        }
        dropped
    }

    pub(crate) fn lift(&mut self, name: &str) {
        self.by_name.remove(name.as_bytes());
    }

    /// Takes out what was freed before a moment; returns the names.
    pub(crate) fn reap(&mut self, before: Instant) -> Vec<Name> {
        let mut reaped = Vec::new();
        while let Some((stamp, name)) = self.by_age.front() {
            if self.is(name, stamp) {
                if self.by_name.get(name).is_some_and(|tombstone| tombstone.since >= before) {
                    break;
                }
                self.by_name.remove(name);
                reaped.push(name.clone());
            }
            self.by_age.pop_front();
        }
        reaped
    }

    /// All of them, as a peer hears of them.
    pub(crate) fn all(&self) -> Vec<Removed> {
        let told = |(name, tombstone): (&Name, &Tombstone)| Removed {
            name: name.as_str().to_owned(),
            version: tombstone.stamp.version,
            origin: tombstone.stamp.origin.clone(),
            cause: crate::core::command::DEREGISTERED.to_owned(),
            ..Removed::default()
        };
        self.by_name.iter().map(told).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    fn is(&self, name: &Name, stamp: &Stamp) -> bool {
        self.get(name.as_str()) == Some(stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn stamp(version: u64) -> Stamp {
        Stamp { version, origin: "n1".into() }
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn they_are_reaped_by_age_and_the_oldest_goes_at_the_limit() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut tombstones = Tombstones::new(2);
        tombstones.put(Name::new("a"), stamp(1), at(0));
        tombstones.put(Name::new("b"), stamp(2), at(1));
        assert_eq!(tombstones.put(Name::new("c"), stamp(3), at(2)), [Name::new("a")]);
        tombstones.lift("b");
        tombstones.put(Name::new("b"), stamp(4), at(3));
        assert_eq!(tombstones.reap(at(3)), [Name::new("c")]);
        assert_eq!(tombstones.get("b"), Some(&stamp(4)));
        assert_eq!(tombstones.all().len(), 1);
    }
}
