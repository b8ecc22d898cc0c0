//! What a shard has decided and nobody sees yet.

use crate::core::{
    history::{Change, Gone},
    name::Name,
    table::Entry,
};
use hashbrown::HashTable;
use proto::registry::{Durability, Registration, Removed};
use registry_client::map::hash;
use std::sync::Arc;

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
    pub(crate) changes: Vec<Change>,
    pub(crate) writes: Vec<Write>,
    /// Leases that its answers tell of.
    pub(crate) granted: Vec<u64>,
    /// Names that it adds, less those that it frees.
    pub(crate) grown: i64,
    // Names that it puts and that were not there before it, or before a removal in it.
    added: Vec<Name>,
    // The place among the changes of each name's last one: what the next command must see.
    last: HashTable<usize>,
}

impl Batch {
    /// An empty one for so many commands.
    pub(crate) fn with_room(commands: usize) -> Self {
        Self {
            changes: Vec::with_capacity(commands),
            granted: Vec::with_capacity(commands),
            added: Vec::with_capacity(commands),
            last: HashTable::with_capacity(commands),
            ..Self::default()
        }
    }

    /// The versions of its registrations as they came, each higher than the one before, with
    /// their places among the changes.
    pub(crate) fn versions(&self) -> Vec<(u64, usize)> {
        let mut versions: Vec<(u64, usize)> = Vec::with_capacity(self.changes.len());
        for (place, change) in self.changes.iter().enumerate() {
            // A writer's own versions always rise; what a peer sent may not.
            if let Change::Put(entry) = change
                && versions.last().is_none_or(|(last, _)| entry.version > *last)
            {
                versions.push((entry.version, place));
            }
        }
        versions
    }

    /// The last change of a name.
    pub(super) fn last(&self, name: &str) -> Option<&Change> {
        let place = self.last.find(spread(name), |place| name_at(&self.changes, *place) == name)?;
        self.changes.get(*place)
    }

    /// A registration in the place of `old`.
    pub(crate) fn put(&mut self, name: Name, entry: Arc<Entry>, old: Option<&Registration>) {
        let was_durable = old.is_some_and(|old| old.durability() == Durability::Durable);
        if old.is_none() {
            self.grown += 1;
            self.added.push(name);
        }
        if entry.durability() == Durability::Durable {
            self.writes.push(Write::Put(entry.clone()));
        } else if was_durable {
            self.writes.push(Write::Forget(entry.name.clone()));
        }
        let hash = spread(&entry.name);
        self.changes.push(Change::Put(entry));
        self.index(hash);
    }

    pub(super) fn remove(&mut self, removed: Arc<Removed>, kind: i32) {
        self.grown -= 1;
        let hash = spread(&removed.name);
        self.changes.push(Change::Removed(Arc::new(Gone { removed, kind })));
        self.index(hash);
    }

    /// What is to become visible, and the names that it adds.
    pub(crate) fn into_changes(self) -> (Vec<Change>, Vec<Name>) {
        (self.changes, self.added)
    }

    /// Of the change that came last, with the hash of its name: a change that is passed through
    /// memory is waited for, with all that was written before it.
    fn index(&mut self, hash: u64) {
        let (changes, place) = (&self.changes, self.changes.len() - 1);
        let is_same = |old: &usize| name_at(changes, *old) == name_at(changes, place);
        match self.last.find_mut(hash, is_same) {
            Some(last) => *last = place,
            None => drop(self.last.insert_unique(hash, place, |old| spread(name_at(changes, *old)))),
        }
    }
}

fn name_at(changes: &[Change], place: usize) -> &str {
    changes.get(place).map_or("", Change::name)
}

/// The names of one shard have the low bits of their hash in common.
fn spread(name: &str) -> u64 {
    hash(name.as_bytes()).rotate_right(16)
}
