//! Lookups for one thread or one connection, which keeps the slots at hand.

use super::{
    Map,
    slot::{Key, Slots},
};
use std::{
    fmt,
    hint::black_box,
    sync::{Arc, atomic::Ordering},
};

/// Names that are looked for together: enough to keep every line-fill buffer busy.
const BATCH: usize = 64;

/// Looks names up for one thread or one connection, for which it keeps the slots at hand. An idle
/// reader keeps arrays that have been outgrown in memory.
pub struct Reader<V> {
    map: Arc<Map<V>>,
    slots: Vec<(u64, Arc<Slots>)>,
    keys: Box<[Key; BATCH]>,
}

impl<V: Clone> Reader<V> {
    /// A reader of a map.
    pub fn new(map: Arc<Map<V>>) -> Self {
        let slots = map.shards.iter().map(|shard| (0, shard.slots.load_full())).collect();
        let mut reader = Self { map, slots, keys: Box::new([Key::default(); BATCH]) };
        reader.refresh();
        reader
    }

    /// A name's version; the cheapest question.
    #[inline]
    pub fn version(&mut self, name: &[u8]) -> Option<u64> {
        let mut key = Key::default();
        key.set(name);
        match key.fits() {
            true => self.slots_of(&key).find(&key).map(|found| found.version),
            false => self.map.get(name).map(|(version, _)| version),
        }
    }

    /// A name's value.
    #[inline]
    pub(crate) fn value_of(&mut self, key: &Key) -> Option<V> {
        loop {
            let found = self.slots_of(key).find(key)?;
            let shard = &self.map.shards[key.hash as usize & (self.slots.len() - 1)];
            if let Some(value) = shard.value(&found) {
                return Some(value);
            }
        }
    }

    /// The slots of a name's shard, as they are now.
    #[inline]
    fn slots_of(&mut self, key: &Key) -> &Slots {
        let at = key.hash as usize & (self.slots.len() - 1);
        let shard = &self.map.shards[at];
        let kept = &mut self.slots[at];
        let arrays = shard.arrays.load(Ordering::Acquire);
        if kept.0 != arrays {
            *kept = (arrays, shard.slots.load_full());
        }
        &kept.1
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
        self.refresh();
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
        let mut places = [(&*self.slots[0].1, 0); BATCH];
        for (place, key) in places.iter_mut().zip(&*self.keys).take(names.len()) {
            let slots = &self.slots[key.hash as usize & (self.slots.len() - 1)].1;
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

    fn refresh(&mut self) {
        for (kept, shard) in self.slots.iter_mut().zip(&self.map.shards) {
            let arrays = shard.arrays.load(Ordering::Acquire);
            if kept.0 != arrays {
                *kept = (arrays, shard.slots.load_full());
            }
        }
    }
}

impl<V> fmt::Debug for Reader<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("map", &self.map).finish_non_exhaustive()
    }
}
