//! The values of a shard: each has a position of its own, which is written once and never used
//! again. So whoever has read a position reads the value there without a lock, and may lend it
//! for as long as it keeps the values.

use std::sync::OnceLock;

/// Places in the first chunk; each one after it has twice as many as the one before.
const FIRST: usize = 16;
/// Enough for 2^32 positions.
const CHUNKS: usize = 28;

type Chunk<V> = OnceLock<Box<[OnceLock<V>]>>;

/// Grows without moving what is there.
pub(super) struct Values<V> {
    chunks: [Chunk<V>; CHUNKS],
}

impl<V> Values<V> {
    pub(super) fn new() -> Self {
        Self { chunks: [const { OnceLock::new() }; CHUNKS] }
    }

    #[inline]
    pub(super) fn get(&self, position: u64) -> Option<&V> {
        let (chunk, at) = place(position);
        self.chunks.get(chunk)?.get()?.get(at)?.get()
    }

    /// Writes a position for the first and only time. For the writer.
    pub(super) fn set(&self, position: u64, value: V) {
        let (chunk, at) = place(position);
        let make = || (0..FIRST << chunk).map(|_| OnceLock::new()).collect();
        let places = self.chunks.get(chunk).map(|places| places.get_or_init(make));
        if let Some(place) = places.and_then(|places| places.get(at)) {
            // What is there already would stay; a writer never comes twice.
            drop(place.set(value));
        }
    }

    /// Of the places, without what values point to.
    pub(super) fn bytes(&self) -> usize {
        let places: usize = self.chunks.iter().filter_map(OnceLock::get).map(|chunk| chunk.len()).sum();
        size_of::<Self>() + places * size_of::<OnceLock<V>>()
    }
}

/// The chunk of a position and the place in it.
#[inline]
fn place(position: u64) -> (usize, usize) {
    let from_first = position as usize + FIRST;
    let chunk = from_first.ilog2() - FIRST.ilog2();
    (chunk as usize, from_first - (FIRST << chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_position_has_a_place_of_its_own_that_keeps_its_first_value() {
        let values = Values::new();
        (0..1000).for_each(|position| values.set(position, position));
        values.set(7, 8);
        assert!((0..1000).all(|position| values.get(position) == Some(&position)));
        assert!([1000, u64::from(u32::MAX), u64::MAX - 16].iter().all(|gone| values.get(*gone).is_none()));
    }
}
