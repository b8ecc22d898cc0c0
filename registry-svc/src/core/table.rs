//! What readers see. Names are spread over shards by a published hash (DESIGN K17), each shard
//! written by one writer and read by everybody; a second, ordered set of names serves pages.

use crate::core::{index::Index, name::Name};
use parking_lot::RwLock;
use proto::{ids::ShardId, registry::Registration};
use registry_client::map::{Map, Reader, Warmer};
use std::{collections::BTreeSet, ops::Bound, sync::Arc};

/// A registration and the revision at which it became visible; 0 before that.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) registration: Registration,
    pub(crate) revision: u64,
}

impl Entry {
    /// Made once, where a registration comes in: what is passed on and kept is the same one.
    pub(crate) fn new(registration: Registration) -> Arc<Self> {
        Arc::new(Self { registration, revision: 0 })
    }
}

impl std::ops::Deref for Entry {
    type Target = Registration;

    fn deref(&self) -> &Registration {
        &self.registration
    }
}

pub(crate) struct Table {
    // The version is the registration's.
    map: Arc<Map<Arc<Entry>>>,
    order: RwLock<BTreeSet<Name>>,
    index: Index,
    shards: u16,
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
        let shards = shards.max(1);
        let map = Arc::new(Map::new(usize::from(shards)));
        Self { map, order: RwLock::default(), index: Index::default(), shards }
    }

    pub(crate) fn shard_of(&self, name: &str) -> ShardId {
        ShardId::of(name, self.shards)
    }

    pub(crate) fn shards(&self) -> u16 {
        self.shards
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Entry>> {
        self.map.get(name.as_bytes()).map(|(_, entry)| entry)
    }

    /// Looks versions up for one stream, without a lock.
    pub(crate) fn reader(&self) -> Reader<Arc<Entry>> {
        Reader::new(self.map.clone())
    }

    /// Asks the memory for what lookups of these names, and the answers to them, read.
    pub(crate) fn warm<'a>(&self, warmer: &mut Warmer<Arc<Entry>>, names: impl Iterator<Item = &'a [u8]>) {
        warmer.warm(&self.map, names, &[head, strings]);
    }

    pub(crate) fn put(&self, name: Name, entry: Arc<Entry>) {
        let version = entry.registration.version;
        let old = self.map.put(name.as_bytes(), version, entry.clone());
        self.index.replace(old.as_deref().map(|old| &old.registration), Some(&entry.registration));
        if old.is_none() {
            self.order.write().insert(name);
        }
    }

    pub(crate) fn remove(&self, name: &str) -> Option<Arc<Entry>> {
        let entry = self.map.remove(name.as_bytes())?;
        self.index.replace(Some(&entry.registration), None);
        self.order.write().remove(name.as_bytes());
        Some(entry)
    }

    /// What is counted over all names.
    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// The entries of one shard, in no order.
    pub(crate) fn shard_entries(&self, shard: ShardId) -> Vec<Arc<Entry>> {
        self.map.shard_values(usize::from(shard.0))
    }

    pub(crate) fn shard_len(&self, shard: ShardId) -> usize {
        self.map.shard_len(usize::from(shard.0))
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
            Some(after) if after >= prefix => Bound::Excluded(after.as_bytes()),
            _ => Bound::Included(prefix.as_bytes()),
        };
        let order = self.order.read();
        let range = order.range::<[u8], _>((start, Bound::Unbounded));
        range.take_while(|name| name.as_bytes().starts_with(prefix.as_bytes())).take(scan).cloned().collect()
    }
}

/// Of each line that an entry takes.
fn head(entry: &Arc<Entry>) -> u64 {
    let Entry { registration, revision } = &**entry;
    let Registration { name, owner, origin, labels, version, .. } = registration;
    revision ^ version ^ (name.len() ^ owner.len() ^ origin.len() ^ labels.len()) as u64
}

fn strings(entry: &Arc<Entry>) -> u64 {
    let Registration { name, owner, origin, .. } = &entry.registration;
    let first = |text: &String| u64::from(text.as_bytes().first().copied().unwrap_or_default());
    first(name) ^ first(owner) ^ first(origin)
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
