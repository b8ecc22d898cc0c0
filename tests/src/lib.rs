//! What the multi-service tests share: real `swarm` processes, real backends, a client that
//! shows every event, and the real clients of the package registries.

// A failing test shows what its nodes logged.
#![allow(clippy::print_stderr)]

pub mod client;
pub mod cluster;
pub mod process;
pub mod python;
