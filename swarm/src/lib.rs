//! The `swarm` binary: all-in-one node, demo, stdio bridge and operator's commands.
//!
//! The one composition root: nothing else names all five services. Operator's commands know only
//! the admin API of a node ([`api`]) and the MCP endpoint ([`client`]).
//!
//! Invariants:
//! * stdout carries data (the ready line, what was asked for, the protocol of `swarm stdio`), and
//!   nothing else; everything for people goes to stderr;
//! * exit codes are those of [`error::Failure`];
//! * no process outlives the one that started it.

pub mod admin;
pub mod api;
pub mod catalog;
pub mod cli;
pub mod client;
pub mod config;
mod demo;
mod dispatch;
pub mod error;
pub mod example_server;
pub mod export;
pub mod flags;
pub mod import;
mod imports;
pub mod ops;
pub mod output;
pub mod parent;
pub mod plan;
pub mod secret;
mod signals;
pub mod stdio;
pub mod up;
mod url;

pub use dispatch::run;
