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

    fn is_littered(&self) -> bool {
        self.positions >= 2 * self.live + LITTER_MIN
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

/// On cache lines of its own.
#[repr(align(128))]
struct Apart<T>(T);

// What readers look at changes with the arrays only: neither its own writer nor those of its
// neighbours take the line from them.
#[repr(align(128))]
pub(super) struct Shard<V> {
    pub(super) arrays: ArcSwap<Arrays<V>>,
    // Counts arrays, for readers that keep some.
    pub(super) count: AtomicU64,
    writer: Apart<Mutex<Writer<V>>>,
    // Number of names; changed by whoever has one of the locks beside it.
    names: Apart<AtomicUsize>,
    pub(super) long: RwLock<Long<V>>,
}

impl<V: Clone> Shard<V> {
    pub(super) fn new() -> Self {
        let arrays = Arrays { slots: Slots::new(SLOTS_MIN).into(), values: Values::new().into() };
        let writer = Writer { arrays: arrays.clone(), live: 0, used: 0, positions: 0 };
        Self {
            arrays: ArcSwap::from_pointee(arrays),
            count: AtomicU64::new(0),
            writer: Apart(Mutex::new(writer)),
            names: Apart(AtomicUsize::new(0)),
            long: RwLock::default(),
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<(u64, V)> {
        let arrays = self.arrays.load();
        let found = arrays.slots.find(key)?;
        Some((found.version, arrays.values.get(found.position)?.clone()))
    }

    pub(super) fn put(&self, key: &Key, version: u64, value: V) -> Option<V> {
        let mut writer = self.writer.0.lock();
        if writer.is_full(1) || writer.is_littered() {
            self.rebuild(&mut writer, 1);
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
                self.names.0.fetch_add(1, Ordering::Relaxed);
                writer.arrays.slots.fill(at, key, Found { version, position });
                None
            }
        }
    }

    pub(super) fn put_long(&self, name: &[u8], version: u64, value: V) -> Option<V> {
        let old = self.long.write().insert(name.into(), (version, value));
        self.names.0.fetch_add(usize::from(old.is_none()), Ordering::Relaxed);
        old.map(|(_, value)| value)
    }

    pub(super) fn remove_long(&self, name: &[u8]) -> Option<V> {
        let old = self.long.write().remove(name);
        self.names.0.fetch_sub(usize::from(old.is_some()), Ordering::Relaxed);
        old.map(|(_, value)| value)
    }

    /// So many names come next.
    pub(super) fn make_room(&self, more: usize) {
        let mut writer = self.writer.0.lock();
        if writer.is_full(more) {
            self.rebuild(&mut writer, more);
        }
    }

    pub(super) fn remove(&self, key: &Key) -> Option<V> {
        let mut writer = self.writer.0.lock();
        let Place::Taken(at, found) = writer.arrays.slots.place(key) else {
            return None;
        };
        let old = writer.arrays.values.get(found.position).cloned();
        writer.arrays.slots.free(at);
        writer.live -= 1;
        self.names.0.fetch_sub(1, Ordering::Relaxed);
        if writer.is_littered() {
            self.rebuild(&mut writer, 1);
        }
        old
    }

    /// Copies what stands to new slots with room for more, and where there is litter also to new
    /// values.
    fn rebuild(&self, writer: &mut Writer<V>, more: usize) {
        let count = writer.arrays.slots.len();
        let wanted = match writer.live * 2 {
            twice if twice < count => twice.max(SLOTS_MIN),
            // More than 0.46 of them are taken then.
            _ if writer.is_full(more) => count + count / 2,
            _ => count,
        };
        let needed = (writer.live + more) * 10 / 7 + 1;
        let slots = Arc::new(Slots::new(wanted.max(needed)));
        if writer.is_littered() {
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
        let Arrays { slots, values } = &self.writer.0.lock().arrays;
        let mut all: Vec<V> = slots.all().filter_map(|found| values.get(found.position).cloned()).collect();
        all.extend(self.long.read().values().map(|(_, value)| value.clone()));
        all
    }

    pub(super) fn len(&self) -> usize {
        self.names.0.load(Ordering::Relaxed)
    }

    /// Without the long names.
    pub(super) fn bytes(&self) -> usize {
        let arrays = self.arrays.load();
        // A slot has a hint of one byte.
        arrays.slots.len() * (size_of::<Slot>() + 1) + arrays.values.bytes()
    }
}
