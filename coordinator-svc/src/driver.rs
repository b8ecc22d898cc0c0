//! The one loop: leadership, leases that run out, facts, metrics, readiness.

use crate::{
    core::{
        command::{Command, TaskId, TaskState},
        expiry::Expiry,
    },
    events::Facts,
    metrics::Meters,
    raft::{
        machine::Event,
        node::{Node, Role, Status},
    },
    waiters::Waiters,
    wire,
};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use kit::{Shutdown, clock::Clock, readiness::Condition};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Between two looks at everything that does not announce itself.
const TICK: Duration = Duration::from_millis(250);
/// The same until the member is ready.
const TICK_STARTING: Duration = Duration::from_millis(20);
/// Leases ended at once.
const EXPIRING: usize = 64;
/// How long the end of a lease may take to commit.
const EXPIRE: Duration = Duration::from_secs(5);

type Expired = (TaskId, u64, bool);

/// The loop's parts.
pub(crate) struct Driver {
    /// This member.
    pub(crate) node: Node,
    /// What was applied.
    pub(crate) events: mpsc::Receiver<Event>,
    /// Calls that wait for tasks.
    pub(crate) waiters: Waiters,
    /// The metrics.
    pub(crate) meters: Meters,
    /// The facts.
    pub(crate) facts: Facts,
    /// Ready when a leader is known and what is committed is applied.
    pub(crate) ready: Condition,
    /// The instance's name.
    pub(crate) instance: String,
    /// Time.
    pub(crate) clock: Arc<dyn Clock>,
    /// When to stop.
    pub(crate) shutdown: Shutdown,
    /// What the loop knows.
    pub(crate) known: Known,
}

/// What the loop knows between two rounds.
#[derive(Default)]
pub(crate) struct Known {
    leader: Option<u64>,
    leading: bool,
    ready: bool,
    expiry: Expiry,
    expiring: FuturesUnordered<BoxFuture<'static, Expired>>,
}

impl Driver {
    /// Runs until the shutdown, or until the member fails.
    pub(crate) async fn run(&mut self) -> Result<(), String> {
        let mut changes = self.node.changes();
        let mut look = self.clock.now();
        loop {
            let now = self.clock.now();
            if now >= look {
                self.observe().await;
                look = now + if self.known.ready { TICK } else { TICK_STARTING };
            }
            if let Some(why) = self.node.failure() {
                return self.failed(why);
            }
            self.expire(now);
            let wake = self.next_due().map_or(look, |due| due.min(look));
            tokio::select! {
                () = self.shutdown.wait() => return self.leave().await,
                Some(event) = self.events.recv() => self.on_event(event).await,
                () = changes.changed() => look = now,
                Some(expired) = self.known.expiring.next() => self.on_expired(expired),
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.known.expiry.next().filter(|_| self.known.expiring.len() < EXPIRING)
    }

    async fn observe(&mut self) {
        let status = self.node.status();
        self.meters.show(&status);
        self.meters.depths(self.node.view().read().state.tasks.depths());
        self.show_readiness(&status);
        let leader = status.leader.as_ref().map(|(id, ..)| *id);
        if leader.is_some() && leader != self.known.leader {
            self.known.leader = leader;
            self.meters.leader_changed();
        }
        let leading = status.role == Role::Leader;
        if leading != self.known.leading {
            self.known.leading = leading;
            self.waiters.wake_all();
            self.on_leadership(leading, status).await;
        } else if self.node.view().take_lost() && leading {
            self.watch_all_leases();
        }
    }

    async fn on_leadership(&mut self, leading: bool, status: Status) {
        tracing::info!(leading, term = status.term, "leadership");
        self.known.expiry.clear();
        if leading {
            self.watch_all_leases();
            self.facts.leader_elected(wire::status(status, &self.instance)).await;
        }
    }

    fn watch_all_leases(&mut self) {
        let now = self.clock.now();
        self.known.expiry.sync(self.node.view().read().state.tasks.leases(), now);
    }

    fn show_readiness(&mut self, status: &Status) {
        let ready = status.leader.is_some() && status.applied >= status.committed && status.committed > 0;
        self.known.ready = ready;
        if ready {
            self.ready.met();
        } else if status.voters.is_empty() {
            self.ready.unmet("waiting for the coordinators that are expected");
        } else if status.leader.is_none() {
            self.ready.unmet("no leader is known");
        } else {
            self.ready.unmet(format!("applied {} of {} entries", status.applied, status.committed));
        }
    }

    async fn on_event(&mut self, event: Event) {
        // Every member sees every event; only the leader acts.
        if !self.known.leading {
            return;
        }
        match event {
            Event::Queued { queue } => {
                self.meters.task(TaskState::Queued);
                self.waiters.wake_one(&queue);
            }
            Event::Leased { task, token, ttl_ms } => {
                self.meters.task(TaskState::Leased);
                self.known.expiry.watch(task, token, ttl_ms, self.clock.now());
            }
            Event::Ended { task, state, queue } => {
                self.meters.task(state);
                self.known.expiry.forget(task);
                if state == TaskState::Queued {
                    self.waiters.wake_one(&queue);
                } else {
                    self.say_completed(task).await;
                }
            }
        }
    }

    async fn say_completed(&mut self, task: TaskId) {
        let task = self.node.view().read().state.tasks.get(task).map(wire::task);
        if let Some(task) = task {
            self.facts.task_completed(task).await;
        }
    }

    /// Proposes the end of leases that are due.
    fn expire(&mut self, now: Instant) {
        let room = EXPIRING.saturating_sub(self.known.expiring.len());
        for (task, token) in self.known.expiry.take_due(now, room) {
            let node = self.node.clone();
            self.known.expiring.push(Box::pin(async move {
                let done = node.write(Command::expire(task, token), now + EXPIRE).await;
                (task, token, done.is_ok())
            }));
        }
    }

    /// A lease whose end did not commit is still in force, and due.
    fn on_expired(&mut self, (task, token, done): Expired) {
        if !done && self.known.leading && self.node.view().read().state.tasks.leased(task, token).is_some() {
            self.known.expiry.watch(task, token, 0, self.clock.now());
        }
    }

    fn failed(&self, why: String) -> Result<(), String> {
        if !self.shutdown.is_triggered() {
            // The store may be behind what was promised: only a new start from disk is safe.
            self.shutdown.fail(1, format!("raft stopped: {why}"));
        }
        Err(why)
    }

    async fn leave(&mut self) -> Result<(), String> {
        self.ready.unmet("shutting down");
        self.waiters.wake_all();
        self.node.hand_over().await;
        self.node.stop().await;
        Ok(())
    }
}
