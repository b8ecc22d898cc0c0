//! A store in memory. Clones share it, as a disk outlives a process.

use super::{Record, Store, StoreError, codec};
use crate::core::batch::Write;
use async_trait::async_trait;
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};

#[derive(Clone, Default)]
pub(crate) struct MemoryStore {
    records: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

#[async_trait]
impl Store for MemoryStore {
    fn load(&self) -> Result<Vec<Record>, StoreError> {
        self.records.lock().iter().map(|(name, bytes)| codec::decode(name, bytes)).collect()
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        let mut records = self.records.lock();
        for write in &writes {
            match codec::encode(write) {
                (name, Some(bytes)) => drop(records.insert(name.to_owned(), bytes)),
                (name, None) => drop(records.remove(name)),
            }
        }
        Ok(())
    }
}
