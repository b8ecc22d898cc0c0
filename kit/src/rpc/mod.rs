//! gRPC: one server for all services of a process, cached channels to other processes.

pub mod client;
mod guard;
mod loops;
pub mod server;
pub mod status;

pub use client::{CallPolicy, Channels, RetryBudget, call, with_deadline};
pub use server::Routes;

/// Longest message in bytes. Generated servers and clients start at 4 MiB:
/// `FooServer::new(x).max_decoding_message_size(kit::rpc::MAX_MESSAGE)`.
pub const MAX_MESSAGE: usize = 8 << 20;

/// HTTP/2 window of one stream, in bytes.
const STREAM_WINDOW: u32 = 4 << 20;
/// HTTP/2 window of one connection, in bytes.
const CONNECTION_WINDOW: u32 = 8 << 20;
