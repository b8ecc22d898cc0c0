//! The pure part: no socket, no clock, no task, no disk.

pub mod bootstrap;
pub mod command;
pub mod dedupe;
pub mod expiry;
pub mod kv;
pub mod snapshot;
pub mod state;
pub mod tasks;
