//! The coordinator as a process of its own.

use clap::Parser;
use coordinator_svc::{Config, start};
use kit::run::ServiceArgs;
use std::process::ExitCode;

/// Raft-backed control plane: keys, tasks, leases
#[derive(Parser)]
#[command(name = "coordinator-svc", version)]
struct Cli {
    #[command(flatten)]
    service: ServiceArgs,
}

fn main() -> ExitCode {
    kit::run::service(&Cli::parse().service, proto::DESCRIPTORS, |config: Config, node| async move {
        node.context.flags.define(phases::plain())?;
        start(config.with_profile(&node.config.profile), &node.context).await?;
        let follow = gossip_client::follow(&node.config, &node.context, node.directory);
        node.context.tasks.spawn("directory", follow);
        Ok(Vec::new())
    })
}
