//! The Raft library behind our own names: nothing outside this folder names it.

pub mod log_store;
pub mod machine;
pub mod types;
mod writer;
