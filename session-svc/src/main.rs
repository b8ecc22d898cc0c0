//! session-svc as a process of its own.

use clap::Parser;
use session_svc::{Config, start};
use std::process::ExitCode;

/// Sessions and event logs on a ring
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
