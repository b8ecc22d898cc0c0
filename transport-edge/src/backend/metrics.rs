//! Metrics of the back, by their public names.

use super::Core;
use crate::cells::Cells;
use kit::metrics::Metrics;
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet},
    metrics::{MetricType, counter::Counter, family::Family, gauge::Gauge},
};
use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

/// Methods that get a label of their own; the rest is `other`.
const METHODS: [&str; 15] = [
    "initialize",
    "ping",
    "tools/call",
    "tools/list",
    "prompts/get",
    "prompts/list",
    "resources/read",
    "resources/list",
    "resources/templates/list",
    "resources/subscribe",
    "resources/unsubscribe",
    "completion/complete",
    "logging/setLevel",
    "server/discover",
    "subscriptions/listen",
];

/// Label of one backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct BackendLabel {
    pub(crate) backend: String,
}

/// Method and outcome of a call.
type Call = (&'static str, &'static str);

/// All families of the back.
#[derive(Clone)]
pub(crate) struct BackMetrics {
    meters: Meters,
    processes: Family<BackendLabel, Gauge>,
    restarts: Family<BackendLabel, Counter>,
    dropped: Family<BackendLabel, Counter>,
    ready: Family<BackendLabel, Gauge>,
}

impl BackMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let meters = Meters::default();
        metrics.collect(Box::new(meters.clone()));
        BackMetrics {
            meters,
            processes: metrics.family("swarm_backend_processes", "Processes of a stdio backend that run now"),
            restarts: metrics
                .family("swarm_backend_restarts", "Times that the connection to a backend was opened again"),
            dropped: metrics
                .family("swarm_backend_messages_dropped", "Messages of a backend that nobody could take"),
            ready: metrics.family("swarm_backend_ready", "Whether a backend answers"),
        }
    }

    pub(crate) fn of(&self, backend: &str) -> Arc<Meter> {
        let label = BackendLabel { backend: backend.into() };
        let meter = Arc::new(Meter {
            processes: self.processes.get_or_create_owned(&label),
            restarts: self.restarts.get_or_create_owned(&label),
            dropped: self.dropped.get_or_create_owned(&label),
            ready: self.ready.get_or_create_owned(&label),
            calls: (0..Core::SLOTS).map(|_| Cells::default()).collect(),
        });
        self.meters.0.lock().insert(backend.to_owned(), meter.clone());
        meter
    }

    /// Takes the series of a backend that is gone.
    pub(crate) fn forget(&self, backend: &str) {
        let label = BackendLabel { backend: backend.into() };
        self.meters.0.lock().remove(backend);
        self.processes.remove(&label);
        self.restarts.remove(&label);
        self.dropped.remove(&label);
        self.ready.remove(&label);
    }
}

/// The metrics of one backend, resolved once.
pub(crate) struct Meter {
    pub(crate) processes: Gauge,
    pub(crate) restarts: Counter,
    pub(crate) dropped: Counter,
    pub(crate) ready: Gauge,
    /// A cell per core.
    calls: Vec<Cells<Call>>,
}

impl Meter {
    /// Notes one call of a method as [`label`] names it.
    pub(crate) fn called(&self, core: Core, method: &'static str, took: Duration, outcome: &'static str) {
        if let Some(cells) = self.calls.get(core.slot()) {
            cells.observe((method, outcome), took);
        }
    }

    /// Calls so far, and those of them that gave no result.
    pub(crate) fn counts(&self) -> (u64, u64) {
        Cells::sum(&self.calls).iter().fold((0, 0), |(calls, errors), ((_, outcome), cell)| {
            (calls + cell.count, errors + if *outcome == "ok" { 0 } else { cell.count })
        })
    }
}

/// The meters of all backends, read at a scrape.
#[derive(Clone, Default)]
struct Meters(Arc<Mutex<BTreeMap<String, Arc<Meter>>>>);

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meters")
    }
}

impl Collector for Meters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut family = encoder.encode_descriptor(
            "mcp_client_operation_duration_seconds",
            "time from a request to a backend until its answer, by method and outcome",
            None,
            MetricType::Histogram,
        )?;
        for (backend, meter) in self.0.lock().iter() {
            for ((method, outcome), cell) in Cells::sum(&meter.calls) {
                let labels =
                    [("backend", backend.as_str()), ("mcp_method_name", method), ("outcome", outcome)];
                cell.encode(&mut family, &labels)?;
            }
        }
        Ok(())
    }
}

/// The label of a method; whatever a client makes up is `other`.
pub(crate) fn label(method: &str) -> &'static str {
    METHODS.iter().find(|known| **known == method).map_or("other", |known| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_all_cores_are_one_series_until_the_backend_is_forgotten() {
        let metrics = Metrics::new();
        let back = BackMetrics::new(&metrics);
        let meter = back.of("time");
        for core in [Core(0), Core(1), Core::ASIDE] {
            meter.called(core, label("tools/call"), Duration::from_millis(15), "ok");
        }
        meter.called(Core(1), label("made/up"), Duration::ZERO, "timeout");
        assert_eq!(meter.counts(), (4, 1));
        let series = |text: &str| {
            let lines =
                text.lines().filter(|line| line.starts_with("mcp_client_operation_duration_seconds_count"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let found = series(&metrics.encode());
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().any(|line| line.contains("\"time\"") && line.ends_with(" 3")), "{found:?}");
        assert!(found.iter().any(|line| line.contains("\"other\"") && line.ends_with(" 1")), "{found:?}");
        back.forget("time");
        assert!(series(&metrics.encode()).is_empty());
    }
}
