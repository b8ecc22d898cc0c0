//! Who waits for a name to appear, or for a registration to go. Asked at each change in the order
//! of changes, so nobody misses one; `T` is how the answer is given.

use crate::core::{merge::Stamp, name::Name, shard::continues, table::Entry};
use proto::registry::Removed;
use std::{collections::BTreeMap, sync::Arc};

/// How a registration went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) cause: String,
    pub(crate) version: u64,
}

impl End {
    pub(crate) fn replaced(version: u64) -> Self {
        Self { cause: "replaced".into(), version }
    }

    pub(crate) fn removed(removed: &Removed) -> Self {
        Self { cause: removed.cause.clone(), version: removed.version }
    }

    /// Not known here, and nobody told of its end.
    pub(crate) fn gone() -> Self {
        Self { cause: "gone".into(), version: 0 }
    }
}

/// What a waiter is told, once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Told {
    Appeared(Arc<Entry>),
    Ended(End),
}

#[derive(Debug)]
enum Until {
    Appears,
    /// The registration as it stands now, under whichever version.
    Ends(Arc<Entry>),
}

#[derive(Debug)]
struct Waiter<T> {
    id: u64,
    until: Until,
    reply: T,
}

/// At most `limit` waiters.
#[derive(Debug)]
pub(crate) struct Waiters<T> {
    by_name: BTreeMap<Name, Vec<Waiter<T>>>,
    len: usize,
    limit: usize,
    next_id: u64,
}

/// No more waiters are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) limit: usize,
}

impl<T> Waiters<T> {
    pub(crate) fn new(limit: usize) -> Self {
        Self { by_name: BTreeMap::new(), len: 0, limit, next_id: 0 }
    }

    /// Waits for a name to appear. The id is for [`Waiters::forget`].
    pub(crate) fn until_it_appears(&mut self, name: &str, reply: T) -> Result<u64, Full> {
        self.add(name, Until::Appears, reply)
    }

    /// Waits for the end of a registration that stands.
    pub(crate) fn until_it_ends(&mut self, standing: Arc<Entry>, reply: T) -> Result<u64, Full> {
        let name = standing.registration.name.clone();
        self.add(&name, Until::Ends(standing), reply)
    }

    /// Stops waiting. Answers what stands, when it was waiting for the end of it.
    pub(crate) fn forget(&mut self, name: &str, id: u64) -> Option<Arc<Entry>> {
        let waiting = self.by_name.get_mut(name.as_bytes())?;
        let at = waiting.iter().position(|waiter| waiter.id == id)?;
        let waiter = waiting.swap_remove(at);
        self.len -= 1;
        if waiting.is_empty() {
            self.by_name.remove(name.as_bytes());
        }
        match waiter.until {
            Until::Appears => None,
            Until::Ends(standing) => Some(standing),
        }
    }

    /// A registration has become visible. Answers who is to be told what.
    pub(crate) fn put(&mut self, entry: &Arc<Entry>) -> Vec<(T, Told)> {
        self.tell(&entry.registration.name, |until| match until {
            Until::Appears => Some(Told::Appeared(entry.clone())),
            Until::Ends(standing) if continues(&standing.registration, &entry.registration) => {
                *standing = entry.clone();
                None
            }
            Until::Ends(_) => Some(Told::Ended(End::replaced(entry.registration.version))),
        })
    }

    /// A registration has gone.
    pub(crate) fn removed(&mut self, removed: &Removed) -> Vec<(T, Told)> {
        self.tell(&removed.name, |until| match until {
            Until::Appears => None,
            Until::Ends(_) => Some(Told::Ended(End::removed(removed))),
        })
    }

    fn add(&mut self, name: &str, until: Until, reply: T) -> Result<u64, Full> {
        if self.len >= self.limit {
            return Err(Full { limit: self.limit });
        }
        self.len += 1;
        self.next_id += 1;
        let waiter = Waiter { id: self.next_id, until, reply };
        self.by_name.entry(Name::new(name)).or_default().push(waiter);
        Ok(self.next_id)
    }

    fn tell(&mut self, name: &str, mut told: impl FnMut(&mut Until) -> Option<Told>) -> Vec<(T, Told)> {
        if self.len == 0 {
            return Vec::new();
        }
        let Some(waiting) = self.by_name.remove(name.as_bytes()) else {
            return Vec::new();
        };
        let (mut answers, mut still) = (Vec::new(), Vec::new());
        for mut waiter in waiting {
            match told(&mut waiter.until) {
                Some(told) => answers.push((waiter.reply, told)),
                None => still.push(waiter),
            }
        }
        self.len -= answers.len();
        if !still.is_empty() {
            self.by_name.insert(Name::new(name), still);
        }
        answers
    }
}

/// What is known of a registration that was looked up.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    Stands(Arc<Entry>),
    Ended(End),
    /// No version of it, or an older one only.
    Unheard,
}

/// Judges by what stands alone, where the changes since the lookup are not known.
pub(crate) fn judge(asked: &Stamp, live: Option<Arc<Entry>>) -> Verdict {
    let Some(live) = live else {
        return Verdict::Unheard;
    };
    match Stamp::of(&live.registration).cmp(asked) {
        std::cmp::Ordering::Less => Verdict::Unheard,
        std::cmp::Ordering::Equal => Verdict::Stands(live),
        std::cmp::Ordering::Greater => Verdict::Ended(End::replaced(live.registration.version)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::registry::{Durability, Kind, Registration};

    fn entry(version: u64, origin: &str, owner: &str) -> Arc<Entry> {
        let registration = Registration {
            name: "w".into(),
            kind: Kind::Worker.into(),
            durability: Durability::Ephemeral.into(),
            owner: owner.into(),
            version,
            origin: origin.into(),
            ..Default::default()
        };
        Arc::new(Entry { registration, revision: version })
    }

    fn removed(version: u64) -> Removed {
        Removed { name: "w".into(), version, cause: "expired".into(), ..Default::default() }
    }

    #[test]
    fn whoever_waits_for_a_name_is_told_once() {
        let mut waiters = Waiters::new(2);
        waiters.until_it_appears("w", 'a').unwrap();
        waiters.until_it_appears("x", 'b').unwrap();
        assert_eq!(waiters.until_it_appears("w", 'c'), Err(Full { limit: 2 }));
        let appeared = entry(1, "n1", "o");
        assert_eq!(waiters.put(&appeared), [('a', Told::Appeared(appeared.clone()))]);
        assert_eq!(waiters.put(&appeared), []);
        assert!(waiters.until_it_appears("w", 'd').is_ok(), "its place is free");
    }

    #[test]
    fn an_end_is_told_once_with_its_cause_and_a_lease_that_moves_is_no_end() {
        let mut waiters = Waiters::new(10);
        waiters.until_it_ends(entry(1, "n1", "o"), 'a').unwrap();
        assert_eq!(waiters.put(&entry(2, "n2", "o")), [], "the same by the same owner at another instance");
        let end = End { cause: "expired".into(), version: 2 };
        assert_eq!(waiters.removed(&removed(2)), [('a', Told::Ended(end))]);
        assert_eq!(waiters.removed(&removed(2)), []);
        waiters.until_it_ends(entry(3, "n1", "o"), 'b').unwrap();
        assert_eq!(waiters.put(&entry(4, "n1", "p")), [('b', Told::Ended(End::replaced(4)))]);
    }

    #[test]
    fn who_stops_waiting_learns_what_stands_and_frees_the_place() {
        let mut waiters = Waiters::new(1);
        let id = waiters.until_it_ends(entry(1, "n1", "o"), 'a').unwrap();
        waiters.put(&entry(2, "n2", "o"));
        assert_eq!(waiters.forget("w", id), Some(entry(2, "n2", "o")));
        assert_eq!(waiters.forget("w", id), None);
        let id = waiters.until_it_appears("w", 'b').unwrap();
        assert_eq!((waiters.forget("w", id), waiters.len), (None, 0));
    }

    #[test]
    fn without_the_changes_a_later_version_is_an_end_and_an_older_one_says_nothing() {
        let asked = Stamp { version: 5, origin: "n1".into() };
        assert!(matches!(judge(&asked, Some(entry(5, "n1", "o"))), Verdict::Stands(_)));
        assert_eq!(judge(&asked, Some(entry(6, "n1", "o"))), Verdict::Ended(End::replaced(6)));
        assert_eq!(judge(&asked, Some(entry(4, "n2", "o"))), Verdict::Unheard);
        assert_eq!(judge(&asked, None), Verdict::Unheard);
    }
}
