//! The edge: calls per second and latency of `tools/call` direct against through the edge,
//! the edge's CPU per call, and the memory of an idle session and of an open stream.

pub(crate) mod backend;
mod load;
mod memory;

use crate::{process::Process, report::Row};
use anyhow::Result;
use load::{Measured, Target};
use std::time::Duration;

/// How much of everything.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Concurrent sessions, each with a connection of its own.
    #[arg(long, default_value_t = 64)]
    sessions: usize,
    /// Interleaved rounds; the median is printed.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Length of a round.
    #[arg(long, default_value_t = 1500)]
    round_ms: u64,
    /// Sessions and streams opened to weigh them.
    #[arg(long, default_value_t = 2000)]
    weigh: usize,
}

/// One round of both, interleaved so that a slow phase of the machine hits both.
struct Round {
    direct: Measured,
    edge: Measured,
    edge_cpu_us: f64,
}

/// Runs the area.
pub(crate) fn run(options: &Options) -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let backend = Process::start(&["backend"])?;
    let url = backend.fact("url")?;
    let import = folder.path().join("mcp.json");
    std::fs::write(&import, format!(r#"{{"mcpServers":{{"raw":{{"type":"http","url":"{url}"}}}}}}"#))?;
    let import = import.to_string_lossy().into_owned();
    let edge = Process::start(&[
        "swarm",
        "up",
        "--name",
        "bench",
        "--data",
        ":memory:",
        "--mcp",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--grpc",
        "127.0.0.1:0",
        "--gossip",
        "127.0.0.1:0",
        "--import",
        &import,
    ])?;
    let direct = Target::new(url, "echo")?;
    let through = Target::new(edge.fact("mcp")?, "raw_echo")?;

    let mut rows = rates(options, &direct, &through, &edge)?;
    rows.extend(memory::weigh(options.weigh, &through, &edge)?);
    Ok(rows)
}

fn rates(options: &Options, direct: &Target, through: &Target, edge: &Process) -> Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let length = Duration::from_millis(options.round_ms);
    let mut rounds = Vec::new();
    runtime.block_on(async {
        let mut direct = load::Sessions::open(direct, options.sessions).await?;
        let mut through = load::Sessions::open(through, options.sessions).await?;
        // One round of each to warm caches and pools.
        direct.run(length).await?;
        through.run(length).await?;
        for _ in 0..options.rounds {
            let plain = direct.run(length).await?;
            let before = edge.cpu_seconds()?;
            let proxied = through.run(length).await?;
            let edge_cpu_us = (edge.cpu_seconds()? - before) * 1e6 / proxied.calls as f64;
            rounds.push(Round { direct: plain, edge: proxied, edge_cpu_us });
        }
        anyhow::Ok(())
    })?;
    Ok(rows(&rounds))
}

fn rows(rounds: &[Round]) -> Vec<Row> {
    let of = |figure: &dyn Fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
    let rate = of(&|round| round.edge.per_second());
    let ratio = of(&|round| round.edge.per_second() / round.direct.per_second());
    let mut calls = Row::new("edge", "tools/call", rate, "calls/s")
        .against("direct", of(&|round| round.direct.per_second()));
    // The median of the rounds' ratios: each pair ran side by side.
    calls.ratio = Some(ratio);
    vec![
        calls.goal(">= 0.33 of direct", ratio >= 0.33),
        Row::new("edge", "tools/call p50", of(&|r| r.edge.quantile_us(0.5)), "us")
            .against("direct", of(&|r| r.direct.quantile_us(0.5))),
        Row::new("edge", "tools/call p99", of(&|r| r.edge.quantile_us(0.99)), "us")
            .against("direct", of(&|r| r.direct.quantile_us(0.99))),
        Row::new("edge", "CPU of the edge per call", of(&|round| round.edge_cpu_us), "us"),
    ]
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
