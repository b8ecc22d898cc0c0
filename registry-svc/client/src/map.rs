//! Names to values, sharded by the published hash: one writer a shard, readers without a lock.
//!
//! A name of up to [`INLINE`] bytes lies with its version in one slot of 64 bytes, on one cache
//! line. A table of hints, one byte a slot, leads to it, so a lookup of a version touches a line of
//! the hints, which stay in the cache, and its name's own. The slots are plain atomics, guarded by a
//! sequence number each (a seqlock, Boehm 2012), so there is no `unsafe`, and a read writes
//! nothing that another core reads. Longer names are kept behind a lock.
//!
//! # Invariants
//! * A lookup answers what stood at some moment between its call and its return.
//! * Slots never move within an array: an array that fills up is copied to a larger one, and the
//!   old one is not written any more.

mod hints;
#[cfg(test)]
mod hints_test;
mod reader;
mod slot;

pub use reader::Reader;
pub(crate) use slot::Key;
pub use slot::{INLINE, hash};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use slot::{Found, Place, Slot, Slots};
use std::{
    collections::HashMap,
    fmt,
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

const SLOTS_MIN: usize = 16;

struct Held<V> {
    // Never 0, so that an empty place needs no word of its own.
    ticket: NonZeroU64,
    value: V,
}

struct Writer {
    // What readers load.
    slots: Arc<Slots>,
    live: usize,
    // With those that are gone and whose slots were not taken again.
    used: usize,
    tickets: NonZeroU64,
    free: Vec<usize>,
}

/// Names that do not fit a slot, with their versions.
type Long<V> = HashMap<Box<[u8]>, (u64, V)>;

// On cache lines of its own, so that writers of neighbours do not slow its readers.
#[repr(align(128))]
struct Shard<V> {
    slots: ArcSwap<Slots>,
    // Counts arrays, for readers that keep one.
    arrays: AtomicU64,
    writer: Mutex<Writer>,
    values: RwLock<Vec<Option<Held<V>>>>,
    long: RwLock<Long<V>>,
}

impl<V: Clone> Shard<V> {
    fn new() -> Self {
        let slots = Arc::new(Slots::new(SLOTS_MIN));
        let writer =
            Writer { slots: slots.clone(), live: 0, used: 0, tickets: NonZeroU64::MIN, free: Vec::new() };
        Self {
            slots: ArcSwap::new(slots),
            arrays: AtomicU64::new(0),
            writer: Mutex::new(writer),
            values: RwLock::new(Vec::new()),
            long: RwLock::default(),
        }
    }

    fn get(&self, key: &Key) -> Option<(u64, V)> {
        loop {
            let found = self.slots.load().find(key)?;
            if let Some(value) = self.value(&found) {
                return Some((found.version, value));
            }
        }
    }

    /// `None` when the name was freed since its slot was read; it may be back elsewhere.
    #[inline]
    fn value(&self, found: &Found) -> Option<V> {
        let values = self.values.read();
        let held = values.get(found.position as usize)?.as_ref()?;
        (held.ticket.get() == found.ticket).then(|| held.value.clone())
    }

    fn put(&self, key: &Key, version: u64, value: V) -> Option<V> {
        let mut writer = self.writer.lock();
        self.make_room(&mut writer);
        let slots = writer.slots.clone();
        let at = match slots.place(key) {
            Place::Taken(at, found) => {
                let mut values = self.values.write();
                let held = values.get_mut(found.position as usize).and_then(Option::as_mut);
                let old = held.map(|held| std::mem::replace(&mut held.value, value));
                drop(values);
                slots.update(at, version);
                return old;
            }
            Place::Free(at) => at?,
        };
        writer.tickets = writer.tickets.saturating_add(1);
        let position = self.hold(&mut writer, value);
        let found = Found { version, position: position as u64, ticket: writer.tickets.get() };
        writer.used += usize::from(slots.is_empty(at));
        writer.live += 1;
        slots.fill(at, key, found);
        None
    }

    fn hold(&self, writer: &mut Writer, value: V) -> usize {
        let held = Some(Held { ticket: writer.tickets, value });
        let mut values = self.values.write();
        match writer.free.pop() {
            Some(position) => {
                if let Some(place) = values.get_mut(position) {
                    *place = held;
                }
                position
            }
            None => {
                values.push(held);
                values.len() - 1
            }
        }
    }

    fn remove(&self, key: &Key) -> Option<V> {
        let mut writer = self.writer.lock();
        let slots = writer.slots.clone();
        let Place::Taken(at, found) = slots.place(key) else {
            return None;
        };
        slots.free(at);
        writer.live -= 1;
        let position = found.position as usize;
        writer.free.push(position);
        let held = self.values.write().get_mut(position).and_then(Option::take);
        held.map(|held| held.value)
    }

    /// Sees to it that one more name fits: an array is at most 0.7 full, and more than 0.46 after
    /// it grew.
    fn make_room(&self, writer: &mut Writer) {
        let count = writer.slots.len();
        if (writer.used + 1) * 10 <= count * 7 {
            return;
        }
        // Half of the slots are of names that are gone: the same size will do.
        let wanted = if writer.live * 2 < count { count } else { count + count / 2 };
        let larger = Arc::new(Slots::new(wanted));
        writer.slots.copy_to(&larger);
        writer.slots = larger.clone();
        writer.used = writer.live;
        self.slots.store(larger);
        self.arrays.fetch_add(1, Ordering::Release);
    }
}

/// Names to values with a version each. A name has at most 255 bytes and is not empty.
pub struct Map<V> {
    shards: Box<[Shard<V>]>,
    len: AtomicUsize,
}

impl<V: Clone> Map<V> {
    /// An empty map of a number of shards, which is rounded up to a power of two.
    pub fn new(shards: usize) -> Self {
        let shards = (0..shards.max(1).next_power_of_two()).map(|_| Shard::new()).collect();
        Self { shards, len: AtomicUsize::new(0) }
    }

    /// Number of names.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
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
        let old = match key.fits() {
            true => shard.put(&key, version, value),
            false => shard.long.write().insert(name.into(), (version, value)).map(|(_, value)| value),
        };
        self.len.fetch_add(usize::from(old.is_none()), Ordering::Relaxed);
        old
    }

    /// Removes a name; answers what was there.
    pub fn remove(&self, name: &[u8]) -> Option<V> {
        let key = Key::of(name);
        let shard = self.shard(key.hash);
        let old = match key.fits() {
            true => shard.remove(&key),
            false => shard.long.write().remove(name).map(|(_, value)| value),
        };
        self.len.fetch_sub(usize::from(old.is_some()), Ordering::Relaxed);
        old
    }

    /// The values of one shard, in no order.
    pub fn shard_values(&self, shard: usize) -> Vec<V> {
        let Some(shard) = self.shards.get(shard) else {
            return Vec::new();
        };
        let mut all: Vec<V> = shard.values.read().iter().flatten().map(|held| held.value.clone()).collect();
        all.extend(shard.long.read().values().map(|(_, value)| value.clone()));
        all
    }

    /// Number of names in one shard.
    pub fn shard_len(&self, shard: usize) -> usize {
        self.shards.get(shard).map_or(0, |shard| shard.writer.lock().live + shard.long.read().len())
    }

    /// Bytes of the slots, and of the values' places without what values point to. Names of more
    /// than [`INLINE`] bytes are not counted.
    pub fn bytes(&self) -> usize {
        let of = |shard: &Shard<V>| {
            let values = shard.values.read().capacity() * size_of::<Option<Held<V>>>();
            // A slot has a hint of one byte.
            shard.slots.load().len() * (size_of::<Slot>() + 1) + values
        };
        self.shards.iter().map(of).sum()
    }

    fn shard(&self, hash: u64) -> &Shard<V> {
        // Below the number of shards, which is a power of two.
        &self.shards[hash as usize & (self.shards.len() - 1)]
    }
}

impl<V> fmt::Debug for Map<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("shards", &self.shards.len()).field("len", &self.len).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use std::{collections::BTreeMap, sync::atomic::AtomicBool, thread};

    proptest! {
        #[test]
        fn a_map_and_its_readers_agree_with_an_ordered_map(
            steps in vec((0u8..3, "[a-c]{1,4}|[a-b]{31,34}"), 0..400),
            shards in prop::sample::select(vec![1usize, 4, 16]),
        ) {
            let (map, mut model) = (Arc::new(Map::new(shards)), BTreeMap::new());
            let mut reader = Reader::new(map.clone());
            for (version, (kind, name)) in (1u64..).zip(&steps) {
                if *kind > 0 {
                    prop_assert_eq!(map.put(name.as_bytes(), version, version), model.insert(name.clone(), version));
                } else {
                    prop_assert_eq!(map.remove(name.as_bytes()), model.remove(name));
                }
                prop_assert_eq!(map.len(), model.len());
                prop_assert_eq!(reader.version(name.as_bytes()), model.get(name).copied());
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
                let mut reader = Reader::new(map.clone());
                let names: Vec<String> = (0..1000).map(name).collect();
                let (mut seen, mut n) = (vec![0; STANDING as usize], which);
                while !done.load(Ordering::Relaxed) {
                    n = (n * 31 + 7) % 1000;
                    let version = reader.version(names[n as usize].as_bytes());
                    let got = map.get(names[n as usize].as_bytes());
                    for found in version
                        .into_iter()
                        .chain(got.map(|(version, _)| version))
                        .chain(got.map(|(_, value)| value))
                    {
                        assert_eq!(found & 0xffff, n, "of another name");
                    }
                    if n < STANDING {
                        let version = version.expect("a name that stands was missed");
                        assert!(got.is_some() && version >= seen[n as usize], "went back");
                        seen[n as usize] = version;
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
}
