//! Vote, log and snapshot in one redb file, with the newest entries in memory.
//!
//! Entries are readable when `append` returns and durable when its callback is called. All writes
//! go through one queue in order, votes too. The committed index is a hint that rides along with
//! the next commit: linearizable reads do not need it.

use super::{
    types::{Entry, LogId, Snapshot, SnapshotMeta, TypeConfig, Vote, seal, unseal},
    writer::{LOG, Rider, Write, Writer, create_tables, read_meta},
};
use bytes::Bytes;
use openraft::{
    OptionalSend, RaftLogReader,
    entry::RaftEntry,
    storage::{IOFlushed, LogState, RaftLogStorage},
};
use parking_lot::RwLock;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, StorageBackend, backends::InMemoryBackend};
use std::{
    collections::BTreeMap,
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    path::Path,
    sync::Arc,
};

const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";
const SNAPSHOT_META: &str = "snapshot_meta";
const SNAPSHOT_DATA: &str = "snapshot_data";
const RAFT_ID: &str = "raft_id";

/// Bytes of durable entries kept in memory for replication.
const TAIL_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of one replication message, under the 8 MiB that a peer accepts.
const BATCH_BYTES: usize = 2 * 1024 * 1024;
/// redb's page cache.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// The store; clones share it.
#[derive(Clone)]
pub struct LogStore {
    database: Arc<Database>,
    writer: Writer,
    memory: Arc<RwLock<Memory>>,
    committed: Rider,
}

#[derive(Default)]
struct Memory {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// The newest entries and their size on disk; all that are not durable yet are here.
    tail: BTreeMap<u64, (Entry, usize)>,
    tail_bytes: usize,
    durable: u64,
}

impl LogStore {
    /// Opens or creates the file.
    pub fn open(path: &Path) -> io::Result<LogStore> {
        let database = Builder::new().set_cache_size(CACHE_BYTES).create(path).map_err(io::Error::other)?;
        LogStore::new(database)
    }

    /// A store that forgets everything when it is dropped.
    pub fn in_memory() -> io::Result<LogStore> {
        LogStore::on(InMemoryBackend::new())
    }

    /// A store on bytes kept elsewhere; tests bring one that fails.
    pub fn on(backend: impl StorageBackend) -> io::Result<LogStore> {
        LogStore::new(Builder::new().create_with_backend(backend).map_err(io::Error::other)?)
    }

    fn new(database: Database) -> io::Result<LogStore> {
        create_tables(&database)?;
        let database = Arc::new(database);
        let memory = Arc::new(RwLock::new(Memory::load(&database)?));
        let committed = Rider::default();
        let tail = Arc::clone(&memory);
        let flushed = move |upto| tail.write().flushed(upto);
        let writer = Writer::start(Arc::clone(&database), Arc::clone(&committed), flushed)?;
        Ok(LogStore { database, writer, memory, committed })
    }

    /// The Raft id of this disk, made by `fresh` and kept when there is none yet.
    pub async fn raft_id(&self, fresh: impl FnOnce() -> u64) -> io::Result<u64> {
        if let Some(bytes) = read_meta(&self.database, RAFT_ID)? {
            return unseal(&bytes);
        }
        let id = fresh();
        self.writer.meta(vec![(RAFT_ID, seal(&id)?)]).await?;
        Ok(id)
    }

    /// Whether nothing was voted or written yet.
    pub fn pristine(&self) -> bool {
        let memory = self.memory.read();
        memory.vote.is_none() && memory.last.is_none()
    }

    /// Replaces the snapshot, in one commit: there is never half of one.
    pub async fn save_snapshot(&self, meta: &SnapshotMeta, data: &Bytes) -> io::Result<()> {
        let values = vec![(SNAPSHOT_META, seal(meta)?), (SNAPSHOT_DATA, data.to_vec())];
        self.writer.meta(values).await
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> io::Result<Option<Snapshot>> {
        let Some(meta) = self.snapshot_meta()? else { return Ok(None) };
        let data = read_meta(&self.database, SNAPSHOT_DATA)?.unwrap_or_default();
        Ok(Some(Snapshot { meta, snapshot: data.into() }))
    }

    /// What the newest snapshot contains.
    pub fn snapshot_meta(&self) -> io::Result<Option<SnapshotMeta>> {
        read_meta(&self.database, SNAPSHOT_META)?.map(|bytes| unseal(&bytes)).transpose()
    }

    /// Entries of a range, at least one if there is one, and no more than `bytes` together.
    fn read(&self, range: impl RangeBounds<u64>, bytes: usize) -> io::Result<Vec<Entry>> {
        let memory = self.memory.read();
        let (start, end) = memory.clamp(range);
        let tail_start = memory.tail.keys().next().copied().unwrap_or(end).clamp(start, end.max(start));
        if start >= end {
            return Ok(Vec::new());
        }
        let mut room = Room { left: bytes, first: true };
        let mut entries = Vec::new();
        if start < tail_start {
            // Under the lock, so that a purge or a truncation is either seen whole or not at all.
            let read = self.database.begin_read().map_err(io::Error::other)?;
            let log = read.open_table(LOG).map_err(io::Error::other)?;
            for record in log.range(start..tail_start).map_err(io::Error::other)? {
                let (_, record) = record.map_err(io::Error::other)?;
                if !room.take(record.value().len()) {
                    return Ok(entries);
                }
                entries.push(unseal(record.value())?);
            }
        }
        for (entry, size) in memory.tail.range(tail_start..end).map(|(_, entry)| entry) {
            if !room.take(*size) {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }
}

/// The bytes that an answer may still have; its first entry always fits.
struct Room {
    left: usize,
    first: bool,
}

impl Room {
    fn take(&mut self, bytes: usize) -> bool {
        let fits = self.first || bytes <= self.left;
        self.first = false;
        self.left = self.left.saturating_sub(bytes);
        fits
    }
}

impl Memory {
    fn load(database: &Database) -> io::Result<Memory> {
        let purged: Option<LogId> = read_meta(database, PURGED)?.map(|bytes| unseal(&bytes)).transpose()?;
        let read = database.begin_read().map_err(io::Error::other)?;
        let log = read.open_table(LOG).map_err(io::Error::other)?;
        let newest = log.last().map_err(io::Error::other)?;
        let last = newest.map(|(_, record)| unseal::<Entry>(record.value())).transpose()?;
        let last = last.map(|entry| entry.log_id()).or(purged);
        Ok(Memory {
            vote: read_meta(database, VOTE)?.map(|bytes| unseal(&bytes)).transpose()?,
            committed: read_meta(database, COMMITTED)?.map(|bytes| unseal(&bytes)).transpose()?,
            purged,
            last,
            durable: last.map_or(0, |last| last.index()),
            ..Memory::default()
        })
    }

    /// The part of a range that the log has, as `start..end`.
    fn clamp(&self, range: impl RangeBounds<u64>) -> (u64, u64) {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let first = self.purged.map_or(0, |purged| purged.index() + 1);
        let next = self.last.map_or(0, |last| last.index() + 1);
        (start.max(first), end.min(next))
    }

    fn push(&mut self, entry: Entry, size: usize) {
        self.last = Some(entry.log_id());
        self.tail_bytes += size;
        if let Some((_, old)) = self.tail.insert(entry.index(), (entry, size)) {
            self.tail_bytes -= old;
        }
    }

    fn truncate_after(&mut self, last: Option<LogId>) {
        let from = last.map_or(0, |last| last.index() + 1);
        let dropped = self.tail.split_off(&from);
        self.tail_bytes -= dropped.values().map(|(_, size)| size).sum::<usize>();
        self.durable = self.durable.min(from.saturating_sub(1));
        if self.last.is_some_and(|newest| newest.index() >= from) {
            self.last = last;
        }
    }

    fn purge(&mut self, upto: LogId) {
        let kept = self.tail.split_off(&(upto.index() + 1));
        let dropped = std::mem::replace(&mut self.tail, kept);
        self.tail_bytes -= dropped.values().map(|(_, size)| size).sum::<usize>();
        self.purged = Some(upto);
        self.last = self.last.max(Some(upto));
    }

    /// Lets go of the oldest durable entries when there are too many bytes.
    fn flushed(&mut self, upto: u64) {
        self.durable = self.durable.max(upto.min(self.last.map_or(0, |last| last.index())));
        while self.tail_bytes > TAIL_BYTES
            && let Some((&index, &(_, size))) = self.tail.first_key_value()
            && index <= self.durable
        {
            self.tail.remove(&index);
            self.tail_bytes -= size;
        }
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.read(range, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start..end, BATCH_BYTES)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.memory.read().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let memory = self.memory.read();
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: memory.last })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.writer.meta(vec![(VOTE, seal(vote)?)]).await?;
        self.memory.write().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed else { return Ok(()) };
        self.memory.write().committed = Some(committed);
        *self.committed.lock() = Some((COMMITTED, seal(&committed)?));
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.memory.read().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut records = Vec::new();
        {
            let mut memory = self.memory.write();
            for entry in entries {
                let bytes = seal(&entry)?;
                let index = entry.index();
                memory.push(entry, bytes.len());
                records.push((index, bytes));
            }
        }
        let upto = records.last().map_or(0, |(index, _)| *index);
        self.writer.send(Write::Append { entries: records, upto, done: callback }).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.memory.write().truncate_after(last);
        self.writer.send(Write::Truncate { from: last.map_or(0, |last| last.index() + 1) }).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.memory.write().purge(upto);
        self.writer.send(Write::Purge { upto: upto.index(), name: PURGED, value: seal(&upto)? }).await
    }
}
