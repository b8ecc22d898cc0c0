//! One contract, run against every store; what only a disk can do wrong, against redb alone.

use super::*;
use crate::core::record::tests::record;
use ::redb::{StorageBackend, backends::InMemoryBackend};
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

fn entry(sequence: u64) -> Entry {
    Entry { sequence, kind: 1, data: Bytes::from_static(b"data"), epoch: 3 }
}

fn key(id: &str, stream: &str) -> EventKey {
    (id.into(), stream.into())
}

fn state(id: &str, counter: u64) -> Record {
    Record { id: id.into(), ..record(counter, "w", counter) }
}

/// `reopen` closes the store and opens it again.
async fn contract<S: Store>(store: S, reopen: impl AsyncFn(S) -> S) {
    assert!(store.load().expect("empty").records.is_empty());
    let put = |id: &str, counter| Op::PutRecord(Arc::new(state(id, counter)));
    store.commit(vec![put("b", 1), put("a", 1), put("c", 1)]).await.expect("records");
    store.commit(vec![put("a", 2), Op::PutFence("a".into(), 7)]).await.expect("again");
    store.commit(vec![Op::PutFence("a".into(), 5), Op::Reserve(90), Op::Reserve(80)]).await.expect("lower");
    let events = (1..=3).map(|sequence| Op::PutEvent(key("a", "g"), entry(sequence)));
    store.commit(events.collect()).await.expect("events");
    store
        .commit(vec![Op::PutEvent(key("b", "g"), entry(1)), Op::PutEvent(key("c", "x"), entry(9))])
        .await
        .expect("more");
    store.commit(vec![Op::RemoveEvent(key("a", "g"), 1), Op::RemoveLogs("b".into())]).await.expect("removed");
    store.commit(vec![Op::PutFence("c".into(), 1), Op::RemoveSession("c".into())]).await.expect("ended");

    let loaded = reopen(store).await.load().expect("loaded");
    assert_eq!(loaded.records, vec![state("a", 2), state("b", 1)]);
    assert_eq!(loaded.fences, vec![("a".to_owned(), 7)]);
    let event = |sequence| ("a".to_owned(), "g".to_owned(), entry(sequence));
    assert_eq!(loaded.events, vec![event(2), event(3)]);
    assert_eq!(loaded.reserved, 90);
}

#[tokio::test]
async fn the_memory_store_keeps_the_contract() {
    contract(MemoryStore::default(), async |store: MemoryStore| store).await;
}

#[tokio::test]
async fn the_redb_store_keeps_the_contract() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("session.redb");
    let reopen = async |store: RedbStore| {
        drop(store);
        open_when_closed(&path).await
    };
    contract(RedbStore::open(&path).expect("open"), reopen).await;
}

async fn open_when_closed(path: &std::path::Path) -> RedbStore {
    let wait = std::time::Duration::from_secs(5);
    kit::test::eventually("the file is closed", wait, || async {
        match RedbStore::open(path) {
            Err(StoreError::Busy) => None,
            opened => Some(opened.expect("open")),
        }
    })
    .await
}

#[tokio::test]
async fn many_writers_share_a_commit_and_none_is_lost() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("session.redb");
    let store = Arc::new(RedbStore::open(&path).expect("open"));
    let writers = (0..64).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for i in 0..8 {
                let record = Arc::new(state(&format!("{writer:02}-{i}"), 1));
                store.commit(vec![Op::PutRecord(record)]).await.expect("commit");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("writer");
    }
    drop(store);
    let loaded = open_when_closed(&path).await.load().expect("loaded");
    assert_eq!(loaded.records.len(), 512);
}

/// A disk whose fsync fails when told to.
#[derive(Debug)]
struct Faulty {
    disk: InMemoryBackend,
    broken: Arc<AtomicBool>,
    syncs: Arc<AtomicUsize>,
}

impl StorageBackend for Faulty {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.disk.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.disk.read(offset, out)
    }
    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.disk.set_len(len)
    }
    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        if self.broken.load(Ordering::SeqCst) {
            return Err(std::io::Error::other("the disk is gone"));
        }
        self.disk.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.disk.write(offset, data)
    }
}

#[tokio::test]
async fn a_failed_fsync_fences_the_store_for_good() {
    let (broken, syncs) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let disk = InMemoryBackend::new();
    let faulty = Faulty { disk, broken: broken.clone(), syncs: syncs.clone() };
    let store = RedbStore::open_on(faulty).expect("open");
    let put = |id: &str| vec![Op::PutRecord(Arc::new(state(id, 1)))];
    store.commit(put("a")).await.expect("commit");
    assert!(syncs.load(Ordering::SeqCst) > 0, "a commit reaches the disk");
    broken.store(true, Ordering::SeqCst);
    assert!(matches!(store.commit(put("b")).await, Err(StoreError::Fenced(_))));
    broken.store(false, Ordering::SeqCst);
    assert!(matches!(store.commit(put("c")).await, Err(StoreError::Fenced(_))));
    assert!(store.fenced().is_some());
}

#[test]
fn a_file_of_a_later_format_is_refused() {
    #[derive(serde::Serialize)]
    struct Header(u32, String, u32);
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("session.redb");
    let database = ::redb::Database::create(&path).expect("create");
    let txn = database.begin_write().expect("txn");
    let table = ::redb::TableDefinition::<&str, &[u8]>::new("meta");
    let header = encode(&Header(FORMAT + 1, "9.9.9".into(), FORMAT + 1)).expect("header");
    txn.open_table(table).expect("table").insert("header", header.as_slice()).expect("insert");
    txn.commit().expect("commit");
    drop(database);
    assert!(matches!(RedbStore::open(&path), Err(StoreError::Format { needs: 2 })));
}
