//! Asks the memory for what lookups are about to read.

use super::{Map, shard::Arrays, slot::Key};
use std::{fmt, hint::black_box, sync::Arc};

/// Names that are asked for together: enough to keep every line-fill buffer busy.
const BATCH: usize = 64;

/// Reads what leads to the values of many names, each step for all of them: what is not in the
/// cache is then waited for once a step, and not once a name. It changes and answers nothing, and
/// between two batches it holds nothing of the map.
pub struct Warmer<V> {
    keys: Box<[Key; BATCH]>,
    // By shard, those of the batch: a count would keep the loads after it waiting.
    held: Vec<Option<Arc<Arrays<V>>>>,
}

impl<V: Clone> Warmer<V> {
    /// Warms names of up to [`INLINE`](super::INLINE) bytes, then parts of their values, one after
    /// the other: a part may lie behind the one before it.
    pub fn warm<'a>(
        &mut self,
        map: &Map<V>,
        names: impl IntoIterator<Item = &'a [u8]>,
        parts: &[fn(&V) -> u64],
    ) {
        let mut names = names.into_iter();
        self.held.resize(map.shards.len(), None);
        loop {
            let mut count = 0;
            for (key, name) in self.keys.iter_mut().zip(names.by_ref().take(BATCH)) {
                key.set(name);
                let shard = shard_of(key, map.shards.len());
                self.held[shard].get_or_insert_with(|| map.shards[shard].arrays.load_full());
                count += 1;
            }
            self.touch(count, |arrays, key| arrays.slots.touch(arrays.slots.guess(key)));
            self.touch(count, |arrays, key| value(arrays, key).is_some().into());
            for part in parts {
                self.touch(count, |arrays, key| value(arrays, key).map_or(0, part));
            }
            for key in self.keys.iter().take(count) {
                self.held[shard_of(key, map.shards.len())] = None;
            }
            if count < BATCH {
                return;
            }
        }
    }

    fn touch(&self, count: usize, part: impl Fn(&Arrays<V>, &Key) -> u64) {
        let of = |key: &Key| match &self.held[shard_of(key, self.held.len())] {
            Some(arrays) if key.fits() => part(arrays, key),
            _ => 0,
        };
        black_box(self.keys.iter().take(count).fold(0, |seen, key| seen ^ of(key)));
    }
}

fn value<'a, V>(arrays: &'a Arrays<V>, key: &Key) -> Option<&'a V> {
    arrays.values.get(arrays.slots.find(key)?.position)
}

/// `shards` is a power of two.
fn shard_of(key: &Key, shards: usize) -> usize {
    key.hash as usize & (shards - 1)
}

impl<V> Default for Warmer<V> {
    fn default() -> Self {
        Self { keys: Box::new([Key::default(); BATCH]), held: Vec::new() }
    }
}

impl<V> fmt::Debug for Warmer<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Warmer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    static READ: AtomicU64 = AtomicU64::new(0);

    fn read(value: &u64) -> u64 {
        READ.fetch_add(*value, Ordering::Relaxed)
    }

    #[test]
    fn each_part_of_each_short_name_that_stands_is_read_once_and_nothing_is_held() {
        for shards in [1, 16, 1024] {
            let (map, mut warmer) = (Map::new(shards), Warmer::default());
            let short: Vec<String> = (0..200).map(|n| format!("name-{n}")).collect();
            let long = "x".repeat(40);
            for name in short.iter().chain([&long]) {
                map.put(name.as_bytes(), 1, 1u64);
            }
            let asked = short.iter().map(String::as_str).chain([long.as_str(), "nobody", ""]);
            READ.store(0, Ordering::Relaxed);
            warmer.warm(&map, asked.map(str::as_bytes), &[read, read]);
            assert_eq!(READ.load(Ordering::Relaxed), 400, "{shards} shards");
            assert!(warmer.held.iter().all(Option::is_none));
        }
    }
}
