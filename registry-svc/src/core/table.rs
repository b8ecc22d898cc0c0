//! What readers see. Names are spread over shards by a published hash (DESIGN K17), each shard
//! written by one writer and read by everybody; a second, ordered set of names serves pages.

use crate::core::name::Name;
use hashbrown::HashTable;
use parking_lot::RwLock;
use proto::{ids::ShardId, registry::Registration};
use std::{
    collections::BTreeSet,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A registration and the revision at which it became visible.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) registration: Registration,
    pub(crate) revision: u64,
}

/// One slot: the key is inline, so a probe that misses touches nothing else.
struct Slot {
    name: Name,
    entry: Arc<Entry>,
}

// A shard on cache lines of its own, so that writers of neighbours do not slow its readers.
#[repr(align(128))]
struct Shard(RwLock<HashTable<Slot>>);

pub(crate) struct Table {
    shards: Box<[Shard]>,
    order: RwLock<BTreeSet<Name>>,
    len: AtomicUsize,
}

/// One page of names in order.
pub(crate) struct Page {
    pub(crate) entries: Vec<Arc<Entry>>,
    /// Where the next page starts (after this name); `None` at the end.
    pub(crate) next: Option<String>,
}

impl Table {
    /// `shards` is a power of two, checked by the config.
    pub(crate) fn new(shards: u16) -> Self {
        let shards = (0..shards.max(1)).map(|_| Shard(RwLock::default())).collect();
        Self { shards, order: RwLock::default(), len: AtomicUsize::new(0) }
    }

    pub(crate) fn shards(&self) -> u16 {
        u16::try_from(self.shards.len()).unwrap_or(u16::MAX)
    }

    pub(crate) fn shard_of(&self, name: &str) -> ShardId {
        ShardId::of(name, self.shards())
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Entry>> {
        let (shard, hash) = self.find(name.as_bytes());
        let shard = shard.read();
        let slot = shard.find(hash, |slot| slot.name.as_bytes() == name.as_bytes());
        slot.map(|slot| slot.entry.clone())
    }

    pub(crate) fn put(&self, name: Name, entry: Arc<Entry>) {
        let (shard, hash) = self.find(name.as_bytes());
        let mut shard = shard.write();
        if let Some(slot) = shard.find_mut(hash, |slot| slot.name == name) {
            slot.entry = entry;
            return;
        }
        let slot = Slot { name: name.clone(), entry };
        shard.insert_unique(hash, slot, |slot| slot_hash(self::hash(slot.name.as_bytes())));
        drop(shard);
        self.order.write().insert(name);
        self.len.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self, name: &str) -> Option<Arc<Entry>> {
        let (shard, hash) = self.find(name.as_bytes());
        let mut shard = shard.write();
        let found = shard.find_entry(hash, |slot| slot.name.as_bytes() == name.as_bytes()).ok()?;
        let (slot, _) = found.remove();
        drop(shard);
        self.order.write().remove(name);
        self.len.fetch_sub(1, Ordering::Relaxed);
        Some(slot.entry)
    }

    /// The entries of one shard, in no order.
    pub(crate) fn shard_entries(&self, shard: ShardId) -> Vec<Arc<Entry>> {
        let shard = self.shards.get(usize::from(shard.0));
        shard.map(|shard| shard.0.read().iter().map(|slot| slot.entry.clone()).collect()).unwrap_or_default()
    }

    pub(crate) fn shard_len(&self, shard: ShardId) -> usize {
        self.shards.get(usize::from(shard.0)).map_or(0, |shard| shard.0.read().len())
    }

    /// Up to `limit` entries after `after` in name order that start with `prefix` and pass
    /// `keep`. Looks at no more than `scan` names: a page may be short and have a next one.
    pub(crate) fn page(
        &self,
        after: Option<&str>,
        prefix: &str,
        limit: usize,
        scan: usize,
        keep: impl Fn(&Entry) -> bool,
    ) -> Page {
        let names = self.names_after(after, prefix, scan);
        let mut entries = Vec::new();
        let mut last = None;
        let scanned_all = names.len() < scan;
        let mut names = names.into_iter();
        for name in names.by_ref() {
            // A name freed since the order was read is skipped.
            let entry = self.get(name.as_str()).filter(|entry| keep(entry));
            last = Some(name);
            entries.extend(entry);
            if entries.len() == limit {
                break;
            }
        }
        let ended = scanned_all && names.next().is_none();
        let next = last.filter(|_| !ended).map(|name| name.as_str().to_owned());
        Page { entries, next }
    }

    fn names_after(&self, after: Option<&str>, prefix: &str, scan: usize) -> Vec<Name> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let order = self.order.read();
        let range = order.range::<str, _>((start, Bound::Unbounded));
        range.take_while(|name| name.as_bytes().starts_with(prefix.as_bytes())).take(scan).cloned().collect()
    }

    /// The shard of a key, as `shard_of` says it, and the key's hash within it: hashed once.
    fn find(&self, name: &[u8]) -> (&RwLock<HashTable<Slot>>, u64) {
        let hash = hash(name);
        let shard = hash as usize & (self.shards.len() - 1);
        // Below the number of shards, which is a power of two.
        (&self.shards[shard].0, slot_hash(hash))
    }
}

fn hash(name: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(name)
}

/// The low bits choose the shard and are equal within it; the slot uses the others.
fn slot_hash(hash: u64) -> u64 {
    hash.rotate_right(16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use std::collections::BTreeMap;

    fn entry(name: &str, revision: u64) -> Arc<Entry> {
        Arc::new(Entry { registration: Registration { name: name.into(), ..Default::default() }, revision })
    }

    fn pages(table: &Table, prefix: &str, limit: usize, scan: usize) -> Vec<String> {
        let mut names = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = table.page(after.as_deref(), prefix, limit, scan, |_| true);
            names.extend(page.entries.iter().map(|entry| entry.registration.name.clone()));
            match page.next {
                Some(next) => after = Some(next),
                None => return names,
            }
        }
    }

    proptest! {
        #[test]
        fn table_and_pages_agree_with_an_ordered_map(
            steps in vec((any::<bool>(), "[a-c]{1,3}|[a-c]{30,33}"), 0..200),
            limit in 1usize..7,
            scan in 1usize..9,
            shards in prop::sample::select(vec![1u16, 2, 16, 1024]),
        ) {
            let (table, mut model) = (Table::new(shards), BTreeMap::new());
            for (revision, (put, name)) in (1u64..).zip(&steps) {
                if *put {
                    table.put(Name::new(name), entry(name, revision));
                    model.insert(name.clone(), revision);
                } else {
                    let removed = table.remove(name).map(|entry| entry.revision);
                    prop_assert_eq!(removed, model.remove(name));
                }
                prop_assert_eq!(table.len(), model.len());
            }
            for (name, revision) in &model {
                prop_assert_eq!(table.get(name).map(|entry| entry.revision), Some(*revision));
            }
            let all: Vec<String> = model.keys().cloned().collect();
            prop_assert_eq!(pages(&table, "", limit, scan), &all[..]);
            let of_b: Vec<String> = all.into_iter().filter(|name| name.starts_with('b')).collect();
            prop_assert_eq!(pages(&table, "b", limit, scan), of_b);
            for entry in (0..shards).flat_map(|shard| table.shard_entries(ShardId(shard)).into_iter().map(move |e| (shard, e))) {
                prop_assert_eq!(table.shard_of(&entry.1.registration.name), ShardId(entry.0));
            }
            let in_shards: usize = (0..shards).map(|shard| table.shard_len(ShardId(shard))).sum();
            prop_assert_eq!(in_shards, model.len());
        }
    }
}
