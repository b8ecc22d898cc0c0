//! What both stores promise, and what redb does when its disk fails.

use super::{
    MemoryStore, Observed, Record, RedbStore, Store, StoreError,
    disk_test::{Call, Disk},
    header::{FORMAT, Header},
};
use crate::{
    core::{batch::Write, table::Entry},
    metrics::Metrics,
};
use proto::registry::{Registration, Removed};
use redb::ReadableDatabase as _;
use std::{path::Path, sync::Arc};

fn put(name: &str, version: u64) -> Write {
    Write::Put(Entry::new(Registration { name: name.into(), version, ..Default::default() }))
}

fn tombstone(name: &str, version: u64) -> Write {
    Write::Tombstone(Arc::new(Removed { name: name.into(), version, ..Default::default() }))
}

fn observed() -> Observed {
    Metrics::new(&kit::Metrics::new()).store()
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
        match RedbStore::open(dir, observed()) {
            Ok(store) => return store,
            Err(StoreError::Busy(_)) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
    panic!("the store stays open");
}

/// Says another header in a store.
fn relabel(store: &RedbStore, format: u32, min_reader: u32) {
    let transaction = store.database.begin_write().unwrap();
    {
        let mut meta = transaction.open_table(redb::TableDefinition::<&str, u32>::new("meta")).unwrap();
        meta.insert("format", format).unwrap();
        meta.insert("min_reader", min_reader).unwrap();
    }
    transaction.commit().unwrap();
}

#[tokio::test]
async fn a_store_for_later_readers_is_refused_and_one_that_was_only_added_to_is_read() {
    let opened = async |format, min_reader| {
        let disk = Disk::default();
        let store = RedbStore::on(disk.clone(), observed()).unwrap();
        store.commit(vec![put("a", 1)]).await.unwrap();
        relabel(&store, format, min_reader);
        RedbStore::on(Disk::of(disk.image()), observed())
    };
    assert_eq!(kept(&opened(FORMAT + 1, FORMAT).await.unwrap()), ["a=1"]);
    let refused = Header { format: 9, min_reader: 8, writer: env!("CARGO_PKG_VERSION").into() };
    assert_eq!(opened(9, 8).await.err(), Some(StoreError::Format(refused)));
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

#[tokio::test]
async fn after_a_failed_sync_nothing_is_written_any_more() {
    let mut failures = 0;
    for nth in 1..40 {
        let disk = Disk::default();
        let store = RedbStore::on(disk.clone(), observed()).unwrap();
        disk.fail(Call::Sync, nth);
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

/// Prints; run it alone and with `--release`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a figure, not a check"]
async fn figure_of_grouped_durable_registers() {
    const CLIENTS: u64 = 512;
    const EACH: u64 = 200;
    let dir = tempfile::tempdir().unwrap();
    let context = kit::host::Context::for_test("n1");
    let metrics = Metrics::new(&context.metrics);
    let store = Arc::new(RedbStore::open(dir.path(), metrics.store()).unwrap());
    let handle = crate::service::assemble(&crate::Config::default(), &context, store, metrics).unwrap();
    let start = tokio::time::Instant::now();
    let clients = (0..CLIENTS).map(|client| {
        let handle = handle.clone();
        tokio::spawn(async move {
            for n in 0..EACH {
                let registration = Registration {
                    name: format!("backend-{client:06}-{n:08}"),
                    owner: "operator".into(),
                    kind: proto::registry::Kind::Worker.into(),
                    durability: proto::registry::Durability::Durable.into(),
                    ..Default::default()
                };
                let request_id = format!("{client}-{n}");
                let register = crate::core::command::Register {
                    request_id,
                    ..crate::core::command::Register::new(registration)
                };
                handle.register(register).await.unwrap();
            }
        })
    });
    futures::future::try_join_all(clients).await.unwrap();
    let seconds = start.elapsed().as_secs_f64();
    let text = context.metrics.encode();
    let of =
        |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().rsplit(' ').next().unwrap();
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(dir.path().join("names.redb"), copy.path().join("names.redb")).unwrap();
    let opening = tokio::time::Instant::now();
    let names = RedbStore::open(copy.path(), observed()).unwrap().load().unwrap().len();
    println!("{names} names as a crash leaves them: verified and read in {:.2?}", opening.elapsed());
    println!(
        "{} durable registers by {CLIENTS} clients in {seconds:.2} s: {:.0}/s, {} transactions",
        CLIENTS * EACH,
        (CLIENTS * EACH) as f64 / seconds,
        of("swarm_registry_commit_records_count"),
    );
}
