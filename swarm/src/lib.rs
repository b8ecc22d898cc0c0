//! The `swarm` binary: all-in-one node, demo, stdio bridge and operator's commands.
//!
//! The one composition root: nothing else names all five services.

pub mod api;
pub mod cli;
pub mod client;
mod demo;
pub mod error;
pub mod import;
pub mod output;
pub mod parent;
mod signals;
