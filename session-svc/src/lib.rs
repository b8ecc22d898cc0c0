//! session-svc: state by handle (sessions) and the event logs of their streams, on a ring.
//!
//! # Invariants
//! * An acked create, put or delete is on the disks of W owners, and every later state of the
//!   session follows it: one session is one register decided by ballots ([`core::acceptor`]).
//! * A read with a version token never shows an older state; a quorum read shows every acked one.
//! * An acked event is in the memory of W owners; a replay shows it or tells the gap.
//! * An append of an older epoch than a fence is refused by every owner that the fence reached, and
//!   they meet every write quorum.
//! * A deleted or expired session does not come back.
//! * Another tenant's or principal's session does not exist for a caller.
//!
//! It never orders writes by wall clock, never counts an owner that has not fsynced, and never
//! looks into a value.

mod config;
mod coordinate;
pub mod core;
mod door;
mod driver;
mod error;
mod events;
mod metrics;
mod replica;
mod rpc;
mod service;
pub mod store;

pub use config::Config;
pub use error::Error;
pub use kit::Running;
pub use service::start;
