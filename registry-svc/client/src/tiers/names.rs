//! The node's copy of the names, as every thread reads it.

use super::epochs::Epochs;
use crate::map::{Lender, Map, hash};
use proto::registry::Registration;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Few: the copy has one writer.
const SHARDS: usize = 16;

pub(crate) struct Names {
    map: Arc<Map<Arc<Registration>>>,
    pub(crate) epochs: Epochs,
    // Set when there are more names than may be kept.
    partial: AtomicBool,
}

impl Names {
    pub(crate) fn new() -> Self {
        Self { map: Arc::new(Map::new(SHARDS)), epochs: Epochs::new(), partial: AtomicBool::new(false) }
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Registration>> {
        self.map.get(name.as_bytes()).map(|(_, registration)| registration)
    }

    /// Looks names up for one thread or connection.
    pub(crate) fn lender(&self) -> Lender<Arc<Registration>> {
        Lender::new(self.map.clone())
    }

    /// Whether a name that is not here may be registered all the same.
    pub(crate) fn is_partial(&self) -> bool {
        self.partial.load(Ordering::Acquire)
    }

    pub(crate) fn set_partial(&self, partial: bool) {
        self.partial.store(partial, Ordering::Release);
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// The writer found no room for a name: handles that say it is absent end.
    pub(crate) fn leave_out(&self, name: &str) {
        self.set_partial(true);
        self.epochs.bump(hash(name.as_bytes()));
    }

    /// Called by the one writer: the map first, then the epoch.
    pub(crate) fn show(&self, name: &str, value: Option<Arc<Registration>>) {
        match value {
            Some(registration) => drop(self.map.put(name.as_bytes(), registration.version, registration)),
            None => drop(self.map.remove(name.as_bytes())),
        }
        self.epochs.bump(hash(name.as_bytes()));
    }

    /// Every registration, in no order.
    pub(crate) fn all(&self) -> impl Iterator<Item = Arc<Registration>> {
        (0..SHARDS).flat_map(move |shard| self.map.shard_values(shard))
    }
}
