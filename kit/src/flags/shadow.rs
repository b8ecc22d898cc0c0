//! Counts of what runs beside the path that answers.

use crate::metrics::{CALL_BUCKETS, HistogramFamily, Metrics};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
};
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Compared {
    flag: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Path {
    flag: String,
    path: &'static str,
}

/// The families that all flags of a node share.
#[derive(Clone)]
pub(crate) struct Families {
    compared: Family<Compared, Counter>,
    duration: HistogramFamily<Path>,
}

impl Families {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            compared: metrics.family(
                "swarm_shadow_compared",
                "Questions that the old and the new path of a flag in shadow both answered",
            ),
            duration: metrics.histogram_family(
                "swarm_shadow_duration_seconds",
                "Time of an answer while a flag is in shadow, by path",
                || Histogram::new(CALL_BUCKETS),
            ),
        }
    }
}

/// What became of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parity {
    /// The same answer.
    Match,
    /// Another answer.
    Mismatch,
    /// The new path failed.
    Error,
    /// The new path did not answer in time.
    Timeout,
}

/// The counts of one flag: `swarm_shadow_compared_total`, `swarm_shadow_duration_seconds`. Every
/// series is there from the start, at 0.
#[derive(Debug, Clone)]
pub struct Shadow {
    results: [Counter; 4],
    old: Histogram,
    new: Histogram,
}

impl Shadow {
    /// Those of a flag.
    pub fn new(metrics: &Metrics, flag: &str) -> Self {
        let Families { compared, duration } = metrics.shadow();
        let result = |result| compared.get_or_create_owned(&Compared { flag: flag.into(), result });
        let path = |path| duration.get_or_create_owned(&Path { flag: flag.into(), path });
        let results = [result("match"), result("mismatch"), result("error"), result("timeout")];
        Self { results, old: path("old"), new: path("new") }
    }

    /// Counts comparisons.
    pub fn compared(&self, parity: Parity, count: u64) {
        let [same, other, error, timeout] = &self.results;
        let counter = match parity {
            Parity::Match => same,
            Parity::Mismatch => other,
            Parity::Error => error,
            Parity::Timeout => timeout,
        };
        counter.inc_by(count);
    }

    /// How long each path took.
    pub fn took(&self, old: Duration, new: Duration) {
        self.old.observe(old.as_secs_f64());
        self.new.observe(new.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_share_a_family_and_show_every_result() {
        let metrics = Metrics::new();
        let (a, _b) = (Shadow::new(&metrics, "a"), Shadow::new(&metrics, "b"));
        a.compared(Parity::Mismatch, 3);
        a.took(Duration::from_millis(1), Duration::from_millis(2));
        let text = metrics.encode();
        for line in [
            "swarm_shadow_compared_total{flag=\"a\",result=\"mismatch\"} 3",
            "swarm_shadow_compared_total{flag=\"b\",result=\"timeout\"} 0",
            "swarm_shadow_duration_seconds_count{flag=\"a\",path=\"new\"} 1",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert_eq!(text.matches("# TYPE swarm_shadow_compared ").count(), 1, "{text}");
    }
}
