//! Names and help of the metrics.

use crate::{core::command::TaskState, raft::node::Role, raft::node::Status};
use kit::metrics::{CALL_BUCKETS, Metrics};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};

/// Queues that get a label of their own; the rest is summed as `_other`.
const QUEUES: usize = 50;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabel {
    queue: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

/// The service's metrics.
#[derive(Clone)]
pub(crate) struct Meters {
    term: Gauge,
    is_leader: Gauge,
    commit_index: Gauge,
    applied_index: Gauge,
    failure_tolerance: Gauge,
    leader_changes: Counter,
    /// Seconds from a proposal to its application.
    pub(crate) commit_duration: Histogram,
    queue_depth: Family<QueueLabel, Gauge>,
    tasks: Family<StateLabel, Counter>,
}

impl Meters {
    /// Registers them.
    pub(crate) fn new(metrics: &Metrics) -> Meters {
        Meters {
            term: metrics.gauge("swarm_raft_term", "Newest term this member knows"),
            is_leader: metrics.gauge("swarm_raft_is_leader", "1 where the leader is"),
            commit_index: metrics.gauge("swarm_raft_commit_index", "Last index known to be committed"),
            applied_index: metrics.gauge("swarm_raft_applied_index", "Last index applied here"),
            failure_tolerance: metrics.gauge(
                "swarm_raft_failure_tolerance",
                "Voters that may be lost now without losing the quorum",
            ),
            leader_changes: metrics.counter("swarm_raft_leader_changes", "New leaders seen by this member"),
            commit_duration: metrics.histogram(
                "swarm_raft_commit_duration_seconds",
                "Time from a proposal to its application at the leader",
                CALL_BUCKETS,
            ),
            queue_depth: metrics.family("swarm_task_queue_depth", "Tasks that wait in a queue"),
            tasks: metrics.family("swarm_tasks", "Tasks that entered a state, counted at the leader"),
        }
    }

    /// Shows the group as this member sees it.
    pub(crate) fn show(&self, status: &Status) {
        self.term.set(status.term as i64);
        self.is_leader.set(i64::from(status.role == Role::Leader));
        self.commit_index.set(status.committed as i64);
        self.applied_index.set(status.applied as i64);
        self.failure_tolerance.set(i64::from(status.failure_tolerance));
    }

    /// Counts a new leader.
    pub(crate) fn leader_changed(&self) {
        self.leader_changes.inc();
    }

    /// Counts a task that entered a state.
    pub(crate) fn task(&self, state: TaskState) {
        self.tasks.get_or_create(&StateLabel { state: state.word() }).inc();
    }

    /// Shows how many tasks wait.
    pub(crate) fn depths<'a>(&self, depths: impl Iterator<Item = (&'a str, usize)>) {
        self.queue_depth.clear();
        let mut other = 0;
        for (at, (queue, depth)) in depths.enumerate() {
            if at < QUEUES {
                self.queue_depth.get_or_create(&QueueLabel { queue: queue.into() }).set(depth as i64);
            } else {
                other += depth as i64;
            }
        }
        if other > 0 {
            self.queue_depth.get_or_create(&QueueLabel { queue: "_other".into() }).set(other);
        }
    }
}
