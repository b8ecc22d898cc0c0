//! A byte of the hash for each slot, eight in a word (as in Abseil's tables, 2017): which slots may
//! hold a name is told by a sixty-fourth of the memory, which stays in the cache when the slots
//! no longer do. So a lookup waits for one line of the slots, its name's, and not for those of
//! the names before it.
//!
//! # Contract
//! From a name's home to its slot no hint is [`EMPTY`] for as long as the name stands, and its own
//! is there before its writer says that it does.

use crate::sync::{AtomicU64, Ordering};

/// Nobody has had the slot: chains end here.
pub(super) const EMPTY: u8 = 0;
/// Somebody had it: chains go on.
pub(super) const GONE: u8 = 0xff;

/// Slots of one word; their number is a multiple of it.
pub(super) const WORD: usize = 8;
const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

pub(super) struct Hints(Box<[AtomicU64]>);

/// The hint of a name. Other bits of its hash choose the shard and the home.
#[inline]
pub(super) fn hint(hash: u64) -> u8 {
    // 1 to 254.
    ((((hash >> 32) & 0xff) * 254) >> 8) as u8 + 1
}

impl Hints {
    /// All slots are empty.
    pub(super) fn new(slots: usize) -> Self {
        Self((0..slots.div_ceil(WORD)).map(|_| AtomicU64::new(0)).collect())
    }

    /// Goes through the slots from a home on that may hold a name, until `look` answers or the
    /// chain ends.
    #[inline]
    pub(super) fn search<T>(
        &self,
        home: usize,
        hint: u8,
        mut look: impl FnMut(usize) -> Option<T>,
    ) -> Option<T> {
        let (mut word, mut from) = (home / WORD, !0 << (home % WORD * 8));
        // The first word is seen twice: its slots before the home are the last ones.
        for _ in 0..=self.0.len() {
            let seen = self.0[word].load(Ordering::Acquire);
            let ends = bytes(seen, EMPTY) & from;
            let mut may = bytes(seen, hint) & from & before(ends);
            while may != 0 {
                let found = look(word * WORD + first(may));
                if found.is_some() {
                    return found;
                }
                may &= may - 1;
            }
            if ends != 0 {
                return None;
            }
            (word, from) = (if word + 1 < self.0.len() { word + 1 } else { 0 }, !0);
        }
        None
    }

    /// The first slot that may hold a name, as far as the home's word tells; else the home.
    #[inline]
    pub(super) fn guess(&self, home: usize, hint: u8) -> usize {
        let seen = self.0[home / WORD].load(Ordering::Acquire);
        let from = !0 << (home % WORD * 8);
        let may = bytes(seen, hint) & from & before(bytes(seen, EMPTY) & from);
        if may == 0 { home } else { home / WORD * WORD + first(may) }
    }

    /// The first slot from a home on that no name holds; `None` when all are held. For the writer.
    pub(super) fn vacant(&self, home: usize) -> Option<usize> {
        let (word, from) = (home / WORD, !0 << (home % WORD * 8));
        let chain = (word..self.0.len()).chain(0..=word);
        let masks = std::iter::once(from).chain(std::iter::repeat(!0));
        chain.zip(masks).find_map(|(word, from)| {
            let seen = self.0[word].load(Ordering::Relaxed);
            let free = (bytes(seen, EMPTY) | bytes(seen, GONE)) & from;
            (free != 0).then(|| word * WORD + first(free))
        })
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

/// The bits before the first that is set; all when none is.
#[inline]
fn before(bits: u64) -> u64 {
    (bits & bits.wrapping_neg()).wrapping_sub(1)
}

/// The byte of the first bit that is set.
#[inline]
fn first(bits: u64) -> usize {
    bits.trailing_zeros() as usize / 8
}
