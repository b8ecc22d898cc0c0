//! Names and help, once.

use crate::store::Observed;
use kit::metrics::{CALL_BUCKETS, Metrics as Registry};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};
use proto::ids::ShardId;
use registry_client::tiers::Lookups;

/// Buckets in seconds around the second after which an ended lease is gone.
const OVERRUN_BUCKETS: [f64; 8] = [0.001, 0.01, 0.1, 0.25, 0.5, 1.0, 3.0, 10.0];
/// Buckets for the records of one transaction.
const GROUP_BUCKETS: [f64; 9] = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16_384.0, 65_536.0];

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
    lookups: Lookups,
    shard_keys: Family<ShardLabel, Gauge>,
    shard_ops: Family<ShardOp, Counter>,
    leases: Family<ShardLabel, Gauge>,
    tombstones: Family<ShardLabel, Gauge>,
    pub(crate) expired: Counter,
    overrun: Histogram,
    pub(crate) watchers: Gauge,
    pub(crate) waiters: Gauge,
    pub(crate) watchers_cut: Counter,
    pub(crate) following: Family<Peer, Gauge>,
    pub(crate) resyncs: Family<Peer, Counter>,
    pub(crate) facts_lost: Counter,
    commit_seconds: Histogram,
    commit_records: Histogram,
}

/// `shard` as a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ShardLabel {
    pub(crate) shard: u32,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            lookups: Lookups::default(),
            shard_keys: registry.family("swarm_registry_shard_keys", "Names in a shard"),
            shard_ops: registry.family("swarm_registry_shard_ops", "Commands decided by a shard's writer"),
            leases: registry.family("swarm_registry_leases", "Leases granted here that have not ended"),
            tombstones: registry.family("swarm_registry_tombstones", "Freed names that are remembered"),
            expired: registry.counter("swarm_registry_expirations", "Names freed because their lease ended"),
            overrun: registry.histogram(
                "swarm_registry_lease_overrun_seconds",
                "How long after its end the oldest ended lease of a sweep was freed",
                OVERRUN_BUCKETS,
            ),
            watchers: registry.gauge("swarm_registry_watchers", "Open watches"),
            waiters: registry.gauge(
                "swarm_registry_waiters",
                "Calls that wait for a name or for the end of a registration",
            ),
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
            commit_records: registry.histogram(
                "swarm_registry_commit_records",
                "Records that one transaction of the store made durable",
                GROUP_BUCKETS,
            ),
        }
    }

    /// Counts lookups where the node's clients count theirs, so that a scrape sees one family.
    pub(crate) fn counting(self, lookups: Lookups) -> Self {
        Self { lookups, ..self }
    }

    /// What the store observes.
    pub(crate) fn store(&self) -> Observed {
        Observed { seconds: self.commit_seconds.clone(), records: self.commit_records.clone() }
    }

    pub(crate) fn lookup(&self, hit: bool) {
        self.lookups(hit.into(), (!hit).into());
    }

    pub(crate) fn lookups(&self, hits: u64, misses: u64) {
        self.lookups.l3_hits.inc_by(hits);
        self.lookups.l3_misses.inc_by(misses);
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
            updates: op("update"),
            renews: op("renew"),
            heard: op("follow"),
            returned: op("return"),
            expired: self.expired.clone(),
            overrun: self.overrun.clone(),
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
    pub(crate) updates: Counter,
    pub(crate) renews: Counter,
    pub(crate) heard: Counter,
    pub(crate) returned: Counter,
    pub(crate) expired: Counter,
    pub(crate) overrun: Histogram,
}
