//! A byte of the hash for each slot, eight in a word (as in Abseil's tables, 2017): which slots may
//! hold a name is told by a sixty-fourth of the memory, which stays in the cache when the slots
//! no longer do. So a lookup waits for one line of the slots, its name's, and not for those of
//! the names before it.
//!
//! # Contract
//! In the words from a name's home to that of its slot no hint is [`EMPTY`] for as long as the name
//! stands, and its own is there before its writer says that it does.

use crate::sync::{AtomicU64, Ordering};

/// Nobody has had the slot: chains end with its word.
pub(super) const EMPTY: u8 = 0;
/// Somebody had it: chains go on.
pub(super) const GONE: u8 = 0xff;

/// Slots of one word, which is where a chain begins; their number is a multiple of it.
pub(super) const WORD: usize = 8;
const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

pub(super) struct Hints(Box<[AtomicU64]>);

/// The hint of a name. Other bits of its hash choose the shard and the home.
#[inline]
pub(super) fn hint(hash: u64) -> u8 {
    // 1 to 128.
    ((hash >> 32) as u8 >> 1) + 1
}

impl Hints {
    /// All slots are empty.
    pub(super) fn new(slots: usize) -> Self {
        Self((0..slots.div_ceil(WORD)).map(|_| AtomicU64::new(0)).collect())
    }

    /// The word in which a name is looked for first. The high bits choose it; any count will do.
    #[inline]
    pub(super) fn home(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.0.len() as u128) >> 64) as usize
    }

    /// Goes through the slots from a home on that may hold a name, until `look` answers or the
    /// chain ends.
    #[inline]
    pub(super) fn search<T>(&self, home: usize, hint: u8, look: impl Fn(usize) -> Option<T>) -> Option<T> {
        // Nearly all names are there.
        if let Some(at) = self.guess(home, hint)
            && let Some(found) = look(at)
        {
            return Some(found);
        }
        self.walk(home, hint, look)
    }

    #[inline(never)]
    fn walk<T>(&self, home: usize, hint: u8, look: impl Fn(usize) -> Option<T>) -> Option<T> {
        for word in self.chain(home) {
            let seen = self.0[word].load(Ordering::Acquire);
            let mut may = bytes(seen, hint);
            while may != 0 {
                let found = look(word * WORD + first(may));
                if found.is_some() {
                    return found;
                }
                may &= may - 1;
            }
            if bytes(seen, EMPTY) != 0 {
                return None;
            }
        }
        None
    }

    /// The first slot of a home that may hold a name.
    #[inline]
    pub(super) fn guess(&self, home: usize, hint: u8) -> Option<usize> {
        let zero = self.0[home].load(Ordering::Acquire) ^ (ONES * u64::from(hint));
        // The first one is right, if there is one.
        let may = zero.wrapping_sub(ONES) & !zero & HIGHS;
        (may != 0).then(|| home * WORD + first(may))
    }

    /// The first slot from a home on that no name holds; `None` when all are held. For the writer.
    pub(super) fn vacant(&self, home: usize) -> Option<usize> {
        self.chain(home).find_map(|word| {
            let seen = self.0[word].load(Ordering::Relaxed);
            let free = bytes(seen, EMPTY) | bytes(seen, GONE);
            (free != 0).then(|| word * WORD + first(free))
        })
    }

    fn chain(&self, home: usize) -> impl Iterator<Item = usize> {
        (home..self.0.len()).chain(0..home)
    }

    /// Whether nobody has had a slot.
    pub(super) fn is_empty(&self, at: usize) -> bool {
        (self.0[at / WORD].load(Ordering::Relaxed) >> (at % WORD * 8)) as u8 == EMPTY
    }

    /// The name of a filled slot may be found. For the writer, as all that changes.
    pub(super) fn show(&self, at: usize, hint: u8) {
        let (word, shift) = (&self.0[at / WORD], at % WORD * 8);
        let seen = word.load(Ordering::Relaxed);
        word.store(seen & !(0xff << shift) | u64::from(hint) << shift, Ordering::Release);
    }

    pub(super) fn free(&self, at: usize) {
        self.show(at, GONE);
    }
}

/// The highest bit of each byte that has a value (Warren, Hacker's Delight, 6-1).
#[inline]
fn bytes(word: u64, value: u8) -> u64 {
    let zero = word ^ (ONES * u64::from(value));
    !(((zero & !HIGHS) + !HIGHS) | zero | !HIGHS)
}

/// The byte of the first bit that is set.
#[inline]
fn first(bits: u64) -> usize {
    bits.trailing_zeros() as usize / 8
}
