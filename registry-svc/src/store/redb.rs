//! redb with group commit: one thread writes, and whatever waits goes into one transaction.

use super::{Record, Store, StoreError, codec};
use crate::core::batch::Write;
use async_trait::async_trait;
use prometheus_client::metrics::histogram::Histogram;
use redb::{
    Database, DatabaseError, Durability, ReadableDatabase as _, ReadableTable as _, StorageBackend,
    TableDefinition,
};
use std::{fs, io, path::Path, sync::Arc, thread};
use tokio::sync::{mpsc, oneshot};

const META: TableDefinition<'_, &str, u32> = TableDefinition::new("meta");
const NAMES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("names");
const FORMAT_KEY: &str = "format";
/// Batches that may wait for the writer; one per shard is usual.
const QUEUE: usize = 1024;
/// Batches in one transaction.
const GROUP_MAX: usize = 1024;
const CACHE_BYTES: usize = 16 << 20;

struct Commit {
    writes: Vec<Write>,
    done: oneshot::Sender<Result<(), StoreError>>,
}

pub(crate) struct RedbStore {
    pub(super) database: Arc<Database>,
    commits: mpsc::Sender<Commit>,
}

impl RedbStore {
    /// Opens or creates the store in a directory. `seconds` observes each transaction.
    pub(crate) fn open(dir: &Path, seconds: Histogram) -> Result<Self, StoreError> {
        let failed = |error: io::Error| StoreError::Io(format!("{}: {error}", dir.display()));
        fs::create_dir_all(dir).map_err(failed)?;
        let path = dir.join("names.redb");
        let is_new = !path.exists();
        let database = builder().create(&path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::Busy(path.display().to_string()),
            error => StoreError::Io(format!("{}: {error}", path.display())),
        })?;
        let store = Self::start(database, seconds)?;
        if is_new {
            // The file's name must survive too.
            fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
        }
        Ok(store)
    }

    /// The same on another backend (tests that make it fail).
    #[cfg_attr(not(test), expect(dead_code, reason = "the seam for faults"))]
    pub(crate) fn on(backend: impl StorageBackend, seconds: Histogram) -> Result<Self, StoreError> {
        let database = builder().create_with_backend(backend).map_err(io_error)?;
        Self::start(database, seconds)
    }

    fn start(database: Database, seconds: Histogram) -> Result<Self, StoreError> {
        check_format(&database)?;
        let database = Arc::new(database);
        let (commits, inbox) = mpsc::channel(QUEUE);
        let writer = Writer { database: database.clone(), inbox, seconds, failed: false };
        let spawned = thread::Builder::new().name("registry-store".into()).spawn(move || writer.run());
        spawned.map_err(|error| StoreError::Io(error.to_string()))?;
        Ok(Self { database, commits })
    }
}

#[async_trait]
impl Store for RedbStore {
    fn load(&self) -> Result<Vec<Record>, StoreError> {
        let read = self.database.begin_read().map_err(io_error)?;
        let names = read.open_table(NAMES).map_err(io_error)?;
        let mut records = Vec::new();
        for record in names.iter().map_err(io_error)? {
            let (name, bytes) = record.map_err(io_error)?;
            records.push(codec::decode(name.value(), bytes.value())?);
        }
        Ok(records)
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        if writes.is_empty() {
            return Ok(());
        }
        let (done, answer) = oneshot::channel();
        self.commits.send(Commit { writes, done }).await.map_err(|_| StoreError::Fenced)?;
        answer.await.unwrap_or(Err(StoreError::Fenced))
    }
}

struct Writer {
    database: Arc<Database>,
    inbox: mpsc::Receiver<Commit>,
    seconds: Histogram,
    failed: bool,
}

impl Writer {
    /// Ends when the store is dropped.
    fn run(mut self) {
        while let Some(first) = self.inbox.blocking_recv() {
            let mut group = vec![first];
            while group.len() < GROUP_MAX
                && let Ok(next) = self.inbox.try_recv()
            {
                group.push(next);
            }
            let outcome = if self.failed { Err(StoreError::Fenced) } else { self.write(&group) };
            self.failed |= outcome.is_err();
            for commit in group {
                let _ = commit.done.send(outcome.clone());
            }
        }
    }

    fn write(&self, group: &[Commit]) -> Result<(), StoreError> {
        let start = tokio::time::Instant::now();
        let mut transaction = self.database.begin_write().map_err(io_error)?;
        transaction.set_durability(Durability::Immediate).map_err(io_error)?;
        transaction.set_quick_repair(true);
        {
            let mut names = transaction.open_table(NAMES).map_err(io_error)?;
            for write in group.iter().flat_map(|commit| &commit.writes) {
                match codec::encode(write) {
                    (name, Some(bytes)) => drop(names.insert(name, bytes.as_slice()).map_err(io_error)?),
                    (name, None) => drop(names.remove(name).map_err(io_error)?),
                }
            }
        }
        transaction.commit().map_err(io_error)?;
        self.seconds.observe(start.elapsed().as_secs_f64());
        Ok(())
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Writes the header into a new store and refuses one of another format.
fn check_format(database: &Database) -> Result<(), StoreError> {
    let transaction = database.begin_write().map_err(io_error)?;
    let found = {
        let mut meta = transaction.open_table(META).map_err(io_error)?;
        let found = meta.get(FORMAT_KEY).map_err(io_error)?.map(|format| format.value());
        if found.is_none() {
            meta.insert(FORMAT_KEY, codec::FORMAT).map_err(io_error)?;
        }
        found
    };
    transaction.open_table(NAMES).map_err(io_error)?;
    match found {
        Some(codec::FORMAT) => transaction.abort().map_err(io_error),
        Some(found) => Err(StoreError::Format { found }),
        None => transaction.commit().map_err(io_error),
    }
}

fn io_error(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Io(error.into().to_string())
}
