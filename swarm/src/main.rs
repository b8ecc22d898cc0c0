//! swarm

use clap::Parser;
use std::process::ExitCode;
use swarm::cli::Cli;

fn main() -> ExitCode {
    swarm::run(Cli::parse())
}
