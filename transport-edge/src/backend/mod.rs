//! The MCP servers behind this edge, alive: processes, HTTP upstreams, their health and lists.
//!
//! This file is the interface between the front (clients) and the back (servers). Nothing in
//! it knows a downstream session beyond [`Peer`].

mod error;
mod types;

pub use error::BackendError;
pub use types::{
    CallMeta, Core, Era, FromBackend, Peer, RawId, Unsolicited, BackendsConfig, Definitions,
};
