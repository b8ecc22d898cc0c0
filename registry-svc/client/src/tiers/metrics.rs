//! What is counted of lookups, in cells that one thread writes each, summed at a scrape.

use super::Tier;
use crate::mirror::View;
use kit::{Context, Metrics, clock::Clock, metrics::HistogramFamily};
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        gauge::ConstGauge,
        histogram::Histogram,
    },
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Seconds, from a handle's nanoseconds to a slow shard.
const BUCKETS: [f64; 14] =
    [10e-9, 20e-9, 50e-9, 100e-9, 200e-9, 500e-9, 1e-6, 10e-6, 100e-6, 250e-6, 1e-3, 10e-3, 0.1, 1.0];

/// The lookups of one node, by tier: its clients count L1 and L2, its registry-svc L3.
#[derive(Clone, Debug, Default)]
pub struct Lookups {
    /// Names that the shards had.
    pub l3_hits: Counter,
    /// Names that the shards did not have.
    pub l3_misses: Counter,
    pool: Arc<Mutex<Pool>>,
}

/// Cells are never thrown away, or their counts would go; they are used again.
#[derive(Debug, Default)]
struct Pool {
    all: Vec<Arc<Cells>>,
    free: Vec<Arc<Cells>>,
}

/// The counts of one thread.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Cells {
    l1_hits: AtomicU64,
    l1_misses: AtomicU64,
    l2_hits: AtomicU64,
    l2_misses: AtomicU64,
}

impl Lookups {
    /// The node's; registered at the first call.
    pub fn of(ctx: &Context) -> Self {
        ctx.shared.get(|| Self::register(&ctx.metrics))
    }

    fn register(metrics: &Metrics) -> Self {
        let lookups = Self::default();
        metrics.collect(Box::new(lookups.clone()));
        lookups
    }

    pub(crate) fn cells(&self) -> Arc<Cells> {
        let mut pool = self.pool.lock();
        if let Some(cells) = pool.free.pop() {
            return cells;
        }
        let cells = Arc::new(Cells::default());
        pool.all.push(cells.clone());
        cells
    }

    pub(crate) fn give_back(&self, cells: Arc<Cells>) {
        self.pool.lock().free.push(cells);
    }

    fn rows(&self) -> [(&'static str, &'static str, u64); 6] {
        let pool = self.pool.lock();
        let sum = |count: fn(&Cells) -> &AtomicU64| {
            pool.all.iter().map(|cells| count(cells).load(Ordering::Relaxed)).sum()
        };
        [
            ("l1", "hit", sum(|cells| &cells.l1_hits)),
            ("l1", "miss", sum(|cells| &cells.l1_misses)),
            ("l2", "hit", sum(|cells| &cells.l2_hits)),
            ("l2", "miss", sum(|cells| &cells.l2_misses)),
            ("l3", "hit", self.l3_hits.get()),
            ("l3", "miss", self.l3_misses.get()),
        ]
    }
}

impl Collector for Lookups {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Lookups by tier; a hit of L1 and L2 is any answer, a miss goes to the next tier";
        let mut family =
            encoder.encode_descriptor("swarm_registry_lookups", help, None, MetricType::Counter)?;
        for (tier, result, count) in self.rows() {
            let labels = [("tier", tier), ("result", result)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl Cells {
    #[inline]
    pub(crate) fn l1(&self, hit: bool) {
        add(if hit { &self.l1_hits } else { &self.l1_misses });
    }

    #[inline]
    pub(crate) fn l2(&self, hit: bool) {
        add(if hit { &self.l2_hits } else { &self.l2_misses });
    }
}

/// One writer: nothing is lost without a locked instruction.
#[inline]
fn add(count: &AtomicU64) {
    count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// `tier` as a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    tier: &'static str,
}

/// Beside the counts: durations, stale answers, and the age of the copy.
#[derive(Clone, Debug)]
pub(crate) struct TierMetrics {
    pub(crate) lookups: Lookups,
    pub(crate) stale_reads: Counter,
    durations: [Histogram; 3],
}

impl TierMetrics {
    /// `lookups` is registered already; the rest is here.
    pub(crate) fn register(
        metrics: &Metrics,
        lookups: Lookups,
        view: Arc<View>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        metrics.collect(Box::new(Staleness { view, clock }));
        let (name, help) = (
            "swarm_registry_lookup_duration_seconds",
            "Time of a lookup by the tier that answered; L1 and L2 are sampled",
        );
        let durations: HistogramFamily<Label> =
            metrics.histogram_family(name, help, || Histogram::new(BUCKETS));
        let of = |tier: Tier| durations.get_or_create_owned(&Label { tier: tier.as_str() });
        Self {
            lookups,
            durations: [of(Tier::L1), of(Tier::L2), of(Tier::L3)],
            stale_reads: metrics.counter(
                "swarm_registry_stale_reads",
                "Answers from a copy older than the staleness bound, told as such",
            ),
        }
    }

    pub(crate) fn took(&self, tier: Tier, duration: Duration) {
        let [l1, l2, l3] = &self.durations;
        let of_tier = match tier {
            Tier::L1 => l1,
            Tier::L2 => l2,
            Tier::L3 => l3,
        };
        of_tier.observe(duration.as_secs_f64());
    }
}

struct Staleness {
    view: Arc<View>,
    clock: Arc<dyn Clock>,
}

impl Collector for Staleness {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "For how long changes may be missing from this node's copy of the names";
        let age = ConstGauge::new(self.view.fresh.age(self.clock.now()).as_secs_f64());
        age.encode(encoder.encode_descriptor(
            "swarm_registry_staleness_seconds",
            help,
            None,
            MetricType::Gauge,
        )?)
    }
}

impl fmt::Debug for Staleness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Staleness")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_outlive_the_threads_that_counted_and_their_cells_are_used_again() {
        let lookups = Lookups::default();
        for _ in 0..10 {
            let cells = lookups.cells();
            cells.l1(true);
            cells.l2(false);
            lookups.give_back(cells);
        }
        lookups.l3_hits.inc();
        let metrics = Metrics::new();
        metrics.collect(Box::new(lookups.clone()));
        let text = metrics.encode();
        for line in [
            "swarm_registry_lookups_total{tier=\"l1\",result=\"hit\"} 10",
            "swarm_registry_lookups_total{tier=\"l2\",result=\"miss\"} 10",
            "swarm_registry_lookups_total{tier=\"l3\",result=\"hit\"} 1",
        ] {
            assert!(text.contains(line), "{line} is missing from {text}");
        }
        assert_eq!(lookups.pool.lock().all.len(), 1);
    }
}
