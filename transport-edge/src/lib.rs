//! transport-edge: the one MCP endpoint in front of a fleet of backends, in both protocol eras.

pub mod backend;
pub mod core;
