//! What tells a thread's own handles that a name may have changed.

use crate::sync::{AtomicU64, Ordering};

/// Names share an epoch by their hash, so that a change costs the other names little.
const GROUPS: usize = 64;

// On a cache line of its own: a writer of one group does not slow the readers of another.
#[derive(Default)]
#[repr(align(64))]
struct Epoch(AtomicU64);

/// Counts the changes of each group of names. A handle that was read at an epoch is good for as
/// long as the epoch stands.
///
/// # Contract
/// A writer changes the map first and calls [`Epochs::bump`] then; a reader reads the epoch
/// first and the map then. So a handle under the epoch in force is never older than that epoch.
pub(crate) struct Epochs([Epoch; GROUPS]);

impl Epochs {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| Epoch::default()))
    }

    /// The epoch of a name, before its handle is read or used.
    #[inline]
    pub(crate) fn of(&self, hash: u64) -> u64 {
        // Whoever sees a count sees the change of the map before it.
        self.group(hash).load(Ordering::Acquire)
    }

    /// Ends the handles of a name, after the map was changed.
    pub(crate) fn bump(&self, hash: u64) {
        self.group(hash).fetch_add(1, Ordering::Release);
    }

    fn group(&self, hash: u64) -> &AtomicU64 {
        // The low and the high bits choose shard and slot; GROUPS is a power of two.
        &self.0[(hash >> 24) as usize & (GROUPS - 1)].0
    }
}
