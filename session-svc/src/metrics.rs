//! Names and help, once.

use kit::metrics::{CALL_BUCKETS, FloatGauge, HistogramFamily, Metrics as Registry};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};
use session_client::Ring;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Op {
    op: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Kind {
    op: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Node {
    node: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Tier {
    tier: &'static str,
}

/// The metrics of one instance.
#[derive(Clone)]
pub(crate) struct Metrics {
    sessions: Family<Tier, Gauge>,
    ops: Family<Op, Counter>,
    quorum: HistogramFamily<Kind>,
    under_replicated: Gauge,
    hints: Family<Node, Gauge>,
    read_repairs: Counter,
    ownership: Family<Node, FloatGauge>,
    ring_version: Gauge,
    log_bytes: Gauge,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let quorum_help = "Time until a quorum of owners had answered";
        Metrics {
            sessions: registry.family("swarm_sessions", "Sessions held, ended ones included"),
            ops: registry.family("swarm_session_ops", "Calls by outcome"),
            quorum: registry.histogram_family("swarm_session_quorum_duration_seconds", quorum_help, || {
                Histogram::new(CALL_BUCKETS)
            }),
            under_replicated: registry.gauge(
                "swarm_session_under_replicated",
                "Sessions of which an owner is known to miss the last state",
            ),
            hints: registry
                .family("swarm_session_hints_pending", "Sessions that wait to be brought to an owner"),
            read_repairs: registry.counter(
                "swarm_session_read_repairs",
                "Copies brought to owners that were seen to be behind",
            ),
            ownership: registry
                .family("swarm_ring_ownership_ratio", "Share of the ring whose home is the node"),
            ring_version: registry.gauge("swarm_ring_version", "Hash of the ring's members"),
            log_bytes: registry.gauge("swarm_session_log_bytes", "Bytes of event logs in memory"),
        }
    }

    pub(crate) fn op(&self, op: &'static str, result: &'static str) {
        self.ops.get_or_create_owned(&Op { op, result }).inc();
    }

    pub(crate) fn quorum(&self, op: &'static str, seconds: f64) {
        self.quorum.get_or_create_owned(&Kind { op }).observe(seconds);
    }

    pub(crate) fn read_repair(&self) {
        self.read_repairs.inc();
    }

    pub(crate) fn held(&self, sessions: usize, log_bytes: usize) {
        // Every session is in memory and on disk; the tiers of phase 3 split this.
        self.sessions.get_or_create_owned(&Tier { tier: "hot" }).set(sessions as i64);
        self.log_bytes.set(log_bytes as i64);
    }

    pub(crate) fn ring(&self, ring: &Ring) {
        self.ownership.clear();
        for (node, share) in ring.ownership() {
            self.ownership.get_or_create_owned(&Node { node: node.to_owned() }).set(share);
        }
        // 53 bits, so that a float holds it exactly.
        self.ring_version.set((ring.version() >> 11) as i64);
    }

    pub(crate) fn hints<'a>(&self, pending: impl Iterator<Item = (&'a str, usize)>, sessions: usize) {
        self.hints.clear();
        for (node, count) in pending {
            self.hints.get_or_create_owned(&Node { node: node.to_owned() }).set(count as i64);
        }
        self.under_replicated.set(sessions as i64);
    }
}
