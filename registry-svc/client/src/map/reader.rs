//! Lookups for one thread or one connection, which keeps the arrays at hand.

use super::{
    Map,
    shard::{Arrays, Shard},
    slot::{Key, Slots},
};
use std::{
    fmt,
    hint::black_box,
    sync::{Arc, atomic::Ordering},
};

/// Names that are looked for together: enough to keep every line-fill buffer busy.
const BATCH: usize = 64;

/// What a reader keeps of each shard, and by which count of its arrays.
struct Kept<T>(Box<[(u64, T)]>);

impl<T> Kept<T> {
    fn new<V>(map: &Map<V>, take: impl Fn(&Arrays<V>) -> T) -> Self {
        let of = |shard: &Shard<V>| (shard.count.load(Ordering::Acquire), take(&shard.arrays.load()));
        Self(map.shards.iter().map(of).collect())
    }

    /// Of a name's shard, as it is now.
    #[inline]
    fn now<V>(&mut self, map: &Map<V>, hash: u64, take: impl Fn(&Arrays<V>) -> T) -> &T {
        // Below the number of shards, which is a power of two.
        let at = hash as usize & (self.0.len() - 1);
        refresh(&mut self.0[at], &map.shards[at], take)
    }

    /// Of a name's shard, as it was kept.
    #[inline]
    fn of(&self, hash: u64) -> &T {
        &self.0[hash as usize & (self.0.len() - 1)].1
    }
}

/// The count comes first: arrays that are newer than it are only loaded once more.
#[inline]
fn refresh<'a, V, T>(kept: &'a mut (u64, T), shard: &Shard<V>, take: impl Fn(&Arrays<V>) -> T) -> &'a T {
    let count = shard.count.load(Ordering::Acquire);
    if kept.0 != count {
        renew(kept, count, shard, take);
    }
    &kept.1
}

#[cold]
#[inline(never)]
fn renew<V, T>(kept: &mut (u64, T), count: u64, shard: &Shard<V>, take: impl Fn(&Arrays<V>) -> T) {
    *kept = (count, take(&shard.arrays.load()));
}

/// Lends values to one thread: a lookup writes nothing at all. An idle one keeps the values that
/// stood when it was last asked, also those that were replaced since.
pub(crate) struct Lender<V> {
    map: Arc<Map<V>>,
    arrays: Kept<Arrays<V>>,
}

impl<V: Clone> Lender<V> {
    pub(crate) fn new(map: Arc<Map<V>>) -> Self {
        Self { arrays: Kept::new(&map, Arrays::clone), map }
    }

    /// The value of a name that fits a slot.
    #[inline(always)]
    pub(crate) fn value_of(&mut self, key: &Key) -> Option<&V> {
        let arrays = self.arrays.now(&self.map, key.hash, Arrays::clone);
        arrays.values.get(arrays.slots.find(key)?.position)
    }
}

/// Looks versions up for one thread or one connection. An idle reader keeps slots that have been
/// outgrown in memory, and never a value.
pub struct Reader<V> {
    map: Arc<Map<V>>,
    slots: Kept<Arc<Slots>>,
    keys: Box<[Key; BATCH]>,
}

fn slots<V>(arrays: &Arrays<V>) -> Arc<Slots> {
    arrays.slots.clone()
}

impl<V: Clone> Reader<V> {
    /// A reader of a map.
    pub fn new(map: Arc<Map<V>>) -> Self {
        Self { slots: Kept::new(&map, slots), map, keys: Box::new([Key::default(); BATCH]) }
    }

    /// A name's version; the cheapest question.
    #[inline]
    pub fn version(&mut self, name: &[u8]) -> Option<u64> {
        let mut key = Key::default();
        key.set(name);
        match key.fits() {
            true => self.slots.now(&self.map, key.hash, slots).find(&key).map(|found| found.version),
            false => self.map.get(name).map(|(version, _)| version),
        }
    }

    /// The versions of many names, in their order.
    ///
    /// At a million names the waiting for memory is what a lookup costs, so that of many names
    /// overlaps: a batch is hashed, then each name's slot is guessed, then all of them are asked
    /// for, and then they are read.
    pub fn versions<'a>(
        &mut self,
        names: impl IntoIterator<Item = &'a [u8]>,
        mut tell: impl FnMut(Option<u64>),
    ) {
        for (kept, shard) in self.slots.0.iter_mut().zip(&self.map.shards) {
            refresh(kept, shard, slots);
        }
        let mut names = names.into_iter();
        let mut batch: [&[u8]; BATCH] = [&[]; BATCH];
        loop {
            let mut count = 0;
            for ((key, to), name) in self.keys.iter_mut().zip(&mut batch).zip(names.by_ref().take(BATCH)) {
                key.set(name);
                *to = name;
                count += 1;
            }
            self.read(batch.get(..count).unwrap_or_default(), &mut tell);
            if count < BATCH {
                return;
            }
        }
    }

    /// The versions of names whose keys are set.
    #[inline]
    fn read(&self, names: &[&[u8]], tell: &mut impl FnMut(Option<u64>)) {
        let mut places = [(&**self.slots.of(0), 0); BATCH];
        for (place, key) in places.iter_mut().zip(&*self.keys).take(names.len()) {
            let slots = self.slots.of(key.hash);
            *place = (slots, slots.guess(key));
        }
        let places = places.get(..names.len()).unwrap_or_default();
        black_box(places.iter().fold(0, |seen, (slots, at)| seen ^ slots.touch(*at)));
        for (((slots, at), key), name) in places.iter().zip(&*self.keys).zip(names) {
            tell(match key.fits() {
                true => slots.find_at(*at, key).map(|found| found.version),
                false => self.map.get(name).map(|(version, _)| version),
            });
        }
    }
}

impl<V> fmt::Debug for Reader<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("map", &self.map).finish_non_exhaustive()
    }
}
