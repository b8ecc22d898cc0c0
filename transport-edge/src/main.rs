//! The transport-edge binary.

use clap::Parser;
use std::{net::SocketAddr, process::ExitCode};
use transport_edge::{Config, backend::exec, start};

/// MCP over Streamable HTTP in front of many backends
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    service: kit::run::ServiceArgs,
    /// Address of the MCP port; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    mcp: Option<SocketAddr>,
}

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|first| first == exec::SUBCOMMAND) {
        return exec::main(std::env::args_os().skip(2));
    }
    let cli = Cli::parse();
    kit::run::service(&cli.service, proto::DESCRIPTORS, move |config: Config, node| async move {
        node.context.flags.define(phases::plain())?;
        let follow = gossip_client::follow(&node.config, &node.context, node.directory);
        node.context.tasks.spawn("directory", follow);
        let running = start(Config { mcp: cli.mcp.unwrap_or(config.mcp), ..config }, &node.context).await?;
        Ok(vec![("mcp", format!("http://{}/mcp", running.mcp))])
    })
}
