//! What readers see. Names are spread over shards by a published hash (DESIGN K17), each shard
//! written by one writer and read by everybody; a second, ordered set of names serves pages.

use crate::core::{history::Change, index::Index, name::Name};
use parking_lot::RwLock;
use proto::{
    ids::ShardId,
    registry::{Registration, Removed},
};
use registry_client::map::{Coming, Map, Reader, Warmer};
use std::{
    collections::BTreeSet,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Names that a walk reads at once.
const CHUNK_MIN: usize = 64;
const CHUNK_MAX: usize = 1024;

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
    // Number of names, as of the last batch of each writer.
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
        let shards = shards.max(1);
        let map = Arc::new(Map::new(usize::from(shards)));
        Self { map, order: RwLock::default(), index: Index::default(), shards, len: AtomicUsize::new(0) }
    }

    pub(crate) fn shard_of(&self, name: &str) -> ShardId {
        ShardId::of(name, self.shards)
    }

    pub(crate) fn shards(&self) -> u16 {
        self.shards
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Counts names that a batch added, less those that it freed.
    pub(crate) fn grew(&self, by: isize) {
        self.len.fetch_add(by.cast_unsigned(), Ordering::Relaxed);
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

    /// Prepares a shard for changes that are about to come, and for the names that they add.
    pub(crate) fn expect(&self, shard: ShardId, changes: &[Change], added: &[Name]) {
        let put = changes.iter().filter(|change| matches!(change, Change::Put(_))).count();
        let coming = Coming { added: added.len(), put };
        self.map.expect(usize::from(shard.0), coming, added.iter().map(Name::as_bytes));
    }

    /// Lets pages look for names, which come before they do.
    pub(crate) fn list(&self, names: Vec<Name>) {
        if !names.is_empty() {
            self.order.write().extend(names);
        }
    }

    /// Adds or replaces; whether it is new. It is found by its name, and in pages once that is listed.
    pub(crate) fn put(&self, entry: &Arc<Entry>) -> bool {
        let version = entry.registration.version;
        let old = self.map.put(entry.registration.name.as_bytes(), version, entry.clone());
        self.index.replace(old.as_deref().map(|old| &old.registration), Some(&entry.registration));
        old.is_none()
    }

    /// Whether it was there. Pages skip it, and look for it until it is taken off their list.
    pub(crate) fn remove(&self, name: &str) -> bool {
        let removed = self.map.remove(name.as_bytes());
        if let Some(entry) = &removed {
            self.index.replace(Some(&entry.registration), None);
        }
        removed.is_some()
    }

    /// Takes those names off the list that were removed and not put again. For their writer.
    pub(crate) fn unlist(&self, removed: &[Arc<Removed>]) {
        let gone = removed.iter().map(|removed| &removed.name).filter(|name| self.get(name).is_none());
        let mut gone = gone.peekable();
        if gone.peek().is_some() {
            let mut order = self.order.write();
            for name in gone {
                order.remove(name.as_bytes());
            }
        }
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

    /// As [`Page::of`].
    pub(crate) fn page(
        &self,
        after: Option<&str>,
        prefix: &str,
        limit: usize,
        scan: usize,
        keep: impl Fn(&Entry) -> bool,
    ) -> Page {
        let chunk = limit.saturating_add(1).clamp(CHUNK_MIN, CHUNK_MAX);
        Page::of(self.walk(after, prefix, chunk), limit, scan, keep)
    }

    /// The entries after a name, in order. Names are listed before they are put and after they are
    /// removed; those that are not there are left out.
    fn walk(&self, after: Option<&str>, prefix: &str, chunk: usize) -> impl Iterator<Item = Arc<Entry>> {
        let mut start = start(after, prefix).map(Name::new);
        let (mut names, mut is_last) = (Vec::new().into_iter(), false);
        std::iter::from_fn(move || {
            loop {
                if let Some(entry) = names.by_ref().find_map(|name: Name| self.get(name.as_str())) {
                    return Some(entry);
                }
                if is_last {
                    return None;
                }
                let found = self.listed(start.as_ref().map(Name::as_bytes), prefix, chunk);
                is_last = found.len() < chunk;
                if let Some(last) = found.last() {
                    start = Bound::Excluded(last.clone());
                }
                names = found.into_iter();
            }
        })
    }

    fn listed(&self, start: Bound<&[u8]>, prefix: &str, most: usize) -> Vec<Name> {
        let order = self.order.read();
        let range = order.range::<[u8], _>((start, Bound::Unbounded));
        range.take_while(|name| name.as_bytes().starts_with(prefix.as_bytes())).take(most).cloned().collect()
    }
}

impl Page {
    /// Up to `limit` of these entries, which are in order of name and have the page's prefix, that
    /// pass `keep`. Looks at no more than `scan`: a page may be short and have a next one.
    pub(crate) fn of(
        entries: impl Iterator<Item = Arc<Entry>>,
        limit: usize,
        scan: usize,
        keep: impl Fn(&Entry) -> bool,
    ) -> Self {
        let (mut entries, mut kept, mut last) = (entries.peekable(), Vec::new(), None);
        for entry in entries.by_ref().take(scan) {
            kept.extend(keep(&entry).then(|| entry.clone()));
            last = Some(entry);
            if kept.len() == limit {
                break;
            }
        }
        let next = last.filter(|_| entries.peek().is_some()).map(|last| last.registration.name.clone());
        Self { entries: kept, next }
    }
}

/// Where a page of names with a prefix begins.
pub(super) fn start<'a>(after: Option<&'a str>, prefix: &'a str) -> Bound<&'a str> {
    match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    }
}

/// Reads of each line that an entry takes, and of its strings.
pub(crate) fn touch(entry: &Arc<Entry>) -> u64 {
    Arc::strong_count(entry) as u64 ^ head(entry) ^ strings(entry)
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

    fn removed(name: &str) -> Arc<Removed> {
        Arc::new(Removed { name: name.into(), ..Default::default() })
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
                    table.list(vec![Name::new(name)]);
                    prop_assert_eq!(table.put(&entry(name, revision)), model.insert(name.clone(), revision).is_none());
                } else {
                    prop_assert_eq!(table.remove(name), model.remove(name).is_some());
                    // Some are still on the list when pages are read.
                    if revision % 2 == 0 {
                        table.unlist(&[removed(name)]);
                    }
                }
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
