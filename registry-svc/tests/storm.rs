//! Many leases at once after an outage longer than their time to live (RELIABILITY F23): the
//! registry stands still, then it is killed and starts anew, while new work is offered all along.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use futures::{StreamExt as _, TryStreamExt as _};
use kit::test::eventually;
use registry_client::{Filter, Keeper, RegistryClient};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};
use support::{
    durable, ephemeral,
    process::{Process, client},
};
use tokio::{task::JoinSet, time::Instant};

/// Leases; `SWARM_LEASES` asks for more, `SWARM_LEASE_TTL` for another time to live in seconds.
const LEASES: u32 = 1000;
const TTL: u64 = 6;
/// Nodes that hold them, each with a keeper and a connection of its own.
const HOLDERS: u32 = 20;
/// Clients that offer new work.
const WORKERS: u32 = 8;
/// By then all leases must be back.
const BACK: Duration = Duration::from_secs(30);

struct Storm {
    process: Option<Process>,
    dir: tempfile::TempDir,
    addr: String,
    leases: u32,
    ttl: Duration,
    keepers: Vec<Keeper>,
    work: Arc<AtomicU32>,
    _working: JoinSet<()>,
}

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

impl Storm {
    async fn gather() -> Self {
        let (leases, ttl) = (setting("SWARM_LEASES", LEASES), setting("SWARM_LEASE_TTL", TTL));
        let dir = tempfile::tempdir().unwrap();
        let process = Process::start(dir.path(), "127.0.0.1:0", &[]).await;
        let (addr, work) = (process.grpc.clone(), Arc::default());
        let mut storm = Self {
            process: Some(process),
            dir,
            addr,
            leases,
            ttl: Duration::from_secs(ttl),
            keepers: Vec::new(),
            work,
            _working: JoinSet::new(),
        };
        storm.hold().await;
        for worker in 0..WORKERS {
            storm._working.spawn(work_on(client(&storm.addr), worker, storm.work.clone()));
        }
        storm
    }

    async fn hold(&mut self) {
        let mut holding = JoinSet::new();
        for holder in 0..HOLDERS {
            let (addr, ttl) = (self.addr.clone(), self.ttl);
            let mine = (0..self.leases).filter(move |n| n % HOLDERS == holder);
            holding.spawn(async move {
                let keeper = Keeper::new(client(&addr));
                let keep = |n| keeper.keep(ephemeral(&format!("lease{n}"), &format!("holder{holder}"), ttl));
                let kept = futures::stream::iter(mine.map(keep)).buffer_unordered(32);
                kept.try_for_each(|()| std::future::ready(Ok(()))).await.unwrap();
                keeper
            });
        }
        self.keepers = holding.join_all().await;
    }

    fn process(&self) -> &Process {
        self.process.as_ref().unwrap()
    }

    /// Lease by name.
    async fn held(&self) -> BTreeMap<String, u64> {
        let filter = Filter { name_prefix: "lease".into(), ..Filter::default() };
        let all = client(&self.addr).list(&filter).await.unwrap_or_default();
        all.into_iter().map(|one| (one.name, one.lease_id)).collect()
    }

    async fn expirations(&self) -> f64 {
        self.process().metric("swarm_registry_expirations_total").await
    }

    /// New work that is answered in a second.
    async fn goodput(&self, length: Duration) -> f64 {
        let (before, start) = (self.work.load(Relaxed), Instant::now());
        tokio::time::sleep(length).await;
        f64::from(self.work.load(Relaxed) - before) / start.elapsed().as_secs_f64()
    }

    /// How long until all leases are there, and the new work that was answered meanwhile.
    async fn back(&self) -> (Duration, u32) {
        let (start, before) = (Instant::now(), self.work.load(Relaxed));
        let leases = self.leases;
        eventually("all leases are back", BACK, || async {
            let held = self.process().metric("swarm_registry_leases").await;
            (held >= f64::from(leases)).then_some(())
        })
        .await;
        (start.elapsed(), self.work.load(Relaxed) - before)
    }
}

/// Registers durable names, one after the other, whatever happens.
async fn work_on(client: RegistryClient, worker: u32, done: Arc<AtomicU32>) {
    for n in 0u64.. {
        let name = format!("work{worker}-{}", n % 100);
        if client.register(durable(&name, "o", &n.to_string()), true).await.is_ok() {
            done.fetch_add(1, Relaxed);
        } else {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_stood_still_longer_than_every_lease_ends_none_of_them() {
    let storm = Storm::gather().await;
    let (before, usual) = (storm.held().await, storm.goodput(storm.ttl / 2).await);
    assert_eq!(before.len() as u32, storm.leases);
    storm.process().stand_still();
    tokio::time::sleep(storm.ttl + Duration::from_secs(2)).await;
    storm.process().go_on();
    let meanwhile = storm.goodput(storm.ttl).await;
    // Each holder has to have renewed by now, and the grace is over.
    tokio::time::sleep(storm.ttl + Duration::from_secs(5)).await;
    let after = storm.goodput(storm.ttl / 2).await;
    let held = storm.held().await;
    let lost = before.iter().filter(|(name, lease)| held.get(*name) != Some(*lease)).count();
    assert_eq!(lost, 0, "leases were lost, or had to be granted again");
    assert_eq!(storm.expirations().await, 0.0);
    println!(
        "{} leases of {} s after a standstill of {} s: 0 expired; new work {usual:.0}/s before, {meanwhile:.0}/s \
         right after, {after:.0}/s later",
        storm.leases,
        storm.ttl.as_secs(),
        storm.ttl.as_secs() + 2,
    );
    assert!(meanwhile > 0.0, "no new work was done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_starts_anew_has_every_lease_back_within_30_seconds() {
    let mut storm = Storm::gather().await;
    let usual = storm.goodput(storm.ttl / 2).await;
    storm.process.take().unwrap().kill().await;
    tokio::time::sleep(storm.ttl + Duration::from_secs(1)).await;
    storm.process = Some(Process::start(storm.dir.path(), &storm.addr, &[]).await);
    let (took, work) = storm.back().await;
    let held = storm.held().await;
    assert_eq!(held.len() as u32, storm.leases);
    let after = storm.goodput(storm.ttl * 2).await;
    assert!(storm.held().await == held, "a lease was lost again");
    assert_eq!(storm.expirations().await, 0.0);
    assert!(storm.process().metric("swarm_registry_shard_ops_total{shard=\"0\",op=\"return\"}").await > 0.0);
    println!(
        "{} leases of {} s after a restart: all back in {took:.1?}, 0 expired; new work {usual:.0}/s before, {work} \
         meanwhile, {after:.0}/s after",
        storm.leases,
        storm.ttl.as_secs(),
    );
    assert!(work > 0 || took < Duration::from_secs(1), "no new work was done");
}
