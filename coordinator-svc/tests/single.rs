//! One node alone: founded at once, keeps what it answered, hands out tasks.
#![allow(clippy::unwrap_used)]

mod common;

use bytes::Bytes;
use common::{Cluster, SECOND, SOON};
use coordinator_client::{Change, Error, NewTask, TaskState, TaskWish};
use prost::Message;
use proto::subjects::Fact;
use std::time::Duration;

fn task(queue: &str) -> NewTask {
    NewTask { queue: queue.into(), priority: 5, payload: "work".into(), max_attempts: 2, request_id: None }
}

fn wish(queue: &str, wait: Duration) -> TaskWish {
    TaskWish { queue: queue.into(), worker: "w1".into(), ttl: SECOND, wait }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_read_back_and_compare_and_set_holds() {
    let cluster = Cluster::started(1).await;
    let client = cluster.client_at("n1");
    let first = client.propose(Change::set("k", "a").at(0), SOON).await.unwrap();
    let lost = client.propose(Change::set("k", "b").at(0), SOON).await;
    assert_eq!(lost, Err(Error::Revision { current: first.revision }));
    let found = client.read("k", SOON).await.unwrap().unwrap();
    assert_eq!((found.value, found.revision), (Bytes::from("a"), first.revision));
    client.propose(Change::delete("k").at(first.revision), SOON).await.unwrap();
    assert_eq!(client.read("k", SOON).await.unwrap(), None);
    assert_eq!(client.read_local("k", SOON).await.unwrap(), None);

    let repeat = Change::set("r", "1").with_request_id("id-1");
    let once = client.propose(repeat.clone(), SOON).await.unwrap();
    let twice = client.propose(repeat, SOON).await.unwrap();
    assert_eq!(once.revision, twice.revision);
    let malformed = client.propose(Change::set("", "x"), SOON).await;
    assert_eq!(malformed, Err(Error::Invalid("key has 0 bytes; 1 to 256 are allowed".into())));

    let metrics = cluster.nodes["n1"].context().metrics.encode();
    for name in [
        "swarm_raft_is_leader 1",
        "swarm_raft_commit_duration_seconds_count",
        "swarm_raft_leader_changes_total 1",
    ] {
        assert!(metrics.contains(name), "{name} in\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_a_crash() {
    let mut cluster = Cluster::started(1).await;
    let client = cluster.client();
    for n in 0..50 {
        client.propose(Change::set(format!("k{n}"), n.to_string()), SOON).await.unwrap();
    }
    let id = cluster.status("n1").await.raft_id;
    cluster.kill("n1").await;
    cluster.start("n1").await;
    cluster.ready().await;
    assert_eq!(cluster.status("n1").await.raft_id, id);
    for n in 0..50 {
        let found = client.read(&format!("k{n}"), SOON).await.unwrap().unwrap();
        assert_eq!(found.value, n.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_and_the_log_after_it_give_the_state_back() {
    let mut cluster = Cluster::new(1);
    cluster.config.snapshot_every = 100;
    cluster.start("n1").await;
    cluster.ready().await;
    let client = cluster.client();
    for n in 0..350 {
        client.propose(Change::set(format!("k{}", n % 40), n.to_string()), SOON).await.unwrap();
    }
    for _ in 0..2 {
        cluster.kill("n1").await;
        cluster.start("n1").await;
        cluster.ready().await;
    }
    for n in 310..350 {
        let found = client.read(&format!("k{}", n % 40), SOON).await.unwrap().unwrap();
        assert_eq!(found.value, n.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_worker_gets_the_task_when_it_comes() {
    let cluster = Cluster::started(1).await;
    let client = cluster.client();
    let mut facts =
        cluster.nodes["n1"].context().bus.subscribe(&Fact::TaskCompleted.subject("local")).await.unwrap();
    assert_eq!(client.lease(wish("q", Duration::ZERO), SOON).await.unwrap(), None);
    let before = cluster.status("n1").await.last_log_index;
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.lease(wish("q", SECOND * 20), SOON).await }
    });
    // Waiting costs no log entries.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(cluster.status("n1").await.last_log_index, before);
    let id = client.submit(task("q"), SOON).await.unwrap();
    let leased = waiting.await.unwrap().unwrap().unwrap();
    assert_eq!(
        (leased.id.as_str(), leased.attempt, leased.payload.as_ref()),
        (id.as_str(), 1, b"work".as_ref())
    );
    let done = client.complete(&id, leased.fencing_token, Ok("result".into()), SOON).await.unwrap();
    assert_eq!(done, TaskState::Completed);
    let kept = client.get_task(&id, SOON).await.unwrap().unwrap();
    assert_eq!((kept.state(), kept.result.as_ref()), (TaskState::Completed, b"result".as_ref()));
    assert_eq!(client.get_task("t999", SOON).await.unwrap(), None);

    let fact = tokio::time::timeout(SOON, facts.next()).await.unwrap().unwrap();
    let told = coordinator_client::Task::decode(fact.payload).unwrap();
    assert_eq!((told.id, told.state), (id, TaskState::Completed.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_ends_after_its_time_and_its_worker_is_fenced() {
    let cluster = Cluster::started(1).await;
    let client = cluster.client();
    let id = client.submit(task("q"), SOON).await.unwrap();
    let first = client.lease(wish("q", Duration::ZERO), SOON).await.unwrap().unwrap();
    let start = tokio::time::Instant::now();
    let second = client.lease(wish("q", SECOND * 20), SOON).await.unwrap().unwrap();
    assert!(start.elapsed() > Duration::from_millis(900), "expired after {:?}", start.elapsed());
    assert_eq!((second.id.as_str(), second.attempt), (id.as_str(), 2));
    assert!(second.fencing_token > first.fencing_token);
    let late = client.complete(&id, first.fencing_token, Ok("late".into()), SOON).await;
    assert_eq!(late, Err(Error::Fenced { newest: second.fencing_token }));
    let failed = client.complete(&id, second.fencing_token, Err("no luck".into()), SOON).await.unwrap();
    assert_eq!(failed, TaskState::Failed);
}
