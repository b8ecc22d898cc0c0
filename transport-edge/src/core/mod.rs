//! Pure cores: no socket, no clock, no task.

pub mod catalog;
pub mod json;
pub mod jsonrpc;
pub mod splice;
pub mod sse;
