//! Names and help, once.

use kit::metrics::{CALL_BUCKETS, Metrics as Registry};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};
use proto::ids::ShardId;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Lookup {
    tier: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShardOp {
    shard: u32,
    op: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Peer {
    pub(crate) peer: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    hits: Counter,
    misses: Counter,
    shard_keys: Family<ShardLabel, Gauge>,
    shard_ops: Family<ShardOp, Counter>,
    leases: Family<ShardLabel, Gauge>,
    tombstones: Family<ShardLabel, Gauge>,
    pub(crate) expired: Counter,
    pub(crate) watchers: Gauge,
    pub(crate) watchers_cut: Counter,
    pub(crate) following: Family<Peer, Gauge>,
    pub(crate) resyncs: Family<Peer, Counter>,
    pub(crate) facts_lost: Counter,
    pub(crate) commit_seconds: Histogram,
}

/// `shard` as a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ShardLabel {
    pub(crate) shard: u32,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let lookups: Family<Lookup, Counter> =
            registry.family("swarm_registry_lookups", "Lookups answered from the shards");
        let of = |result| lookups.get_or_create_owned(&Lookup { tier: "l3", result });
        Self {
            hits: of("hit"),
            misses: of("miss"),
            shard_keys: registry.family("swarm_registry_shard_keys", "Names in a shard"),
            shard_ops: registry.family("swarm_registry_shard_ops", "Commands decided by a shard's writer"),
            leases: registry.family("swarm_registry_leases", "Leases granted here that have not ended"),
            tombstones: registry.family("swarm_registry_tombstones", "Freed names that are remembered"),
            expired: registry.counter("swarm_registry_expirations", "Names freed because their lease ended"),
            watchers: registry.gauge("swarm_registry_watchers", "Open watches"),
            watchers_cut: registry
                .counter("swarm_registry_watchers_cut", "Watches cut because they fell behind"),
            following: registry
                .family("swarm_registry_following", "1 while this peer's changes are received"),
            resyncs: registry.family("swarm_registry_resyncs", "Whole states read from this peer"),
            facts_lost: registry
                .counter("swarm_registry_facts_lost", "Bus facts that could not be published"),
            commit_seconds: registry.histogram(
                "swarm_registry_commit_duration_seconds",
                "Time of one transaction of the store",
                CALL_BUCKETS,
            ),
        }
    }

    pub(crate) fn lookup(&self, hit: bool) {
        if hit {
            self.hits.inc()
        } else {
            self.misses.inc()
        };
    }

    pub(crate) fn lookups(&self, hits: u64, misses: u64) {
        self.hits.inc_by(hits);
        self.misses.inc_by(misses);
    }

    pub(crate) fn shard(&self, id: ShardId) -> ShardMetrics {
        let shard = u32::from(id.0);
        let op = |op| self.shard_ops.get_or_create_owned(&ShardOp { shard, op });
        ShardMetrics {
            keys: self.shard_keys.get_or_create_owned(&ShardLabel { shard }),
            leases: self.leases.get_or_create_owned(&ShardLabel { shard }),
            tombstones: self.tombstones.get_or_create_owned(&ShardLabel { shard }),
            registers: op("register"),
            deregisters: op("deregister"),
            renews: op("renew"),
            heard: op("follow"),
            expired: self.expired.clone(),
        }
    }
}

/// The cells of one shard's writer.
#[derive(Debug)]
pub(crate) struct ShardMetrics {
    pub(crate) keys: Gauge,
    pub(crate) leases: Gauge,
    pub(crate) tombstones: Gauge,
    pub(crate) registers: Counter,
    pub(crate) deregisters: Counter,
    pub(crate) renews: Counter,
    pub(crate) heard: Counter,
    pub(crate) expired: Counter,
}
