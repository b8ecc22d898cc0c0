//! What the calls do: propose, read, lease. The handlers only translate to and from it.

use crate::{
    core::{
        command::{Command, Invalid, Outcome, Task, TaskId, TaskState, check_key},
        kv::Versioned,
    },
    error::Refusal,
    metrics::Meters,
    raft::node::{CallError, Node, Status, Written},
    waiters::Waiters,
};
use bytes::Bytes;
use kit::clock::Clock;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Longest wait for a task.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(30);
/// Left of a call's time for the answer, after its wait.
const RESERVE: Duration = Duration::from_millis(200);
/// Beside being told, a waiting call looks itself this often.
const LOOK: Duration = Duration::from_secs(5);

/// Who wants a task.
pub(crate) struct LeaseWish {
    /// Makes a repeat give the same task.
    pub(crate) request_id: String,
    /// The queue.
    pub(crate) queue: String,
    /// Who asks.
    pub(crate) worker: String,
    /// Length of the lease in milliseconds.
    pub(crate) ttl_ms: u64,
    /// How long to wait for a task.
    pub(crate) wait: Duration,
}

/// The calls on a member; clones share it.
#[derive(Clone)]
pub(crate) struct Desk {
    node: Node,
    waiters: Waiters,
    meters: Meters,
    clock: Arc<dyn Clock>,
}

impl Desk {
    /// A desk in front of a member.
    pub(crate) fn new(node: Node, waiters: Waiters, meters: Meters, clock: Arc<dyn Clock>) -> Desk {
        Desk { node, waiters, meters, clock }
    }

    /// Now.
    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// The group as seen from here.
    pub(crate) fn status(&self) -> Status {
        self.node.status()
    }

    /// Changes a key.
    pub(crate) async fn put(&self, command: Command, end: Instant) -> Result<(Written, u64), Refusal> {
        let written = self.write(command, end).await?;
        match written.outcome {
            Outcome::Put { revision } => Ok((written, revision)),
            other => Err(unexpected(other)),
        }
    }

    /// Reads a key: what is applied here (`local`), or linearizably. Also the applied index.
    pub(crate) async fn read(
        &self,
        key: &str,
        local: bool,
        end: Instant,
    ) -> Result<(Option<Versioned>, u64), Refusal> {
        check_key(key)?;
        if !local {
            self.node.read_index(end).await?;
        }
        let applied = self.node.view().read();
        Ok((applied.state.kv.get(key).cloned(), applied.last.map_or(0, |last| last.index())))
    }

    /// Adds a task.
    pub(crate) async fn submit(&self, command: Command, end: Instant) -> Result<TaskId, Refusal> {
        match self.write(command, end).await?.outcome {
            Outcome::Submitted { task } => Ok(task),
            other => Err(unexpected(other)),
        }
    }

    /// Ends an attempt.
    pub(crate) async fn complete(&self, command: Command, end: Instant) -> Result<TaskState, Refusal> {
        match self.write(command, end).await?.outcome {
            Outcome::Completed { state } => Ok(state),
            other => Err(unexpected(other)),
        }
    }

    /// One task, linearizably.
    pub(crate) async fn task(&self, id: &str, end: Instant) -> Result<Option<Task>, Refusal> {
        let id = TaskId::parse(id)?;
        self.node.read_index(end).await?;
        Ok(self.node.view().read().state.tasks.get(id).cloned())
    }

    /// Leases the next task, waiting for one if need be. An empty queue costs no log entry: a
    /// confirmed leader looks at its own state, and only proposes when a task is there.
    pub(crate) async fn lease(&self, wish: LeaseWish, end: Instant) -> Result<Option<Box<Task>>, Refusal> {
        let command = Command::lease(wish.request_id, wish.queue.clone(), wish.worker, wish.ttl_ms)?;
        if wish.wait > WAIT_MAX {
            return Err(
                Invalid(format!("wait_ms is {}; at most 30000 is allowed", wish.wait.as_millis())).into()
            );
        }
        let place = self.waiters.join(&wish.queue).ok_or(Refusal::Busy)?;
        let give_up = (self.now() + wish.wait).min(end.checked_sub(RESERVE).unwrap_or(end));
        loop {
            // Listening begins before the look, so that nothing is missed in between.
            let mut told = std::pin::pin!(place.notify.notified());
            told.as_mut().enable();
            self.node.read_index(end).await?;
            if let Some(task) = self.try_lease(&command, &wish.queue, end).await? {
                return Ok(Some(task));
            }
            let now = self.now();
            if now >= give_up {
                return Ok(None);
            }
            let pause = LOOK.min(give_up - now);
            let _ = tokio::time::timeout(pause, told).await;
        }
    }

    async fn try_lease(
        &self,
        command: &Command,
        queue: &str,
        end: Instant,
    ) -> Result<Option<Box<Task>>, Refusal> {
        let look = |command: &Command| {
            let applied = self.node.view().read();
            applied.state.tasks.depth(queue) > 0 || applied.state.answered(&command.request_id)
        };
        if !look(command) {
            return Ok(None);
        }
        match self.write(command.clone(), end).await?.outcome {
            Outcome::Leased { task } => {
                if task.is_some() && self.node.view().read().state.tasks.depth(queue) > 0 {
                    self.waiters.wake_one(queue);
                }
                Ok(task)
            }
            other => Err(unexpected(other)),
        }
    }

    async fn write(&self, command: Command, end: Instant) -> Result<Written, Refusal> {
        let start = self.now();
        let written = self.node.write(command, end).await?;
        self.meters.commit_duration.observe((self.now() - start).as_secs_f64());
        match written.outcome {
            Outcome::Rejected(rejection) => Err(Refusal::Rejected(rejection)),
            _ => Ok(written),
        }
    }
}

fn unexpected(outcome: Outcome) -> Refusal {
    tracing::error!(?outcome, "a command was answered with another kind of outcome");
    Refusal::Call(CallError::Unknown("unexpected outcome".into()))
}

/// The value of a key as bytes, empty when absent.
pub(crate) fn value(found: &Option<Versioned>) -> Bytes {
    found.as_ref().map(|found| found.value.clone()).unwrap_or_default()
}
