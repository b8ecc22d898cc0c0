//! Waiting for a name, and for the end of a registration.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use kit::rpc::with_deadline;
use proto::{
    error::{Code, detail},
    registry::{AwaitRequest, LookupRequest, MonitorRequest, Registration, monitor_response::Outcome},
};
use registry_client::{End, Error, RegistryClient};
use registry_svc::Config;
use std::time::Duration;
use support::{Cluster, SOON, durable, ephemeral, until};
use tokio::{task::JoinHandle, time::Instant};

const TTL: Duration = Duration::from_secs(1);
/// As long as an instance waits to hear of what it does not know.
const HEAR: Duration = Duration::from_secs(2);

/// Calls that wait at a node now.
fn waiting(cluster: &Cluster, node: &str) -> u32 {
    let metrics = cluster.node(node).context().metrics.encode();
    let line = metrics.lines().find(|line| line.starts_with("swarm_registry_waiters ")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

async fn has_waiters(cluster: &Cluster, node: &str, count: u32) {
    until(&format!("{count} calls wait at {node}"), || async { waiting(cluster, node) == count }).await;
}

/// Starts a monitor and waits until it is in place.
async fn monitor(cluster: &Cluster, node: &str, name: &str) -> JoinHandle<Result<End, Error>> {
    let client = cluster.client(node);
    let found = client.find(name).await.unwrap();
    let before = waiting(cluster, node);
    let monitor = tokio::spawn(async move { client.monitor(found).await });
    has_waiters(cluster, node, before + 1).await;
    monitor
}

async fn ended(monitor: JoinHandle<Result<End, Error>>) -> End {
    tokio::time::timeout(SOON, monitor).await.unwrap().unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_answered_at_once_or_when_it_appears_anywhere() {
    let cluster = Cluster::of(2, Config::default()).await;
    let n1 = cluster.client("n1");
    n1.register(durable("there", "o", "x"), false).await.unwrap();
    assert_eq!(n1.await_name("there", Duration::ZERO).await.unwrap().registration.name, "there");
    let n2 = cluster.client("n2");
    let coming = tokio::spawn(async move { n2.await_name("coming", SOON).await });
    has_waiters(&cluster, "n2", 1).await;
    n1.register(durable("coming", "o", "x"), false).await.unwrap();
    let found = tokio::time::timeout(SOON, coming).await.unwrap().unwrap().unwrap();
    assert_eq!((found.registration.name.as_str(), found.registration.origin.as_str()), ("coming", "n1"));
    has_waiters(&cluster, "n2", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_does_not_come_is_not_found_when_the_time_is_over_and_not_before() {
    let cluster = Cluster::of(1, Config::default()).await;
    let (start, wait) = (Instant::now(), Duration::from_millis(300));
    let late = cluster.client("n1").await_name("nobody", wait).await;
    assert!(matches!(late, Err(Error::NotFound(message)) if message.contains("\"nobody\"")));
    assert!(start.elapsed() >= wait);
    assert_eq!(waiting(&cluster, "n1"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiters_are_bounded_and_whoever_leaves_frees_the_place() {
    let cluster = Cluster::of(1, Config { max_waiters: 1, ..Config::default() }).await;
    let ask = |name: &str| {
        let mut stub = cluster.stub("n1");
        let request = AwaitRequest { name: name.into(), wait_ms: 5000 };
        async move { stub.r#await(with_deadline(request, SOON)).await }
    };
    let first = tokio::spawn(ask("a"));
    has_waiters(&cluster, "n1", 1).await;
    let refused = ask("b").await.unwrap_err();
    assert_eq!((Code::of(&refused), detail(&refused, "limit").as_deref()), (Code::Exhausted, Some("1")));
    assert!(refused.message().contains("max_waiters of 1"), "{refused}");
    first.abort();
    has_waiters(&cluster, "n1", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_tells_how_it_ended_once() {
    let cluster = Cluster::of(1, Config::default()).await;
    let client = cluster.client("n1");
    client.register(durable("freed", "o", "x"), false).await.unwrap();
    client.register(durable("changed", "o", "x"), false).await.unwrap();
    client.register(ephemeral("silent", "o", TTL), false).await.unwrap();
    let freed = monitor(&cluster, "n1", "freed").await;
    let changed = monitor(&cluster, "n1", "changed").await;
    let silent = monitor(&cluster, "n1", "silent").await;
    client.deregister("freed", "o", false).await.unwrap();
    client.register(durable("freed", "o", "x"), false).await.unwrap();
    client.register(durable("changed", "o", "y"), true).await.unwrap();
    let ends = (ended(freed).await, ended(changed).await, ended(silent).await);
    assert_eq!(ends, (End::Deregistered, End::Replaced, End::Expired));
    assert_eq!(waiting(&cluster, "n1"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_between_the_look_up_and_the_monitor_is_told_at_once() {
    let cluster = Cluster::of(1, Config::default()).await;
    let client = cluster.client("n1");
    let found = async |name: &str| {
        client.register(durable(name, "o", "x"), false).await.unwrap();
        client.find(name).await.unwrap()
    };
    let (freed, back, changed) = (found("freed").await, found("back").await, found("changed").await);
    client.deregister("freed", "o", false).await.unwrap();
    client.deregister("back", "o", false).await.unwrap();
    client.register(durable("back", "o", "x"), false).await.unwrap();
    client.register(durable("changed", "o", "y"), true).await.unwrap();
    let start = Instant::now();
    assert_eq!(client.monitor(freed).await, Ok(End::Deregistered));
    assert_eq!(client.monitor(back).await, Ok(End::Deregistered), "it is another one, though the same value");
    assert_eq!(client.monitor(changed).await, Ok(End::Replaced));
    assert!(start.elapsed() < HEAR, "nobody had to be waited for");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_still_stands_after_the_time_is_told_with_what_to_go_on_with() {
    let cluster = Cluster::of(1, Config::default()).await;
    cluster.client("n1").register(durable("a", "o", "x"), false).await.unwrap();
    let mut stub = cluster.stub("n1");
    let lookup = LookupRequest { name: "a".into(), ..Default::default() };
    let looked_up = stub.lookup(with_deadline(lookup, SOON)).await.unwrap().into_inner();
    let request = MonitorRequest {
        registration: looked_up.registration.clone(),
        revision: looked_up.revision,
        node: looked_up.node,
        wait_ms: 50,
    };
    let answer = stub.monitor(with_deadline(request, SOON)).await.unwrap().into_inner();
    let Some(Outcome::Standing(standing)) = answer.outcome else { panic!("it ended") };
    assert_eq!(standing.registration, looked_up.registration);
    assert_eq!((standing.revision, standing.node.as_str()), (looked_up.revision, "n1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_outlives_its_instance_and_a_lease_that_moves_is_no_end() {
    let cluster = Cluster::of(2, Config::default()).await;
    let worker = ephemeral("worker", "w", TTL * 3);
    let n1 = cluster.roaming("n2", "n1");
    n1.register(worker.clone(), false).await.unwrap();
    let found = n1.find("worker").await.unwrap();
    let monitor = tokio::spawn({
        let n1: RegistryClient = n1.clone();
        async move { n1.monitor(found).await }
    });
    has_waiters(&cluster, "n1", 1).await;
    let n2 = cluster.client("n2");
    n2.await_name("worker", SOON).await.unwrap();
    cluster.kill("n1").await;
    has_waiters(&cluster, "n2", 1).await;
    let moved = n2.register(worker, false).await.unwrap();
    assert!(!moved.created, "its owner came to n2");
    has_waiters(&cluster, "n2", 1).await;
    assert!(!monitor.is_finished());
    n2.deregister("worker", "w", false).await.unwrap();
    assert_eq!(ended(monitor).await, End::Deregistered);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_has_not_heard_of_it_waits_before_it_says_gone() {
    let cluster = Cluster::of(1, Config::default()).await;
    let registration = Registration { version: 5, origin: "n9".into(), ..durable("a", "o", "x") };
    let request =
        MonitorRequest { registration: Some(registration), node: "n9".into(), ..Default::default() };
    let start = Instant::now();
    let answer = cluster.stub("n1").monitor(with_deadline(request, SOON)).await.unwrap().into_inner();
    let Some(Outcome::Ended(end)) = answer.outcome else { panic!("it stands") };
    assert_eq!((end.cause.as_str(), end.version), ("gone", 0));
    assert!(start.elapsed() >= HEAR);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_request_gets_a_precise_answer() {
    let cluster = Cluster::of(1, Config::default()).await;
    let mut stub = cluster.stub("n1");
    let long = AwaitRequest { name: "a".into(), wait_ms: 3_600_001 };
    let refused = stub.r#await(with_deadline(long, SOON)).await.unwrap_err();
    assert_eq!(detail(&refused, "field").as_deref(), Some("wait_ms"));
    let bad_name = AwaitRequest { name: "a b".into(), wait_ms: 1 };
    let refused = stub.r#await(with_deadline(bad_name, SOON)).await.unwrap_err();
    assert!(refused.message().contains("' ' at position 1"), "{refused}");
    let refused = stub.monitor(with_deadline(MonitorRequest::default(), SOON)).await.unwrap_err();
    assert_eq!(refused.message(), "registration is missing");
}
