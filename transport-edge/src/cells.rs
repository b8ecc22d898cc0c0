//! Histograms that one core writes and a scrape sums, so that cores share no line of memory.

use hashbrown::HashMap;
use kit::metrics::MCP_BUCKETS;
use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, MetricEncoder};
use std::{fmt, hash::Hash, time::Duration};

/// One histogram in [`MCP_BUCKETS`].
#[derive(Clone, Default)]
pub(crate) struct Cell {
    buckets: [u64; MCP_BUCKETS.len() + 1],
    pub(crate) count: u64,
    sum: f64,
}

/// The histograms of one core, by label. Its lock is contended only while somebody sums.
#[repr(align(128))]
pub(crate) struct Cells<L>(Mutex<HashMap<L, Cell>>);

impl<L> Default for Cells<L> {
    fn default() -> Self {
        Cells(Mutex::default())
    }
}

impl<L: Eq + Hash + Clone> Cells<L> {
    /// Notes one duration. Whoever labels keeps the number of labels bounded.
    pub(crate) fn observe(&self, label: L, took: Duration) {
        let seconds = took.as_secs_f64();
        let at = MCP_BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(MCP_BUCKETS.len());
        let mut cells = self.0.lock();
        let cell = cells.entry(label).or_default();
        if let Some(bucket) = cell.buckets.get_mut(at) {
            *bucket += 1;
        }
        cell.count += 1;
        cell.sum += seconds;
    }

    /// The sums over several cores.
    pub(crate) fn sum<'a>(cores: impl IntoIterator<Item = &'a Self>) -> HashMap<L, Cell>
    where
        L: 'a,
    {
        let mut all: HashMap<L, Cell> = HashMap::new();
        for core in cores {
            for (label, cell) in core.0.lock().iter() {
                all.entry(label.clone()).or_default().add(cell);
            }
        }
        all
    }
}

/// The label set of exemplars, of which there are none.
type NoLabels = Vec<(&'static str, String)>;

impl Cell {
    fn add(&mut self, other: &Cell) {
        self.count += other.count;
        self.sum += other.sum;
        for (to, from) in self.buckets.iter_mut().zip(other.buckets) {
            *to += from;
        }
    }

    /// Writes it as one series of a family.
    pub(crate) fn encode(
        &self,
        family: &mut MetricEncoder<'_>,
        labels: &impl EncodeLabelSet,
    ) -> Result<(), fmt::Error> {
        let bounds = MCP_BUCKETS.into_iter().chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = bounds.zip(self.buckets).collect();
        family.encode_family(labels)?.encode_histogram::<NoLabels>(self.sum, self.count, &buckets, None)
    }
}
