//! What is printed of the rounds: each line a figure, a peer's figure beside it, and a bound.

use super::Samples;
use crate::report::Row;

const AREA: &str = "registry";

struct Line {
    figure: &'static str,
    unit: &'static str,
    peer: Option<&'static str>,
    goal: Option<(&'static str, Goal)>,
}

/// Checked against the medians.
#[derive(Clone, Copy)]
enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// As many times the peer's figure, where the peer is there.
    Times(f64),
}

const fn line(figure: &'static str, unit: &'static str) -> Line {
    Line { figure, unit, peer: None, goal: None }
}

impl Line {
    const fn beside(self, peer: &'static str) -> Line {
        Line { peer: Some(peer), ..self }
    }

    const fn goal(self, words: &'static str, goal: Goal) -> Line {
        Line { goal: Some((words, goal)), ..self }
    }
}

const LINES: &[Line] = &[
    line("lookup in process, 10K names, 1 thread", "lookups/s"),
    line("lookup in process, 10K names, 2 threads", "lookups/s")
        .beside("gen_server x16 lookup, 10K names")
        .goal(">= 50M", Goal::AtLeast(50e6)),
    line("lookup in process, 10K names, 2 threads", "lookups/s")
        .beside("ETS lookup, 10K names, 2 readers")
        .goal(">= 5x", Goal::Times(5.0)),
    line("lookup in process, 10K names, 1 thread, 5 % writes", "operations/s"),
    line("lookup in process, 10K names, 2 threads, 5 % writes", "operations/s")
        .beside("gen_server x16 lookup, 10K names, 5 % writes"),
    line("lookup in process, 10K names, 2 threads, 5 % writes", "operations/s")
        .beside("ETS lookup, 10K names, 2 readers, 5 % writes"),
    line("lookup in process, 1M names, 1 thread", "lookups/s"),
    line("lookup in process, 1M names, 2 threads", "lookups/s")
        .beside("ETS lookup, 1M names, 2 readers")
        .goal(">= 12M", Goal::AtLeast(12e6)),
    line("lookup in process, 1M names, 1 thread, 5 % writes", "operations/s"),
    line("lookup in process, 1M names, 2 threads, 5 % writes", "operations/s")
        .beside("ETS lookup, 1M names, 2 readers, 5 % writes"),
    line("batched lookup in process, 1M names, 1 thread", "lookups/s"),
    line("batched lookup in process, 1M names, 2 threads", "lookups/s")
        .beside("ETS lookup, 1M names, 2 readers")
        .goal(">= 40M", Goal::AtLeast(40e6)),
    line("L1 hit, 100 names of 10K", "ns").goal("<= 15", Goal::AtMost(15.0)),
    line("L2 hit, 10K names at random", "ns").goal("<= 20", Goal::AtMost(20.0)),
    line("L3, in the same process, by Tiers::ask", "ns"),
    line("bytes of a name in the shards", "bytes").goal("<= 140", Goal::AtMost(140.0)),
    line("bytes of a registration in the process", "bytes"),
    line("LookupStream, 1M names, 1024 x 16", "lookups/s")
        .beside("redis GET, 64 pipelined")
        .goal(">= 20M", Goal::AtLeast(20e6)),
    line("LookupStream, 1M names, 1024 x 16, p99", "us"),
    line("LookupStream, 1M names, 256 x 16", "lookups/s").beside("redis GET, 64 pipelined"),
    line("LookupStream, 1M names, 256 x 16, p99", "us").goal("<= 1000", Goal::AtMost(1000.0)),
    line("Lookup over gRPC, unary, 256 in flight", "lookups/s").goal(">= 150K", Goal::AtLeast(150e3)),
    line("Register over gRPC, unary, 256 in flight", "registers/s").beside("redis SET, 64 pipelined"),
    line("RegisterBatch over gRPC, 256 x 16", "registers/s").beside("redis SET, 64 pipelined"),
    line("register in process, in memory, batches of 1024", "registers/s")
        .beside("gen_server x16 register")
        .goal(">= 2M", Goal::AtLeast(2e6)),
    line("register in process, in memory, batches of 1024", "registers/s").beside("ETS insert, 2 writers"),
    line("register in process, fsynced, 512 in flight", "registers/s").goal(">= 30K", Goal::AtLeast(30e3)),
];

/// The lines whose figures were measured.
pub(super) fn rows(samples: &Samples) -> Vec<Row> {
    LINES.iter().filter_map(|line| line.row(samples)).collect()
}

impl Line {
    fn row(&self, samples: &Samples) -> Option<Row> {
        let values = samples.of(self.figure);
        let ours = median(values)?;
        let worst = if self.is_latency() { f64::max } else { f64::min };
        let worst = values.iter().copied().reduce(worst);
        let mut row = Row { worst, ..Row::new(AREA, self.figure, ours, self.unit) };
        let ratio = self.peer.and_then(|peer| ratio(values, samples.of(peer)));
        if let (Some(peer), Some(ratio)) = (self.peer, ratio) {
            row = row.against(peer, median(samples.of(peer))?);
            // The median of the rounds' ratios: each pair ran side by side.
            row.ratio = Some(ratio);
        }
        let met = |goal| match goal {
            Goal::AtLeast(bound) => Some(ours >= bound),
            Goal::AtMost(bound) => Some(ours <= bound),
            Goal::Times(times) => Some(ratio? >= times),
        };
        Some(match self.goal.and_then(|(words, goal)| Some((words, met(goal)?))) {
            Some((words, met)) => row.goal(words, met),
            None => row,
        })
    }

    fn is_latency(&self) -> bool {
        matches!(self.unit, "ns" | "us" | "bytes")
    }
}

fn ratio(ours: &[f64], peer: &[f64]) -> Option<f64> {
    let ratios: Vec<f64> = ours.iter().zip(peer).map(|(ours, peer)| ours / peer).collect();
    median(&ratios)
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const FIGURE: &str = "LookupStream, 1M names, 1024 x 16";

    fn row(ours: &[f64], peer: &[f64], times: f64) -> Row {
        let mut samples = Samples::new(Duration::ZERO);
        ours.iter().for_each(|value| samples.add(FIGURE, *value));
        peer.iter().for_each(|value| samples.add("peer", *value));
        line(FIGURE, "lookups/s").beside("peer").goal("", Goal::Times(times)).row(&samples).unwrap()
    }

    #[test]
    fn the_ratio_is_of_the_rounds_and_a_missing_peer_judges_nothing() {
        let beside = row(&[1.0, 40.0, 20.0], &[1.0, 10.0, 10.0], 2.0);
        assert_eq!((beside.ours, beside.worst, beside.ratio), (20.0, Some(1.0), Some(2.0)));
        assert_eq!(beside.met, Some(true));
        assert_eq!(row(&[1.0, 40.0, 20.0], &[1.0, 10.0, 10.0], 2.1).met, Some(false));
        let alone = row(&[1.0], &[], 2.0);
        assert_eq!((alone.peer, alone.met), (None, None));
    }
}
