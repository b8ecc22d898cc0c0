//! Leases over gRPC: what shortens or lengthens them, and what does not.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use kit::clock::{Clock, SystemClock, Timestamp};
use proto::registry::WatchRequest;
use registry_svc::Config;
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
    time::Duration,
};
use support::{
    Cluster, SOON, ephemeral,
    process::{Process, client},
    until,
};
use tokio::time::Instant;

const TTL: Duration = Duration::from_secs(1);
const TEN_MINUTES_MS: i64 = 600_000;

/// A machine whose wall clock is set by somebody.
#[derive(Default)]
struct Jumping {
    offset_ms: AtomicI64,
}

impl Clock for Jumping {
    fn now(&self) -> std::time::Instant {
        SystemClock.now()
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp(SystemClock.timestamp().0.saturating_add_signed(self.offset_ms.load(SeqCst)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_that_jumps_ends_no_lease_early_or_late() {
    let clock = Arc::new(Jumping::default());
    let mut cluster = Cluster::new(Config::default());
    cluster.clock = clock.clone();
    cluster.start("n1").await;
    let client = cluster.client("n1");
    let lease = client.register(ephemeral("w", "o", TTL), false).await.unwrap().lease_id;
    for jump in [TEN_MINUTES_MS, -TEN_MINUTES_MS, 2 * TEN_MINUTES_MS, -TEN_MINUTES_MS] {
        clock.offset_ms.store(jump, SeqCst);
        tokio::time::sleep(TTL / 2).await;
        assert_eq!(client.renew(&[lease], "o").await.unwrap().renewed, [lease], "after {jump} ms");
    }
    let renewed = Instant::now();
    clock.offset_ms.store(2 * TEN_MINUTES_MS, SeqCst);
    let last_seen = last_seen(&client, "w").await;
    assert!(last_seen + Duration::from_millis(100) >= renewed + TTL, "expired early");
    assert!(renewed.elapsed() < TTL + Duration::from_secs(1), "gone late");
}

/// When a name was last there.
async fn last_seen(client: &registry_client::RegistryClient, name: &str) -> Instant {
    let mut seen = Instant::now();
    while client.lookup(name).await.is_ok() {
        seen = Instant::now();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_of_the_owner_shortens_nothing_and_another_one_renews() {
    let cluster = Cluster::of(1, Config::default()).await;
    let address = cluster.node("n1").context().advertise.clone();
    let observer = cluster.client("n1");
    let owner = client(&address);
    let left = owner.register(ephemeral("left", "o", TTL * 2), false).await.unwrap();
    let kept = owner.register(ephemeral("kept", "o", TTL * 2), false).await.unwrap();
    let granted = Instant::now();
    drop(owner);
    tokio::time::sleep(TTL).await;
    assert_eq!(client(&address).renew(&[kept.lease_id], "o").await.unwrap().renewed, [kept.lease_id]);
    let seen = last_seen(&observer, "left").await;
    assert!(seen + Duration::from_millis(100) >= granted + TTL * 2, "the connection took the lease along");
    assert!(granted.elapsed() < TTL * 3, "gone late");
    assert!(observer.lookup("kept").await.is_ok());
    assert_eq!(observer.renew(&[left.lease_id], "o").await.unwrap().unknown, [left.lease_id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_from_the_revision_of_a_grant_starts_right_behind_it() {
    let cluster = Cluster::of(1, Config::default()).await;
    let client = cluster.client("n1");
    let names: Vec<String> = (0..200).map(|n| format!("w{n}")).collect();
    // Together, so that many share a batch of a writer.
    let grants = names.iter().map(|name| client.register(ephemeral(name, "o", SOON), false));
    let grants = futures::future::try_join_all(grants).await.unwrap();
    for (name, grant) in names.iter().zip(&grants) {
        let request = WatchRequest { from_revision: grant.revision - 1, ..Default::default() };
        let request = kit::rpc::with_deadline(request, SOON);
        let mut stream = cluster.stub("n1").watch(request).await.unwrap().into_inner();
        let first = stream.message().await.unwrap().unwrap();
        assert_eq!(first.revision, grant.revision);
        let Some(proto::registry::watch_response::Event::Put(put)) = first.event else { panic!("{first:?}") };
        assert_eq!((&put.name, put.lease_id, put.version), (name, grant.lease_id, grant.version));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stood_still_lets_its_holders_in_and_ends_only_the_leases_of_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), "127.0.0.1:0", &[]).await;
    let (holder, observer) = (client(&process.grpc), client(&process.grpc));
    let kept = holder.register(ephemeral("kept", "o", TTL), false).await.unwrap().lease_id;
    holder.register(ephemeral("left", "o", TTL), false).await.unwrap();
    process.stand_still();
    tokio::time::sleep(TTL * 3).await;
    process.go_on();
    assert_eq!(holder.renew(&[kept], "o").await.unwrap().renewed, [kept], "expired while nobody could renew");
    let renewing = tokio::spawn(async move {
        loop {
            tokio::time::sleep(TTL / 3).await;
            assert_eq!(holder.renew(&[kept], "o").await.unwrap().renewed, [kept]);
        }
    });
    until("the lease of the one that did not come back ends", || {
        let observer = observer.clone();
        async move { observer.lookup("left").await.is_err() }
    })
    .await;
    assert!(observer.lookup("kept").await.is_ok());
    renewing.abort();
}
