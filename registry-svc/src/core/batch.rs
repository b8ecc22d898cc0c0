//! What a shard has decided and nobody sees yet.

use crate::core::{name::Name, table::Entry};
use hashbrown::HashMap;
use proto::registry::{Durability, Registration, Removed};
use std::sync::Arc;

/// One decided change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Decided {
    Put(Arc<Entry>),
    Removed { removed: Arc<Removed>, kind: i32 },
}

/// One change of the disk.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Write {
    Put(Arc<Entry>),
    Tombstone(Arc<Removed>),
    Forget(String),
}

/// What was decided and is not yet visible.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) changes: Vec<Decided>,
    pub(crate) writes: Vec<Write>,
    /// Leases that its answers tell of.
    pub(crate) granted: Vec<u64>,
    /// Names that it adds, less those that it frees.
    pub(crate) grown: i64,
    /// What the next command must see. Asked for one name at a time; whoever walks it sorts.
    pub(super) pending: HashMap<Name, Option<Arc<Entry>>>,
}

impl Batch {
    /// The versions of its registrations as they came, each higher than the one before, with
    /// their places among the changes.
    pub(crate) fn versions(&self) -> Vec<(u64, usize)> {
        let mut versions: Vec<(u64, usize)> = Vec::new();
        for (place, change) in self.changes.iter().enumerate() {
            // A writer's own versions always rise; what a peer sent may not.
            if let Decided::Put(entry) = change
                && versions.last().is_none_or(|(last, _)| entry.version > *last)
            {
                versions.push((entry.version, place));
            }
        }
        versions
    }

    /// A registration in the place of `old`.
    pub(super) fn put(&mut self, entry: Arc<Entry>, old: Option<&Registration>) {
        let was_durable = old.is_some_and(|old| old.durability() == Durability::Durable);
        self.grown += i64::from(old.is_none());
        if entry.durability() == Durability::Durable {
            self.writes.push(Write::Put(entry.clone()));
        } else if was_durable {
            self.writes.push(Write::Forget(entry.name.clone()));
        }
        self.pending.insert(Name::new(&entry.name), Some(entry.clone()));
        self.changes.push(Decided::Put(entry));
    }

    /// What is to become visible. The view of the next command is let go of: with it each
    /// registration would have two owners, and be copied to be published.
    pub(crate) fn into_changes(self) -> Vec<Decided> {
        self.changes
    }

    pub(super) fn remove(&mut self, removed: Arc<Removed>, kind: i32) {
        self.grown -= 1;
        self.pending.insert(Name::new(&removed.name), None);
        self.changes.push(Decided::Removed { removed, kind });
    }
}
