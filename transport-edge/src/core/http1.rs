//! Answers of HTTP/1.1 servers (RFC 9112) out of bytes: the head, then the body by its length,
//! by chunks, or up to the end of the connection.
//!
//! Only answers to requests that we wrote are read, one at a time, and none to HEAD or CONNECT.
//! Where two readers could disagree on where an answer ends, it is refused: what one of them
//! leaves over would be read as the answer to the next request on that connection.

mod body;
mod head;
#[cfg(test)]
mod tests;

pub use body::Decoder;
pub use head::{Content, Head, HeadReader};

/// Why an answer cannot be read. Its connection is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);
