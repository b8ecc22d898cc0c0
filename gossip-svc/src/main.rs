//! The gossip-svc binary.

use clap::Parser;
use gossip_svc::{Config, start};
use std::{net::SocketAddr, process::ExitCode};

/// Membership, failure detection and routing facts
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    service: kit::run::ServiceArgs,
    /// Address of the gossip port (UDP); port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    gossip: Option<SocketAddr>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    kit::run::service(&cli.service, proto::DESCRIPTORS, move |config: Config, node| async move {
        node.context.flags.define(phases::plain())?;
        let mut config = config.with_node(&node.config);
        config.listen = cli.gossip.unwrap_or(config.listen);
        config.validate()?;
        let running = start(config, &node.context).await?;
        let follow = gossip_client::follow(&node.config, &node.context, node.directory);
        node.context.tasks.spawn("directory", follow);
        Ok(vec![("gossip", running.gossip_addr.to_string())])
    })
}
