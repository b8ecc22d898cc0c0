//! The control plane: a Raft group of 1 or 3 voters that keeps keys with revisions and a task
//! queue, on disk before it answers.
//!
//! # Invariants
//! * An answered write is on the disks of a majority, in one order, applied exactly once per
//!   request id (the newest 10 000 ids are remembered).
//! * A task has at most one lease in force; tokens of leases only grow; a completion counts only
//!   under the token in force; a lease never ends before its time, by the leader's monotonic clock.
//! * The state is a function of the log alone: `core` knows no clock, no chance and no I/O.
//! * A Raft id belongs to a disk. A node that lost its disk comes back as somebody new.
//!
//! # What it never does
//! * Serve a linearizable read without a quorum's word (ReadIndex).
//! * Found a second group: only a member without history, whose peers have none, initializes.
//! * Go on after its log failed to write: the process ends and starts again from disk.

pub mod config;
pub mod core;
mod desk;
mod driver;
pub mod error;
mod events;
mod members;
mod metrics;
pub mod raft;
mod rpc;
mod service;
mod waiters;
mod wire;

pub use config::Config;
pub use error::Error;
pub use service::start;
