//! The layout on disk: stores that earlier programs wrote are opened, and what this one writes
//! is byte for byte what they can read.

use super::{Observed, Record, RedbStore, Store as _, codec};
use crate::{
    core::{batch::Write, table::Entry},
    metrics::Metrics,
};
use proto::registry::{
    BackendSpec, Durability, Kind, Registration, Removed, StdioTransport, backend_spec::Transport,
    registration::Spec,
};
use std::{fmt::Write as _, path::PathBuf, sync::Arc};

fn observed() -> Observed {
    Metrics::new(&kit::Metrics::new()).store()
}

/// One record of each kind with every field that is kept.
fn records() -> Vec<Record> {
    let stdio = StdioTransport {
        command: "uvx".into(),
        args: vec!["mcp-server-time".into()],
        env: [("TZ".to_owned(), "UTC".to_owned())].into(),
        cwd: "/srv".into(),
    };
    let spec = BackendSpec {
        transport: Some(Transport::Stdio(stdio)),
        strategy: "pooled".into(),
        weight: 3,
        zone: "z1".into(),
        call_timeout_ms: 1500,
    };
    let time = Registration {
        name: "time".into(),
        kind: Kind::Backend.into(),
        owner: "operator".into(),
        labels: [("tier".to_owned(), "gold".to_owned())].into(),
        spec: Some(Spec::Backend(spec.into())),
        durability: Durability::Durable.into(),
        version: 1_700_000_000_001,
        origin: "n1".into(),
        registered_at_ms: 1_700_000_000_000,
        ..Default::default()
    };
    let removed = Removed {
        name: "zeit".into(),
        version: 1_700_000_000_002,
        origin: "n2".into(),
        cause: "deregistered".into(),
        ..Default::default()
    };
    vec![Record::Put(time.into()), Record::Tombstone(removed)]
}

fn golden(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

/// `SWARM_WRITE_GOLDEN=1` writes the file of a new format; those of released ones stay.
#[tokio::test]
async fn a_store_of_each_released_format_opens() {
    let golden = golden("names-format-1.redb");
    if std::env::var_os("SWARM_WRITE_GOLDEN").is_some() {
        let dir = tempfile::tempdir().unwrap();
        let store = RedbStore::open(dir.path(), observed()).unwrap();
        store.commit(records().into_iter().map(as_write).collect()).await.unwrap();
        std::fs::copy(dir.path().join("names.redb"), &golden).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(golden, dir.path().join("names.redb")).unwrap();
    assert_eq!(RedbStore::open(dir.path(), observed()).unwrap().load(), Ok(records()));
}

#[test]
fn records_are_written_as_they_were_in_format_1() {
    let path = golden("records-format-1.hex");
    let hex = |record: Record| {
        let bytes = codec::encode(&as_write(record)).1.unwrap();
        bytes.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        }) + "\n"
    };
    let written: String = records().into_iter().map(hex).collect();
    if std::env::var_os("SWARM_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &written).unwrap();
    }
    assert_eq!(written, std::fs::read_to_string(path).unwrap());
}

fn as_write(record: Record) -> Write {
    match record {
        Record::Put(registration) => Write::Put(Entry::new(*registration)),
        Record::Tombstone(removed) => Write::Tombstone(Arc::new(removed)),
    }
}
