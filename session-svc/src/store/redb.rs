//! redb with one writer thread: whatever waits is committed together (group commit), so 64 writers
//! share an fsync instead of queueing for 64.

use super::{FORMAT, Loaded, MIN_READER, Op, Store, StoreError, decode, encode};
use crate::core::log::Entry;
use async_trait::async_trait;
use parking_lot::Mutex;
use redb::{
    Builder, Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageBackend, Table,
    TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize};
use std::{fmt::Display, path::Path, sync::Arc, thread};
use tokio::sync::{mpsc, oneshot};

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
const FENCES: TableDefinition<'_, &str, u64> = TableDefinition::new("fences");
const EVENTS: TableDefinition<'_, (&str, &str, u64), &[u8]> = TableDefinition::new("events");

/// Commits that wait for the writer; further ones wait for room.
const QUEUE: usize = 1024;
/// Changes in one transaction: bounds its memory and how long the first waits for the last.
const GROUP_MAX: usize = 4096;
/// Page cache. Reads come from our own memory, so it only serves the writer.
const CACHE_BYTES: usize = 32 << 20;
const HEADER: &str = "header";
const RESERVED: &str = "reserved";

/// Sessions on disk. The file is closed when the last clone is dropped.
pub struct RedbStore {
    database: Arc<Database>,
    queue: mpsc::Sender<Job>,
    fenced: Arc<Mutex<Option<String>>>,
}

struct Job {
    ops: Vec<Op>,
    done: oneshot::Sender<Result<(), StoreError>>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    writer: String,
    min_reader: u32,
}

struct Tables<'txn> {
    meta: Table<'txn, &'static str, &'static [u8]>,
    records: Table<'txn, &'static str, &'static [u8]>,
    fences: Table<'txn, &'static str, u64>,
    events: Table<'txn, (&'static str, &'static str, u64), &'static [u8]>,
}

impl RedbStore {
    /// Opens or creates the file.
    pub fn open(path: &Path) -> Result<RedbStore, StoreError> {
        match Builder::new().set_cache_size(CACHE_BYTES).create(path) {
            Ok(database) => Self::start(database),
            Err(DatabaseError::DatabaseAlreadyOpen) => Err(StoreError::Busy),
            Err(error) => Err(unreadable(error)),
        }
    }

    /// Opens on a backend of one's own, for faults.
    pub fn open_on(backend: impl StorageBackend) -> Result<RedbStore, StoreError> {
        let database = Builder::new().create_with_backend(backend).map_err(unreadable)?;
        Self::start(database)
    }

    fn start(database: Database) -> Result<RedbStore, StoreError> {
        check_header(&database)?;
        let database = Arc::new(database);
        let fenced = Arc::new(Mutex::new(None));
        let (queue, jobs) = mpsc::channel(QUEUE);
        let writer = Writer { database: database.clone(), fenced: fenced.clone() };
        thread::Builder::new()
            .name("session-store".into())
            .spawn(move || writer.run(jobs))
            .map_err(unreadable)?;
        Ok(RedbStore { database, queue, fenced })
    }
}

#[async_trait]
impl Store for RedbStore {
    fn load(&self) -> Result<Loaded, StoreError> {
        let txn = self.database.begin_read().map_err(unreadable)?;
        let mut loaded = Loaded::default();
        for row in txn.open_table(RECORDS).map_err(unreadable)?.iter().map_err(unreadable)? {
            loaded.records.push(decode(row.map_err(unreadable)?.1.value())?);
        }
        for row in txn.open_table(FENCES).map_err(unreadable)?.iter().map_err(unreadable)? {
            let (id, epoch) = row.map_err(unreadable)?;
            loaded.fences.push((id.value().to_owned(), epoch.value()));
        }
        for row in txn.open_table(EVENTS).map_err(unreadable)?.iter().map_err(unreadable)? {
            let (key, entry) = row.map_err(unreadable)?;
            let (id, stream, _) = key.value();
            let entry: Entry = decode(entry.value())?;
            loaded.events.push((id.to_owned(), stream.to_owned(), entry));
        }
        let meta = txn.open_table(META).map_err(unreadable)?;
        if let Some(reserved) = meta.get(RESERVED).map_err(unreadable)? {
            loaded.reserved = decode(reserved.value())?;
        }
        Ok(loaded)
    }

    async fn commit(&self, ops: Vec<Op>) -> Result<(), StoreError> {
        let (done, outcome) = oneshot::channel();
        let gone = || StoreError::Fenced("the writer has ended".into());
        self.queue.send(Job { ops, done }).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }

    fn fenced(&self) -> Option<String> {
        self.fenced.lock().clone()
    }
}

struct Writer {
    database: Arc<Database>,
    fenced: Arc<Mutex<Option<String>>>,
}

impl Writer {
    /// Ends when the store is dropped.
    fn run(self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            let mut group = vec![first];
            let mut size = 0;
            while size < GROUP_MAX
                && let Ok(job) = jobs.try_recv()
            {
                size += job.ops.len();
                group.push(job);
            }
            let outcome = self.write(&group);
            for job in group {
                // Whoever gave up waiting does not want the answer.
                let _ = job.done.send(outcome.clone());
            }
        }
    }

    /// After a failed fsync the page cache may claim what the disk does not hold; a retry would
    /// "succeed" and lose data (F2). So the first error ends all writing.
    fn write(&self, group: &[Job]) -> Result<(), StoreError> {
        if let Some(why) = self.fenced.lock().clone() {
            return Err(StoreError::Fenced(why));
        }
        let written = self.transact(group);
        if let Err(error) = &written {
            tracing::error!(%error, "session store is fenced off");
            *self.fenced.lock() = Some(error.to_string());
        }
        written
    }

    fn transact(&self, group: &[Job]) -> Result<(), StoreError> {
        let txn = begin(&self.database)?;
        let mut tables = open_tables(&txn)?;
        for op in group.iter().flat_map(|job| &job.ops) {
            tables.apply(op)?;
        }
        drop(tables);
        txn.commit().map_err(failed)
    }
}

fn begin(database: &Database) -> Result<WriteTransaction, StoreError> {
    let mut txn = database.begin_write().map_err(failed)?;
    txn.set_durability(Durability::Immediate).map_err(failed)?;
    // A crash is then repaired in constant time instead of a walk over the file.
    txn.set_quick_repair(true);
    Ok(txn)
}

fn open_tables(txn: &WriteTransaction) -> Result<Tables<'_>, StoreError> {
    Ok(Tables {
        meta: txn.open_table(META).map_err(failed)?,
        records: txn.open_table(RECORDS).map_err(failed)?,
        fences: txn.open_table(FENCES).map_err(failed)?,
        events: txn.open_table(EVENTS).map_err(failed)?,
    })
}

impl Tables<'_> {
    fn apply(&mut self, op: &Op) -> Result<(), StoreError> {
        match op {
            Op::PutRecord(record) => {
                self.records.insert(record.id.as_str(), encode(&**record)?.as_slice()).map_err(failed)?;
            }
            Op::RemoveSession(id) => {
                self.records.remove(id.as_str()).map_err(failed)?;
                self.fences.remove(id.as_str()).map_err(failed)?;
                self.remove_logs(id)?;
            }
            Op::RemoveLogs(id) => self.remove_logs(id)?,
            Op::PutFence(id, epoch) => self.fence(id, *epoch)?,
            Op::PutEvent((id, stream), entry) => {
                let key = (&**id, &**stream, entry.sequence);
                self.events.insert(key, encode(entry)?.as_slice()).map_err(failed)?;
            }
            Op::RemoveEvent((id, stream), sequence) => {
                self.events.remove((&**id, &**stream, *sequence)).map_err(failed)?;
            }
            Op::Reserve(round) => self.reserve(*round)?,
        }
        Ok(())
    }

    fn remove_logs(&mut self, id: &str) -> Result<(), StoreError> {
        let range = (id, "", 0)..=(id, "\u{10FFFF}", u64::MAX);
        self.events.retain_in(range, |_, _| false).map_err(failed)
    }

    fn fence(&mut self, id: &str, epoch: u64) -> Result<(), StoreError> {
        let stored = self.fences.get(id).map_err(failed)?.map(|epoch| epoch.value());
        if stored.is_none_or(|stored| stored < epoch) {
            self.fences.insert(id, epoch).map_err(failed)?;
        }
        Ok(())
    }

    fn reserve(&mut self, round: u64) -> Result<(), StoreError> {
        let stored = match self.meta.get(RESERVED).map_err(failed)? {
            Some(bytes) => decode::<u64>(bytes.value())?,
            None => 0,
        };
        if stored < round {
            self.meta.insert(RESERVED, encode(&round)?.as_slice()).map_err(failed)?;
        }
        Ok(())
    }
}

/// Refuses a file of a later format; writes the header of a new one.
fn check_header(database: &Database) -> Result<(), StoreError> {
    let txn = begin(database)?;
    {
        let mut tables = open_tables(&txn)?;
        let stored = tables.meta.get(HEADER).map_err(unreadable)?;
        let stored: Option<Header> = stored.map(|bytes| decode(bytes.value())).transpose()?;
        match stored {
            Some(header) if header.min_reader > FORMAT => {
                return Err(StoreError::Format { needs: header.min_reader });
            }
            Some(_) => {}
            None => {
                let writer = env!("CARGO_PKG_VERSION").to_owned();
                let header = Header { format: FORMAT, writer, min_reader: MIN_READER };
                tables.meta.insert(HEADER, encode(&header)?.as_slice()).map_err(failed)?;
            }
        }
    }
    txn.commit().map_err(failed)
}

fn failed(error: impl Display) -> StoreError {
    StoreError::Fenced(error.to_string())
}

fn unreadable(error: impl Display) -> StoreError {
    StoreError::Read(error.to_string())
}
