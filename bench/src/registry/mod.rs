//! The registry: lookups and registers in process and over gRPC, beside ETS, a sharded
//! gen_server and redis where they are installed.
//!
//! Everything is measured once a round, ours and the peers' in turn, so that a slow phase of the
//! machine hits all of them; `lines` says what is printed of it.

mod beam;
mod lines;
mod memory;
mod names;
mod redis;
mod register;
mod tiers;
mod wire;

use crate::report::Row;
use anyhow::Result;
use std::{collections::BTreeMap, time::Duration};

/// How much of everything.
#[derive(clap::Parser)]
pub(crate) struct Options {
    /// Interleaved rounds; the median is printed, and the worst.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of one measurement.
    #[arg(long, default_value_t = 200)]
    measure_ms: u64,
    /// Names in the large table.
    #[arg(long, default_value_t = 1_000_000)]
    names: u64,
    /// Event loops of the gRPC server (`node.grpc_loops`).
    #[arg(long, default_value_t = 2)]
    loops: usize,
    /// Parts to measure; all when none is named. Lines whose peer is left out have no ratio.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
}

/// What can be measured by itself.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Lookups in the shards, in process.
    Shards,
    /// Lookups through the client's tiers.
    Tiers,
    /// ETS and a sharded gen_server.
    Beam,
    /// redis.
    Redis,
    /// Over gRPC.
    Wire,
    /// Of what is measured over gRPC, unary lookups alone.
    Unary,
    /// Registers in process.
    Register,
    /// Of these, the ones in memory alone.
    Memory,
}

impl Options {
    fn has(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

/// Names in the small table, as of the peers' figures in the design.
const FEW: u64 = 10_000;

/// Runs the area.
pub(crate) fn run(options: &Options) -> Result<Vec<Row>> {
    let mut samples = Samples::new(Duration::from_millis(options.measure_ms));
    let maps = options.has(Part::Shards).then(|| memory::Maps::fill(options.names, &mut samples));
    let copy = options.has(Part::Tiers).then(tiers::Copy::start).transpose()?;
    let beam = options.has(Part::Beam).then(|| beam::Beam::start(options.names));
    let mut beam = beam.and_then(|beam| peer("ETS and gen_server (install erlang-base)", beam));
    let redis = options.has(Part::Redis).then(|| redis::Redis::start(options.names));
    let mut redis = redis.and_then(|redis| peer("redis (install redis-server)", redis));
    let wired = options.has(Part::Wire) || options.has(Part::Unary);
    let wire = wired.then(|| wire::Wire::start(options.names, options.loops, &mut samples)).transpose()?;
    for _ in 0..options.rounds {
        if let Some(maps) = &maps {
            maps.round(&mut samples);
        }
        if let Some(copy) = &copy {
            copy.round(&mut samples)?;
        }
        if let Some(beam) = &mut beam {
            beam.round(&mut samples)?;
        }
        if let Some(redis) = &mut redis {
            redis.round(&mut samples)?;
        }
        match &wire {
            Some(wire) if options.has(Part::Wire) => wire.round(&mut samples)?,
            Some(wire) => wire.lookups(&mut samples)?,
            None => {}
        }
        if options.has(Part::Register) || options.has(Part::Memory) {
            register::round(options, &mut samples)?;
        }
    }
    Ok(lines::rows(&samples))
}

/// A peer that is missing is named.
fn peer<T>(what: &str, started: Result<T>) -> Option<T> {
    started.inspect_err(|error| eprintln!("PEER MISSING: {what}: {error:#}")).ok()
}

/// What the rounds measured.
struct Samples {
    /// Of one measurement.
    length: Duration,
    by_figure: BTreeMap<&'static str, Vec<f64>>,
}

impl Samples {
    fn new(length: Duration) -> Self {
        Self { length, by_figure: BTreeMap::new() }
    }

    fn add(&mut self, figure: &'static str, value: f64) {
        self.by_figure.entry(figure).or_default().push(value);
    }

    fn of(&self, figure: &str) -> &[f64] {
        self.by_figure.get(figure).map_or(&[], Vec::as_slice)
    }
}
