//! One name in one cache line: plain atomics under a sequence number (a seqlock, Boehm 2012).

use super::hints::{Hints, WORD, hint};
use crate::sync::{AtomicU64, Ordering, fence, spin_loop};

/// Longest name in a slot, in bytes.
pub const INLINE: usize = 32;

/// The published hash of a name (XXH3-64, seed 0); its low bits choose the shard.
#[inline]
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
#[derive(Clone, Copy, Default)]
pub(crate) struct Key {
    pub(crate) hash: u64,
    pub(super) tag: u64,
    pub(super) words: [u64; 4],
}

impl Key {
    /// The key of a name; see [`Key::fits`].
    #[inline]
    pub(crate) fn of(name: &[u8]) -> Key {
        let mut key = Key::default();
        key.set(name);
        key
    }

    /// Whether the name fits a slot. If not, it has no slot and no tag.
    #[inline]
    pub(crate) fn fits(&self) -> bool {
        self.tag != EMPTY
    }

    /// Writes each word to its place: to move a key costs more than to make it.
    #[inline(always)]
    pub(crate) fn set(&mut self, name: &[u8]) {
        self.hash = hash(name);
        (self.tag, self.words) = match name.len() {
            0..=INLINE => (name.len() as u64, words(name)),
            _ => (EMPTY, [0; 4]),
        };
    }
}

impl PartialEq for Key {
    /// Without a branch for each word, as most keys that are compared are the same.
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        let pairs = self.words.iter().zip(&other.words);
        let differ = (self.hash ^ other.hash) | (self.tag ^ other.tag);
        pairs.fold(differ, |differ, (word, wanted)| differ | (word ^ wanted)) == 0
    }
}

/// The bytes of a name that fits a slot, in their order, and zeros behind them.
#[inline]
fn words(name: &[u8]) -> [u64; 4] {
    if let (Some(head), Some(tail)) = (name.first_chunk(), name.last_chunk())
        && name.len() > 16
    {
        // The last sixteen bytes, without those that are in the head.
        let [first, second] = halves(u128::from_le_bytes(*head));
        let [third, fourth] = halves(u128::from_le_bytes(*tail) >> (8 * (INLINE - name.len())));
        return [first, second, third, fourth];
    }
    if let (Some(head), Some(tail)) = (name.first_chunk(), name.last_chunk()) {
        let tail = u64::from_le_bytes(*tail).unbounded_shr(8 * (16 - name.len() as u32));
        return [u64::from_le_bytes(*head), tail, 0, 0];
    }
    [name.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte)), 0, 0, 0]
}

#[inline]
fn halves(both: u128) -> [u64; 2] {
    [both as u64, (both >> 64) as u64]
}

/// Where a name was found.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) version: u64,
    // Of its value.
    pub(super) position: u64,
}

#[derive(Default)]
#[repr(align(64))]
pub(super) struct Slot {
    pub(super) meta: AtomicU64,
    pub(super) words: [AtomicU64; 4],
    pub(super) version: AtomicU64,
    pub(super) position: AtomicU64,
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
            slot.set(found);
        });
    }

    fn set(&self, found: Found) {
        self.version.store(found.version, Ordering::Relaxed);
        self.position.store(found.position, Ordering::Relaxed);
    }

    #[inline]
    fn found(&self) -> Found {
        Found {
            version: self.version.load(Ordering::Relaxed),
            position: self.position.load(Ordering::Relaxed),
        }
    }

    fn tag(&self) -> u64 {
        self.meta.load(Ordering::Relaxed) & TAG
    }

    /// The name that it holds. For the writer.
    fn key(&self) -> Option<Key> {
        let tag = self.tag();
        let mut bytes = [0; INLINE];
        for (to, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(&self.words) {
            *to = word.load(Ordering::Relaxed).to_le_bytes();
        }
        let name = bytes.get(..usize::try_from(tag).ok()?)?;
        (tag != EMPTY).then(|| Key::of(name))
    }

    /// Without a branch for each word.
    #[inline]
    fn is_named(&self, words: &[u64; 4]) -> bool {
        let pairs = self.words.iter().zip(words);
        pairs.fold(0, |differ, (word, wanted)| differ | (word.load(Ordering::Relaxed) ^ wanted)) == 0
    }

    /// What stands in the slot, if it is this name. A slot that changes meanwhile held the name no
    /// more at that moment, or not yet.
    #[inline]
    pub(super) fn read(&self, key: &Key) -> Option<Found> {
        loop {
            let meta = self.meta.load(Ordering::Acquire);
            if meta & (TAG | BUSY) == key.tag && self.is_named(&key.words) {
                let found = self.found();
                fence(Ordering::Acquire);
                if self.meta.load(Ordering::Relaxed) == meta {
                    return Some(found);
                }
            } else if meta & BUSY == 0 {
                return None;
            }
            spin_loop();
        }
    }
}

/// The slots of a shard, with a hint for each.
pub(super) struct Slots {
    slots: Box<[Slot]>,
    hints: Hints,
}

impl Slots {
    /// At least as many.
    pub(super) fn new(count: usize) -> Self {
        let count = count.next_multiple_of(WORD).max(WORD);
        Self { slots: (0..count).map(|_| Slot::default()).collect(), hints: Hints::new(count) }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    #[inline]
    pub(super) fn home(&self, hash: u64) -> usize {
        self.hints.home(hash)
    }

    #[inline]
    pub(super) fn find(&self, key: &Key) -> Option<Found> {
        self.hints.search(self.home(key.hash), hint(key.hash), |at| self.slots[at].read(key))
    }

    /// The same for whom has guessed where it is.
    #[inline]
    pub(super) fn find_at(&self, guess: usize, key: &Key) -> Option<Found> {
        self.slots[guess].read(key).or_else(|| self.find(key))
    }

    /// The slot of a name most likely, if it has one.
    #[inline]
    pub(super) fn guess(&self, key: &Key) -> usize {
        let home = self.home(key.hash);
        self.hints.guess(home, hint(key.hash)).unwrap_or(home * WORD)
    }

    /// Asks the memory for a slot.
    #[inline]
    pub(super) fn touch(&self, at: usize) -> u64 {
        self.slots[at].meta.load(Ordering::Relaxed)
    }

    /// Where a name lies, or else the first slot of its chain that takes it. This and what follows
    /// is for the writer.
    pub(super) fn place(&self, key: &Key) -> Place {
        let home = self.home(key.hash);
        let at = |at: usize| self.slots[at].read(key).map(|found| Place::Taken(at, found));
        let taken = self.hints.search(home, hint(key.hash), at);
        taken.unwrap_or_else(|| Place::Free(self.hints.vacant(home)))
    }

    /// The slot that a new name takes, if it is the next one that comes.
    pub(super) fn vacant(&self, key: &Key) -> Option<usize> {
        self.hints.vacant(self.home(key.hash))
    }

    /// Whether nobody has had a slot.
    pub(super) fn is_empty(&self, at: usize) -> bool {
        self.hints.is_empty(at)
    }

    /// Puts a name into a slot that is free.
    pub(super) fn fill(&self, at: usize, key: &Key, found: Found) {
        self.slots[at].fill(key.words, key.tag, found);
        self.hints.show(at, hint(key.hash));
    }

    /// Gives the name in a slot another version and value.
    pub(super) fn update(&self, at: usize, found: Found) {
        let slot = &self.slots[at];
        slot.write(slot.tag(), |slot| slot.set(found));
    }

    /// Takes the name out of a slot.
    pub(super) fn free(&self, at: usize) {
        self.slots[at].write(GONE, |_| {});
        self.hints.free(at);
    }

    /// What stands in the slots, in their order.
    pub(super) fn all(&self) -> impl Iterator<Item = Found> {
        self.slots.iter().filter(|slot| !matches!(slot.tag(), EMPTY | GONE)).map(Slot::found)
    }

    /// Copies every name, with another position of its value.
    pub(super) fn copy_to(&self, other: &Slots, mut moved: impl FnMut(u64) -> Option<u64>) {
        for slot in &self.slots {
            let Found { version, position } = slot.found();
            if let Some(key) = slot.key()
                && let Some(vacant) = other.hints.vacant(other.home(key.hash))
                && let Some(position) = moved(position)
            {
                other.fill(vacant, &key, Found { version, position });
            }
        }
    }
}

/// Where a name is, or would be; no slot only when the array is full.
pub(super) enum Place {
    Taken(usize, Found),
    Free(Option<usize>),
}
