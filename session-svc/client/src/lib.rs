//! Client of session-svc: what other services may import.
//!
//! [`SessionClient`] makes typed calls with deadlines and retries (every request is idempotent),
//! and remembers version tokens, so that one client never sees a session go back in time.
//! [`Ring`] and [`SessionId`] are the published placement: the service itself uses them from here.

mod client;
pub mod error;
pub mod id;
pub mod ring;
mod tokens;

pub use client::{
    Binding, Created, Fetched, REPLICATION_FACTOR, Read, Replayed, SERVICE, SessionClient, members,
};
pub use error::SessionError;
pub use id::{InvalidId, SessionId};
pub use proto::session::{Consistency, Event, EventKind, Session, Version};
pub use ring::{Member, Ring};
