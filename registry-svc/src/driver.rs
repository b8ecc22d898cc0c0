//! One writer per shard: takes what waits, decides it in order, makes it durable with one
//! group commit, publishes it, and answers. Leases are renewed also while the disk is slow.

use crate::{
    core::{
        batch::Batch,
        command::{Deregister, Heard, Refusal, Register, Registered, Renewed},
        shard::Shard,
        table::Table,
    },
    error::Failure,
    feed::Feed,
    metrics::ShardMetrics,
    store::{Store, StoreError},
};
use kit::{clock::Clock, shutdown::Shutdown};
use proto::{ids::ShardId, registry::Removed};
use std::{sync::Arc, time::Instant};
use tokio::sync::{mpsc, oneshot};

/// Commands decided together.
const BATCH_MAX: usize = 256;
/// New ones of them while registrations come again: new work goes on, behind them.
const BEHIND_MAX: usize = 64;

type Reply<T> = oneshot::Sender<Result<T, Failure>>;

/// An answer, and the revision of the registration that it tells of or, where none was written,
/// one at which it can be seen.
pub(crate) type At<T> = (T, u64);

pub(crate) enum Command {
    Register(Box<Register>, Reply<At<Registered>>),
    Deregister(Deregister, Reply<At<()>>),
    /// From one peer, in its order.
    Hear(Vec<Heard>, Reply<()>),
    /// Forget tombstones of before a moment.
    Reap(Instant),
    Tombstones(oneshot::Sender<Vec<Removed>>),
}

pub(crate) struct Renew {
    pub(crate) lease_ids: Vec<u64>,
    pub(crate) owner: String,
    pub(crate) reply: oneshot::Sender<Renewed>,
}

/// The sending ends of one writer's queues.
#[derive(Clone)]
pub(crate) struct Queues {
    pub(crate) commands: mpsc::Sender<Command>,
    /// Apart, and taken first: after an outage leases are saved before new work is taken
    /// (RELIABILITY F23).
    pub(crate) renewals: mpsc::Sender<Renew>,
    /// Registrations that come again because the registry lost their leases, next.
    pub(crate) returning: mpsc::Sender<Command>,
}

pub(crate) struct Inbox {
    commands: mpsc::Receiver<Command>,
    renewals: mpsc::Receiver<Renew>,
    returning: mpsc::Receiver<Command>,
}

pub(crate) fn queues(limit: usize) -> (Queues, Inbox) {
    let (commands, commands_in) = mpsc::channel(limit);
    let (renewals, renewals_in) = mpsc::channel(limit);
    let (returning, returning_in) = mpsc::channel(limit);
    let inbox = Inbox { commands: commands_in, renewals: renewals_in, returning: returning_in };
    (Queues { commands, renewals, returning }, inbox)
}

/// The writer of one shard.
pub(crate) struct Driver {
    pub(crate) id: ShardId,
    pub(crate) shard: Shard,
    pub(crate) inbox: Inbox,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) table: Arc<Table>,
    pub(crate) max_registrations: usize,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) shutdown: Shutdown,
    pub(crate) metrics: ShardMetrics,
}

/// What is told to whom once a batch stands.
enum Answer {
    Registered(Reply<At<Registered>>, Registered),
    Deregistered(Reply<At<()>>),
    Heard(Reply<()>),
}

impl Driver {
    /// Ends at the shutdown, or with an error when the store has failed: then what the disk
    /// holds is not known, and the process must start anew from it.
    pub(crate) async fn run(mut self) -> Result<(), StoreError> {
        self.count();
        let mut closing = false;
        loop {
            let mut commands = Vec::new();
            tokio::select! {
                biased;
                // What was taken in is finished; then the queues are empty and closed.
                () = self.shutdown.wait(), if !closing => {
                    closing = true;
                    self.inbox.commands.close();
                    self.inbox.returning.close();
                    continue;
                }
                Some(renew) = self.inbox.renewals.recv() => self.renew(renew, &Batch::default()),
                Some(first) = self.inbox.returning.recv() => self.gather(first, &mut commands),
                count = self.inbox.commands.recv_many(&mut commands, BATCH_MAX) => if count == 0 { return Ok(()) },
                () = sleep_until(self.shard.next_end()) => {}
            }
            self.renew_waiting();
            self.step(commands).await?;
        }
    }

    /// What comes again, then some of what is new.
    fn gather(&mut self, first: Command, commands: &mut Vec<Command>) {
        commands.push(first);
        while commands.len() < BATCH_MAX
            && let Ok(next) = self.inbox.returning.try_recv()
        {
            commands.push(next);
        }
        self.metrics.returned.inc_by(commands.len() as u64);
        for _ in 0..BEHIND_MAX {
            commands.extend(self.inbox.commands.try_recv());
        }
    }

    /// Renewals go before commands and before the sweep, as many as there were.
    fn renew_waiting(&mut self) {
        for _ in 0..self.inbox.renewals.len() {
            if let Ok(renew) = self.inbox.renewals.try_recv() {
                self.renew(renew, &Batch::default());
            }
        }
    }

    async fn step(&mut self, commands: Vec<Command>) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let answers = self.decide(commands, &mut batch);
        self.sweep(&mut batch);
        if let Err(error) = self.commit(&mut batch).await {
            tracing::error!(shard = self.id.0, %error, "the store failed");
            refuse(answers, &error);
            return Err(error);
        }
        let (versions, count) = (batch.versions(), batch.changes.len() as u64);
        let head = self.feed.publish(batch.changes);
        self.count();
        let revisions = Revisions { versions, first: head + 1 - count, head };
        for answer in answers {
            answer.send(&revisions);
        }
        Ok(())
    }

    fn sweep(&mut self, batch: &mut Batch) {
        let now = self.clock.now();
        let (before, overdue) = (batch.changes.len(), self.shard.overdue(now));
        self.shard.sweep(batch, now);
        let expired = batch.changes.len() - before;
        if let Some(overdue) = overdue.filter(|_| expired > 0) {
            self.metrics.expired.inc_by(expired as u64);
            self.metrics.overrun.observe(overdue.as_secs_f64());
        }
    }

    /// Waits for the disk, and lets renewals in meanwhile: a slow disk ends no lease. The leases
    /// of the batch count from its end, when their answers leave.
    async fn commit(&mut self, batch: &mut Batch) -> Result<(), StoreError> {
        let writes = std::mem::take(&mut batch.writes);
        if writes.is_empty() {
            return Ok(());
        }
        let store = self.store.clone();
        let mut committed = store.commit(writes);
        loop {
            tokio::select! {
                outcome = &mut committed => break outcome?,
                Some(renew) = self.inbox.renewals.recv() => self.renew(renew, batch),
            }
        }
        self.shard.answered(&batch.granted, self.clock.now());
        Ok(())
    }

    fn decide(&mut self, commands: Vec<Command>, batch: &mut Batch) -> Vec<Answer> {
        let now = self.clock.now();
        commands.into_iter().filter_map(|command| self.decide_one(command, batch, now)).collect()
    }

    /// Refusals and reads are answered at once: they change nothing.
    fn decide_one(&mut self, command: Command, batch: &mut Batch, now: Instant) -> Option<Answer> {
        match command {
            Command::Register(register, reply) => {
                self.metrics.registers.inc();
                if let Some(full) = self.full(&register) {
                    return refused(reply, full);
                }
                match self.shard.register(*register, batch, now) {
                    Ok(registered) => Some(Answer::Registered(reply, registered)),
                    Err(refusal) => refused(reply, refusal.into()),
                }
            }
            Command::Deregister(deregister, reply) => {
                self.metrics.deregisters.inc();
                match self.shard.deregister(deregister, batch, now) {
                    Ok(()) => Some(Answer::Deregistered(reply)),
                    Err(refusal) => refused(reply, refusal.into()),
                }
            }
            Command::Hear(heard, reply) => {
                self.hear(heard, batch, now);
                Some(Answer::Heard(reply))
            }
            Command::Reap(before) => {
                self.shard.reap(before, batch);
                None
            }
            Command::Tombstones(reply) => {
                let _ = reply.send(self.shard.tombstones());
                None
            }
        }
    }

    fn hear(&mut self, heard: Vec<Heard>, batch: &mut Batch, now: Instant) {
        for heard in heard {
            self.metrics.heard.inc();
            if let Err(malformed) = self.shard.hear(heard, batch, now) {
                let refusal = Refusal::from(malformed);
                tracing::warn!(shard = self.id.0, %refusal, "a peer sent what may not be registered");
            }
        }
    }

    /// `batch` is what is pending.
    fn renew(&mut self, renew: Renew, batch: &Batch) {
        let now = self.clock.now();
        self.metrics.renews.inc_by(renew.lease_ids.len() as u64);
        let answer = self.shard.renew(&renew.lease_ids, &renew.owner, batch, now);
        let _ = renew.reply.send(answer);
    }

    fn full(&self, register: &Register) -> Option<Failure> {
        let limit = self.max_registrations;
        let full = self.table.len() >= limit && self.table.get(&register.registration.name).is_none();
        full.then_some(Failure::Exhausted { what: "max_registrations", limit })
    }

    fn count(&self) {
        self.metrics.keys.set(self.table.shard_len(self.id) as i64);
        self.metrics.leases.set(self.shard.lease_count() as i64);
        self.metrics.tombstones.set(self.shard.tombstone_count() as i64);
    }
}

/// Where a batch stands in the history.
struct Revisions {
    // As `Batch::versions`.
    versions: Vec<(u64, usize)>,
    // Of its first change.
    first: u64,
    head: u64,
}

impl Revisions {
    /// Of the change that wrote a version, or a later one when that was before the batch.
    fn of(&self, version: u64) -> u64 {
        match self.versions.binary_search_by_key(&version, |(version, _)| *version) {
            Ok(at) => self.versions.get(at).map_or(self.head, |(_, place)| self.first + *place as u64),
            Err(_) => self.head,
        }
    }
}

impl Answer {
    // Whoever asked may have gone; the write stands.
    fn send(self, revisions: &Revisions) {
        match self {
            Answer::Registered(reply, registered) => {
                drop(reply.send(Ok((registered, revisions.of(registered.version)))));
            }
            Answer::Deregistered(reply) => drop(reply.send(Ok(((), revisions.head)))),
            Answer::Heard(reply) => drop(reply.send(Ok(()))),
        }
    }
}

fn refused<T>(reply: Reply<T>, failure: Failure) -> Option<Answer> {
    let _ = reply.send(Err(failure));
    None
}

fn refuse(answers: Vec<Answer>, error: &StoreError) {
    let failure = match error {
        StoreError::Fenced => Failure::StoreFenced,
        other => Failure::StoreUnsure(other.to_string()),
    };
    for answer in answers {
        match answer {
            Answer::Registered(reply, _) => drop(reply.send(Err(failure.clone()))),
            Answer::Deregistered(reply) => drop(reply.send(Err(failure.clone()))),
            Answer::Heard(reply) => drop(reply.send(Err(failure.clone()))),
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
