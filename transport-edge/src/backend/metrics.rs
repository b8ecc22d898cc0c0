//! Metrics of the back, by their public names.

use kit::metrics::{HistogramFamily, MCP_BUCKETS, Metrics};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

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

/// Labels of one kind of call.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct CallLabels {
    backend: Arc<str>,
    mcp_method_name: &'static str,
    outcome: &'static str,
}

/// All families of the back.
#[derive(Clone)]
pub(crate) struct BackMetrics {
    duration: HistogramFamily<CallLabels>,
    processes: Family<BackendLabel, Gauge>,
    restarts: Family<BackendLabel, Counter>,
    dropped: Family<BackendLabel, Counter>,
    ready: Family<BackendLabel, Gauge>,
}

impl BackMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        BackMetrics {
            duration: metrics.histogram_family(
                "mcp_client_operation_duration_seconds",
                "Time from a request to a backend until its answer, by method and outcome",
                || Histogram::new(MCP_BUCKETS),
            ),
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
        Arc::new(Meter {
            processes: self.processes.get_or_create_owned(&label),
            restarts: self.restarts.get_or_create_owned(&label),
            dropped: self.dropped.get_or_create_owned(&label),
            ready: self.ready.get_or_create_owned(&label),
            calls: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            families: self.clone(),
            backend: backend.into(),
        })
    }

    /// Takes the series of a backend that is gone.
    pub(crate) fn forget(&self, backend: &str) {
        let label = BackendLabel { backend: backend.into() };
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
    pub(crate) calls: AtomicU64,
    pub(crate) errors: AtomicU64,
    families: BackMetrics,
    backend: Arc<str>,
}

impl Meter {
    /// Notes one call of a method as [`label`] names it.
    pub(crate) fn called(&self, method: &'static str, took: Duration, outcome: &'static str) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if outcome != "ok" {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        let labels = CallLabels { backend: self.backend.clone(), mcp_method_name: method, outcome };
        self.families.duration.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

/// The label of a method; whatever a client makes up is `other`.
pub(crate) fn label(method: &str) -> &'static str {
    METHODS.iter().find(|known| **known == method).map_or("other", |known| known)
}
