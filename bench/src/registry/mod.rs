//! The registry: lookups in process and over gRPC, beside redis and ETS where they are installed.

mod memory;
mod peers;
mod wire;

use crate::report::Row;
use anyhow::Result;
use std::time::Duration;

/// How much of everything.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Length of one measurement.
    #[arg(long, default_value_t = 1000)]
    measure_ms: u64,
    /// Names in the large table.
    #[arg(long, default_value_t = 1_000_000)]
    names: usize,
}

const AREA: &str = "registry";
/// As the peers' figures in the design.
const FEW: usize = 10_000;

/// Names of 24 bytes.
pub(crate) fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("backend-{n:016}")).collect()
}

/// Runs the area.
pub(crate) fn run(options: &Options) -> Result<Vec<Row>> {
    let length = Duration::from_millis(options.measure_ms);
    let mut rows = memory::rows(options.names, length);
    rows.extend(peers::beside_ets(length));
    rows.extend(wire::rows(options.names, length)?);
    Ok(rows)
}
