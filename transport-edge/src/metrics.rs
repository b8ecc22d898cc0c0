//! Names and help of the edge's metrics, and the per-core cells behind the hot ones.
//!
//! A request writes only to the cell of its own event loop; a scrape sums the cells.

use crate::cells::{Cell, Cells};
use hashbrown::HashMap;
use kit::metrics::Metrics;
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Tool and prompt names that get a label of their own; the rest is `_other`.
const NAMES_MAX: usize = 200;
/// Methods that get a label of their own; clients choose the others.
const METHODS: [&str; 20] = [
    "initialize",
    "ping",
    "server/discover",
    "tools/list",
    "tools/call",
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "subscriptions/listen",
    "completion/complete",
    "logging/setLevel",
    "notifications/initialized",
    "notifications/cancelled",
    "notifications/progress",
    "notifications/roots/list_changed",
    "_response",
];

/// The label of a method.
pub(crate) fn method_label(method: &str) -> &'static str {
    METHODS.iter().find(|known| **known == method).copied().unwrap_or("_other")
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Operation {
    method: &'static str,
    tool: Arc<str>,
    error: Error,
    version: &'static str,
}

/// How an operation ended, as `error.type` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Error {
    /// It did not fail.
    None,
    /// A result with `isError`.
    Tool,
    /// A JSON-RPC error.
    Code(i32),
}

impl Error {
    fn label(self) -> String {
        match self {
            Error::None => String::new(),
            Error::Tool => "tool_error".into(),
            Error::Code(code) => code.to_string(),
        }
    }
}

/// The cells of one event loop.
#[derive(Default)]
pub(crate) struct CoreCells {
    operations: Cells<Operation>,
    names: Mutex<HashMap<Box<str>, Arc<str>>>,
    /// Connections that are open.
    pub(crate) connections: AtomicI64,
    /// Connections that were accepted.
    pub(crate) accepted: AtomicU64,
    /// Requests being worked on.
    pub(crate) in_flight: AtomicI64,
    /// Requests refused before they were read as MCP.
    pub(crate) refused: AtomicU64,
}

impl CoreCells {
    /// Notes one operation.
    pub(crate) fn operation(
        &self,
        method: &str,
        name: &str,
        error: Error,
        version: &'static str,
        took: Duration,
    ) {
        let tool = self.name(name);
        let operation = Operation { method: method_label(method), tool, error, version };
        self.operations.observe(operation, took);
    }

    fn name(&self, name: &str) -> Arc<str> {
        let mut names = self.names.lock();
        if let Some(known) = names.get(name) {
            return known.clone();
        }
        if names.len() >= NAMES_MAX {
            return "_other".into();
        }
        let known: Arc<str> = name.into();
        names.insert(name.into(), known.clone());
        known
    }
}

/// Everything the edge counts. Cheap to clone.
#[derive(Clone)]
pub(crate) struct EdgeMetrics {
    cores: Arc<Vec<CoreCells>>,
    /// Relays to other edges, by outcome.
    pub(crate) relayed: prometheus_client::metrics::counter::Counter,
    /// Relays that found the anchor gone.
    pub(crate) relay_failed: prometheus_client::metrics::counter::Counter,
    /// Sessions taken over from another edge.
    pub(crate) adopted: prometheus_client::metrics::counter::Counter,
    /// Calls of a lost node that were sent again.
    pub(crate) resent: prometheus_client::metrics::counter::Counter,
    /// Calls of a lost node answered with `NODE_LOST`.
    pub(crate) lost: prometheus_client::metrics::counter::Counter,
    /// Sessions that are live here.
    pub(crate) sessions: prometheus_client::metrics::gauge::Gauge,
    /// Event streams that were opened.
    pub(crate) streams: prometheus_client::metrics::counter::Counter,
}

impl EdgeMetrics {
    /// Registers them; `cores` cells, the last one for relayed requests.
    pub(crate) fn new(metrics: &Metrics, cores: usize) -> Self {
        let cores = Arc::new((0..cores).map(|_| CoreCells::default()).collect::<Vec<_>>());
        metrics.collect(Box::new(Summed(cores.clone())));
        EdgeMetrics {
            cores,
            relayed: metrics
                .counter("swarm_edge_relays", "requests relayed to the anchor edge of their session"),
            relay_failed: metrics
                .counter("swarm_edge_relays_failed", "relays that found the anchor edge gone"),
            adopted: metrics.counter("swarm_edge_adoptions", "sessions taken over from another edge"),
            resent: metrics
                .counter("swarm_edge_calls_resent", "open calls of a lost node that were sent again"),
            lost: metrics
                .counter("swarm_edge_calls_lost", "open calls of a lost node answered with NODE_LOST"),
            sessions: metrics.gauge("swarm_edge_sessions", "sessions that are live at this edge"),
            streams: metrics.counter("swarm_edge_streams", "event streams opened for clients"),
        }
    }

    /// The cells of an event loop; the last ones for an index that is too large.
    pub(crate) fn core(&self, index: usize) -> &CoreCells {
        let last = self.cores.len().saturating_sub(1);
        &self.cores[index.min(last)]
    }

    /// Requests being worked on, over all event loops.
    pub(crate) fn in_flight(&self) -> i64 {
        self.cores.iter().map(|core| core.in_flight.load(Relaxed)).sum()
    }
}

/// Sums the cells at a scrape.
struct Summed(Arc<Vec<CoreCells>>);

impl fmt::Debug for Summed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Summed")
    }
}

impl Summed {
    fn operations(&self) -> HashMap<Operation, Cell> {
        Cells::sum(self.0.iter().map(|core| &core.operations))
    }
}

impl Collector for Summed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "time of an operation between client and edge";
        let mut family = encoder.encode_descriptor(
            "mcp_server_operation_duration_seconds",
            help,
            None,
            MetricType::Histogram,
        )?;
        for (operation, cell) in self.operations() {
            cell.encode(&mut family, &labels(&operation))?;
        }
        let sum = |read: fn(&CoreCells) -> i64| self.0.iter().map(read).sum::<i64>();
        let count = |read: fn(&CoreCells) -> u64| self.0.iter().map(read).sum::<u64>();
        gauge(
            &mut encoder,
            "swarm_edge_connections",
            "client connections that are open",
            sum(|c| c.connections.load(Relaxed)),
        )?;
        gauge(
            &mut encoder,
            "swarm_edge_in_flight",
            "requests being worked on",
            sum(|c| c.in_flight.load(Relaxed)),
        )?;
        counter(
            &mut encoder,
            "swarm_edge_accepted",
            "client connections accepted",
            count(|c| c.accepted.load(Relaxed)),
        )?;
        counter(
            &mut encoder,
            "swarm_edge_refused",
            "requests refused before they were read as MCP",
            count(|c| c.refused.load(Relaxed)),
        )
    }
}

fn labels(operation: &Operation) -> Vec<(&'static str, String)> {
    let mut labels = vec![
        ("mcp_method_name", operation.method.to_owned()),
        ("mcp_protocol_version", operation.version.to_owned()),
        ("network_transport", "tcp".to_owned()),
    ];
    if !operation.tool.is_empty() {
        let key = if operation.method == "prompts/get" { "gen_ai_prompt_name" } else { "gen_ai_tool_name" };
        labels.push((key, operation.tool.to_string()));
    }
    if operation.error != Error::None {
        labels.push(("error_type", operation.error.label()));
    }
    labels
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: i64) -> Result<(), fmt::Error> {
    let metric = ConstGauge::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> Result<(), fmt::Error> {
    let metric = ConstCounter::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_summed_and_labels_are_capped() {
        let metrics = Metrics::new();
        let edge = EdgeMetrics::new(&metrics, 2);
        for core in 0..2 {
            edge.core(core).operation(
                "tools/call",
                "a",
                Error::None,
                "2025-11-25",
                Duration::from_millis(15),
            );
        }
        for n in 0..1000 {
            edge.core(0).operation(
                "x".repeat(n).as_str(),
                &n.to_string(),
                Error::Code(-32601),
                "",
                Duration::ZERO,
            );
        }
        let text = metrics.encode();
        let counted = text.lines().find(|line| {
            line.starts_with("mcp_server_operation_duration_seconds_count") && line.contains("\"a\"")
        });
        assert!(counted.is_some_and(|line| line.ends_with(" 2")), "{counted:?}");
        assert!(text.matches("_seconds_count").count() <= NAMES_MAX + 1);
        assert!(text.contains("gen_ai_tool_name=\"_other\""));
    }
}
