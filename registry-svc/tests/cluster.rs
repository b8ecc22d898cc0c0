//! Instances that follow each other, and what is left when one of them dies.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use proto::registry::{BackendReport, BackendStatus};
use registry_client::{Error, Keeper, tiers::STALENESS_BOUND};
use registry_svc::Config;
use std::time::Duration;
use support::{Cluster, durable, ephemeral, names, until};
use tokio::time::Instant;

const TTL: Duration = Duration::from_secs(1);

async fn sees(cluster: &Cluster, node: &str, expected: &[&str]) {
    let client = cluster.client(node);
    until(&format!("{node} sees {expected:?}"), || {
        let client = client.clone();
        async move { names(&client).await == expected }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_instance_answers_every_name() {
    let cluster = Cluster::of(3, Config::default()).await;
    for n in 1..=3 {
        cluster
            .client(&format!("n{n}"))
            .register(durable(&format!("b{n}"), "operator", "x"), false)
            .await
            .unwrap();
    }
    for n in 1..=3 {
        sees(&cluster, &format!("n{n}"), &["b1", "b2", "b3"]).await;
    }
    let found = cluster.client("n3").lookup("b1").await.unwrap();
    assert_eq!((found.origin.as_str(), found.owner.as_str()), ("n1", "operator"));
    let refused = cluster.client("n2").register(durable("b1", "somebody", "y"), true).await;
    assert!(matches!(refused, Err(Error::AlreadyRegistered { owner, .. }) if owner == "operator"));
    let same = cluster.client("n2").register(durable("b1", "node/n2", "x"), false).await.unwrap();
    assert!(!same.created, "several nodes import one file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_instance_takes_nothing_durable_along_and_its_leases_run_out() {
    let cluster = Cluster::of(3, Config::default()).await;
    let n1 = cluster.client("n1");
    n1.register(durable("kept", "operator", "x"), false).await.unwrap();
    n1.register(durable("freed", "operator", "x"), false).await.unwrap();
    n1.register(ephemeral("worker", "w", TTL), false).await.unwrap();
    for node in ["n2", "n3"] {
        sees(&cluster, node, &["freed", "kept", "worker"]).await;
    }
    let last_seen = Instant::now();
    cluster.kill("n1").await;
    sees(&cluster, "n2", &["freed", "kept"]).await;
    assert!(last_seen.elapsed() >= TTL, "expired early");
    sees(&cluster, "n3", &["freed", "kept"]).await;

    cluster.client("n2").deregister("freed", "operator", false).await.unwrap();
    sees(&cluster, "n3", &["kept"]).await;
    cluster.start("n1").await;
    for node in ["n1", "n2", "n3"] {
        sees(&cluster, node, &["kept"]).await;
    }
    // What the returned one writes is newer than all it wrote before.
    cluster.client("n1").register(durable("freed", "operator", "y"), false).await.unwrap();
    for node in ["n1", "n2", "n3"] {
        sees(&cluster, node, &["freed", "kept"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_cluster_restarts_from_its_disks() {
    let cluster = Cluster::of(3, Config::default()).await;
    cluster.client("n1").register(durable("a", "operator", "x"), false).await.unwrap();
    cluster.client("n2").register(durable("b", "operator", "x"), false).await.unwrap();
    for node in ["n1", "n2", "n3"] {
        sees(&cluster, node, &["a", "b"]).await;
    }
    cluster.client("n3").deregister("a", "operator", false).await.unwrap();
    sees(&cluster, "n1", &["b"]).await;
    for node in ["n1", "n2", "n3"] {
        cluster.kill(node).await;
    }
    // n2 has never heard of the end of "a" unless it was told before: n3 tells it again.
    for node in ["n2", "n3"] {
        cluster.start(node).await;
        sees(&cluster, node, &["b"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_lost_its_disk_gets_all_back_from_its_peers() {
    let cluster = Cluster::of(2, Config::default()).await;
    cluster.client("n1").register(durable("a", "operator", "x"), false).await.unwrap();
    cluster.client("n2").register(durable("b", "operator", "x"), false).await.unwrap();
    sees(&cluster, "n2", &["a", "b"]).await;
    sees(&cluster, "n1", &["a", "b"]).await;
    cluster.kill("n1").await;
    cluster.wipe("n1");
    cluster.start("n1").await;
    for node in ["n1", "n2"] {
        sees(&cluster, node, &["a", "b"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_registration_moves_to_another_instance_when_its_own_dies() {
    let cluster = Cluster::of(2, Config::default()).await;
    let keeper = Keeper::new(cluster.roaming("n2", "n1"));
    keeper.keep(ephemeral("worker", "w", TTL)).await.unwrap();
    sees(&cluster, "n2", &["worker"]).await;
    cluster.kill("n1").await;
    let n2 = cluster.client("n2");
    until("n2 grants the lease", || {
        let n2 = n2.clone();
        async move { n2.lookup("worker").await.is_ok_and(|found| found.origin == "n2") }
    })
    .await;
    let moved = Instant::now();
    while moved.elapsed() < TTL * 2 {
        assert!(n2.lookup("worker").await.is_ok(), "it is renewed");
        tokio::time::sleep(TTL / 20).await;
    }
    keeper.release("worker", "w").await.unwrap();
    assert!(matches!(n2.lookup("worker").await, Err(Error::NotFound(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_can_say_why_a_backend_is_out() {
    let cluster = Cluster::of(2, Config::default()).await;
    cluster.client("n1").register(durable("time", "operator", "x"), false).await.unwrap();
    let report = |state: &str, reason: &str| BackendReport {
        name: "time".into(),
        status: Some(BackendStatus { state: state.into(), reason: reason.into(), ..Default::default() }),
    };
    sees(&cluster, "n2", &["time"]).await;
    cluster.client("n1").report_status("n1", vec![report("ready", "")]).await.unwrap();
    cluster.client("n2").report_status("n2", vec![report("failing", "exit code 127")]).await.unwrap();
    for node in ["n1", "n2"] {
        let client = cluster.client(node);
        until("both edges' reports", || {
            let client = client.clone();
            async move {
                let found = client.lookup("time").await.unwrap();
                let edges: Vec<&str> = found.statuses.iter().map(|status| status.edge.as_str()).collect();
                edges == ["n1", "n2"] && found.status.is_some_and(|worst| worst.reason == "exit code 127")
            }
        })
        .await;
    }
    let unknown_state = cluster.client("n1").report_status("n1", vec![report("broken", "")]).await;
    assert!(matches!(unknown_state, Err(Error::Invalid(message)) if message.contains("\"broken\"")));
}

/// Freed names that a node remembers.
fn tombstones(cluster: &Cluster, node: &str) -> u32 {
    let metrics = cluster.node(node).context().metrics.encode();
    let values = metrics.lines().filter(|line| line.starts_with("swarm_registry_tombstones{"));
    values.map(|line| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_stays_while_a_peer_is_away_and_goes_when_all_have_heard() {
    let retention = Duration::from_millis(100);
    let config =
        Config { tombstone_retention: retention, sweep_interval: retention / 2, ..Config::default() };
    let cluster = Cluster::of(2, config).await;
    let n1 = cluster.client("n1");
    n1.register(durable("a", "operator", "x"), false).await.unwrap();
    sees(&cluster, "n2", &["a"]).await;
    cluster.kill("n2").await;
    n1.deregister("a", "operator", false).await.unwrap();
    let freed = Instant::now();
    while freed.elapsed() < retention * 5 {
        assert_eq!(tombstones(&cluster, "n1"), 1, "n2 may still come back with the name");
        tokio::time::sleep(retention / 10).await;
    }
    cluster.start("n2").await;
    sees(&cluster, "n2", &[]).await;
    for node in ["n1", "n2"] {
        until("the tombstone is forgotten", || async { tombstones(&cluster, node) == 0 }).await;
        sees(&cluster, node, &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_goes_on_at_another_instance() {
    let cluster = Cluster::of(2, Config::default()).await;
    let mut mirror = cluster.roaming("n2", "n1").mirror(Default::default());
    cluster.client("n1").register(durable("a", "operator", "x"), false).await.unwrap();
    mirror.synced().await;
    until("the mirror shows a", || {
        let names = mirror.snapshot();
        async move { names.keys().eq(["a"]) }
    })
    .await;
    sees(&cluster, "n2", &["a"]).await;
    cluster.kill("n1").await;
    cluster.client("n2").deregister("a", "operator", false).await.unwrap();
    cluster.client("n2").register(durable("b", "operator", "x"), false).await.unwrap();
    until("the mirror shows b only", || {
        let names = mirror.snapshot();
        async move { names.keys().eq(["b"]) }
    })
    .await;
    assert!(mirror.age() < STALENESS_BOUND, "{:?}", mirror.age());
    cluster.kill("n2").await;
    until("the mirror knows that it is cut off", || {
        let age = mirror.age();
        async move { age >= STALENESS_BOUND }
    })
    .await;
    assert!(mirror.snapshot().contains_key("b"), "the last view stays");
}
