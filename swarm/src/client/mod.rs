//! A small MCP client over Streamable HTTP: what the operator's commands, the demo and the stdio
//! bridge need of the protocol, and nothing else.

mod http;
mod mcp;
mod sse;

pub use http::{Http, HttpError, Reply};
pub use mcp::{EventStream, McpClient, McpError, VERSION};
pub use sse::{Event, Parser};
