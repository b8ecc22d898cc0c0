//! Names to values, sharded by the published hash: one writer a shard, readers without a lock.
//!
//! A name of up to [`INLINE`] bytes lies with its version in one slot of 64 bytes, on one cache
//! line. A table of hints, one byte a slot, leads to it, so a lookup of a version touches a line of
//! the hints, which stay in the cache, and its name's own. The slots are plain atomics, guarded by a
//! sequence number each (a seqlock, Boehm 2012), so there is no `unsafe`, and a read writes
//! nothing that another core reads. Longer names are kept behind a lock.
//!
//! Beside the version a slot has the position of its name's value. A position is written once, before
//! a slot leads to it, and not used again, so the version and the value that a read of a slot leads to
//! belong together, and whoever keeps the values may lend one without counting it (`Lender`).
//!
//! # Invariants
//! * A lookup answers what stood at some moment between its call and its return.
//! * Slots never move within an array: an array that fills up is copied to a larger one, and the
//!   old one is not written any more. It comes with the values that its positions are of.
//! * A shard has at most two positions for each name that stands, and `LITTER_MIN`. A value that was
//!   replaced or removed is alive until that bound makes the writer copy what stands to new values and
//!   slots, and the last reader has let go of the old ones: one copy for each position that is given up,
//!   counted over time. The slots shrink with it, to at most six for each name that stands, and a
//!   constant.

mod hints;
#[cfg(test)]
mod hints_test;
mod reader;
mod shard;
mod slot;
mod values;
mod warm;

pub(crate) use reader::Lender;
pub use reader::Reader;
pub use shard::Coming;
pub(crate) use slot::Key;
pub use slot::{INLINE, hash};
pub use warm::Warmer;

use shard::Shard;
use std::{fmt, hint::black_box};

/// Names to values with a version each. A name has at most 255 bytes and is not empty.
pub struct Map<V> {
    shards: Box<[Shard<V>]>,
}

impl<V: Clone> Map<V> {
    /// An empty map of a number of shards, which is rounded up to a power of two.
    pub fn new(shards: usize) -> Self {
        let shards = (0..shards.max(1).next_power_of_two()).map(|_| Shard::new()).collect();
        Self { shards }
    }

    /// Number of names: a sum over the shards.
    pub fn len(&self) -> usize {
        self.shards.iter().map(Shard::len).sum()
    }

    /// Whether there is no name.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A name's value and version.
    pub fn get(&self, name: &[u8]) -> Option<(u64, V)> {
        let key = Key::of(name);
        let shard = self.shard(key.hash);
        if key.fits() { shard.get(&key) } else { shard.long.read().get(name).cloned() }
    }

    /// Adds or replaces; answers what was there.
    pub fn put(&self, name: &[u8], version: u64, value: V) -> Option<V> {
        let key = Key::of(name);
        let shard = self.shard(key.hash);
        match key.fits() {
            true => shard.put(&key, version, value),
            false => shard.put_long(name, version, value),
        }
    }

    /// Prepares a shard for what is about to be put, so that no array is copied then, and asks the
    /// memory for the slots of the names that are added, of all of them at once.
    pub fn expect<'a>(&self, shard: usize, coming: Coming, added: impl Iterator<Item = &'a [u8]>) {
        let Some(shard) = self.shards.get(shard) else {
            return;
        };
        shard.make_room(coming);
        let arrays = shard.arrays.load();
        let vacant = added.map(Key::of).filter(Key::fits).filter_map(|key| arrays.slots.vacant(&key));
        // Found before the first one is waited for.
        let vacant: Vec<usize> = vacant.collect();
        black_box(vacant.iter().fold(0, |seen, at| seen ^ arrays.slots.touch(*at)));
    }

    /// Removes a name; answers what was there.
    pub fn remove(&self, name: &[u8]) -> Option<V> {
        let key = Key::of(name);
        let shard = self.shard(key.hash);
        match key.fits() {
            true => shard.remove(&key),
            false => shard.remove_long(name),
        }
    }

    /// The values of one shard, in no order.
    pub fn shard_values(&self, shard: usize) -> Vec<V> {
        self.shards.get(shard).map_or(Vec::new(), Shard::values)
    }

    /// Number of names in one shard.
    pub fn shard_len(&self, shard: usize) -> usize {
        self.shards.get(shard).map_or(0, Shard::len)
    }

    /// Bytes of the slots, and of the values' places without what values point to. Names of more
    /// than [`INLINE`] bytes are not counted.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(Shard::bytes).sum()
    }

    fn shard(&self, hash: u64) -> &Shard<V> {
        // Below the number of shards, which is a power of two.
        &self.shards[hash as usize & (self.shards.len() - 1)]
    }
}

impl<V> fmt::Debug for Map<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{shard::LITTER_MIN, *};
    use proptest::{collection::vec, prelude::*};
    use std::{
        collections::{BTreeMap, BTreeSet},
        sync::{
            Arc,
            atomic::{AtomicBool, AtomicU64, Ordering},
        },
        thread,
    };

    proptest! {
        #[test]
        fn a_map_and_its_readers_agree_with_an_ordered_map(
            steps in vec((0u8..3, "[a-c]{1,4}|[a-b]{31,34}"), 0..400),
            shards in prop::sample::select(vec![1usize, 4, 16]),
        ) {
            let (map, mut model) = (Arc::new(Map::new(shards)), BTreeMap::new());
            let (mut reader, mut lender) = (Reader::new(map.clone()), Lender::new(map.clone()));
            for (version, (kind, name)) in (1u64..).zip(&steps) {
                if *kind > 0 {
                    prop_assert_eq!(map.put(name.as_bytes(), version, version), model.insert(name.clone(), version));
                } else {
                    prop_assert_eq!(map.remove(name.as_bytes()), model.remove(name));
                }
                prop_assert_eq!(map.len(), model.len());
                prop_assert_eq!(reader.version(name.as_bytes()), model.get(name).copied());
                let key = Key::of(name.as_bytes());
                prop_assert!(!key.fits() || lender.value_of(&key) == model.get(name));
            }
            let names: Vec<&[u8]> = steps.iter().map(|(_, name)| name.as_bytes()).collect();
            let mut versions = Vec::new();
            reader.versions(names.iter().copied(), |version| versions.push(version));
            let wanted: Vec<_> = steps.iter().map(|(_, name)| model.get(name).copied()).collect();
            prop_assert_eq!(versions, wanted);
            for (name, version) in &model {
                prop_assert_eq!(map.get(name.as_bytes()), Some((*version, *version)));
            }
            let values: usize = (0..shards).map(|shard| map.shard_values(shard).len()).sum();
            let in_shards: usize = (0..shards).map(|shard| map.shard_len(shard)).sum();
            prop_assert_eq!((values, in_shards), (model.len(), model.len()));
        }
    }

    proptest! {
        /// Few names are put again and again, or many are removed.
        #[test]
        fn memory_is_bounded_by_the_names_that_stand(
            steps in vec((0u8..8, 0u32..300), 0..3000),
            mostly_removed in any::<bool>(),
            mask in prop::sample::select(vec![0u32, 7, 511]),
        ) {
            let map = Arc::new(Map::new(1));
            let mut lender = Lender::new(map.clone());
            let alive = Arc::new(());
            for (kind, n) in steps {
                let name = format!("name-{}", n & mask);
                if (kind == 0) != mostly_removed {
                    map.remove(name.as_bytes());
                } else {
                    map.put(name.as_bytes(), 1, (n & mask, alive.clone()));
                }
                let lent = lender.value_of(&Key::of(name.as_bytes()));
                prop_assert!(lent.is_none_or(|(of, _)| *of == n & mask));
                // The map's own, and this test's.
                prop_assert!(Arc::strong_count(&alive) <= 2 * map.len() + LITTER_MIN + 1);
                let arrays = map.shards[0].arrays.load();
                prop_assert!(arrays.slots.len() <= 6 * map.len() + 3 * LITTER_MIN);
            }
            drop((lender, map));
            prop_assert_eq!(Arc::strong_count(&alive), 1);
        }
    }

    proptest! {
        #[test]
        fn what_is_expected_is_put_without_a_copy_of_an_array(
            batches in vec((vec(0u32..300, 1..150), 0u32..300), 1..30),
            mask in prop::sample::select(vec![7u32, 63, 511]),
        ) {
            let map = Arc::new(Map::new(1));
            let name = |n: u32| format!("name-{}", n & mask).into_bytes();
            for (batch, removed) in batches {
                let batch: BTreeSet<Vec<u8>> = batch.into_iter().map(name).collect();
                let added: BTreeSet<&[u8]> =
                    batch.iter().map(Vec::as_slice).filter(|name| map.get(name).is_none()).collect();
                let coming = Coming { added: added.len(), put: batch.len() };
                map.expect(0, coming, added.into_iter());
                let count = map.shards[0].count.load(Ordering::Relaxed);
                batch.iter().for_each(|name| drop(map.put(name, 1, Arc::new(()))));
                prop_assert_eq!(map.shards[0].count.load(Ordering::Relaxed), count);
                (0..removed).for_each(|n| drop(map.remove(&name(n))));
            }
        }
    }

    #[test]
    fn a_value_is_lent_from_before_it_was_removed_and_let_go_at_the_next_question() {
        let map = Arc::new(Map::new(1));
        let (mut lender, value) = (Lender::new(map.clone()), Arc::new(()));
        map.put(b"a", 1, value.clone());
        let lent = lender.value_of(&Key::of(b"a"));
        map.remove(b"a");
        assert!(lent.is_some_and(|lent| Arc::ptr_eq(lent, &value)), "it is lent for as long as it is used");
        for version in 0..2 * LITTER_MIN as u64 {
            map.put(b"b", version, Arc::default());
        }
        assert_eq!(Arc::strong_count(&value), 2, "the lender keeps what it might have lent");
        assert!(lender.value_of(&Key::of(b"a")).is_none());
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn an_idle_reader_of_versions_keeps_no_value() {
        let (map, value) = (Arc::new(Map::new(1)), Arc::new(()));
        map.put(b"a", 1, value.clone());
        let _idle = Reader::new(map.clone());
        map.remove(b"a");
        for version in 0..2 * LITTER_MIN as u64 {
            map.put(b"b", version, Arc::default());
        }
        assert_eq!(Arc::strong_count(&value), 1);
    }

    /// Value and version carry the name's number, so a mixture of two writes shows.
    fn stamp(name: u64, round: u64) -> u64 {
        (round << 16) | name
    }

    #[test]
    fn readers_beside_a_writer_never_miss_a_name_that_stands_and_never_see_half_a_write() {
        const STANDING: u64 = 64;
        let name = |n: u64| format!("backend-{n:04}");
        let map = Arc::new(Map::new(2));
        for n in 0..STANDING {
            map.put(name(n).as_bytes(), stamp(n, 0), stamp(n, 0));
        }
        let done = Arc::new(AtomicBool::new(false));
        let read = |which: u64| {
            let (map, done) = (map.clone(), done.clone());
            move || {
                let (mut reader, mut lender) = (Reader::new(map.clone()), Lender::new(map.clone()));
                let names: Vec<String> = (0..1000).map(name).collect();
                let (mut seen, mut n) = (vec![0; STANDING as usize], which);
                while !done.load(Ordering::Relaxed) {
                    n = (n * 31 + 7) % 1000;
                    let version = reader.version(names[n as usize].as_bytes());
                    let got = map.get(names[n as usize].as_bytes());
                    let lent = lender.value_of(&Key::of(names[n as usize].as_bytes())).copied();
                    for found in version
                        .into_iter()
                        .chain(got.map(|(version, _)| version))
                        .chain(got.map(|(_, value)| value))
                        .chain(lent)
                    {
                        assert_eq!(found & 0xffff, n, "of another name");
                    }
                    if n < STANDING {
                        for found in [version, got.map(|(_, value)| value), lent] {
                            let found = found.expect("a name that stands was missed");
                            assert!(found >= seen[n as usize], "went back");
                            seen[n as usize] = found;
                        }
                    }
                    let mut at = 0;
                    reader.versions(names.iter().map(String::as_bytes), |version| {
                        assert!(at >= STANDING || version.is_some(), "a name that stands was missed");
                        assert!(version.is_none_or(|version| version & 0xffff == at), "of another name");
                        at += 1;
                    });
                }
            }
        };
        let readers = [thread::spawn(read(1)), thread::spawn(read(2))];
        for round in 1..300 {
            for n in 0..STANDING {
                map.put(name(n).as_bytes(), stamp(n, round), stamp(n, round));
            }
            for n in STANDING..1000 {
                if (n + round) % 3 == 0 {
                    map.remove(name(n).as_bytes());
                } else {
                    map.put(name(n).as_bytes(), stamp(n, round), stamp(n, round));
                }
            }
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().expect("a reader failed");
        }
    }
    /// Each name is put and then replaced, as soon as the one before it was found.
    #[test]
    fn whoever_finds_a_version_finds_its_value() {
        const PUTS: u64 = 5000;
        let name = |n: u64| format!("name-{}", n / 2).into_bytes();
        let (map, found) = (Arc::new(Map::new(1)), AtomicU64::new(0));
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let (mut reader, mut lender) = (Reader::new(map.clone()), Lender::new(map.clone()));
                for n in 1..PUTS {
                    let (name, key) = (name(n), Key::of(&name(n)));
                    while reader.version(&name) != Some(n) {
                        std::hint::spin_loop();
                    }
                    assert_eq!(lender.value_of(&key), Some(&n));
                    assert_eq!(map.get(&name), Some((n, n)));
                    found.store(n, Ordering::Release);
                }
            });
            for n in 1..PUTS {
                map.put(&name(n), n, n);
                while found.load(Ordering::Acquire) < n && !reader.is_finished() {
                    thread::yield_now();
                }
            }
        });
    }
}
