//! One writer per shard: takes what waits, decides it in order, makes it durable with one
//! group commit, publishes it, and answers. Leases are renewed also while the disk is slow.

use crate::{
    core::{
        batch::Batch,
        command::{Deregister, Done, Heard, Order, Refusal, Register, Registered, Renewed, Update},
        shard::Shard,
        table::{self, Table},
    },
    error::Failure,
    feed::Feed,
    metrics::ShardMetrics,
    store::{Store, StoreError},
};
use kit::{clock::Clock, shutdown::Shutdown};
use proto::{ids::ShardId, registry::Removed};
use std::{hint::black_box, sync::Arc, time::Instant};
use tokio::sync::{mpsc, oneshot};

/// Commands decided together.
const BATCH_MAX: usize = 256;
/// New ones of them while registrations come again: new work goes on, behind them.
const BEHIND_MAX: usize = 64;

type Reply<T> = oneshot::Sender<Result<T, Failure>>;

/// An answer, and the revision of the registration that it tells of or, where none was written,
/// one at which it can be seen.
pub(crate) type At<T> = (T, u64);

/// What became of each entry of a batch, in their order.
pub(crate) type Outcomes = Vec<Result<At<Done>, Failure>>;

pub(crate) enum Command {
    Register(Box<Register>, Reply<At<Registered>>),
    Deregister(Deregister, Reply<At<()>>),
    /// Adds to a counter.
    Update(Update, Reply<At<i64>>),
    /// The entries of one request, decided in their order and committed together.
    Batch(Vec<Order>, oneshot::Sender<Outcomes>),
    /// From one peer, in its order.
    Hear(Vec<Heard>, Reply<()>),
    /// Forget tombstones of before a moment.
    Reap(Instant),
    Tombstones(oneshot::Sender<Vec<Removed>>),
}

impl Command {
    fn entries(&self) -> usize {
        match self {
            Command::Batch(orders, _) => orders.len(),
            _ => 1,
        }
    }
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
    Updated(Reply<At<i64>>, i64),
    Batch(oneshot::Sender<Outcomes>, Vec<Result<Done, Failure>>),
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
        self.metrics.returned.inc_by(commands.iter().map(Command::entries).sum::<usize>() as u64);
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
        let mut batch = Batch::with_room(commands.iter().map(Command::entries).sum());
        let answers = self.decide(commands, &mut batch);
        self.sweep(&mut batch);
        if let Err(error) = self.commit(&mut batch).await {
            tracing::error!(shard = self.id.0, %error, "the store failed");
            refuse(answers, &error);
            return Err(error);
        }
        let (versions, count) = (batch.versions(), batch.changes.len() as u64);
        let head = self.feed.publish(self.id, batch);
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
            Command::Register(register, reply) => match self.register(*register, batch, now) {
                Ok(registered) => Some(Answer::Registered(reply, registered)),
                Err(failure) => refused(reply, failure),
            },
            Command::Deregister(deregister, reply) => match self.deregister(deregister, batch, now) {
                Ok(()) => Some(Answer::Deregistered(reply)),
                Err(failure) => refused(reply, failure),
            },
            Command::Update(update, reply) => {
                self.metrics.updates.inc();
                match self.shard.update(update, batch, now) {
                    Ok(value) => Some(Answer::Updated(reply, value)),
                    Err(refusal) => refused(reply, refusal.into()),
                }
            }
            Command::Batch(orders, reply) => {
                warm(&orders);
                let outcomes = orders.into_iter().map(|order| self.obey(order, batch, now)).collect();
                Some(Answer::Batch(reply, outcomes))
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

    fn obey(&mut self, order: Order, batch: &mut Batch, now: Instant) -> Result<Done, Failure> {
        match order {
            Order::Register(register) => self.register(register, batch, now).map(Done::Registered),
            Order::Deregister(deregister) => {
                self.deregister(deregister, batch, now).map(|()| Done::Deregistered)
            }
        }
    }

    fn register(
        &mut self,
        register: Register,
        batch: &mut Batch,
        now: Instant,
    ) -> Result<Registered, Failure> {
        self.metrics.registers.inc();
        self.check_room(&register, batch)?;
        Ok(self.shard.register(register, batch, now)?)
    }

    fn deregister(&mut self, deregister: Deregister, batch: &mut Batch, now: Instant) -> Result<(), Failure> {
        self.metrics.deregisters.inc();
        Ok(self.shard.deregister(deregister, batch, now)?)
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

    fn check_room(&self, register: &Register, batch: &Batch) -> Result<(), Failure> {
        let limit = self.max_registrations;
        let len = i64::try_from(self.table.len()).unwrap_or(i64::MAX).saturating_add(batch.grown);
        let full = usize::try_from(len).is_ok_and(|len| len >= limit);
        if full && self.table.get(&register.entry.name).is_none() {
            return Err(Failure::Exhausted { what: "max_registrations", limit });
        }
        Ok(())
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

    fn registered(&self, registered: Registered) -> At<Registered> {
        (registered, self.of(registered.version))
    }

    fn done(&self, done: Done) -> At<Done> {
        match done {
            Done::Registered(registered) => (done, self.of(registered.version)),
            Done::Deregistered => (done, self.head),
        }
    }
}

impl Answer {
    // Whoever asked may have gone; the write stands.
    fn send(self, revisions: &Revisions) {
        match self {
            Answer::Registered(reply, registered) => drop(reply.send(Ok(revisions.registered(registered)))),
            Answer::Deregistered(reply) => drop(reply.send(Ok(((), revisions.head)))),
            Answer::Updated(reply, value) => drop(reply.send(Ok((value, revisions.head)))),
            Answer::Batch(reply, outcomes) => {
                let at = |outcome: Result<Done, _>| outcome.map(|done| revisions.done(done));
                drop(reply.send(outcomes.into_iter().map(at).collect()));
            }
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
            Answer::Updated(reply, _) => drop(reply.send(Err(failure.clone()))),
            Answer::Batch(reply, outcomes) => {
                // What was refused changes nothing, whatever became of the rest.
                let unsure = |outcome: Result<Done, _>| outcome.and(Err(failure.clone()));
                drop(reply.send(outcomes.into_iter().map(unsure).collect()));
            }
            Answer::Heard(reply) => drop(reply.send(Err(failure.clone()))),
        }
    }
}

/// Another core may have made them: the memory is asked for all before the first one is decided.
fn warm(orders: &[Order]) {
    let touched = orders.iter().map(|order| match order {
        Order::Register(Register { entry, .. }) => table::touch(entry),
        Order::Deregister(_) => 0,
    });
    black_box(touched.fold(0, |seen, touched| seen ^ touched));
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
