//! registry-svc owns names: which backends, agents and workers there are, who holds each name,
//! and until when.
//!
//! # Invariants
//! * A name has one registration. What two nodes decide at once becomes one, the same everywhere.
//! * An acknowledged durable write is on the disk, and stays until it is deregistered.
//! * An ephemeral registration lives at least its time to live after its last acknowledged
//!   renewal, by this process's monotonic clock, and is gone a second after,
//!   or some seconds later where the process or its disk stood still: holders come first then.
//! * A watcher sees every change once and in order, or is told that it must read the state again.
//! * One writer decides for a shard; readers never wait for the disk.
//!
//! # It never
//! * orders writes by a wall clock,
//! * writes on after the disk failed,
//! * buffers for a slow watcher.
//!
//! # Code map
//! `service` wires; `rpc`, `batched`, `listing`, `packed`, `waiting` and `watch` answer; `handle` leads to `driver`, the writer of each
//! shard, which asks `core::shard` for decisions, makes them durable in `store` and visible in
//! `feed` and `names`; `sharding` is the flag: which model answers; `follow` hears the other instances; `events` tells the bus; `janitor` forgets.

mod batched;
mod config;
mod core;
mod driver;
mod error;
mod events;
mod feed;
mod follow;
mod handle;
mod janitor;
mod listing;
mod metrics;
mod names;
mod packed;
mod rpc;
mod service;
mod sharding;
mod store;
mod together;
mod waiting;
mod watch;

pub use config::Config;
pub use error::Error;
pub use rpc::Handler;
pub use service::{embed, start};
