//! What both stores promise, and what redb does when its disk fails.

use super::{MemoryStore, Record, RedbStore, Store, StoreError};
use crate::core::batch::Write;
use kit::metrics::CALL_BUCKETS;
use prometheus_client::metrics::histogram::Histogram;
use proto::registry::{Registration, Removed};
use redb::{ReadableDatabase as _, StorageBackend, backends::InMemoryBackend};
use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

fn put(name: &str, version: u64) -> Write {
    Write::Put(Arc::new(Registration { name: name.into(), version, ..Default::default() }))
}

fn tombstone(name: &str, version: u64) -> Write {
    Write::Tombstone(Arc::new(Removed { name: name.into(), version, ..Default::default() }))
}

fn seconds() -> Histogram {
    Histogram::new(CALL_BUCKETS)
}

/// What is kept, as text.
fn kept(store: &dyn Store) -> Vec<String> {
    let text = |record| match record {
        Record::Put(registration) => format!("{}={}", registration.name, registration.version),
        Record::Tombstone(removed) => format!("{}-{}", removed.name, removed.version),
    };
    store.load().unwrap().into_iter().map(text).collect()
}

async fn keeps_the_last_write_of_each_name(open: impl Fn() -> Arc<dyn Store>) {
    let store = open();
    assert_eq!(kept(&*store), Vec::<String>::new());
    store.commit(vec![put("b", 1), put("a", 2), put("c", 3)]).await.unwrap();
    store.commit(vec![put("a", 4), tombstone("b", 5), Write::Forget("c".into())]).await.unwrap();
    store.commit(vec![]).await.unwrap();
    drop(store);
    let store = open();
    assert_eq!(kept(&*store), ["a=4", "b-5"]);
    let writers = (0..64).map(|n| {
        let store = store.clone();
        tokio::spawn(async move { store.commit(vec![put(&format!("w{n:02}"), n)]).await })
    });
    for writer in futures::future::join_all(writers).await {
        writer.unwrap().unwrap();
    }
    assert_eq!(kept(&*store).len(), 66);
}

#[tokio::test]
async fn memory_store() {
    let disk = MemoryStore::default();
    keeps_the_last_write_of_each_name(|| Arc::new(disk.clone())).await;
}

#[tokio::test]
async fn redb_store() {
    let dir = tempfile::tempdir().unwrap();
    keeps_the_last_write_of_each_name(|| Arc::new(reopen(dir.path()))).await;
}

/// The writer thread lets go of the file a moment after the store is dropped.
fn reopen(dir: &Path) -> RedbStore {
    for _ in 0..500 {
        match RedbStore::open(dir, seconds()) {
            Ok(store) => return store,
            Err(StoreError::Busy(_)) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
    panic!("the store stays open");
}

#[tokio::test]
async fn a_store_of_another_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let meta = redb::TableDefinition::<&str, u32>::new("meta");
    let database = redb::Database::create(dir.path().join("names.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(meta).unwrap().insert("format", 9).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = RedbStore::open(dir.path(), seconds()).err();
    assert_eq!(error, Some(StoreError::Format { found: 9 }));
}

#[tokio::test]
async fn a_damaged_record_is_told_and_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let store = reopen(dir.path());
    store.commit(vec![put("time", 1)]).await.unwrap();
    let database = store.database.clone();
    let names = redb::TableDefinition::<&str, &[u8]>::new("names");
    let damaged = {
        let read = database.begin_read().unwrap();
        let mut bytes = read.open_table(names).unwrap().get("time").unwrap().unwrap().value().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    };
    let transaction = database.begin_write().unwrap();
    transaction.open_table(names).unwrap().insert("time", damaged.as_slice()).unwrap();
    transaction.commit().unwrap();
    assert!(matches!(store.load(), Err(StoreError::Corrupt { name, .. }) if name == "time"));
}

/// A disk whose n-th sync fails, once.
#[derive(Debug, Clone)]
struct FailingSync {
    disk: Arc<InMemoryBackend>,
    until_failure: Arc<AtomicU32>,
}

impl StorageBackend for FailingSync {
    fn len(&self) -> Result<u64, io::Error> {
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.disk.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.disk.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        match self.until_failure.fetch_sub(1, Ordering::SeqCst) {
            1 => Err(io::Error::other("injected")),
            _ => self.disk.sync_data(),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.disk.write(offset, data)
    }
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_written_any_more() {
    let mut failures = 0;
    for nth in 1..40 {
        let until_failure = Arc::new(AtomicU32::new(u32::MAX));
        let backend = FailingSync { disk: Arc::default(), until_failure: until_failure.clone() };
        let store = RedbStore::on(backend, seconds()).unwrap();
        until_failure.store(nth, Ordering::SeqCst);
        let mut outcomes = Vec::new();
        for version in 0..12 {
            outcomes.push(store.commit(vec![put("time", version)]).await);
        }
        let first = outcomes.iter().position(Result::is_err);
        if let Some(first) = first {
            failures += 1;
            assert!(matches!(outcomes[first], Err(StoreError::Io(_))), "sync {nth}: {outcomes:?}");
            assert!(outcomes[first + 1..].iter().all(|outcome| *outcome == Err(StoreError::Fenced)));
        }
    }
    assert!(failures >= 10, "only {failures} failures were injected");
}
