//! One writer per shard: takes what waits, decides it in order, makes it durable with one
//! group commit, publishes it, and answers.

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

type Reply<T> = oneshot::Sender<Result<T, Failure>>;

/// An answer and a revision at which it can be seen.
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
}

pub(crate) struct Inbox {
    commands: mpsc::Receiver<Command>,
    renewals: mpsc::Receiver<Renew>,
}

pub(crate) fn queues(limit: usize) -> (Queues, Inbox) {
    let (commands, commands_in) = mpsc::channel(limit);
    let (renewals, renewals_in) = mpsc::channel(limit);
    (Queues { commands, renewals }, Inbox { commands: commands_in, renewals: renewals_in })
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
                count = self.inbox.commands.recv_many(&mut commands, BATCH_MAX) => if count == 0 { return Ok(()) },
                Some(renew) = self.inbox.renewals.recv() => self.renew(renew),
                () = sleep_until(self.shard.next_end()) => {}
                // What was taken in is finished; then the queue is empty and closed.
                () = self.shutdown.wait(), if !closing => {
                    closing = true;
                    self.inbox.commands.close();
                    continue;
                }
            }
            self.renew_waiting();
            self.step(commands).await?;
        }
    }

    /// Renewals go before commands and before the sweep, as many as there were.
    fn renew_waiting(&mut self) {
        for _ in 0..self.inbox.renewals.len() {
            if let Ok(renew) = self.inbox.renewals.try_recv() {
                self.renew(renew);
            }
        }
    }

    async fn step(&mut self, commands: Vec<Command>) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let answers = self.decide(commands, &mut batch);
        let swept_from = batch.changes.len();
        self.shard.sweep(&mut batch, self.clock.now());
        self.metrics.expired.inc_by((batch.changes.len() - swept_from) as u64);
        let writes = std::mem::take(&mut batch.writes);
        if !writes.is_empty()
            && let Err(error) = self.store.commit(writes).await
        {
            tracing::error!(shard = self.id.0, %error, "the store failed");
            refuse(answers, &error);
            return Err(error);
        }
        let head = self.feed.publish(batch.changes);
        self.count();
        for answer in answers {
            answer.send(head);
        }
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

    fn renew(&mut self, renew: Renew) {
        let now = self.clock.now();
        self.metrics.renews.inc_by(renew.lease_ids.len() as u64);
        // Nothing is pending between two batches.
        let answer = self.shard.renew(&renew.lease_ids, &renew.owner, &Batch::default(), now);
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

impl Answer {
    // Whoever asked may have gone; the write stands.
    fn send(self, head: u64) {
        match self {
            Answer::Registered(reply, registered) => drop(reply.send(Ok((registered, head)))),
            Answer::Deregistered(reply) => drop(reply.send(Ok(((), head)))),
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
mod tests {
    use super::*;
    use crate::{
        core::{batch::Write, history::History, shard::Bounds},
        metrics::Metrics,
        store::Record,
    };
    use async_trait::async_trait;
    use kit::clock::SystemClock;
    use proto::registry::{Durability, Kind, Registration};
    use rand::{SeedableRng as _, rngs::StdRng};

    struct BrokenDisk;

    #[async_trait]
    impl Store for BrokenDisk {
        fn load(&self) -> Result<Vec<Record>, StoreError> {
            Ok(Vec::new())
        }

        async fn commit(&self, _writes: Vec<Write>) -> Result<(), StoreError> {
            Err(StoreError::Io("injected".into()))
        }
    }

    fn driver(inbox: Inbox, store: Arc<dyn Store>) -> Driver {
        let table = Arc::new(Table::new(1));
        let bounds = Bounds { tombstones: 10, recent: 10 };
        let rng = StdRng::seed_from_u64(1);
        Driver {
            id: ShardId(0),
            shard: Shard::new(ShardId(0), "n1".into(), table.clone(), 0, bounds, rng),
            inbox,
            store,
            feed: Feed::new(table.clone(), History::new(1, 10, 1 << 20)),
            table,
            max_registrations: 10,
            clock: Arc::new(SystemClock),
            shutdown: Shutdown::new(),
            metrics: Metrics::new(&kit::Metrics::new()).shard(ShardId(0)),
        }
    }

    #[tokio::test]
    async fn a_failed_disk_makes_the_write_unknown_shows_it_to_nobody_and_ends_the_writer() {
        let (queues, inbox) = queues(10);
        let driver = driver(inbox, Arc::new(BrokenDisk));
        let (table, feed) = (driver.table.clone(), driver.feed.clone());
        let head = feed.head();
        let registration = Registration {
            name: "a".into(),
            owner: "o".into(),
            kind: Kind::Worker.into(),
            durability: Durability::Durable.into(),
            ..Default::default()
        };
        let register = Register { request_id: String::new(), registration, replace: false };
        let (reply, answer) = oneshot::channel();
        queues.commands.try_send(Command::Register(register.into(), reply)).ok().unwrap();
        assert_eq!(driver.run().await, Err(StoreError::Io("injected".into())));
        assert!(matches!(answer.await, Ok(Err(Failure::StoreUnsure(why))) if why == "injected"));
        assert!(table.get("a").is_none());
        assert_eq!(feed.head(), head);
    }

    #[tokio::test]
    async fn what_was_taken_in_is_finished_at_the_shutdown() {
        let (queues, inbox) = queues(10);
        let driver = driver(inbox, Arc::new(crate::store::MemoryStore::default()));
        driver.shutdown.trigger();
        let (reply, answer) = oneshot::channel();
        let command =
            Deregister { request_id: String::new(), name: "a".into(), owner: "o".into(), force: false };
        queues.commands.try_send(Command::Deregister(command, reply)).ok().unwrap();
        assert_eq!(driver.run().await, Ok(()));
        assert!(matches!(answer.await, Ok(Err(Failure::Refused(Refusal::NotFound { .. })))));
        assert!(queues.commands.is_closed());
    }
}
