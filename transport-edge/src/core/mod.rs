//! Pure cores: no socket, no clock, no task.

pub mod catalog;
pub mod codes;
pub mod era;
pub mod event;
pub mod headers;
pub mod http1;
pub mod json;
pub mod jsonrpc;
pub mod splice;
pub mod sse;
pub mod stream;
