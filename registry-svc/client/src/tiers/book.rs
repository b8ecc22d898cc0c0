//! What the node's copy shows: what the watch says, and for a moment what was heard before it.
//!
//! The watch of one instance is ordered and complete: it is the base, whatever versions it
//! brings. Facts (from the bus, or of this node's own writes) come earlier, in no order against
//! it, and may be lost or wrong: one is shown while it is newer than the base, until the watch
//! has caught up with it or [`FACT_KEPT`] has passed. So nothing that the watch does not confirm
//! is shown for longer than the staleness bound.

use super::names::Names;
use proto::registry::Registration;
use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a fact is shown without the watch. With the tick that ends it, within the bound.
pub(crate) const FACT_KEPT: Duration = Duration::from_millis(1500);
/// Facts that wait for the watch; more are let go, and the watch brings them.
const FACTS_MAX: usize = 4096;

/// The one writer of the copy. Decides; `now` comes in.
pub(crate) struct Book {
    names_max: usize,
    // Names of the whole state that is being read.
    seen: Option<HashSet<String>>,
    complete: bool,
    left_out: bool,
    facts: BTreeMap<String, Fact>,
    due: VecDeque<(Instant, String)>,
}

struct Fact {
    version: u64,
    // What the watch says meanwhile.
    base: Option<Arc<Registration>>,
    until: Instant,
}

/// A name as somebody heard of it; without a value it was freed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Heard {
    pub(crate) name: String,
    pub(crate) version: u64,
    pub(crate) value: Option<Arc<Registration>>,
}

impl Book {
    /// At most `names_max` names are kept; a copy that is over it is partial.
    pub(crate) fn new(names_max: usize) -> Self {
        Self {
            names_max,
            seen: None,
            complete: false,
            left_out: false,
            facts: BTreeMap::new(),
            due: VecDeque::new(),
        }
    }

    /// The watch sends a whole state from here on.
    pub(crate) fn begin_state(&mut self) {
        self.seen = Some(HashSet::new());
        self.left_out = false;
    }

    /// The state is complete: what it did not name is not registered.
    pub(crate) fn end_state(&mut self, names: &Names) {
        let Some(seen) = self.seen.take() else { return };
        let gone: Vec<_> = names.all().filter(|held| !seen.contains(&held.name)).collect();
        for held in gone {
            match self.facts.get_mut(&held.name) {
                Some(fact) => fact.base = None,
                None => names.show(&held.name, None),
            }
        }
        names.set_partial(self.left_out);
        self.complete = true;
    }

    /// A state has been read in full once.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// The watch says so. That a name is gone is kept for a moment as a fact is, so that an
    /// older fact that was late does not bring it back.
    pub(crate) fn watched(&mut self, names: &Names, heard: Heard, now: Instant) {
        if let Some(seen) = &mut self.seen
            && heard.value.is_some()
        {
            seen.insert(heard.name.clone());
        }
        match self.facts.get_mut(&heard.name) {
            Some(fact) if heard.version < fact.version => fact.base = heard.value,
            _ => {
                self.facts.remove(&heard.name);
                if heard.value.is_none() {
                    self.keep(heard.name.clone(), heard.version, None, now);
                }
                self.show(names, &heard.name, heard.value);
            }
        }
    }

    fn keep(&mut self, name: String, version: u64, base: Option<Arc<Registration>>, now: Instant) {
        if self.due.len() < FACTS_MAX {
            let until = now + FACT_KEPT;
            self.due.push_back((until, name.clone()));
            self.facts.insert(name, Fact { version, base, until });
        }
    }

    /// A fact. True when it is shown: it is newer than all that is known of the name.
    pub(crate) fn hear(&mut self, names: &Names, heard: Heard, now: Instant) -> bool {
        let Heard { name, version, value } = heard;
        let shown = names.get(&name);
        let earlier = self.facts.get(&name);
        let known = earlier.map(|fact| fact.version).max(shown.as_ref().map(|held| held.version));
        if !self.complete || known >= Some(version) || self.due.len() >= FACTS_MAX {
            return false;
        }
        let base = earlier.map_or(shown, |fact| fact.base.clone());
        self.keep(name.clone(), version, base, now);
        self.show(names, &name, value);
        true
    }

    /// Ends facts that the watch has not confirmed in time. True when something else is shown.
    pub(crate) fn expire(&mut self, names: &Names, now: Instant) -> bool {
        let mut changed = false;
        while let Some((_, name)) = self.due.pop_front_if(|(until, _)| *until <= now) {
            // A later fact of the name has a due time of its own.
            if self.facts.get(&name).is_some_and(|fact| fact.until <= now)
                && let Some(fact) = self.facts.remove(&name)
            {
                let version = |held: &Arc<Registration>| held.version;
                let differs = names.get(&name).as_ref().map(version) != fact.base.as_ref().map(version);
                if differs {
                    self.show(names, &name, fact.base);
                }
                changed |= differs;
            }
        }
        changed
    }

    /// A fact that still waits for the watch, if it is newer than `version`.
    pub(crate) fn newer(&self, name: &str, version: u64) -> bool {
        self.facts.get(name).is_some_and(|fact| fact.version > version)
    }

    fn show(&mut self, names: &Names, name: &str, value: Option<Arc<Registration>>) {
        let is_over = value.is_some() && names.len() >= self.names_max && names.get(name).is_none();
        if is_over {
            self.left_out = true;
            return names.leave_out(name);
        }
        names.show(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kit::clock::{Clock as _, SystemClock};
    use proptest::{collection::vec, prelude::*};

    fn put(name: &str, version: u64) -> Heard {
        let registration = Registration { name: name.into(), version, ..Default::default() };
        Heard { name: name.into(), version, value: Some(registration.into()) }
    }

    fn gone(name: &str, version: u64) -> Heard {
        Heard { name: name.into(), version, value: None }
    }

    fn version(names: &Names, name: &str) -> Option<u64> {
        names.get(name).map(|held| held.version)
    }

    fn synced(names_max: usize, state: &[Heard]) -> (Book, Names) {
        let (mut book, names) = (Book::new(names_max), Names::new());
        book.begin_state();
        state.iter().for_each(|heard| book.watched(&names, heard.clone(), SystemClock.now()));
        book.end_state(&names);
        (book, names)
    }

    #[test]
    fn a_fact_is_shown_before_the_watch_brings_it_and_older_news_do_not_hide_it() {
        let (mut book, names) = synced(10, &[put("a", 1)]);
        let now = SystemClock.now();
        assert!(book.hear(&names, put("a", 4), now));
        assert!(!book.hear(&names, put("a", 4), now), "the same again");
        assert!(!book.hear(&names, put("a", 3), now), "an older one");
        book.watched(&names, put("a", 2), SystemClock.now());
        book.watched(&names, gone("a", 3), SystemClock.now());
        assert_eq!(version(&names, "a"), Some(4));
        book.watched(&names, put("a", 4), SystemClock.now());
        book.expire(&names, now + FACT_KEPT);
        assert_eq!(version(&names, "a"), Some(4), "the watch has confirmed it");
    }

    #[test]
    fn a_removal_that_comes_before_its_put_leaves_nothing_behind() {
        let (mut book, names) = synced(10, &[]);
        let now = SystemClock.now();
        assert!(book.hear(&names, gone("a", 6), now));
        book.watched(&names, put("a", 5), SystemClock.now());
        assert_eq!(version(&names, "a"), None);
        book.watched(&names, gone("a", 6), SystemClock.now());
        assert!(!book.expire(&names, now + FACT_KEPT));
        assert_eq!(version(&names, "a"), None);
    }

    #[test]
    fn what_the_watch_never_confirms_is_taken_back_in_time() {
        let (mut book, names) = synced(10, &[put("a", 1)]);
        let now = SystemClock.now();
        assert!(book.hear(&names, put("a", 9), now) && book.hear(&names, put("b", 9), now));
        assert!(!book.expire(&names, now + FACT_KEPT / 2));
        assert!(book.expire(&names, now + FACT_KEPT));
        assert_eq!((version(&names, "a"), version(&names, "b")), (Some(1), None));
    }

    #[test]
    fn another_instances_state_replaces_the_copy_even_by_lower_versions() {
        let (mut book, names) = synced(10, &[put("a", 7), put("b", 7)]);
        book.begin_state();
        book.watched(&names, put("a", 3), SystemClock.now());
        assert_eq!(version(&names, "b"), Some(7), "nothing goes before the state is complete");
        book.end_state(&names);
        assert_eq!((version(&names, "a"), version(&names, "b")), (Some(3), None));
    }

    #[test]
    fn a_copy_that_is_full_says_that_it_is_partial_until_a_state_fits() {
        let (mut book, names) = synced(2, &[put("a", 1), put("b", 1), put("c", 1)]);
        assert!(names.is_partial() && names.len() == 2);
        book.watched(&names, put("b", 2), SystemClock.now());
        assert_eq!(version(&names, "b"), Some(2), "known names change");
        book.begin_state();
        assert!(names.is_partial(), "until the state is read");
        book.watched(&names, put("a", 1), SystemClock.now());
        book.end_state(&names);
        assert!(!names.is_partial());
    }

    #[test]
    fn before_the_first_state_facts_say_nothing() {
        let (mut book, names) = (Book::new(10), Names::new());
        assert!(!book.hear(&names, put("a", 1), SystemClock.now()));
    }

    proptest! {
        /// The registry decides versions 1, 2, ... of two names; the bus repeats, loses and
        /// reorders them, the watch brings each once and in order, later.
        #[test]
        fn whatever_the_bus_does_the_copy_ends_as_the_watch_and_never_goes_back(
            writes in vec((0usize..2, any::<bool>()), 1..30),
            bus in vec(0usize..30, 0..60),
            lag in 0usize..10,
        ) {
            const NAMES: [&str; 2] = ["a", "b"];
            let write = |n: usize| {
                let (which, is_put) = writes[n];
                let version = n as u64 + 1;
                if is_put { put(NAMES[which], version) } else { gone(NAMES[which], version) }
            };
            let (mut book, names) = synced(10, &[]);
            let now = SystemClock.now();
            let mut newest = [0; 2];
            let mut facts = bus.into_iter();
            for done in 0..writes.len() + lag {
                for n in facts.by_ref().take(2).filter(|n| *n < writes.len().min(done + 1)) {
                    book.hear(&names, write(n), now);
                    newest[writes[n].0] = newest[writes[n].0].max(n as u64 + 1);
                }
                if let Some(n) = done.checked_sub(lag) {
                    book.watched(&names, write(n), now);
                    newest[writes[n].0] = newest[writes[n].0].max(n as u64 + 1);
                }
                for (which, name) in NAMES.iter().enumerate() {
                    let stands = newest[which].checked_sub(1).and_then(|n| write(n as usize).value);
                    prop_assert_eq!(version(&names, name), stands.map(|held| held.version));
                }
            }
            prop_assert!(!book.expire(&names, now + FACT_KEPT), "everything is confirmed");
        }
    }
}
