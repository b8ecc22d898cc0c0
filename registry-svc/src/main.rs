//! The registry-svc binary.

use clap::Parser;
use registry_svc::{Config, start};
use std::process::ExitCode;

/// Names of backends, agents and workers: who is registered, where, under which lease
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    service: kit::run::ServiceArgs,
}

fn main() -> ExitCode {
    kit::run::service(&Cli::parse().service, proto::DESCRIPTORS, |config: Config, node| async move {
        node.context.flags.define(phases::plain())?;
        let follow = gossip_client::follow(&node.config, &node.context, node.directory);
        node.context.tasks.spawn("directory", follow);
        start(config, &node.context).await?;
        Ok(vec![])
    })
}
