//! The seam to disk: what is durable of the names. A store in memory that serialises as the
//! real one does, and redb.

mod codec;
mod header;
mod memory;
mod redb;

pub(crate) use codec::Record;
pub(crate) use memory::MemoryStore;
pub(crate) use redb::{Observed, RedbStore};

use crate::core::batch::Write;
use async_trait::async_trait;

/// Keeps durable registrations and tombstones.
#[async_trait]
pub(crate) trait Store: Send + Sync + 'static {
    /// Everything that is kept, in name order.
    fn load(&self) -> Result<Vec<Record>, StoreError>;

    /// Returns once the writes are on the disk, in order, all or none. After an error the store
    /// takes no more writes: what the disk holds is not known (RELIABILITY F2).
    async fn commit(&self, writes: Vec<Write>) -> Result<(), StoreError>;
}

/// Why the store failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("{0}")]
    Io(String),
    #[error("{0} is open in another node or process")]
    Busy(String),
    #[error("the store has {0}; this program reads formats {old} to {new}", old = header::OLDEST, new = header::FORMAT)]
    Format(header::Header),
    #[error("the record of {name:?} is damaged: {what}")]
    Corrupt { name: String, what: String },
    #[error("{0} is damaged outside of its records: {1}")]
    Damaged(String, String),
    #[error("an earlier write failed")]
    Fenced,
}

#[cfg(test)]
mod contract_test;
#[cfg(test)]
mod crash_test;
#[cfg(test)]
mod disk_test;
#[cfg(test)]
mod golden_test;
