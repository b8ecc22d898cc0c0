//! What changed, in order. A revision is one change of this instance; they have no gaps, and
//! those of one start of the instance never meet those of another.

use crate::core::table::Entry;
use proto::registry::Removed;
use std::{collections::VecDeque, sync::Arc};

/// Revisions per millisecond of start time that keep two starts apart.
const PER_GENERATION: u64 = 1 << 12;

/// One change.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) revision: u64,
    pub(crate) change: Change,
}

/// A change that was decided, and is visible once it is published. One pointer, whichever it is: so
/// small a value is passed in registers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    Put(Arc<Entry>),
    Removed(Arc<Gone>),
}

/// A registration that was removed.
#[derive(Debug, PartialEq)]
pub(crate) struct Gone {
    pub(crate) removed: Arc<Removed>,
    /// The registration's.
    pub(crate) kind: i32,
}

impl Change {
    /// Its key.
    pub(crate) fn name(&self) -> &str {
        match self {
            Change::Put(entry) => &entry.registration.name,
            Change::Removed(gone) => &gone.removed.name,
        }
    }

    pub(crate) fn kind(&self) -> i32 {
        match self {
            Change::Put(entry) => entry.registration.kind,
            Change::Removed(gone) => gone.kind,
        }
    }

    pub(crate) fn origin(&self) -> &str {
        match self {
            Change::Put(entry) => &entry.registration.origin,
            Change::Removed(gone) => &gone.removed.origin,
        }
    }

    /// What it counts against the bound of the history.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Change::Put(entry) => 64 + prost::Message::encoded_len(&entry.registration),
            Change::Removed(gone) => 64 + prost::Message::encoded_len(&*gone.removed),
        }
    }
}

/// A revision that cannot be resumed from: too old, or of another start or instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Compacted {
    /// The oldest revision that can be resumed from.
    pub(crate) oldest: u64,
    pub(crate) newest: u64,
}

/// The last changes, bounded in number and bytes.
#[derive(Debug)]
pub(crate) struct History {
    events: VecDeque<(Event, usize)>,
    head: u64,
    bytes: usize,
    limit: usize,
    limit_bytes: usize,
}

impl History {
    /// An empty history of an instance that started at `generation` (ms since the epoch).
    pub(crate) fn new(generation: u64, limit: usize, limit_bytes: usize) -> Self {
        let head = generation.saturating_mul(PER_GENERATION).max(1);
        Self { events: VecDeque::new(), head, bytes: 0, limit, limit_bytes }
    }

    /// The newest revision.
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// Adds a change, with its [`Change::bytes`], under the next revision, which must be what the
    /// change carries. The bounds hold after the next [`History::trim`].
    pub(crate) fn push(&mut self, change: Change, bytes: usize) -> u64 {
        self.head += 1;
        self.events.push_back((Event { revision: self.head, change }, bytes));
        self.bytes += bytes;
        self.head
    }

    /// Takes out the oldest changes over the bounds. To let go of them is work that no lock needs.
    pub(crate) fn trim(&mut self) -> Vec<Change> {
        let mut over = Vec::new();
        while self.events.len() > self.limit || (self.bytes > self.limit_bytes && self.events.len() > 1) {
            let Some((event, bytes)) = self.events.pop_front() else {
                break;
            };
            self.bytes -= bytes;
            over.push(event.change);
        }
        over
    }

    /// Up to `max` events after a revision, oldest first; empty at the head.
    pub(crate) fn after(&self, revision: u64, max: usize) -> Result<Vec<Event>, Compacted> {
        let oldest = self.head - self.events.len() as u64;
        if !(oldest..=self.head).contains(&revision) {
            return Err(Compacted { oldest, newest: self.head });
        }
        let skip = usize::try_from(revision - oldest).unwrap_or(usize::MAX);
        Ok(self.events.iter().skip(skip).take(max).map(|(event, _)| event.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn removal(name: &str) -> Change {
        let removed = Arc::new(Removed { name: name.into(), ..Default::default() });
        Change::Removed(Arc::new(Gone { removed, kind: 1 }))
    }

    fn push(history: &mut History, change: Change) -> u64 {
        let bytes = change.bytes();
        let revision = history.push(change, bytes);
        history.trim();
        revision
    }

    #[test]
    fn a_revision_of_another_start_is_compacted() {
        let mut first = History::new(1_700_000_000_000, 10, 1 << 20);
        let second = History::new(1_700_000_000_001, 10, 1 << 20);
        let revision = push(&mut first, removal("a"));
        assert!(first.after(revision, 10).is_ok());
        assert!(second.after(revision, 10).is_err(), "from before the start");
        assert!(first.after(second.head(), 10).is_err(), "from the future");
    }

    #[test]
    fn bytes_bound_it_too() {
        let mut history = History::new(1, 1000, 500);
        for _ in 0..100 {
            push(&mut history, removal(&"x".repeat(100)));
        }
        assert!(history.events.len() < 5);
    }

    proptest! {
        #[test]
        fn reading_on_gives_every_event_once_in_order_or_tells_the_gap(
            pushes in prop::collection::vec(0usize..5, 1..60), limit in 1usize..20, max in 1usize..6,
        ) {
            let mut history = History::new(7, limit, 1 << 20);
            let start = history.head();
            let mut position = start;
            for count in pushes {
                for _ in 0..count {
                    push(&mut history, removal("a"));
                }
                match history.after(position, max) {
                    Ok(events) => for event in events {
                        prop_assert_eq!(event.revision, position + 1);
                        position = event.revision;
                    },
                    Err(compacted) => {
                        prop_assert!(position < compacted.oldest);
                        prop_assert!(history.head() - position > limit as u64);
                        position = history.head();
                    }
                }
            }
        }
    }
}
