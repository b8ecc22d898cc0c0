//! transport-edge: the one MCP endpoint in front of a fleet of backends, in both protocol eras.
//!
//! Invariants:
//! * each client request gets exactly one final answer or a closed stream, never another
//!   client's bytes (RELIABILITY.md ND7);
//! * a message with an event id is in the stream's log before it is sent, so that a client that
//!   comes back, here or at another edge, misses nothing and gets nothing twice;
//! * of all edges at most one writes a session's streams: the anchor with the highest epoch;
//! * what passed the strict scan is forwarded as the bytes that came (DESIGN K28).
//!
//! It never logs a session id, never lets one backend delay the requests of another, and never
//! waits for session-svc on a plain answer within a lease.

pub mod backend;
mod cells;
pub mod config;
pub mod core;
mod error;
mod front;
mod metrics;
mod relay;
mod rpc;
mod service;
mod session;

pub use config::Config;
pub use error::Error;
pub use service::{META_MCP, Running, Seams, start, start_with};
pub use session::{Event, EventKind, LocalStore, Replayed, SessionStore, StoreError, Stored, Version};
