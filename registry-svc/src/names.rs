//! What readers see, in both models at once: the shards, and the one map that they replace.
//!
//! Both take every change at the one point where it becomes visible, under one lock, so either can
//! answer at any moment, and under that lock both answer the same. The shards are always there:
//! writers decide by them. The one map is dropped when nobody is answered from it, and is filled
//! again from the shards, one shard at a time, beside the traffic.

use crate::core::{
    single::Single,
    table::{Entry, Table},
};
use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use proto::ids::ShardId;
use std::sync::Arc;

pub(crate) struct Names {
    table: Arc<Table>,
    single: RwLock<Kept>,
}

/// How far the one map is.
enum Kept {
    No,
    /// Takes changes, and does not hold all that was there before.
    Filling(Single),
    Whole(Single),
}

/// Holds off everybody who makes changes visible.
pub(crate) type Held<'a> = MappedRwLockReadGuard<'a, Single>;

impl Names {
    /// The shards alone.
    pub(crate) fn new(table: Arc<Table>) -> Arc<Self> {
        Arc::new(Self { table, single: RwLock::new(Kept::No) })
    }

    pub(crate) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Begins to make changes visible; they are, in both models, when the guard is dropped.
    pub(crate) fn write(&self) -> Visible<'_> {
        let shared = self.single.read();
        let lock = match &*shared {
            // Shared with other shards' writers, and still against the begin of a filling.
            Kept::No => Lock::Shared { _kept: shared },
            _ => {
                drop(shared);
                Lock::Own(self.single.write())
            }
        };
        Visible { table: &self.table, lock }
    }

    /// The one map; `None` while it is not there or not whole: then the shards answer.
    pub(crate) fn single(&self) -> Option<Held<'_>> {
        RwLockReadGuard::try_map(self.single.read(), |kept| match kept {
            Kept::Whole(single) => Some(single),
            _ => None,
        })
        .ok()
    }

    /// Fills the one map; it is whole when this returns.
    pub(crate) fn fill(&self) {
        let mut kept = self.single.write();
        if !matches!(&*kept, Kept::No) {
            return;
        }
        *kept = Kept::Filling(Single::default());
        drop(kept);
        for shard in 0..self.table.shards() {
            self.fill_shard(ShardId(shard));
        }
        let mut kept = self.single.write();
        *kept = match std::mem::replace(&mut *kept, Kept::No) {
            Kept::Filling(single) => Kept::Whole(single),
            other => other,
        };
    }

    fn fill_shard(&self, shard: ShardId) {
        if let Kept::Filling(single) = &mut *self.single.write() {
            for entry in self.table.shard_entries(shard) {
                single.put(entry);
            }
        }
    }

    /// Drops the one map.
    pub(crate) fn drop_single(&self) {
        let kept = std::mem::replace(&mut *self.single.write(), Kept::No);
        // Freeing it takes its time; nobody waits for that.
        drop(kept);
    }
}

/// Changes on their way to readers.
pub(crate) struct Visible<'a> {
    table: &'a Table,
    lock: Lock<'a>,
}

enum Lock<'a> {
    Shared { _kept: RwLockReadGuard<'a, Kept> },
    Own(RwLockWriteGuard<'a, Kept>),
}

impl Visible<'_> {
    /// As [`Table::put`].
    pub(crate) fn put(&mut self, entry: &Arc<Entry>) -> bool {
        if let Some(single) = self.single() {
            single.put(entry.clone());
        }
        self.table.put(entry)
    }

    /// As [`Table::remove`].
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        if let Some(single) = self.single() {
            single.remove(name);
        }
        self.table.remove(name)
    }

    fn single(&mut self) -> Option<&mut Single> {
        match &mut self.lock {
            Lock::Own(kept) => match &mut **kept {
                Kept::Filling(single) | Kept::Whole(single) => Some(single),
                // It was dropped since it was looked at.
                Kept::No => None,
            },
            Lock::Shared { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::registry::Registration;
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    fn entry(name: &str, revision: u64) -> Arc<Entry> {
        let registration = Registration { name: name.into(), version: revision, ..Default::default() };
        Arc::new(Entry { registration, revision })
    }

    /// Names come and go on four threads while the map is filled and dropped again and again;
    /// whenever it is whole, both models say the same of every name.
    #[test]
    fn whenever_the_one_map_is_whole_it_holds_what_the_shards_hold() {
        const NAMES: u64 = 200;
        let names = Names::new(Arc::new(Table::new(4)));
        let done = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (names, done) = (names.clone(), done.clone());
                thread::spawn(move || {
                    let mut revision = writer;
                    while !done.load(Ordering::Relaxed) {
                        revision += 4;
                        // A name has one writer, as in the service.
                        let name = format!("b{}", (revision * 7 + writer) % NAMES / 4 * 4 + writer);
                        let mut visible = names.write();
                        match revision % 3 {
                            0 => visible.remove(&name),
                            _ => visible.put(&entry(&name, revision)),
                        };
                    }
                })
            })
            .collect();
        let mut compared = 0;
        for _ in 0..200 {
            names.fill();
            let single = names.single().expect("whole");
            for n in 0..NAMES {
                let name = format!("b{n}");
                assert_eq!(single.get(&name).cloned(), names.table().get(&name), "{name}");
                compared += usize::from(single.get(&name).is_some());
            }
            drop(single);
            names.drop_single();
            assert!(names.single().is_none());
        }
        done.store(true, Ordering::Relaxed);
        writers.into_iter().for_each(|writer| writer.join().expect("a writer"));
        assert!(compared > 0, "nothing was there to compare");
    }
}
