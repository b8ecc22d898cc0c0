//! The Raft library behind our own names: nothing outside this folder names it.

pub mod log_store;
pub mod machine;
pub mod network;
pub mod node;
pub mod peers;
pub mod server;
pub mod types;
mod writer;
