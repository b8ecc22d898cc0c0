//! A real store that a crash of the process loses: what `--data :memory:` runs on.

use super::{Loaded, Op, Store, StoreError, decode, encode};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};

#[derive(Clone, Default)]
pub struct MemoryStore {
    tables: Arc<Mutex<Tables>>,
}

#[derive(Default)]
struct Tables {
    records: BTreeMap<String, Vec<u8>>,
    fences: BTreeMap<String, u64>,
    events: BTreeMap<(String, String, u64), Vec<u8>>,
    reserved: u64,
}

#[async_trait]
impl Store for MemoryStore {
    fn load(&self) -> Result<Loaded, StoreError> {
        let tables = self.tables.lock();
        let events = tables.events.iter();
        Ok(Loaded {
            records: tables.records.values().map(|bytes| decode(bytes)).collect::<Result<_, _>>()?,
            fences: tables.fences.iter().map(|(id, epoch)| (id.clone(), *epoch)).collect(),
            events: events
                .map(|((id, stream, _), bytes)| Ok((id.clone(), stream.clone(), decode(bytes)?)))
                .collect::<Result<_, StoreError>>()?,
            reserved: tables.reserved,
        })
    }

    async fn commit(&self, ops: Vec<Op>) -> Result<(), StoreError> {
        let mut tables = self.tables.lock();
        ops.into_iter().try_for_each(|op| tables.apply(op))
    }

    fn fenced(&self) -> Option<String> {
        None
    }
}

impl Tables {
    fn apply(&mut self, op: Op) -> Result<(), StoreError> {
        match op {
            Op::PutRecord(record) => {
                self.records.insert(record.id.clone(), encode(&*record)?);
            }
            Op::RemoveSession(id) => {
                self.records.remove(&id);
                self.fences.remove(&id);
                self.remove_logs(&id);
            }
            Op::RemoveLogs(id) => self.remove_logs(&id),
            Op::PutFence(id, epoch) => {
                let fence = self.fences.entry(id).or_default();
                *fence = (*fence).max(epoch);
            }
            Op::PutEvent((id, stream), entry) => {
                let key = (id.to_string(), stream.to_string(), entry.sequence);
                self.events.insert(key, encode(&entry)?);
            }
            Op::RemoveEvent((id, stream), sequence) => {
                self.events.remove(&(id.to_string(), stream.to_string(), sequence));
            }
            Op::Reserve(round) => self.reserved = self.reserved.max(round),
        }
        Ok(())
    }

    fn remove_logs(&mut self, id: &str) {
        let from = (id.to_owned(), String::new(), 0);
        let keys = self.events.range(from..).map(|(key, _)| key);
        let gone: Vec<_> = keys.take_while(|key| key.0 == id).cloned().collect();
        for key in gone {
            self.events.remove(&key);
        }
    }
}
