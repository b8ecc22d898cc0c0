//! The one thread that writes to disk: it drains a bounded queue into one commit (group commit)
//! and answers each write only after that commit is durable.
//!
//! After a failed commit nothing is known of the disk any more, so every later write fails too
//! (never retried on the same store); the node stops and comes back from what is on disk.

use super::types::TypeConfig;
use openraft::storage::IOFlushed;
use parking_lot::Mutex;
use redb::{Database, Durability, ReadableDatabase, TableDefinition};
use std::{io, ops::Bound, sync::Arc};
use tokio::sync::{mpsc, oneshot};

pub(super) const LOG: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("log");
pub(super) const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");

/// Writes that may wait for the thread; senders then wait.
const QUEUE: usize = 1024;
/// Bytes after which a commit is not made larger.
const COMMIT_BYTES: usize = 8 * 1024 * 1024;

/// One write.
pub(super) enum Write {
    /// Entries, answered when durable.
    Append { entries: Vec<(u64, Vec<u8>)>, upto: u64, done: IOFlushed<TypeConfig> },
    /// Values by name, in one piece, answered when durable.
    Meta { values: Vec<(&'static str, Vec<u8>)>, done: oneshot::Sender<io::Result<()>> },
    /// Drops the entries from here on.
    Truncate { from: u64 },
    /// Drops the entries up to here, and says so under this name.
    Purge { upto: u64, name: &'static str, value: Vec<u8> },
}

impl Write {
    fn bytes(&self) -> usize {
        match self {
            Write::Append { entries, .. } => entries.iter().map(|(_, bytes)| bytes.len()).sum(),
            Write::Meta { values, .. } => values.iter().map(|(_, bytes)| bytes.len()).sum(),
            Write::Truncate { .. } | Write::Purge { .. } => 0,
        }
    }
}

/// The sending end; the thread ends when every clone is dropped.
#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Write>,
}

/// What rides along with the next commit, without one of its own.
pub(super) type Rider = Arc<Mutex<Option<(&'static str, Vec<u8>)>>>;

impl Writer {
    /// Starts the thread. `flushed` is told the index up to which entries are durable.
    pub(super) fn start(
        database: Arc<Database>,
        rider: Rider,
        flushed: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Writer> {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let run = move || drain(&database, &rider, receiver, &flushed);
        std::thread::Builder::new().name("raft-log".into()).spawn(run)?;
        Ok(Writer { queue })
    }

    /// Queues a write.
    pub(super) async fn send(&self, write: Write) -> io::Result<()> {
        self.queue.send(write).await.map_err(|_| stopped())
    }

    /// Writes values and waits until they are durable.
    pub(super) async fn meta(&self, values: Vec<(&'static str, Vec<u8>)>) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        self.send(Write::Meta { values, done }).await?;
        answer.await.map_err(|_| stopped())?
    }
}

/// Reads one value.
pub(super) fn read_meta(database: &Database, name: &str) -> io::Result<Option<Vec<u8>>> {
    let read = database.begin_read().map_err(io::Error::other)?;
    let table = read.open_table(META).map_err(io::Error::other)?;
    let value = table.get(name).map_err(io::Error::other)?;
    Ok(value.map(|value| value.value().to_vec()))
}

/// Creates the tables, so that reading never meets a missing one.
pub(super) fn create_tables(database: &Database) -> io::Result<()> {
    let write = database.begin_write().map_err(io::Error::other)?;
    write.open_table(LOG).map_err(io::Error::other)?;
    write.open_table(META).map_err(io::Error::other)?;
    write.commit().map_err(io::Error::other)
}

fn stopped() -> io::Error {
    io::Error::other("log writer stopped")
}

fn drain(database: &Database, rider: &Rider, mut queue: mpsc::Receiver<Write>, flushed: &dyn Fn(u64)) {
    let mut fenced: Option<String> = None;
    while let Some(first) = queue.blocking_recv() {
        let mut batch = vec![first];
        let mut bytes = batch.iter().map(Write::bytes).sum::<usize>();
        while bytes < COMMIT_BYTES
            && batch.len() < QUEUE
            && let Ok(next) = queue.try_recv()
        {
            bytes += next.bytes();
            batch.push(next);
        }
        let result = match &fenced {
            Some(reason) => Err(reason.clone()),
            None => commit(database, rider, &batch).map_err(|error| error.to_string()),
        };
        if let (Err(reason), None) = (&result, &fenced) {
            tracing::error!(%reason, "raft log is fenced after a failed commit");
            fenced = Some(format!("log is fenced: {reason}"));
        }
        answer(batch, &result, flushed);
    }
}

fn commit(database: &Database, rider: &Rider, batch: &[Write]) -> Result<(), redb::Error> {
    let mut write = database.begin_write()?;
    write.set_durability(Durability::Immediate)?;
    // A torn commit header must not lose an acknowledged vote or entry.
    write.set_two_phase_commit(true);
    {
        let mut log = write.open_table(LOG)?;
        let mut meta = write.open_table(META)?;
        for one in batch {
            match one {
                Write::Append { entries, .. } => {
                    for (index, bytes) in entries {
                        log.insert(index, bytes.as_slice())?;
                    }
                }
                Write::Meta { values, .. } => {
                    for (name, bytes) in values {
                        meta.insert(*name, bytes.as_slice())?;
                    }
                }
                Write::Truncate { from } => {
                    log.retain_in((Bound::Included(*from), Bound::Unbounded), |_, _| false)?
                }
                Write::Purge { upto, name, value } => {
                    log.retain_in((Bound::Unbounded, Bound::Included(*upto)), |_, _| false)?;
                    meta.insert(*name, value.as_slice())?;
                }
            }
        }
        if let Some((name, bytes)) = rider.lock().take() {
            meta.insert(name, bytes.as_slice())?;
        }
    }
    write.commit()?;
    Ok(())
}

fn answer(batch: Vec<Write>, result: &Result<(), String>, flushed: &dyn Fn(u64)) {
    let outcome = || result.clone().map_err(io::Error::other);
    for one in batch {
        match one {
            Write::Append { upto, done, .. } => {
                if result.is_ok() {
                    flushed(upto);
                }
                done.io_completed(outcome());
            }
            Write::Meta { done, .. } => {
                // The asker may be gone; the value is written all the same.
                let _ = done.send(outcome());
            }
            Write::Truncate { .. } | Write::Purge { .. } => {}
        }
    }
}
