//! One shard: its writer, behind a lock, and what readers load of it.

use super::{
    slot::{Found, Key, Place, Slot, Slots},
    values::Values,
};
use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

const SLOTS_MIN: usize = 16;
/// Positions without a name that a shard may have beside as many as it has names.
pub(super) const LITTER_MIN: usize = 64;

/// What readers load: a position in these slots is one of these values.
pub(super) struct Arrays<V> {
    pub(super) slots: Arc<Slots>,
    pub(super) values: Arc<Values<V>>,
}

impl<V> Clone for Arrays<V> {
    fn clone(&self) -> Self {
        Self { slots: self.slots.clone(), values: self.values.clone() }
    }
}

/// What is put next.
#[derive(Debug, Clone, Copy, Default)]
pub struct Coming {
    /// Names that are added.
    pub added: usize,
    /// Values that are put, each of another name: with those of the names that are added.
    pub put: usize,
}

struct Writer<V> {
    arrays: Arrays<V>,
    live: usize,
    // With those that are gone and whose slots were not taken again.
    used: usize,
    // Those of values that were replaced or removed are among them.
    positions: usize,
}

impl<V> Writer<V> {
    /// So many more names do not fit: an array is at most 0.7 full.
    fn is_full(&self, more: usize) -> bool {
        (self.used + more) * 10 > self.arrays.slots.len() * 7
    }

    /// So many more values may be too many beside the names.
    fn is_littered(&self, more: usize) -> bool {
        self.positions + more > 2 * self.live + LITTER_MIN
    }

    /// A position for one more value, which is there before anybody reads of it in a slot.
    fn hold(&mut self, value: V) -> u64 {
        let position = self.positions as u64;
        self.arrays.values.set(position, value);
        self.positions += 1;
        position
    }
}

impl<V: Clone> Writer<V> {
    /// Leaves litter behind; answers the new position of each old one. The values are taken in
    /// their order, which is the memory's more than the slots' is.
    fn compact(&mut self) -> Vec<u64> {
        let mut moved = vec![u64::MAX; self.positions];
        for found in self.arrays.slots.all() {
            moved[found.position as usize] = 0;
        }
        let old = std::mem::replace(&mut self.arrays.values, Arc::new(Values::new()));
        self.positions = 0;
        for (position, to) in (0..).zip(&mut moved) {
            if *to == 0
                && let Some(value) = old.get(position)
            {
                *to = self.hold(value.clone());
            }
        }
        moved
    }
}

/// Names that do not fit a slot, with their versions.
type Long<V> = HashMap<Box<[u8]>, (u64, V)>;

/// What a writer changes with each name, on cache lines of its own.
#[repr(align(128))]
struct Apart<V> {
    writer: Mutex<Writer<V>>,
    // Number of names. Those that fit no slot are behind another lock.
    names: AtomicUsize,
}

// What readers look at changes with the arrays only: neither its own writer nor those of its
// neighbours take the line from them.
#[repr(align(128))]
pub(super) struct Shard<V> {
    pub(super) arrays: ArcSwap<Arrays<V>>,
    // Counts arrays, for readers that keep some.
    pub(super) count: AtomicU64,
    apart: Apart<V>,
    pub(super) long: RwLock<Long<V>>,
}

impl<V: Clone> Shard<V> {
    pub(super) fn new() -> Self {
        let arrays = Arrays { slots: Slots::new(SLOTS_MIN).into(), values: Values::new().into() };
        let writer = Writer { arrays: arrays.clone(), live: 0, used: 0, positions: 0 };
        Self {
            arrays: ArcSwap::from_pointee(arrays),
            count: AtomicU64::new(0),
            apart: Apart { writer: Mutex::new(writer), names: AtomicUsize::new(0) },
            long: RwLock::default(),
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<(u64, V)> {
        let arrays = self.arrays.load();
        let found = arrays.slots.find(key)?;
        Some((found.version, arrays.values.get(found.position)?.clone()))
    }

    pub(super) fn put(&self, key: &Key, version: u64, value: V) -> Option<V> {
        let mut writer = self.apart.writer.lock();
        if writer.is_full(1) || writer.is_littered(1) {
            self.rebuild(&mut writer, Coming { added: 1, put: 1 });
        }
        match writer.arrays.slots.place(key) {
            Place::Taken(at, found) => {
                let old = writer.arrays.values.get(found.position).cloned();
                let position = writer.hold(value);
                writer.arrays.slots.update(at, Found { version, position });
                old
            }
            Place::Free(at) => {
                let (at, position) = (at?, writer.hold(value));
                writer.used += usize::from(writer.arrays.slots.is_empty(at));
                writer.live += 1;
                self.apart.names.fetch_add(1, Ordering::Relaxed);
                writer.arrays.slots.fill(at, key, Found { version, position });
                None
            }
        }
    }

    pub(super) fn put_long(&self, name: &[u8], version: u64, value: V) -> Option<V> {
        let old = self.long.write().insert(name.into(), (version, value));
        self.apart.names.fetch_add(usize::from(old.is_none()), Ordering::Relaxed);
        old.map(|(_, value)| value)
    }

    pub(super) fn remove_long(&self, name: &[u8]) -> Option<V> {
        let old = self.long.write().remove(name);
        self.apart.names.fetch_sub(usize::from(old.is_some()), Ordering::Relaxed);
        old.map(|(_, value)| value)
    }

    /// Copies now what would be copied while it is put.
    pub(super) fn make_room(&self, coming: Coming) {
        let mut writer = self.apart.writer.lock();
        // One more, for a put asks for room before it knows whether it adds.
        let coming = Coming { added: coming.added + 1, ..coming };
        if writer.is_full(coming.added) || writer.is_littered(coming.put) {
            self.rebuild(&mut writer, coming);
        }
    }

    pub(super) fn remove(&self, key: &Key) -> Option<V> {
        let mut writer = self.apart.writer.lock();
        let Place::Taken(at, found) = writer.arrays.slots.place(key) else {
            return None;
        };
        let old = writer.arrays.values.get(found.position).cloned();
        writer.arrays.slots.free(at);
        writer.live -= 1;
        self.apart.names.fetch_sub(1, Ordering::Relaxed);
        if writer.is_littered(0) {
            self.rebuild(&mut writer, Coming::default());
        }
        old
    }

    /// Copies what stands to new slots with room for what comes, and where that would be litter, to new
    /// values too.
    fn rebuild(&self, writer: &mut Writer<V>, coming: Coming) {
        let count = writer.arrays.slots.len();
        let wanted = match writer.live * 2 {
            twice if twice < count => twice.max(SLOTS_MIN),
            // More than 0.46 of them are taken then.
            _ if writer.is_full(coming.added) => count + count / 2,
            _ => count,
        };
        let needed = (writer.live + coming.added) * 10 / 7 + 1;
        let slots = Arc::new(Slots::new(wanted.max(needed)));
        if writer.is_littered(coming.put) {
            let moved = writer.compact();
            writer.arrays.slots.copy_to(&slots, |position| moved.get(position as usize).copied());
        } else {
            writer.arrays.slots.copy_to(&slots, Some);
        }
        writer.arrays.slots = slots;
        writer.used = writer.live;
        self.arrays.store(Arc::new(writer.arrays.clone()));
        self.count.fetch_add(1, Ordering::Release);
    }

    /// Of one moment: the writer waits.
    pub(super) fn values(&self) -> Vec<V> {
        let Arrays { slots, values } = &self.apart.writer.lock().arrays;
        let mut all: Vec<V> = slots.all().filter_map(|found| values.get(found.position).cloned()).collect();
        all.extend(self.long.read().values().map(|(_, value)| value.clone()));
        all
    }

    pub(super) fn len(&self) -> usize {
        self.apart.names.load(Ordering::Relaxed)
    }

    /// Without the long names.
    pub(super) fn bytes(&self) -> usize {
        let arrays = self.arrays.load();
        // A slot has a hint of one byte.
        arrays.slots.len() * (size_of::<Slot>() + 1) + arrays.values.bytes()
    }
}
