//! One name in one cache line: plain atomics under a sequence number (a seqlock, Boehm 2012).

use crate::sync::{AtomicU64, Ordering, fence, spin_loop};

/// Longest name in a slot, in bytes.
pub const INLINE: usize = 32;

/// The published hash of a name (XXH3-64, seed 0); its low bits choose the shard.
pub fn hash(name: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(name)
}

// A slot's meta word: sequence number, BUSY while it is written, and the name's length.
pub(super) const TAG: u64 = 0xff;
pub(super) const EMPTY: u64 = 0;
pub(super) const GONE: u64 = 0xff;
pub(super) const BUSY: u64 = 0x100;
pub(super) const NEXT: u64 = 0x200;

/// A short name as it lies in a slot.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) hash: u64,
    pub(super) tag: u64,
    pub(super) words: [u64; 4],
}

impl Key {
    /// `None` when it does not fit.
    pub(crate) fn new(name: &[u8]) -> Option<Key> {
        if name.len() > INLINE || name.is_empty() {
            return None;
        }
        let mut words = [0; 4];
        for (word, chunk) in words.iter_mut().zip(name.chunks(8)) {
            *word = match <[u8; 8]>::try_from(chunk) {
                Ok(whole) => u64::from_le_bytes(whole),
                Err(_) => chunk.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte)),
            };
        }
        Some(Key { hash: hash(name), tag: name.len() as u64, words })
    }
}

/// Where a name was found.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) version: u64,
    pub(super) position: u64,
    pub(super) ticket: u64,
}

#[derive(Default)]
#[repr(align(64))]
pub(super) struct Slot {
    pub(super) meta: AtomicU64,
    pub(super) words: [AtomicU64; 4],
    pub(super) version: AtomicU64,
    pub(super) position: AtomicU64,
    // Of one name's stay at one position; no other stay has it.
    pub(super) ticket: AtomicU64,
}

impl Slot {
    /// Called by the shard's writer only.
    pub(super) fn write(&self, tag: u64, change: impl FnOnce(&Slot)) {
        let meta = self.meta.load(Ordering::Relaxed);
        self.meta.store(meta | BUSY, Ordering::Relaxed);
        // Whoever sees a word of the change sees BUSY or the next number after it.
        fence(Ordering::Release);
        change(self);
        let next = ((meta & !(TAG | BUSY)).wrapping_add(NEXT)) | tag;
        self.meta.store(next, Ordering::Release);
    }

    pub(super) fn fill(&self, words: [u64; 4], tag: u64, found: Found) {
        self.write(tag, |slot| {
            for (to, word) in slot.words.iter().zip(words) {
                to.store(word, Ordering::Relaxed);
            }
            slot.version.store(found.version, Ordering::Relaxed);
            slot.position.store(found.position, Ordering::Relaxed);
            slot.ticket.store(found.ticket, Ordering::Relaxed);
        });
    }

    pub(super) fn found(&self) -> Found {
        Found {
            version: self.version.load(Ordering::Relaxed),
            position: self.position.load(Ordering::Relaxed),
            ticket: self.ticket.load(Ordering::Relaxed),
        }
    }

    pub(super) fn tag(&self) -> u64 {
        self.meta.load(Ordering::Relaxed) & TAG
    }

    pub(super) fn words(&self) -> [u64; 4] {
        let [a, b, c, d] = &self.words;
        [a, b, c, d].map(|word| word.load(Ordering::Relaxed))
    }

    #[inline]
    pub(super) fn read(&self, key: &Key) -> Probe {
        loop {
            let meta = self.meta.load(Ordering::Acquire);
            if meta & BUSY != 0 {
                spin_loop();
                continue;
            }
            if meta & TAG == EMPTY {
                return Probe::End;
            }
            // A slot that changes meanwhile held the name no more at that moment, or not yet.
            if meta & TAG != key.tag || self.words() != key.words {
                return Probe::Other;
            }
            let found = self.found();
            fence(Ordering::Acquire);
            if self.meta.load(Ordering::Relaxed) == meta {
                return Probe::Found(found);
            }
        }
    }
}

pub(super) enum Probe {
    Found(Found),
    Other,
    End,
}

pub(super) struct Slots(pub(super) Box<[Slot]>);

impl Slots {
    pub(super) fn new(count: usize) -> Self {
        Self((0..count).map(|_| Slot::default()).collect())
    }

    /// The high bits choose the slot; any count of slots will do.
    pub(super) fn home(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.0.len() as u128) >> 64) as usize
    }

    fn chain(&self, hash: u64) -> impl Iterator<Item = &Slot> {
        let (before, after) = self.0.split_at(self.home(hash));
        after.iter().chain(before)
    }

    #[inline]
    pub(super) fn find(&self, key: &Key) -> Option<Found> {
        // Most names lie in the first slot: one cache line, and no chain to set up.
        match self.0[self.home(key.hash)].read(key) {
            Probe::Found(found) => Some(found),
            Probe::Other => self.find_behind(key),
            Probe::End => None,
        }
    }

    fn find_behind(&self, key: &Key) -> Option<Found> {
        for slot in self.chain(key.hash).skip(1) {
            match slot.read(key) {
                Probe::Found(found) => return Some(found),
                Probe::Other => {}
                Probe::End => return None,
            }
        }
        None
    }

    /// Where a name lies, or else the first slot of its chain that takes it. For the writer.
    pub(super) fn place(&self, key: &Key) -> Place<'_> {
        let mut vacant = None;
        for slot in self.chain(key.hash) {
            match slot.read(key) {
                Probe::Found(found) => return Place::Taken(slot, found),
                Probe::Other if slot.tag() != GONE => {}
                Probe::Other => vacant = vacant.or(Some(slot)),
                Probe::End => return Place::Free(vacant.or(Some(slot))),
            }
        }
        Place::Free(vacant)
    }

    pub(super) fn copy_to(&self, other: &Slots) {
        for slot in &self.0 {
            let (tag, words) = (slot.tag(), slot.words());
            if matches!(tag, EMPTY | GONE) {
                continue;
            }
            let mut bytes = [0; INLINE];
            for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
                to.copy_from_slice(&word.to_le_bytes());
            }
            let name = bytes.get(..tag as usize).unwrap_or_default();
            let vacant = other.chain(hash(name)).find(|slot| slot.tag() == EMPTY);
            if let Some(vacant) = vacant {
                vacant.fill(words, tag, slot.found());
            }
        }
    }
}

/// Where a name is, or would be; no slot only when the array is full.
pub(super) enum Place<'a> {
    Taken(&'a Slot, Found),
    Free(Option<&'a Slot>),
}
