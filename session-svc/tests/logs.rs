//! Event logs on three instances: replay anywhere, fencing, and what a restart brings back.

mod common;

use common::{Cluster, LONG, PATIENCE, alice, event};
use kit::{State, test::eventually};
use proto::subjects::Fact;
use session_client::{Read, SessionError};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn events_appended_at_one_instance_are_replayed_at_another_with_one_dead() {
    let mut cluster = Cluster::in_memory(3).await;
    let one = cluster.client("n1");
    let id = one.mint();
    one.create(&id, &alice(), "".into(), LONG).await.expect("created");
    for sequence in 1..=20 {
        one.append(id.as_str(), "g", 1, vec![event(sequence)]).await.expect("appended");
        one.append(id.as_str(), "g", 1, vec![event(sequence)]).await.expect("again");
    }
    cluster.kill("n3").await;
    for sequence in 21..=40 {
        one.append(id.as_str(), "g", 1, vec![event(sequence)]).await.expect("appended");
    }
    let two = cluster.client("n2");
    let replayed = two.replay(id.as_str(), "g", 15, None).await.expect("replayed");
    let sequences: Vec<u64> = replayed.events.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, (16..=40).collect::<Vec<_>>());
    assert_eq!((replayed.first_sequence, replayed.last_sequence, replayed.known), (1, 40, true));
    assert!(replayed.events.iter().all(|event| event.epoch == 1));
    let unknown = two.replay(id.as_str(), "other", 0, None).await.expect("replayed");
    assert!(!unknown.known && unknown.events.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_stops_the_old_anchor_and_the_new_one_goes_on() {
    let cluster = Cluster::in_memory(3).await;
    let (old, new) = (cluster.client("n1"), cluster.client("n2"));
    let id = old.mint();
    old.create(&id, &alice(), "".into(), LONG).await.expect("created");
    old.append(id.as_str(), "g", 1, (1..=5).map(event).collect()).await.expect("appended");
    let replayed = new.replay(id.as_str(), "g", 0, Some(2)).await.expect("fenced");
    assert_eq!((replayed.events.len(), replayed.epoch), (5, 2));
    let fenced = old.append(id.as_str(), "g", 1, vec![event(6)]).await;
    assert!(matches!(fenced, Err(SessionError::Fenced { epoch: 2 })), "{fenced:?}");
    let fenced = old.append(id.as_str(), "other", 1, vec![event(1)]).await;
    assert!(matches!(fenced, Err(SessionError::Fenced { epoch: 2 })), "all streams: {fenced:?}");
    let late = old.replay(id.as_str(), "g", 0, Some(1)).await;
    assert!(matches!(late, Err(SessionError::Fenced { epoch: 2 })), "{late:?}");
    new.append(id.as_str(), "g", 2, vec![event(6)]).await.expect("appended");
    let conflict = session_client::Event { data: "else".into(), ..event(6) };
    let conflict = new.append(id.as_str(), "g", 2, vec![conflict]).await;
    assert!(matches!(conflict, Err(SessionError::Other(_))), "{conflict:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_told() {
    let cluster = Cluster::in_memory(3).await;
    let client = cluster.client("n1");
    let id = client.mint();
    client.create(&id, &alice(), "".into(), LONG).await.expect("created");
    for start in (1..=1400).step_by(100) {
        client
            .append(id.as_str(), "g", 1, (start..start + 100).map(event).collect())
            .await
            .expect("appended");
    }
    let replayed = client.replay(id.as_str(), "g", 10, None).await.expect("replayed");
    // An owner that has yet to take the last batch still holds a hundred more of the oldest.
    assert!([277, 377].contains(&replayed.first_sequence), "{}", replayed.first_sequence);
    let sequences: Vec<u64> = replayed.events.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, (replayed.first_sequence..=1400).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_session_takes_no_events() {
    let cluster = Cluster::in_memory(3).await;
    let client = cluster.client("n1");
    let id = client.mint();
    client.create(&id, &alice(), "".into(), LONG).await.expect("created");
    client.append(id.as_str(), "g", 1, vec![event(1)]).await.expect("appended");
    client.delete(id.as_str(), &alice(), "").await.expect("deleted");
    let refused = client.append(id.as_str(), "g", 1, vec![event(2)]).await;
    assert!(matches!(refused, Err(SessionError::Fenced { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_all_brings_back_sessions_tombstones_fences_and_flushed_logs() {
    let mut cluster = Cluster::on_disk(3).await;
    let client = cluster.client("n1");
    let (kept, gone) = (client.mint(), client.mint());
    let created = client.create(&kept, &alice(), "one".into(), LONG).await.expect("created");
    let version = client.put(kept.as_str(), &alice(), &created.version, "two".into()).await.expect("put");
    client.create(&gone, &alice(), "".into(), LONG).await.expect("created");
    client.delete(gone.as_str(), &alice(), "").await.expect("deleted");
    client.append(kept.as_str(), "g", 1, (1..=10).map(event).collect()).await.expect("appended");
    client.replay(kept.as_str(), "g", 0, Some(3)).await.expect("fenced");
    // Logs are flushed behind: a crash right now may lose them, as K25 says.
    tokio::time::sleep(Duration::from_millis(500)).await;
    for name in ["n1", "n2", "n3"] {
        cluster.kill(name).await;
        cluster.tell(name, State::Down);
    }
    for name in ["n1", "n2", "n3"] {
        cluster.add(name).await;
    }
    cluster.ready().await;
    for name in ["n1", "n2", "n3"] {
        let client = cluster.client(name);
        let read = client.get(kept.as_str(), &alice(), &Read::quorum()).await.expect("read");
        assert_eq!(
            (read.session.value.as_ref(), read.session.version.as_ref()),
            (&b"two"[..], Some(&version))
        );
        let deleted = client.get(gone.as_str(), &alice(), &Read::quorum()).await;
        assert!(matches!(deleted, Err(SessionError::NotFound)), "{deleted:?}");
        let replayed = client.replay(kept.as_str(), "g", 4, None).await.expect("replayed");
        assert_eq!((replayed.events.len(), replayed.epoch), (6, 3));
        let fenced = client.append(kept.as_str(), "g", 2, vec![event(11)]).await;
        assert!(matches!(fenced, Err(SessionError::Fenced { epoch: 3 })), "{fenced:?}");
    }
    let client = cluster.client("n2");
    client.put(kept.as_str(), &alice(), &version, "three".into()).await.expect("put after the restart");
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_tell_of_moved_and_deleted_sessions() {
    let host = kit::Host::for_test("n1").await;
    let ctx = host.context().clone();
    session_svc::start(session_svc::Config::default(), &ctx).await.expect("started");
    let mut moved = ctx.bus.subscribe(&Fact::SessionMoved.subject("local")).await.expect("subscribed");
    let mut deleted = ctx.bus.subscribe(&Fact::SessionDeleted.subject("local")).await.expect("subscribed");
    let served = host.serve().await;
    let directory = kit::Directory::fixed(vec![ctx.instance("session")]);
    let client = session_client::SessionClient::new(ctx.channels.clone(), directory, Some("n1".into()));
    let id = eventually("the service answers", PATIENCE, || async {
        let id = client.mint();
        client.create(&id, &alice(), "".into(), LONG).await.ok().map(|_| id)
    })
    .await;
    client.replay(id.as_str(), "g", 0, Some(1)).await.expect("fenced");
    client.delete(id.as_str(), &alice(), "").await.expect("deleted");
    for facts in [&mut moved, &mut deleted] {
        let fact = tokio::time::timeout(PATIENCE, facts.next()).await.expect("in time").expect("a fact");
        let session: proto::session::Session = prost::Message::decode(fact.payload).expect("a session");
        assert_eq!(session.id, id.to_string());
    }
    served.shutdown();
    served.stopped().await.expect("a clean end");
}
