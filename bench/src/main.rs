//! `cargo run --release -p bench -- <area>`: load generators and side-by-side comparisons.
//!
//! Every figure of an area comes from one run on one machine; what is asserted is a ratio.

// A benchmark's product is what it prints.
#![allow(clippy::print_stdout, clippy::print_stderr)]
// It measures wall clock.
#![allow(clippy::disallowed_methods)]

mod edge;
mod process;
mod registry;
mod report;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "bench", about = "Load generators and side-by-side comparisons")]
struct Arguments {
    /// One JSON object a line instead of a table.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    area: Area,
}

#[derive(Subcommand)]
enum Area {
    /// Every area, with these options for the edge.
    All(edge::Options),
    /// tools/call direct against through the edge; memory of a session and of a stream.
    Edge(edge::Options),
    /// Lookups and registers in process and over gRPC, beside ETS, a sharded gen_server and redis.
    Registry(registry::Options),
    /// The raw backend of the edge area, in a process of its own.
    #[command(hide = true)]
    Backend,
    /// `swarm` itself, in a process of its own.
    #[command(hide = true, disable_help_flag = true)]
    Swarm {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> Result<ExitCode> {
    let Arguments { json, area } = Arguments::parse();
    let rows = match area {
        Area::Backend => return edge::backend::serve().map(|()| ExitCode::SUCCESS),
        Area::Swarm { arguments } => {
            let arguments = ["swarm".to_owned()].into_iter().chain(arguments);
            return Ok(swarm::run(swarm::cli::Cli::parse_from(arguments)));
        }
        Area::Registry(options) => registry::run(&options)?,
        Area::Edge(options) => edge::run(&options)?,
        Area::All(options) => {
            let mut rows = edge::run(&options)?;
            rows.extend(registry::run(&registry::Options::parse_from(["registry"]))?);
            rows
        }
    };
    report::print(&rows, json);
    let missed = rows.iter().any(|row| row.met == Some(false));
    Ok(if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
