//! `swarm example-server`: a small MCP server of both eras, over stdio or Streamable HTTP.
//!
//! It is real: whatever a gateway has to carry, some tool here does it: progress, questions to
//! the client, log messages without a request, resources that change, and every way to fail.
//!
//! | file | what |
//! |---|---|
//! | `protocol` | one message in, its answer out; both eras |
//! | `tools`, `content` | what it offers |
//! | `peer` | the client as a tool sees it |
//! | `session` | what lives between requests: the standing stream, questions, subscriptions |
//! | `stdio`, `http` | the transports |

mod content;
mod http;
mod peer;
mod protocol;
mod session;
mod stdio;
mod tools;

use clap::Parser;
use std::{ffi::OsString, net::SocketAddr};

/// Options of `swarm example-server`.
#[derive(Debug, Clone, Default, Parser)]
#[command(name = "swarm example-server", about = "A small real MCP server, for trying things out")]
pub struct Args {
    /// Serve Streamable HTTP at /mcp instead of stdio; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub http: Option<SocketAddr>,
    /// Give no session ids (with --http)
    #[arg(long, requires = "http")]
    pub stateless: bool,
    /// Anything, to find this process again in a list of processes
    #[arg(long, value_name = "TEXT")]
    pub mark: Option<String>,
}

/// Serves with arguments as the command line gave them.
pub async fn run_raw(args: Vec<OsString>) -> anyhow::Result<()> {
    let name = OsString::from("swarm example-server");
    run(Args::try_parse_from(std::iter::once(name).chain(args))?).await
}

/// Serves until stdin ends, or with `--http` until it is stopped.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let server = protocol::Server::new();
    match args.http {
        Some(addr) => http::serve(server, addr, args.stateless).await,
        None => stdio::serve(server).await,
    }
}
