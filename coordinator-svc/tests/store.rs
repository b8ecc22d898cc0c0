//! The Raft library's own storage suite, and ours, on our store in memory and on disk.

use coordinator_svc::raft::{log_store::LogStore, machine::Machine, types::TypeConfig};
use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
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
