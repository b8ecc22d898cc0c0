//! The Raft library's own storage suite, and ours, on our store in memory and on disk.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use coordinator_svc::{
    core::{command::Command, snapshot, state::State},
    raft::{
        log_store::LogStore,
        machine::Machine,
        types::{Entry, LogId, SnapshotMeta, TypeConfig, Vote},
    },
};
use openraft::{
    EntryPayload, RaftLogReader, StorageError,
    storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine},
    testing::log::{StoreBuilder, Suite},
    vote::RaftLeaderIdExt,
};
use redb::{StorageBackend, backends::InMemoryBackend};
use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

struct InMemory;

impl StoreBuilder<TypeConfig, LogStore, Machine, ()> for InMemory {
    async fn build(&self) -> Result<((), LogStore, Machine), StorageError<TypeConfig>> {
        let store = LogStore::in_memory().expect("an in-memory store opens");
        let (machine, _, events) = Machine::new(store.clone());
        // Nobody drains the events: a full channel must not hold anything up.
        drop(events);
        Ok(((), store, machine))
    }
}

struct OnDisk;

impl StoreBuilder<TypeConfig, LogStore, Machine, tempfile::TempDir> for OnDisk {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = LogStore::open(&folder.path().join("raft.redb")).expect("a new store opens");
        let (machine, _, _) = Machine::new(store.clone());
        Ok((folder, store, machine))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_librarys_suite_passes_in_memory() {
    Suite::test_all(InMemory).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_librarys_suite_passes_on_disk() {
    Suite::test_all(OnDisk).await.unwrap();
}

fn log_id(term: u64, index: u64) -> LogId {
    let leader = <TypeConfig as openraft::RaftTypeConfig>::LeaderId::new_committed(term, 1);
    LogId::new(leader, index)
}

fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let value = Bytes::from(vec![index as u8; bytes]);
    let command = Command::put(String::new(), format!("k{index}"), Some(value), None).unwrap();
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(command) }
}

/// The writer's thread lets go of the file a moment after its last handle is gone.
async fn reopen(path: &Path) -> LogStore {
    let open = || async { LogStore::open(path).ok() };
    kit::test::eventually("the file is free", Duration::from_secs(10), open).await
}

#[tokio::test(flavor = "multi_thread")]
async fn vote_log_id_and_snapshot_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("raft.redb");
    let mut store = LogStore::open(&path).unwrap();
    assert!(store.pristine());
    assert_eq!(store.raft_id(|| 7).await.unwrap(), 7);
    let vote = Vote::new(3, 7);
    store.save_vote(&vote).await.unwrap();
    store.blocking_append((0..20).map(|index| entry(1, index, 10))).await.unwrap();
    store.truncate_after(Some(log_id(1, 14))).await.unwrap();
    store.blocking_append((15..18).map(|index| entry(2, index, 10))).await.unwrap();
    store.purge(log_id(1, 4)).await.unwrap();
    store.save_committed(Some(log_id(2, 16))).await.unwrap();
    let meta = SnapshotMeta { last_log_id: Some(log_id(1, 4)), ..SnapshotMeta::default() };
    let data = snapshot::encode(&State::default()).unwrap();
    store.save_snapshot(&meta, &data).await.unwrap();
    drop(store);

    let mut store = reopen(&path).await;
    assert!(!store.pristine());
    assert_eq!(store.raft_id(|| 8).await.unwrap(), 7);
    assert_eq!(store.read_vote().await.unwrap(), Some(vote));
    assert_eq!(store.read_committed().await.unwrap(), Some(log_id(2, 16)));
    let entries = store.try_get_log_entries(..).await.unwrap();
    let ids: Vec<LogId> = entries.iter().map(|entry| entry.log_id).collect();
    let expected: Vec<LogId> =
        (5..15).map(|index| log_id(1, index)).chain((15..18).map(|index| log_id(2, index))).collect();
    assert_eq!(ids, expected);
    let found = store.snapshot().unwrap().unwrap();
    assert_eq!((found.meta, found.snapshot), (meta, data));
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_left_memory_are_read_from_disk() {
    let mut store = LogStore::in_memory().unwrap();
    let (count, size) = (400, 60 * 1024);
    for start in (0..count).step_by(50) {
        store.blocking_append((start..start + 50).map(|index| entry(1, index, size))).await.unwrap();
    }
    let all = store.try_get_log_entries(..).await.unwrap();
    assert_eq!(all.len() as u64, count);
    assert!(all.iter().enumerate().all(|(index, entry)| entry.log_id.index() == index as u64));
    // A message to a peer stays under its limit, and is never empty.
    let part = store.limited_get_log_entries(3, count).await.unwrap();
    assert_eq!(part.first().map(|entry| entry.log_id.index()), Some(3));
    assert!(part.len() < 40, "{} entries of 60 KiB", part.len());
    // Cut below what is in memory, and written on.
    store.truncate_after(Some(log_id(1, 9))).await.unwrap();
    store.blocking_append([entry(2, 10, 5)]).await.unwrap();
    let ids: Vec<u64> = store
        .try_get_log_entries(8..)
        .await
        .unwrap()
        .iter()
        .map(|entry| entry.log_id.leader_id.term)
        .collect();
    assert_eq!(ids, [1, 1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_snapshot_changes_nothing() {
    let store = LogStore::in_memory().unwrap();
    let (mut machine, view, _events) = Machine::new(store.clone());
    let meta = SnapshotMeta { last_log_id: Some(log_id(1, 4)), ..SnapshotMeta::default() };
    let mut data = snapshot::encode(&State::default()).unwrap().to_vec();
    data.push(1);
    let refused = machine.install_snapshot(&meta, data.into()).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    assert_eq!(view.read().last, None);
    assert!(store.snapshot().unwrap().is_none());
}

/// Memory whose sync can be made to fail, as a disk's may.
#[derive(Debug)]
struct Failing {
    bytes: InMemoryBackend,
    broken: Arc<AtomicBool>,
}

impl StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.bytes.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.bytes.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(io::Error::other("disk is gone"));
        }
        self.bytes.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.bytes.write(offset, data)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_sync_nothing_is_acknowledged_any_more() {
    let broken = Arc::new(AtomicBool::new(false));
    let mut store = LogStore::on(Failing { bytes: InMemoryBackend::new(), broken: broken.clone() }).unwrap();
    store.save_vote(&Vote::new(1, 7)).await.unwrap();
    broken.store(true, Ordering::Relaxed);
    assert!(store.save_vote(&Vote::new(2, 7)).await.is_err());
    assert_eq!(store.read_vote().await.unwrap(), Some(Vote::new(1, 7)));
    broken.store(false, Ordering::Relaxed);
    let refused = store.save_vote(&Vote::new(3, 7)).await.unwrap_err();
    assert!(refused.to_string().contains("fenced"), "{refused}");
    assert!(store.blocking_append([entry(1, 0, 1)]).await.is_err());
}
