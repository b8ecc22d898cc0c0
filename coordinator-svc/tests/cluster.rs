//! Three nodes in one process: one leader, one order, nothing answered is lost.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Cluster, SECOND, SOON};
use coordinator_client::{Change, Error, NewTask, TaskState, TaskWish};
use kit::{rpc::with_deadline, test::eventually};
use proto::{
    coordinator::{VoteRequest, raft_service_client::RaftServiceClient},
    error::Code,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_sends_writes_and_reads_to_the_leader() {
    let cluster = Cluster::started(3).await;
    let follower = cluster.follower().await;
    let at_follower = cluster.client_at(&follower);
    let done = at_follower.propose(Change::set("k", "v"), SOON).await.unwrap();
    for name in cluster.nodes.keys() {
        let found = cluster.client_at(name).read("k", SOON).await.unwrap().unwrap();
        assert_eq!((found.value.as_ref(), found.revision), (b"v".as_ref(), done.revision));
        let status = cluster.status(name).await;
        assert_eq!((status.voters.len(), status.failure_tolerance), (3, 1), "{name}: {status:?}");
    }
    let ids: BTreeSet<u64> = cluster.status("n1").await.voters.iter().map(|voter| voter.raft_id).collect();
    assert_eq!(ids.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_replaced_within_five_seconds_and_comes_back_from_disk() {
    let mut cluster = Cluster::started(3).await;
    let client = cluster.client();
    for n in 0..20 {
        client.propose(Change::set(format!("k{n}"), n.to_string()), SOON).await.unwrap();
    }
    for round in 0..3 {
        let leader = cluster.leader().await;
        let start = Instant::now();
        cluster.kill(&leader).await;
        client.propose(Change::set("after", round.to_string()), SOON).await.unwrap();
        assert!(start.elapsed() < 5 * SECOND, "took {:?}", start.elapsed());
        cluster.start(&leader).await;
        cluster.ready().await;
        let caught_up = || async {
            let local = cluster.client_at(&leader).read_local("after", SOON).await.unwrap();
            local.filter(|found| found.value == round.to_string())
        };
        eventually("the restarted node has it all", SOON, caught_up).await;
    }
    for n in 0..20 {
        assert_eq!(client.read(&format!("k{n}"), SOON).await.unwrap().unwrap().value, n.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_is_answered_and_nothing_is_pretended() {
    let mut cluster = Cluster::started(3).await;
    let client = cluster.client();
    client.propose(Change::set("k", "v"), SOON).await.unwrap();
    let leader = cluster.leader().await;
    let others: Vec<String> = cluster.nodes.keys().filter(|name| **name != leader).cloned().collect();
    for name in &others {
        cluster.kill(name).await;
    }
    let write = client.propose(Change::set("k", "w"), 3 * SECOND).await;
    assert!(matches!(write, Err(Error::Unknown(_) | Error::Unavailable(_))), "{write:?}");
    let read = client.read("k", 3 * SECOND).await;
    assert!(matches!(read, Err(Error::Unavailable(_))), "{read:?}");
    for name in &others {
        cluster.start(name).await;
    }
    let done = client.propose(Change::set("k", "x"), SOON).await;
    assert!(done.is_ok(), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_disk_comes_back_as_a_new_voter() {
    let mut cluster = Cluster::started(3).await;
    let client = cluster.client();
    client.propose(Change::set("k", "v"), SOON).await.unwrap();
    let follower = cluster.follower().await;
    let old = cluster.status(&follower).await.raft_id;
    cluster.kill(&follower).await;
    cluster.wipe(&follower);
    cluster.start(&follower).await;
    let new = eventually("the new id votes instead of the old one", SOON, || async {
        let leader = cluster.leader().await;
        let status = cluster.status(&leader).await;
        let ids: BTreeSet<u64> = status.voters.iter().map(|voter| voter.raft_id).collect();
        let new = status.voters.iter().find(|voter| voter.instance == follower)?.raft_id;
        (ids.len() == 3 && !ids.contains(&old)).then_some(new)
    })
    .await;
    assert_ne!(old, new);
    let local = || async { cluster.client_at(&follower).read_local("k", SOON).await.unwrap() };
    eventually("the new voter has the state", SOON, local).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_keep_nothing_may_restart_one_after_another() {
    let mut cluster = Cluster::new(3);
    cluster.in_memory = true;
    for name in ["n1", "n2", "n3"] {
        cluster.start(name).await;
    }
    cluster.ready().await;
    let client = cluster.client();
    client.propose(Change::set("k", "v"), SOON).await.unwrap();
    for name in ["n1", "n2", "n3"] {
        let old = cluster.status(name).await.raft_id;
        cluster.kill(name).await;
        cluster.start(name).await;
        eventually("the new id votes instead of the old one", SOON, || async {
            let status = cluster.status(&cluster.leader().await).await;
            let ids: BTreeSet<u64> = status.voters.iter().map(|voter| voter.raft_id).collect();
            let whole = ids.len() == 3 && !ids.contains(&old) && status.failure_tolerance == 1;
            whole.then_some(())
        })
        .await;
    }
    assert_eq!(client.read("k", SOON).await.unwrap().unwrap().value, "v");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lowest_name_without_its_disk_does_not_found_a_second_group() {
    let mut cluster = Cluster::started(3).await;
    let client = cluster.client();
    client.propose(Change::set("k", "v"), SOON).await.unwrap();
    cluster.kill("n1").await;
    cluster.wipe("n1");
    cluster.start("n1").await;
    cluster.ready().await;
    let found = cluster.client_at("n1").read("k", SOON).await.unwrap().unwrap();
    assert_eq!(found.value, "v");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fourth_node_follows_without_a_vote() {
    let mut cluster = Cluster::started(3).await;
    cluster.client().propose(Change::set("k", "v"), SOON).await.unwrap();
    cluster.start("n4").await;
    cluster.ready().await;
    let status = cluster.status("n4").await;
    assert_eq!((status.role.as_str(), status.voters.len()), ("learner", 3));
    let local = || async { cluster.client_at("n4").read_local("k", SOON).await.unwrap() };
    eventually("the learner has the state", SOON, local).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_far_behind_gets_a_snapshot() {
    let mut cluster = Cluster::new(3);
    cluster.config.snapshot_every = 100;
    for name in ["n1", "n2", "n3"] {
        cluster.start(name).await;
    }
    cluster.ready().await;
    let follower = cluster.follower().await;
    cluster.kill(&follower).await;
    let client = cluster.client();
    for n in 0..500 {
        client.propose(Change::set(format!("k{}", n % 50), n.to_string()), SOON).await.unwrap();
    }
    cluster.start(&follower).await;
    cluster.ready().await;
    let last = || async {
        let found = cluster.client_at(&follower).read_local("k49", SOON).await.unwrap();
        found.filter(|found| found.value == "499")
    };
    eventually("the follower has it all", SOON, last).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_task_ends_once_whoever_dies() {
    let tasks = 60;
    let mut cluster = Cluster::started(3).await;
    let client = cluster.client();
    let mut ids = BTreeSet::new();
    for n in 0..tasks {
        let task = NewTask {
            queue: "q".into(),
            priority: 1,
            payload: n.to_string().into(),
            max_attempts: 20,
            request_id: None,
        };
        ids.insert(client.submit(task, SOON).await.unwrap());
    }
    assert_eq!(ids.len(), tasks);
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..4).map(|n| tokio::spawn(work(client.clone(), n, stop.clone()))).collect();
    for _ in 0..2 {
        let leader = cluster.leader().await;
        cluster.kill(&leader).await;
        let write = client.propose(Change::set("alive", "yes"), SOON).await;
        assert!(write.is_ok(), "{write:?}");
        cluster.start(&leader).await;
        cluster.ready().await;
    }
    for id in &ids {
        eventually("the task is completed", SOON, || async {
            let task = client.get_task(id, SOON).await.unwrap().unwrap();
            (task.state() == TaskState::Completed).then_some(())
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut effects: BTreeMap<String, usize> = BTreeMap::new();
    for worker in workers {
        for id in worker.await.unwrap() {
            *effects.entry(id).or_default() += 1;
        }
    }
    // An acknowledged completion is the effect; one that was not acknowledged may be it too.
    assert!(effects.values().all(|count| *count == 1), "{effects:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_for_another_member_is_refused() {
    let cluster = Cluster::started(1).await;
    let context = cluster.nodes["n1"].context();
    let mut client = RaftServiceClient::new(context.channels.get(&context.advertise));
    let request = VoteRequest { target: 42, payload: Vec::new().into() };
    let refused = client.vote(with_deadline(request, SECOND)).await.unwrap_err();
    assert_eq!(Code::of(&refused), Code::NotOwner);
    let own = cluster.status("n1").await.raft_id;
    let request = VoteRequest { target: own, payload: vec![0xff; 3].into() };
    let refused = client.vote(with_deadline(request, SECOND)).await.unwrap_err();
    assert_eq!(Code::of(&refused), Code::InvalidArgument);
}

/// Leases and completes until told to stop; answers the tasks whose completion was acknowledged.
async fn work(client: coordinator_client::CoordinatorClient, n: usize, stop: Arc<AtomicBool>) -> Vec<String> {
    let mut done = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let wish = TaskWish {
            queue: "q".into(),
            worker: format!("w{n}"),
            ttl: SECOND,
            wait: Duration::from_millis(200),
        };
        let Ok(Some(task)) = client.lease(wish, 5 * SECOND).await else { continue };
        if client.complete(&task.id, task.fencing_token, Ok("done".into()), 5 * SECOND).await.is_ok() {
            done.push(task.id);
        }
    }
    done
}
