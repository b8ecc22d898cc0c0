//! Sessions on three instances: what is acked is kept, whoever dies.

mod common;

use common::{Cluster, LONG, PATIENCE, alice};
use kit::{State, rpc::with_deadline, test::eventually};
use proto::session::{self as wire, session_service_client::SessionServiceClient};
use session_client::{Binding, Consistency, Read, SessionError, Version};
use std::{collections::BTreeMap, time::Duration};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_created_at_one_instance_is_read_at_another_with_the_token() {
    let cluster = Cluster::in_memory(3).await;
    let client = cluster.client("n1");
    let id = client.mint();
    let created = client.create(&id, &alice(), "one".into(), LONG).await.expect("created");
    for name in ["n2", "n3"] {
        let mut rpc = SessionServiceClient::new(cluster.channels.get(&cluster.addr(name)));
        let request = wire::GetRequest {
            id: id.to_string(),
            consistency: Consistency::Token.into(),
            token: Some(created.version.clone()),
            tenant: "acme".into(),
            principal: "alice".into(),
            ..wire::GetRequest::default()
        };
        let answer = rpc.get(with_deadline(request, Duration::from_secs(2))).await.expect("found");
        let answer = answer.into_inner();
        assert_eq!((answer.session.expect("session").value.as_ref(), answer.stale), (&b"one"[..], false));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_and_reads_go_on_with_one_instance_dead_whether_it_is_known_or_not() {
    let mut cluster = Cluster::in_memory(3).await;
    let client = cluster.client("n1");
    let id = client.mint();
    let created = client.create(&id, &alice(), "one".into(), LONG).await.expect("created");
    cluster.kill("n3").await;
    let mut version = created.version;
    for (round, state) in [State::Up, State::Suspect, State::Down].into_iter().enumerate() {
        cluster.tell("n3", state);
        for name in ["n1", "n2"] {
            let client = cluster.client(name);
            let value = format!("{name} {round}");
            version = client.put(id.as_str(), &alice(), &version, value.clone().into()).await.expect("put");
            let read = client.get(id.as_str(), &alice(), &Read::quorum()).await.expect("read");
            assert_eq!((read.session.value.as_ref(), read.stale), (value.as_bytes(), false));
            let id = client.mint();
            client.create(&id, &alice(), "two".into(), LONG).await.expect("created");
            client.delete(id.as_str(), &alice(), "").await.expect("deleted");
        }
    }
    assert_eq!(version.counter, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_two_of_three_dead_writes_fail_clearly_and_reads_are_marked_stale() {
    let mut cluster = Cluster::in_memory(3).await;
    let client = cluster.client("n1");
    let id = client.mint();
    let created = client.create(&id, &alice(), "one".into(), LONG).await.expect("created");
    for name in ["n2", "n3"] {
        cluster.kill(name).await;
        cluster.tell(name, State::Down);
    }
    let put = client.put(id.as_str(), &alice(), &created.version, "two".into()).await;
    assert!(matches!(put, Err(SessionError::Unavailable(_))), "{put:?}");
    let create = client.create(&client.mint(), &alice(), "two".into(), LONG).await;
    assert!(matches!(create, Err(SessionError::Unavailable(_))), "{create:?}");
    let read = client.get(id.as_str(), &alice(), &Read::quorum()).await.expect("read");
    assert!(read.stale);
    let unknown = client.get(client.mint().as_str(), &alice(), &Read::quorum()).await;
    assert!(matches!(unknown, Err(SessionError::Unavailable(_))), "no proof of absence: {unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_racing_writers_exactly_one_wins_each_round() {
    let cluster = Cluster::in_memory(3).await;
    let clients = [cluster.client("n1"), cluster.client("n2"), cluster.client("n3")];
    let id = clients[0].mint();
    let mut version = clients[0].create(&id, &alice(), "".into(), LONG).await.expect("created").version;
    for round in 0..150 {
        let put = |writer: usize| {
            let (client, id, version) = (clients[writer].clone(), id.clone(), version.clone());
            tokio::spawn(async move {
                client.put(id.as_str(), &alice(), &version, format!("{round} {writer}").into()).await
            })
        };
        let puts: Vec<_> = (0..3).map(put).collect();
        let mut winners: Vec<(usize, Version)> = Vec::new();
        for (writer, put) in puts.into_iter().enumerate() {
            match put.await.expect("task") {
                Ok(version) => winners.push((writer, version)),
                Err(SessionError::VersionMismatch { current }) => {
                    assert_eq!(current.expect("current").counter, version.counter + 1);
                }
                Err(other) => panic!("round {round}: {other}"),
            }
        }
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        let (writer, won) = winners.remove(0);
        for client in &clients {
            let read = client.get(id.as_str(), &alice(), &Read::quorum()).await.expect("read");
            assert_eq!(read.session.value.as_ref(), format!("{round} {writer}").as_bytes());
            assert_eq!(read.session.version.as_ref(), Some(&won));
        }
        version = won;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_acked_is_readable_after_any_one_died_and_an_empty_one_is_filled_again() {
    let mut cluster = Cluster::in_memory(3).await;
    let mut acked = BTreeMap::new();
    for (index, name) in ["n1", "n2", "n3"].into_iter().cycle().take(60).enumerate() {
        let client = cluster.client(name);
        let id = client.mint();
        let value = format!("value {index}");
        let created = client.create(&id, &alice(), "".into(), LONG).await.expect("created");
        client.put(id.as_str(), &alice(), &created.version, value.clone().into()).await.expect("put");
        acked.insert(id.to_string(), value);
    }
    for victim in ["n2", "n1", "n3"] {
        cluster.kill(victim).await;
        cluster.tell(victim, State::Down);
        let others = ["n1", "n2", "n3"].into_iter().filter(|name| *name != victim);
        for name in others {
            let client = cluster.client(name);
            for (id, value) in &acked {
                let read = client.get(id, &alice(), &Read::quorum()).await.expect("read");
                assert_eq!((read.session.value.as_ref(), read.stale), (value.as_bytes(), false));
            }
        }
        // It comes back with an empty disk.
        cluster.add(victim).await;
        eventually("all sessions are on the instance again", PATIENCE, || async {
            let mut rpc = SessionServiceClient::new(cluster.channels.get(&cluster.addr(victim)));
            let request = wire::ListRequest { page_size: 1000, ..wire::ListRequest::default() };
            let page = rpc.list(with_deadline(request, Duration::from_secs(2))).await.ok()?;
            let sessions = page.into_inner().sessions;
            let last = sessions.iter().all(|s| s.version.as_ref().is_some_and(|v| v.counter == 2));
            (sessions.len() == acked.len() && last).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenant_or_principal_finds_nothing() {
    let cluster = Cluster::in_memory(1).await;
    let client = cluster.client("n1");
    let id = client.mint();
    let created = client.create(&id, &alice(), "secret".into(), LONG).await.expect("created");
    let others = [("acme", "bob"), ("other", "alice"), ("", "")];
    for (tenant, principal) in others {
        let other = Binding { tenant: tenant.into(), principal: principal.into() };
        for read in [Read::default(), Read::quorum(), Read::leased("e1", Duration::from_secs(1))] {
            let got = client.get(id.as_str(), &other, &read).await;
            assert!(matches!(got, Err(SessionError::NotFound)), "{got:?}");
        }
        let put = client.put(id.as_str(), &other, &created.version, "mine".into()).await;
        assert!(matches!(put, Err(SessionError::NotFound)), "{put:?}");
        let deleted = client.delete(id.as_str(), &other, "").await;
        assert!(matches!(deleted, Err(SessionError::NotFound)), "{deleted:?}");
    }
    let bad = client.get("../etc/passwd", &alice(), &Read::default()).await;
    assert!(matches!(bad, Err(SessionError::Other(_))), "{bad:?}");
    assert_eq!(
        client.get(id.as_str(), &alice(), &Read::default()).await.expect("read").session.value,
        "secret"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_at_its_time_unless_touched_and_is_reaped_after_the_grace() {
    let config = session_svc::Config { grace: Duration::from_millis(200), ..Default::default() };
    let cluster = Cluster::start(3, None, config).await;
    let client = cluster.client("n1");
    let (kept, left) = (client.mint(), client.mint());
    let life = Duration::from_millis(2500);
    for id in [&kept, &left] {
        client.create(id, &alice(), "v".into(), life).await.expect("created");
    }
    eventually("the untouched session ends", PATIENCE, || async {
        let unknown = client.touch(vec![kept.to_string()]).await.expect("touched");
        assert!(unknown.is_empty(), "the touched one lives");
        let read = client.get(left.as_str(), &alice(), &Read::quorum()).await;
        matches!(read, Err(SessionError::NotFound)).then_some(())
    })
    .await;
    let unknown = client.touch(vec![kept.to_string(), left.to_string()]).await.expect("touched");
    assert_eq!(unknown, [left.to_string()]);
    eventually("every owner drops it", PATIENCE, || async {
        ["n1", "n2", "n3"]
            .iter()
            .all(|n| cluster.metrics(n).contains("swarm_sessions{tier=\"hot\"} 1"))
            .then_some(())
    })
    .await;
    client.get(kept.as_str(), &alice(), &Read::quorum()).await.expect("the touched one lives");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_waits_until_no_other_holder_may_serve_its_copy() {
    let cluster = Cluster::in_memory(3).await;
    let (one, two) = (cluster.client("n1"), cluster.client("n2"));
    let id = one.mint();
    one.create(&id, &alice(), "v".into(), LONG).await.expect("created");
    let lease = Duration::from_millis(700);
    let read = two.get(id.as_str(), &alice(), &Read::leased("edge-2", lease)).await.expect("read");
    let until = read.lease_until.expect("leased");
    one.delete(id.as_str(), &alice(), "edge-1").await.expect("deleted");
    let now = tokio::time::Instant::now().into_std();
    assert!(now >= until, "deleted {:?} before the lease ended", until - now);
    for client in [&one, &two] {
        let gone = client.get(id.as_str(), &alice(), &Read::leased("edge-2", lease)).await;
        assert!(matches!(gone, Err(SessionError::NotFound)), "{gone:?}");
    }
    one.delete(id.as_str(), &alice(), "edge-1").await.expect("deleting again is no error");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_own_lease_of_the_deleting_edge_is_not_waited_for() {
    let cluster = Cluster::in_memory(3).await;
    let client = cluster.client("n1");
    let id = client.mint();
    client.create(&id, &alice(), "v".into(), LONG).await.expect("created");
    let lease = Read::leased("edge-1", Duration::from_secs(2));
    let until = client.get(id.as_str(), &alice(), &lease).await.expect("read").lease_until.expect("leased");
    client.delete(id.as_str(), &alice(), "edge-1").await.expect("deleted");
    assert!(tokio::time::Instant::now().into_std() < until);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_is_not_undone_by_an_owner_that_slept_through_it() {
    let mut cluster = Cluster::on_disk(3).await;
    let client = cluster.client("n1");
    let id = client.mint();
    client.create(&id, &alice(), "v".into(), LONG).await.expect("created");
    cluster.kill("n3").await;
    cluster.tell("n3", State::Down);
    client.delete(id.as_str(), &alice(), "").await.expect("deleted");
    cluster.add("n3").await;
    cluster.ready().await;
    cluster.kill("n1").await;
    cluster.tell("n1", State::Down);
    for name in ["n2", "n3"] {
        let gone = cluster.client(name).get(id.as_str(), &alice(), &Read::quorum()).await;
        assert!(matches!(gone, Err(SessionError::NotFound)), "{gone:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_follow_the_ring_when_instances_join() {
    let mut cluster = Cluster::in_memory(3).await;
    let client = cluster.client("n1");
    let mut ids = Vec::new();
    for _ in 0..60 {
        let id = client.mint();
        client.create(&id, &alice(), "v".into(), LONG).await.expect("created");
        client.append(id.as_str(), "g", 1, vec![common::event(1)]).await.expect("appended");
        ids.push(id);
    }
    cluster.add("n4").await;
    cluster.add("n5").await;
    let ring = client.ring();
    assert_eq!(ring.members().len(), 5);
    for (id, name) in ids.iter().zip(["n1", "n2", "n3", "n4", "n5"].into_iter().cycle()) {
        let client = cluster.client(name);
        let read = client.get(id.as_str(), &alice(), &Read::quorum()).await;
        assert!(!read.expect("read while sessions move").stale);
        let replayed = client.replay(id.as_str(), "g", 0, None).await.expect("replayed");
        assert_eq!(replayed.events.len(), 1);
    }
    for name in ["n1", "n2", "n3", "n4", "n5"] {
        let expected = ids.iter().filter(|id| ring.is_owner(id, name)).count();
        let held = format!("swarm_sessions{{tier=\"hot\"}} {expected}\n");
        eventually("each instance holds what it owns", PATIENCE, || async {
            cluster.metrics(name).contains(&held).then_some(())
        })
        .await;
    }
    for id in &ids {
        let read = client.get(id.as_str(), &alice(), &Read::quorum()).await.expect("read");
        assert!(!read.stale);
        let replayed = client.replay(id.as_str(), "g", 0, None).await.expect("replayed");
        assert_eq!(replayed.events.len(), 1);
    }
}
