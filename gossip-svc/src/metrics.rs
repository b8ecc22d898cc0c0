//! Names and help, once.

use crate::core::{State, View};
use kit::metrics::{FloatGauge, Metrics};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use std::collections::BTreeSet;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPeer {
    peer: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    direction: &'static str,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDirection {
    direction: &'static str,
}

/// What passes the gossip socket.
#[derive(Debug, Clone)]
pub(crate) struct Traffic {
    messages: Family<ByKind, Counter>,
    bytes: Family<ByDirection, Counter>,
    errors: Family<ByKind, Counter>,
}

impl Traffic {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            messages: metrics.family("swarm_gossip_messages", "Gossip messages sent and received"),
            bytes: metrics.family("swarm_gossip_bytes", "Bytes of gossip messages sent and received"),
            errors: metrics
                .family("swarm_gossip_errors", "Gossip datagrams that could not be sent or received"),
        }
    }

    pub(crate) fn sent(&self, kind: &'static str, bytes: usize) {
        self.count("sent", kind, bytes);
    }

    pub(crate) fn received(&self, kind: &'static str, bytes: usize) {
        self.count("received", kind, bytes);
    }

    pub(crate) fn failed(&self, direction: &'static str) {
        self.errors.get_or_create(&ByKind { direction, kind: "io" }).inc();
    }

    fn count(&self, direction: &'static str, kind: &'static str, bytes: usize) {
        self.messages.get_or_create(&ByKind { direction, kind }).inc();
        self.bytes.get_or_create(&ByDirection { direction }).inc_by(bytes as u64);
    }
}

/// What the service knows.
#[derive(Debug)]
pub(crate) struct GossipMetrics {
    members: Family<ByState, Gauge>,
    phi: Family<ByPeer, FloatGauge>,
    peers: BTreeSet<String>,
    pub(crate) restarts: Counter,
    pub(crate) ticks: Counter,
    pub(crate) facts_dropped: Counter,
}

impl GossipMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            members: metrics.family("swarm_gossip_members", "Members by state"),
            phi: metrics.family("swarm_gossip_phi", "Suspicion of each other member"),
            peers: BTreeSet::new(),
            restarts: metrics
                .counter("swarm_gossip_engine_restarts", "Gossip engines started again after they ended"),
            ticks: metrics.counter(
                "swarm_gossip_ticks",
                "Turns of the membership loop; it stands still when the loop does",
            ),
            facts_dropped: metrics
                .counter("swarm_gossip_events_dropped", "Membership events not told on the bus"),
        }
    }

    /// Shows a view. A member that is gone takes its series with it.
    pub(crate) fn show(&mut self, view: &View) {
        for state in State::ALL {
            let count = view.members.iter().filter(|member| member.state == state).count();
            self.members.get_or_create(&ByState { state: state.label() }).set(count as i64);
        }
        let others = view.members.iter().filter(|member| member.node != view.own);
        let peers: BTreeSet<_> = others.clone().map(|member| member.node.clone()).collect();
        for member in others {
            self.phi.get_or_create(&ByPeer { peer: member.node.clone() }).set(member.phi);
        }
        for peer in self.peers.difference(&peers) {
            self.phi.remove(&ByPeer { peer: peer.clone() });
        }
        self.peers = peers;
    }
}
