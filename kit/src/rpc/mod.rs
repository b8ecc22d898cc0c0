//! gRPC: one server for all services of a process, cached channels to other processes.

mod alive;
mod body;
mod channel;
pub mod client;
mod connection;
mod deadline;
mod guard;
mod loops;
pub mod server;
pub mod status;
mod table;

pub use body::Inbound;
pub use channel::{CONNECT_TIMEOUT, Channel};
pub use client::{CallPolicy, Channels, RetryBudget, call, with_deadline};
pub use server::Routes;

/// Longest message in bytes. Generated servers and clients start at 4 MiB:
/// `FooServer::new(x).max_decoding_message_size(kit::rpc::MAX_MESSAGE)`.
pub const MAX_MESSAGE: usize = 8 << 20;

/// HTTP/2 window of one stream, in bytes.
const STREAM_WINDOW: u32 = 4 << 20;
/// HTTP/2 window of one connection, in bytes.
const CONNECTION_WINDOW: u32 = 8 << 20;
