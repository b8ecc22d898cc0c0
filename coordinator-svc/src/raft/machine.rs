//! The replicated state as the Raft library drives it: apply, snapshot, install.
//!
//! The state lives in memory; only snapshots are written. After a restart the newest snapshot is
//! installed and the log after it applied again.

use super::{
    log_store::LogStore,
    types::{Entry, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig},
};
use crate::core::{
    command::{Command, Op, Outcome, TaskId, TaskState},
    snapshot,
    state::State,
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    entry::RaftEntry,
    storage::{EntryResponder, RaftStateMachine},
};
use parking_lot::{RwLock, RwLockReadGuard};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::mpsc;

/// Events that may wait for the driver; beyond it they are dropped and the driver looks itself.
pub const EVENTS: usize = 4096;

/// What an applied entry did, for whoever acts on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A task waits in this queue.
    Queued {
        /// The queue.
        queue: String,
    },
    /// A lease began.
    Leased {
        /// The task.
        task: TaskId,
        /// The lease's token.
        token: u64,
        /// Its length in milliseconds.
        ttl_ms: u64,
    },
    /// A task's attempt ended.
    Ended {
        /// The task.
        task: TaskId,
        /// Its state now: queued again, or terminal.
        state: TaskState,
        /// Its queue.
        queue: String,
    },
}

/// What was applied so far.
#[derive(Default)]
pub struct Applied {
    /// The state.
    pub state: State,
    /// The last applied entry.
    pub last: Option<LogId>,
    membership: StoredMembership,
}

/// The state, to read from any task.
#[derive(Clone, Default)]
pub struct View {
    applied: Arc<RwLock<Applied>>,
    lost: Arc<AtomicBool>,
}

impl View {
    /// Looks at what is applied; hold it briefly.
    pub fn read(&self) -> RwLockReadGuard<'_, Applied> {
        self.applied.read()
    }

    /// Whether events were dropped since the last call.
    pub fn take_lost(&self) -> bool {
        self.lost.swap(false, Ordering::AcqRel)
    }
}

/// The state machine.
pub struct Machine {
    view: View,
    store: LogStore,
    events: mpsc::Sender<Event>,
}

impl Machine {
    /// An empty state, and where its events come out.
    pub fn new(store: LogStore) -> (Machine, View, mpsc::Receiver<Event>) {
        let view = View::default();
        let (events, receiver) = mpsc::channel(EVENTS);
        (Machine { view: view.clone(), store, events }, view, receiver)
    }

    fn apply_one(&self, entry: &Entry) -> Outcome {
        let mut applied = self.view.applied.write();
        applied.last = Some(entry.log_id());
        match &entry.payload {
            EntryPayload::Blank => Outcome::Nothing,
            EntryPayload::Membership(membership) => {
                applied.membership = StoredMembership::new(Some(entry.log_id()), membership.clone());
                Outcome::Nothing
            }
            EntryPayload::Normal(command) => {
                let fresh = is_fresh(&applied.state, command);
                let outcome = applied.state.apply(entry.index(), command);
                if fresh {
                    self.tell(&applied.state, command, &outcome);
                }
                outcome
            }
        }
    }

    fn tell(&self, state: &State, command: &Command, outcome: &Outcome) {
        match (outcome, &command.op) {
            (Outcome::Submitted { .. }, Op::Submit { queue, .. }) => {
                self.send(Event::Queued { queue: queue.clone() });
            }
            (Outcome::Leased { task: Some(task) }, _) => {
                self.send(Event::Leased { task: task.id, token: task.token, ttl_ms: task.ttl_ms });
            }
            (
                Outcome::Completed { state: now } | Outcome::Expired { state: Some(now) },
                Op::Complete { task, .. } | Op::Expire { task, .. },
            ) => {
                let queue = state.tasks.get(*task).map(|task| task.queue.clone()).unwrap_or_default();
                self.send(Event::Ended { task: *task, state: *now, queue });
            }
            _ => {}
        }
    }

    fn send(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            self.view.lost.store(true, Ordering::Release);
        }
    }
}

/// Whether applying can change anything: a repeat only answers again.
fn is_fresh(state: &State, command: &Command) -> bool {
    match &command.op {
        Op::Complete { task, token, .. } | Op::Expire { task, token } => {
            state.tasks.leased(*task, *token).is_some()
        }
        _ => !state.answered(&command.request_id),
    }
}

/// Builds a snapshot from the state as it was when this was made.
pub struct Builder {
    state: State,
    meta: SnapshotMeta,
    store: LogStore,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let state = std::mem::take(&mut self.state);
        let encoded = tokio::task::spawn_blocking(move || snapshot::encode(&state));
        let data = encoded.await.map_err(io::Error::other)?.map_err(io::Error::other)?;
        self.store.save_snapshot(&self.meta, &data).await?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: data })
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let applied = self.view.read();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let outcome = self.apply_one(&entry);
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let applied = self.view.read();
        let meta = SnapshotMeta { last_log_id: applied.last, last_membership: applied.membership.clone() };
        Builder { state: applied.state.clone(), meta, store: self.store.clone() }
    }

    /// Checks, saves, and only then replaces the state: a bad snapshot changes nothing, and what
    /// is in memory is always what a restart finds.
    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Bytes) -> io::Result<()> {
        let state =
            snapshot::decode(&data).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if self.store.snapshot_meta()?.as_ref() != Some(meta) {
            self.store.save_snapshot(meta, &data).await?;
        }
        *self.view.applied.write() =
            Applied { state, last: meta.last_log_id, membership: meta.last_membership.clone() };
        self.view.lost.store(true, Ordering::Release);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        self.store.snapshot()
    }
}
