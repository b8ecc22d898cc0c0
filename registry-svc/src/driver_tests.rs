//! One writer, its queues, and disks that are slow or broken.

use super::*;
use crate::{
    core::{batch::Write, history::History, shard::Bounds, table::Entry},
    metrics::Metrics,
    store::Record,
};
use async_trait::async_trait;
use kit::clock::SystemClock;
use proto::registry::{Durability, Kind, Registration};
use rand::{SeedableRng as _, rngs::StdRng};
use std::time::Duration;

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
        feed: Feed::new(crate::names::Names::new(table.clone()), History::new(1, 10, 1 << 20), 10),
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
    let register = Register { entry: Entry::new(registration), ..register("a") };
    let (reply, answer) = oneshot::channel();
    queues.commands.try_send(Command::Register(register.into(), reply)).ok().unwrap();
    assert_eq!(driver.run().await, Err(StoreError::Io("injected".into())));
    assert!(matches!(answer.await, Ok(Err(Failure::StoreUnsure(why))) if why == "injected"));
    assert!(table.get("a").is_none());
    assert_eq!(feed.head(), head);
}

#[tokio::test]
async fn a_failed_disk_makes_entries_of_a_batch_unknown_but_not_those_that_were_refused() {
    let (queues, inbox) = queues(10);
    let driver = driver(inbox, Arc::new(BrokenDisk));
    let missing = Deregister { request_id: String::new(), name: "b".into(), owner: "o".into(), force: false };
    let orders = vec![Order::Register(durable("a")), Order::Deregister(missing)];
    let (reply, answer) = oneshot::channel();
    queues.commands.try_send(Command::Batch(orders, reply)).ok().unwrap();
    assert!(driver.run().await.is_err());
    let outcomes = answer.await.unwrap();
    assert!(matches!(&outcomes[0], Err(Failure::StoreUnsure(_))));
    assert!(matches!(&outcomes[1], Err(Failure::Refused(Refusal::NotFound { .. }))));
}

/// An ephemeral worker with a second to live.
fn register(name: &str) -> Register {
    let registration = Registration {
        name: name.into(),
        owner: "o".into(),
        kind: Kind::Worker.into(),
        durability: Durability::Ephemeral.into(),
        ttl_ms: 1000,
        ..Default::default()
    };
    Register::new(registration)
}

async fn registered(queue: &mpsc::Sender<Command>, register: Register) -> At<Registered> {
    let (reply, answer) = oneshot::channel();
    queue.send(Command::Register(register.into(), reply)).await.ok().unwrap();
    answer.await.unwrap().unwrap()
}

async fn renewed(queues: &Queues, lease: u64) -> Renewed {
    let (reply, answer) = oneshot::channel();
    let renew = Renew { lease_ids: vec![lease], owner: String::new(), reply };
    queues.renewals.send(renew).await.ok().unwrap();
    answer.await.unwrap()
}

/// A disk that takes as long as it is told to, by tokio's clock.
struct SlowDisk(Duration);

#[async_trait]
impl Store for SlowDisk {
    fn load(&self) -> Result<Vec<Record>, StoreError> {
        Ok(Vec::new())
    }

    async fn commit(&self, _writes: Vec<Write>) -> Result<(), StoreError> {
        tokio::time::sleep(self.0).await;
        Ok(())
    }
}

fn durable(name: &str) -> Register {
    let mut register = register(name);
    Arc::make_mut(&mut register.entry).registration.durability = Durability::Durable.into();
    register
}

#[tokio::test(start_paused = true)]
async fn a_slow_disk_ends_no_lease() {
    let slow = Duration::from_secs(5);
    let (queues, inbox) = queues(10);
    let driver = driver(inbox, Arc::new(SlowDisk(slow)));
    let (table, shutdown) = (driver.table.clone(), driver.shutdown.clone());
    let running = tokio::spawn(driver.run());
    let (leased, _) = registered(&queues.commands, register("w")).await;
    let writing = queues.commands.clone();
    let writing = tokio::spawn(async move { registered(&writing, durable("d")).await });
    for _ in 0..9 {
        tokio::time::sleep(slow / 10).await;
        assert!(!writing.is_finished());
        assert_eq!(renewed(&queues, leased.lease_id).await.renewed, [leased.lease_id]);
    }
    writing.await.unwrap();
    assert!(table.get("w").is_some());
    shutdown.trigger();
    assert_eq!(running.await.unwrap(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_lease_counts_from_its_answer_however_long_the_disk_took() {
    let (queues, inbox) = queues(10);
    let driver = driver(inbox, Arc::new(SlowDisk(Duration::from_secs(5))));
    let (table, shutdown) = (driver.table.clone(), driver.shutdown.clone());
    // Both wait when the writer starts, so that they share a batch.
    let (reply, leased) = oneshot::channel();
    queues.commands.try_send(Command::Register(register("w").into(), reply)).ok().unwrap();
    let (reply, _written) = oneshot::channel();
    queues.commands.try_send(Command::Register(durable("d").into(), reply)).ok().unwrap();
    let running = tokio::spawn(driver.run());
    leased.await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(990)).await;
    assert!(table.get("w").is_some(), "expired early");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(table.get("w").is_none());
    shutdown.trigger();
    assert_eq!(running.await.unwrap(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn holders_are_let_in_after_a_standstill_before_leases_end() {
    let (queues, inbox) = queues(10);
    let driver = driver(inbox, Arc::new(crate::store::MemoryStore::default()));
    let (table, shutdown) = (driver.table.clone(), driver.shutdown.clone());
    let running = tokio::spawn(driver.run());
    let (kept, _) = registered(&queues.commands, register("kept")).await;
    registered(&queues.commands, register("left")).await;
    // Nothing runs while the time passes: the process stands still.
    tokio::time::advance(Duration::from_secs(60)).await;
    tokio::time::sleep(Duration::from_millis(4500)).await;
    assert!(table.get("kept").is_some() && table.get("left").is_some());
    assert_eq!(renewed(&queues, kept.lease_id).await.renewed, [kept.lease_id]);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(table.get("kept").is_some() && table.get("left").is_none());
    shutdown.trigger();
    assert_eq!(running.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn what_comes_again_is_decided_before_what_is_new_and_each_answer_tells_its_revision() {
    let (queues, inbox) = queues(10);
    let driver = driver(inbox, Arc::new(crate::store::MemoryStore::default()));
    let (feed, shutdown) = (driver.feed.clone(), driver.shutdown.clone());
    let start = feed.head();
    let send = |queue: &mpsc::Sender<Command>, name: &str| {
        let (reply, answer) = oneshot::channel();
        queue.try_send(Command::Register(register(name).into(), reply)).ok().unwrap();
        answer
    };
    let new = [send(&queues.commands, "new1"), send(&queues.commands, "new2")];
    let again = [send(&queues.returning, "again1"), send(&queues.returning, "again2")];
    let running = tokio::spawn(driver.run());
    for (place, answer) in again.into_iter().chain(new).enumerate() {
        let (_, revision) = answer.await.unwrap().unwrap();
        assert_eq!(revision, start + 1 + place as u64);
    }
    shutdown.trigger();
    assert_eq!(running.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn what_was_taken_in_is_finished_at_the_shutdown() {
    let (queues, inbox) = queues(10);
    let driver = driver(inbox, Arc::new(crate::store::MemoryStore::default()));
    driver.shutdown.trigger();
    let (reply, answer) = oneshot::channel();
    let command = Deregister { request_id: String::new(), name: "a".into(), owner: "o".into(), force: false };
    queues.commands.try_send(Command::Deregister(command, reply)).ok().unwrap();
    assert_eq!(driver.run().await, Ok(()));
    assert!(matches!(answer.await, Ok(Err(Failure::Refused(Refusal::NotFound { .. })))));
    assert!(queues.commands.is_closed());
}
