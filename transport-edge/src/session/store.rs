//! The seam to where sessions and event logs are kept.
//!
//! [`ServiceStore`](super::ServiceStore) keeps them in session-svc; [`LocalStore`](super::LocalStore)
//! in this process, which is the seed's "current" model (node-local sessions) and the fake of tests.

use async_trait::async_trait;
use bytes::Bytes;
pub use proto::session::{Event, EventKind, Version};
use std::time::{Duration, Instant};

/// Why a call of the store failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// No such session for this principal, or it has ended.
    #[error("no such session")]
    NotFound,
    /// The compare-and-set lost; nothing was applied.
    #[error("session has another version")]
    Mismatch,
    /// A later epoch owns the session.
    #[error("fenced off by epoch {0}")]
    Fenced(u64),
    /// Nothing was applied; a later try may succeed.
    #[error("sessions are unavailable: {0}")]
    Unavailable(String),
    /// The write may or may not be applied.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// A limit or a bug.
    #[error("{0}")]
    Other(String),
}

/// A session as stored.
#[derive(Debug, Clone)]
pub struct Stored {
    /// What a put expects.
    pub version: Version,
    /// An encoded [`proto::edge::SessionRecord`].
    pub value: Bytes,
    /// Until when the copy may be served, when a lease was asked for.
    pub lease_until: Option<Instant>,
}

/// Events of one stream.
#[derive(Debug, Clone, Default)]
pub struct Replayed {
    /// In order, without gaps.
    pub events: Vec<Event>,
    /// The oldest sequence held.
    pub first_sequence: u64,
    /// The last sequence held.
    pub last_sequence: u64,
    /// Whether the stream was ever written.
    pub known: bool,
}

/// Sessions by id, and the logs of their streams.
#[async_trait]
pub trait SessionStore: Send + Sync + 'static {
    /// A fresh, unguessable id.
    fn mint(&self) -> String;

    /// Whether the text could be an id at all.
    fn valid(&self, id: &str) -> bool;

    /// Stores a new session.
    async fn create(
        &self,
        id: &str,
        principal: &str,
        value: Bytes,
        ttl: Duration,
    ) -> Result<Version, StoreError>;

    /// Reads a session, with a lease on the copy when `lease` is set (K27).
    async fn get(&self, id: &str, principal: &str, lease: Option<Duration>) -> Result<Stored, StoreError>;

    /// Replaces the value if the version is still `expected`.
    async fn put(
        &self,
        id: &str,
        principal: &str,
        expected: &Version,
        value: Bytes,
    ) -> Result<Version, StoreError>;

    /// Extends lives; answers the ids that are unknown.
    async fn touch(&self, ids: Vec<String>) -> Result<Vec<String>, StoreError>;

    /// Ends a session; returns once no edge serves it any more.
    async fn delete(&self, id: &str, principal: &str) -> Result<(), StoreError>;

    /// Appends events under the anchor's epoch.
    async fn append(&self, id: &str, stream: &str, epoch: u64, events: Vec<Event>) -> Result<(), StoreError>;

    /// The events after a sequence; with `fence`, appends of older epochs end.
    async fn replay(
        &self,
        id: &str,
        stream: &str,
        after: u64,
        fence: Option<u64>,
    ) -> Result<Replayed, StoreError>;
}

/// An event of a stream.
pub(crate) fn event(sequence: u64, kind: EventKind, data: Bytes) -> Event {
    Event { sequence, data, kind: kind.into(), ..Event::default() }
}
