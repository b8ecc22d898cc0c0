//! The sessions that are live at this edge.

use super::live::Live;
use parking_lot::RwLock;
use std::{collections::HashMap, sync::Arc};
use xxhash_rust::xxh3::xxh3_64;

/// Locks; a request takes one for reading, a session's begin and end for writing.
const SHARDS: usize = 64;

/// Live sessions by id.
pub(crate) struct Sessions {
    shards: Vec<RwLock<HashMap<String, Arc<Live>>>>,
    max: usize,
}

impl Sessions {
    /// No sessions; at most about `max`.
    pub(crate) fn new(max: usize) -> Self {
        Sessions { shards: (0..SHARDS).map(|_| RwLock::default()).collect(), max }
    }

    fn shard(&self, id: &str) -> Option<&RwLock<HashMap<String, Arc<Live>>>> {
        self.shards.get(xxh3_64(id.as_bytes()) as usize % SHARDS)
    }

    /// A session that is live here and has not ended.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Live>> {
        let live = self.shard(id)?.read().get(id).cloned()?;
        (!live.is_ended()).then_some(live)
    }

    /// Adds a session; the one it replaces ends.
    pub(crate) fn insert(&self, live: Arc<Live>) {
        let Some(shard) = self.shard(&live.id) else { return };
        if let Some(former) = shard.write().insert(live.id.clone(), live) {
            former.end();
        }
    }

    /// Takes a session out; it is not ended by that.
    pub(crate) fn remove(&self, live: &Arc<Live>) {
        let Some(shard) = self.shard(&live.id) else { return };
        let mut shard = shard.write();
        if shard.get(&live.id).is_some_and(|held| Arc::ptr_eq(held, live)) {
            shard.remove(&live.id);
        }
    }

    /// Whether another one fits; a session has two of the limit's 64 parts at most.
    pub(crate) fn has_room(&self, id: &str) -> bool {
        self.shard(id).is_some_and(|shard| shard.read().len() < (self.max / SHARDS).max(1) * 2)
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Live>> {
        self.shards.iter().flat_map(|shard| shard.read().values().cloned().collect::<Vec<_>>()).collect()
    }
}
