//! Metrics in a registry that is passed in; nothing is global.
//!
//! Names are given in full without `_total` (the encoder adds it to counters):
//! `swarm_<service>_<noun>_<unit>`. Help is a sentence without a full stop (it is added).

use crate::flags::Families;
use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        MetricType, TypedMetric, counter::Counter, family::Family, gauge::Gauge, histogram::Histogram,
    },
    registry::Registry,
};
use std::{
    collections::BTreeSet,
    fmt,
    hash::Hash,
    sync::{Arc, OnceLock, atomic::AtomicU64},
};

pub use prometheus_client;

/// Buckets in seconds for what takes microseconds to seconds (calls between services).
pub const CALL_BUCKETS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Buckets in seconds of OpenTelemetry's MCP conventions.
pub const MCP_BUCKETS: [f64; 14] =
    [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// A gauge that holds a float.
pub type FloatGauge = Gauge<f64, AtomicU64>;

/// A family of histograms that share their buckets.
pub type HistogramFamily<L> = Family<L, Histogram, fn() -> Histogram>;

/// The registry of one node.
#[derive(Clone, Default)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    shadow: Arc<OnceLock<Families>>,
}

impl Metrics {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a metric made elsewhere (gauges that a store keeps, own encoders).
    pub fn register<M: prometheus_client::registry::Metric>(&self, name: &str, help: &str, metric: M) {
        self.registry.lock().register(name, help, metric);
    }

    /// Registers a collector that computes its metrics when it is scraped.
    pub fn collect(&self, collector: Box<dyn prometheus_client::collector::Collector>) {
        self.registry.lock().register_collector(collector);
    }

    /// A counter.
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        let counter = Counter::default();
        self.register(name, help, counter.clone());
        counter
    }

    /// An integer gauge.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        let gauge = Gauge::default();
        self.register(name, help, gauge.clone());
        gauge
    }

    /// A float gauge.
    pub fn float_gauge(&self, name: &str, help: &str) -> FloatGauge {
        let gauge = FloatGauge::default();
        self.register(name, help, gauge.clone());
        gauge
    }

    /// A histogram.
    pub fn histogram(&self, name: &str, help: &str, buckets: impl IntoIterator<Item = f64>) -> Histogram {
        let histogram = Histogram::new(buckets);
        self.register(name, help, histogram.clone());
        histogram
    }

    /// Counters or gauges by label. Whoever labels keeps the number of label values bounded.
    pub fn family<L, M>(&self, name: &str, help: &str) -> Family<L, M>
    where
        L: EncodeLabelSet + Clone + Hash + Eq + fmt::Debug + Send + Sync + 'static,
        M: Default
            + prometheus_client::encoding::EncodeMetric
            + TypedMetric
            + fmt::Debug
            + Send
            + Sync
            + 'static,
    {
        let family = Family::<L, M>::default();
        self.register(name, help, family.clone());
        family
    }

    /// Histograms by label; `make` builds one, e.g. `|| Histogram::new(CALL_BUCKETS)`.
    pub fn histogram_family<L>(&self, name: &str, help: &str, make: fn() -> Histogram) -> HistogramFamily<L>
    where
        L: EncodeLabelSet + Clone + Hash + Eq + fmt::Debug + Send + Sync + 'static,
    {
        let family = HistogramFamily::<L>::new_with_constructor(make);
        self.register(name, help, family.clone());
        family
    }

    /// A gauge of value 1 that carries facts as labels, such as `swarm_build_info`.
    pub fn info(&self, name: &str, help: &str, labels: &[(&str, &str)]) {
        let family = Family::<Vec<(String, String)>, Gauge>::default();
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        family.get_or_create_owned(&labels).set(1);
        self.register(name, help, family);
    }

    /// What flags in shadow count, registered once however many there are.
    pub(crate) fn shadow(&self) -> Families {
        self.shadow.get_or_init(|| Families::new(self)).clone()
    }

    /// Everything in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        match text::encode(&mut out, &self.registry.lock()) {
            Ok(()) => out,
            // Writing to a String fails only if an encoder does.
            Err(error) => format!("# encoding failed: {error}\n# EOF\n"),
        }
    }

    /// Everything in Prometheus' older text format, for tools that do not ask for OpenMetrics.
    pub fn encode_text(&self) -> String {
        classic(&self.encode())
    }
}

/// The older format names a counter's family with its `_total` and knows no `# EOF`.
fn classic(open_metrics: &str) -> String {
    let counter = |line: &str| {
        let name = line.strip_prefix("# TYPE ")?.strip_suffix(" counter")?;
        Some(name.to_owned())
    };
    let counters: BTreeSet<String> = open_metrics.lines().filter_map(counter).collect();
    let mut out = String::with_capacity(open_metrics.len() + counters.len() * 16);
    for line in open_metrics.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what), Some(name), Some(rest)) if counters.contains(name) => {
                out.push_str(&format!("# {what} {name}_total {rest}\n"));
            }
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// The type of a family, for encoders of one's own.
pub const GAUGE: MetricType = MetricType::Gauge;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_gets_its_suffix_and_an_info_its_labels() {
        let metrics = Metrics::new();
        metrics.counter("swarm_test_calls", "Calls").inc();
        metrics.info("swarm_build_info", "Build", &[("version", "1")]);
        let text = metrics.encode();
        assert!(text.contains("swarm_test_calls_total 1"), "{text}");
        assert!(text.contains("swarm_build_info{version=\"1\"} 1"), "{text}");
        assert!(text.ends_with("# EOF\n"));
        let text = metrics.encode_text();
        assert!(text.contains("# HELP swarm_test_calls_total Calls"), "{text}");
        assert!(text.contains("# TYPE swarm_test_calls_total counter\nswarm_test_calls_total 1"), "{text}");
        assert!(!text.contains("EOF"), "{text}");
    }
}
