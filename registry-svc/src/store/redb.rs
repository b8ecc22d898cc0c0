//! redb with group commit: one thread writes, and whatever waits, of all shards, goes into one
//! transaction with one fsync.
//!
//! Opening verifies every page (a plain open of a damaged file may panic, and would trust a
//! branch that leads to an old page), then [`Store::load`] verifies every record.

use super::{Record, Store, StoreError, codec, header::Header};
use crate::core::batch::Write;
use async_trait::async_trait;
use prometheus_client::metrics::histogram::Histogram;
use redb::{
    Database, DatabaseError, Durability, ReadableDatabase, ReadableTable as _, StorageBackend as _,
    StorageError, TableDefinition, WriteTransaction, backends::InMemoryBackend,
};
use std::{fs, io, mem::ManuallyDrop, path::Path, sync::Arc, thread};
use tokio::sync::{mpsc, oneshot};

const META: TableDefinition<'_, &str, u32> = TableDefinition::new("meta");
const WRITER: TableDefinition<'_, &str, &str> = TableDefinition::new("writer");
const NAMES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("names");
const FORMAT_KEY: &str = "format";
const MIN_READER_KEY: &str = "min_reader";
const WRITER_KEY: &str = "version";
/// Batches that may wait for the writer; one per shard is usual.
const QUEUE: usize = 1024;
/// Batches in one transaction.
const GROUP_MAX: usize = 1024;
const CACHE_BYTES: usize = 16 << 20;
/// A larger file that is damaged is told without the name of the record.
const SEARCH_MAX: u64 = 1 << 30;

struct Commit {
    writes: Vec<Write>,
    done: oneshot::Sender<Result<(), StoreError>>,
}

/// What is observed of each transaction.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    pub(crate) seconds: Histogram,
    /// Records that shared it.
    pub(crate) records: Histogram,
}

pub(crate) struct RedbStore {
    pub(super) database: Arc<Database>,
    commits: mpsc::Sender<Commit>,
}

impl RedbStore {
    /// Opens or creates the store in a directory.
    pub(crate) fn open(dir: &Path, observed: Observed) -> Result<Self, StoreError> {
        let failed = |error: io::Error| StoreError::Io(format!("{}: {error}", dir.display()));
        fs::create_dir_all(dir).map_err(failed)?;
        let path = dir.join("names.redb");
        let opened = builder().create(&path);
        let store = Self::start(&path.display().to_string(), opened, observed, || bytes_of(&path))?;
        // The names of the file and its directory must survive too. At every start, for an
        // earlier one may have been killed right after it made them.
        for named in [Some(dir), dir.parent()].into_iter().flatten() {
            fs::File::open(named).and_then(|named| named.sync_all()).map_err(failed)?;
        }
        Ok(store)
    }

    /// The same on a disk of the test's own.
    #[cfg(test)]
    pub(crate) fn on(
        disk: impl redb::StorageBackend + Clone,
        observed: Observed,
    ) -> Result<Self, StoreError> {
        let opened = builder().create_with_backend(disk.clone());
        Self::start("the disk", opened, observed, || {
            let mut bytes = vec![0; usize::try_from(disk.len()?).unwrap()];
            disk.read(0, &mut bytes).map(|()| bytes)
        })
    }

    fn start(
        place: &str,
        opened: Result<Database, DatabaseError>,
        observed: Observed,
        bytes: impl FnOnce() -> io::Result<Vec<u8>>,
    ) -> Result<Self, StoreError> {
        let database = match opened {
            Ok(database) => database,
            Err(DatabaseError::DatabaseAlreadyOpen) => return Err(StoreError::Busy(place.to_owned())),
            Err(DatabaseError::Storage(StorageError::Corrupted(what))) => {
                return Err(damaged_record(bytes).unwrap_or(StoreError::Damaged(place.to_owned(), what)));
            }
            Err(error) => return Err(StoreError::Io(format!("{place}: {error}"))),
        };
        check_header(&database)?;
        let database = Arc::new(database);
        let (commits, inbox) = mpsc::channel(QUEUE);
        let writer = Writer { database: database.clone(), inbox, observed, failed: false };
        let spawned = thread::Builder::new().name("registry-store".into()).spawn(move || writer.run());
        spawned.map_err(|error| StoreError::Io(error.to_string()))?;
        Ok(Self { database, commits })
    }
}

#[async_trait]
impl Store for RedbStore {
    fn load(&self) -> Result<Vec<Record>, StoreError> {
        records(&*self.database)
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

fn records(database: &impl ReadableDatabase) -> Result<Vec<Record>, StoreError> {
    let read = database.begin_read().map_err(io_error)?;
    let names = read.open_table(NAMES).map_err(io_error)?;
    let mut records = Vec::new();
    for record in names.iter().map_err(io_error)? {
        let (name, bytes) = record.map_err(io_error)?;
        records.push(codec::decode(name.value(), bytes.value())?);
    }
    Ok(records)
}

/// The bytes of a file that is not too large to be searched.
fn bytes_of(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > SEARCH_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    fs::read(path)
}

/// Finds the record in a damaged file, for the message. On a copy, so that the file stays as it
/// is; in a thread of its own, because redb may panic on what it has not verified. The copy is not
/// closed: that writes to it, may panic in a destructor, and would end the process. It ends anyway
/// when this has been told.
fn damaged_record(bytes: impl FnOnce() -> io::Result<Vec<u8>>) -> Option<StoreError> {
    let bytes = bytes().ok()?;
    let search = move || {
        let copy = InMemoryBackend::new();
        copy.set_len(bytes.len() as u64).and_then(|()| copy.write(0, &bytes)).ok()?;
        let database = ManuallyDrop::new(Database::builder().create_with_backend(copy).ok()?);
        records(&*database).err()
    };
    let found = thread::Builder::new().name("registry-search".into()).spawn(search).ok()?.join().ok()??;
    matches!(found, StoreError::Corrupt { .. }).then_some(found)
}

struct Writer {
    database: Arc<Database>,
    inbox: mpsc::Receiver<Commit>,
    observed: Observed,
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
        let transaction = begin(&self.database)?;
        let mut records = 0;
        {
            let mut names = transaction.open_table(NAMES).map_err(io_error)?;
            for write in group.iter().flat_map(|commit| &commit.writes) {
                match codec::encode(write) {
                    (name, Some(bytes)) => drop(names.insert(name, bytes.as_slice()).map_err(io_error)?),
                    (name, None) => drop(names.remove(name).map_err(io_error)?),
                }
                records += 1;
            }
        }
        transaction.commit().map_err(io_error)?;
        self.observed.seconds.observe(start.elapsed().as_secs_f64());
        self.observed.records.observe(f64::from(records));
        Ok(())
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// A transaction whose commit returns after the fsync, in two phases, so that a crash within it
/// leaves the state before or after it without a repair by guess.
fn begin(database: &Database) -> Result<WriteTransaction, StoreError> {
    let mut transaction = database.begin_write().map_err(io_error)?;
    transaction.set_durability(Durability::Immediate).map_err(io_error)?;
    transaction.set_quick_repair(true);
    Ok(transaction)
}

/// Writes the header into a new store, and refuses a store that this program cannot read.
fn check_header(database: &Database) -> Result<(), StoreError> {
    let transaction = begin(database)?;
    let found = read_header(&transaction)?;
    let wanted = match &found {
        Some(found) => {
            found.check()?;
            found.taken_over()
        }
        None => Header::own(),
    };
    if found.as_ref() == Some(&wanted) {
        return transaction.abort().map_err(io_error);
    }
    write_header(&transaction, &wanted)?;
    transaction.open_table(NAMES).map_err(io_error)?;
    transaction.commit().map_err(io_error)
}

fn read_header(transaction: &WriteTransaction) -> Result<Option<Header>, StoreError> {
    let meta = transaction.open_table(META).map_err(io_error)?;
    let number = |key| Ok(meta.get(key).map_err(io_error)?.map(|value| value.value()));
    let Some(format) = number(FORMAT_KEY)? else {
        return Ok(None);
    };
    let min_reader = number(MIN_READER_KEY)?.unwrap_or(format);
    let about = transaction.open_table(WRITER).map_err(io_error)?;
    let writer = about.get(WRITER_KEY).map_err(io_error)?;
    let writer = writer.map(|writer| writer.value().to_owned()).unwrap_or_default();
    Ok(Some(Header { format, min_reader, writer }))
}

fn write_header(transaction: &WriteTransaction, header: &Header) -> Result<(), StoreError> {
    let mut meta = transaction.open_table(META).map_err(io_error)?;
    meta.insert(FORMAT_KEY, header.format).map_err(io_error)?;
    meta.insert(MIN_READER_KEY, header.min_reader).map_err(io_error)?;
    let mut about = transaction.open_table(WRITER).map_err(io_error)?;
    about.insert(WRITER_KEY, header.writer.as_str()).map_err(io_error)?;
    Ok(())
}

fn io_error(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Io(error.into().to_string())
}
