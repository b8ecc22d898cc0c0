//! The seam to disk. What is committed survives a crash; everything is read once, at the start.

mod memory;
mod redb;

pub use self::{memory::MemoryStore, redb::RedbStore};

use crate::core::{log::Entry, record::Record};
use async_trait::async_trait;
use std::sync::Arc;

/// Version of what is on disk.
pub const FORMAT: u32 = 1;
/// The oldest reader that understands it.
pub const MIN_READER: u32 = 1;

/// One change. A commit applies all of its changes or none.
#[derive(Debug, Clone)]
pub enum Op {
    /// Stores a session's state.
    PutRecord(Arc<Record>),
    /// Drops a session's state, its fence and its logs.
    RemoveSession(String),
    /// Drops a session's logs; its fence stays.
    RemoveLogs(String),
    /// Stores a fencing epoch; a lower one changes nothing.
    PutFence(String, u64),
    /// Stores an event.
    PutEvent(EventKey, Entry),
    /// Drops an event.
    RemoveEvent(EventKey, u64),
    /// Ballot rounds up to this one may have been promised; a lower one changes nothing.
    Reserve(u64),
}

/// Session and stream.
pub type EventKey = (Arc<str>, Arc<str>);

/// Everything that was committed.
#[derive(Debug, Default)]
pub struct Loaded {
    /// In order of id.
    pub records: Vec<Record>,
    /// Fencing epochs by session.
    pub fences: Vec<(String, u64)>,
    /// In order of session, stream and sequence.
    pub events: Vec<(String, String, Entry)>,
    /// The highest round that may have been promised.
    pub reserved: u64,
}

/// Why the disk did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A write or fsync failed; nothing is written any more until a restart, because nobody can
    /// say what is on disk.
    #[error("store is fenced off after a failed write: {0}")]
    Fenced(String),
    /// Someone else has it open.
    #[error("store is open elsewhere")]
    Busy,
    /// It cannot be opened or read.
    #[error("store cannot be read: {0}")]
    Read(String),
    /// Written by a later version.
    #[error("store needs a reader of format {needs}, this is {FORMAT}")]
    Format {
        /// The format that is needed.
        needs: u32,
    },
}

/// A store of one instance.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Everything that was committed.
    fn load(&self) -> Result<Loaded, StoreError>;
    /// Durable when it returns. An error leaves open what is on disk, and fences the store.
    async fn commit(&self, ops: Vec<Op>) -> Result<(), StoreError>;
    /// Why it takes no more writes, if so.
    fn fenced(&self) -> Option<String>;
}

fn encode<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    postcard::to_stdvec(value).map_err(|error| StoreError::Fenced(error.to_string()))
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    postcard::from_bytes(bytes).map_err(|error| StoreError::Read(error.to_string()))
}

#[cfg(test)]
mod tests;
