//! A thread's own handles: a small cache that nobody else touches.

use super::epochs::Epochs;
use crate::map::Key;

/// Handles by name, two places for each group of names; the one that was not used last goes
/// first. Holds at most its capacity, whatever is asked.
pub(crate) struct Handles<V> {
    sets: Box<[[Option<Handle<V>>; 2]]>,
}

struct Handle<V> {
    key: Key,
    epoch: u64,
    // `None` says that the name is not registered.
    value: Option<V>,
}

/// Where a handle lies.
#[derive(Clone, Copy)]
pub(crate) struct At(usize, usize);

impl<V> Handles<V> {
    /// `capacity` is rounded up to a power of two, at least 2.
    pub(crate) fn new(capacity: usize) -> Self {
        let sets = capacity.div_ceil(2).next_power_of_two();
        Self { sets: (0..sets).map(|_| [None, None]).collect() }
    }

    /// The handle of a name, and whether it was there; else what `read` finds is kept. `read`
    /// answers `None` when it cannot tell, and `Some(None)` when there is no such name.
    #[inline]
    pub(crate) fn through(
        &mut self,
        key: &Key,
        epochs: &Epochs,
        read: impl FnOnce() -> Option<Option<V>>,
    ) -> Option<(At, bool)> {
        // Before the map is read: see `Epochs`.
        let epoch = epochs.of(key.hash);
        if let Some(at) = self.find(key, epoch) {
            return Some((at, true));
        }
        let value = read()?;
        Some((self.keep(*key, epoch, value), false))
    }

    /// The handle of a name, if it was read at the epoch in force.
    #[inline]
    fn find(&self, key: &Key, epoch: u64) -> Option<At> {
        let set = self.set(key.hash);
        let is_it = |handle: &Option<Handle<V>>| {
            handle.as_ref().is_some_and(|handle| handle.epoch == epoch && handle.key == *key)
        };
        let [first, second] = &self.sets[set];
        match is_it(first) {
            true => Some(At(set, 0)),
            false => is_it(second).then_some(At(set, 1)),
        }
    }

    /// What was found.
    #[inline]
    pub(crate) fn get(&self, at: At) -> Option<&V> {
        self.sets[at.0][at.1].as_ref()?.value.as_ref()
    }

    /// Keeps what was read after the epoch was.
    fn keep(&mut self, key: Key, epoch: u64, value: Option<V>) -> At {
        let set = self.set(key.hash);
        let [first, second] = &mut self.sets[set];
        let replaces_first = first.as_ref().is_none_or(|handle| handle.key == key);
        if !replaces_first {
            *second = first.take();
        }
        *first = Some(Handle { key, epoch, value });
        At(set, 0)
    }

    /// Lets go of everything.
    pub(crate) fn clear(&mut self) {
        self.sets.iter_mut().for_each(|set| *set = [None, None]);
    }

    fn set(&self, hash: u64) -> usize {
        // Below the number of sets, which is a power of two.
        (hash >> 8) as usize & (self.sets.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::of(name.as_bytes())
    }

    #[test]
    fn a_handle_of_another_epoch_or_name_is_none() {
        let mut handles = Handles::new(8);
        handles.keep(key("a"), 1, Some("value"));
        handles.keep(key("gone"), 1, None::<&str>);
        let found = handles.find(&key("a"), 1).unwrap();
        assert_eq!(handles.get(found), Some(&"value"));
        let found = handles.find(&key("gone"), 1).unwrap();
        assert_eq!(handles.get(found), None, "known not to be registered");
        assert!(handles.find(&key("a"), 2).is_none() && handles.find(&key("b"), 1).is_none());
        handles.clear();
        assert!(handles.find(&key("a"), 1).is_none());
    }

    #[test]
    fn many_names_never_take_more_than_the_capacity_and_the_last_ones_stay() {
        let mut handles = Handles::new(16);
        for n in 0..1000 {
            handles.keep(key(&format!("name-{n}")), 1, Some(n));
            let found = handles.find(&key(&format!("name-{n}")), 1).unwrap();
            assert_eq!(handles.get(found), Some(&n));
        }
        let kept = (0..1000).filter(|n| handles.find(&key(&format!("name-{n}")), 1).is_some()).count();
        assert!((8..=16).contains(&kept), "{kept}");
    }

    #[test]
    fn a_name_that_is_kept_again_takes_its_own_place() {
        let mut handles = Handles::new(2);
        handles.keep(key("a"), 1, Some(1));
        handles.keep(key("b"), 1, Some(2));
        handles.keep(key("b"), 2, Some(3));
        assert!(handles.find(&key("a"), 1).is_some(), "two names fit");
        assert!(handles.find(&key("b"), 1).is_none() && handles.find(&key("b"), 2).is_some());
    }
}
