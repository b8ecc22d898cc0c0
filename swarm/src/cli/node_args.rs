//! Options of `swarm up` and of the single services.

use clap::Args;
use kit::run::ServiceArgs;
use serde_json::{Value, json};
use std::{net::SocketAddr, path::PathBuf};

/// Options of a node. The same values may come from the environment (`SWARM__EDGE__MCP`) and
/// from the file (`[edge] mcp`).
#[derive(Debug, Clone, Default, Args)]
pub struct NodeArgs {
    /// What every process of ours takes.
    #[command(flatten)]
    pub process: ServiceArgs,
    /// MCP: Streamable HTTP [default: 127.0.0.1:7700]
    #[arg(long, value_name = "ADDR")]
    pub mcp: Option<SocketAddr>,
    /// MCP over TCP, newline-delimited JSON-RPC (off unless given)
    #[arg(long, value_name = "ADDR")]
    pub mcp_tcp: Option<SocketAddr>,
    /// Gossip over UDP [default: 127.0.0.1:7620]
    #[arg(long, value_name = "ADDR")]
    pub gossip: Option<SocketAddr>,
    /// Register the servers of a file (Claude, Cursor, VS Code, Codex, Gemini, server.json)
    #[arg(long, value_name = "FILE")]
    pub import: Option<PathBuf>,
    /// Die with this process (the demo's nodes)
    #[arg(long, hide = true, value_name = "PID")]
    pub die_with_parent: Option<u32>,
}

impl NodeArgs {
    /// The options as the top layer of the configuration; what was not given is null.
    pub fn flags(&self) -> Value {
        let mut flags = self.process.flags();
        if let Some(sections) = flags.as_object_mut() {
            sections.insert("gossip".into(), json!({ "listen": self.gossip }));
            sections.insert("edge".into(), json!({ "mcp": self.mcp }));
        }
        flags
    }
}
