//! Pure cores: no socket, no clock, no task.

pub mod json;
pub mod jsonrpc;
pub mod splice;
