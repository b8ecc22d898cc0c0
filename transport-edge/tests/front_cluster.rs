//! Several edges, one session: relay, take-over, resume, and the drain.

mod front_support;

use front_support::{Backend, Client, Cluster, PATIENCE};
use kit::{State, test::eventually};
use serde_json::json;
use transport_edge::SessionStore as _;

#[tokio::test(flavor = "multi_thread")]
async fn any_edge_serves_a_session_of_another() {
    let backend = Backend::start().await;
    let cluster = Cluster::three(&backend).await;
    let mut client = Client::new();
    client.initialize(cluster.mcp(0)).await;
    let mut said = Vec::new();
    for n in [1, 2, 0, 1] {
        let answer = client.call(cluster.mcp(n), 1, "b_echo", json!({"text": "x"})).await.json().await;
        said.push(answer["result"]["content"][0]["text"].clone());
    }
    // One conversation with the backend, wherever the client comes in.
    assert!(said.iter().all(|text| text.is_string() && *text == said[0]), "{said:?}");
    assert_eq!(client.get(cluster.mcp(2), Some("nonsense")).await.status, 400);
    // A stream begun at one edge is read on at another.
    let mut stream = client.call(cluster.mcp(1), 2, "b_slow", json!({})).await;
    let (id, _) = stream.message().await.unwrap();
    drop(stream);
    backend.gate.add_permits(1);
    let rest = client.get(cluster.mcp(2), Some(&id)).await.messages().await;
    assert_eq!(rest.len(), 2);
    assert_eq!(client.delete(cluster.mcp(2)).await.status, 204);
    for n in 0..3 {
        assert_eq!(client.call(cluster.mcp(n), 3, "b_echo", json!({})).await.status, 404);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_elicitation_is_answered_and_a_call_cancelled_at_another_edge() {
    let backend = Backend::start().await;
    let cluster = Cluster::three(&backend).await;
    let mut client = Client::new();
    client.initialize(cluster.mcp(0)).await;
    let mut answer = client.call(cluster.mcp(0), 1, "b_ask", json!({})).await;
    let (_, question) = answer.message().await.unwrap();
    let reply = json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"name": "ada"}}});
    assert_eq!(client.post(cluster.mcp(1), reply).await.status, 202);
    assert_eq!(answer.message().await.unwrap().1["result"]["content"][0]["text"], "ada");
    let mut hanging = client.call(cluster.mcp(1), 2, "b_hang", json!({})).await;
    hanging.event().await.unwrap();
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}});
    assert_eq!(client.post(cluster.mcp(2), cancel).await.status, 202);
    assert_eq!(hanging.messages().await, []);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_its_anchor() {
    let backend = Backend::start().await;
    let cluster = Cluster::three(&backend).await;
    let mut client = Client::new();
    client.initialize(cluster.mcp(0)).await;
    client.call(cluster.mcp(0), 1, "b_echo", json!({})).await.json().await;
    let mut standing = client.get(cluster.mcp(0), None).await;
    let updated =
        json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "note://1"}});
    backend.push(&backend.last_session(), updated).await;
    let (seen, _) = standing.next("notifications/resources/updated").await;
    cluster.kill(0).await;
    while standing.event().await.is_some() {}
    // Nobody has told the others yet: the broken connection is enough.
    let answer = client.call(cluster.mcp(1), 2, "b_echo", json!({"text": "x"})).await.json().await;
    assert!(answer["result"]["content"][0]["text"].as_str().unwrap().ends_with(" x"), "{answer}");
    let mut resumed = client.get(cluster.mcp(1), Some(&seen)).await;
    assert_eq!(resumed.status, 200);
    let second =
        json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "note://2"}});
    backend.push(&backend.last_session(), second).await;
    let (next, message) = resumed.next("notifications/resources/updated").await;
    assert_eq!(message["params"]["uri"], "note://2");
    let sequence = |id: &str| id.strip_prefix("g.").and_then(|n| n.parse::<u64>().ok()).unwrap();
    assert!(sequence(&next) > sequence(&seen));
    // And any edge relays to the new anchor.
    cluster.announce(|name| if name == "n1" { State::Down } else { State::Up });
    assert_eq!(client.call(cluster.mcp(2), 3, "b_echo", json!({})).await.status, 200);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeatable_call_of_a_lost_node_is_answered_once() {
    let backend = Backend::start().await;
    let cluster = Cluster::three(&backend).await;
    let mut client = Client::new();
    client.initialize(cluster.mcp(0)).await;
    let mut stream = client.call(cluster.mcp(0), 5, "b_reader", json!({})).await;
    let (seen, first) = stream.message().await.unwrap();
    assert_eq!(first["params"]["progress"], 1);
    cluster.kill(0).await;
    while stream.event().await.is_some() {}
    // The lost call and the one that was sent again.
    backend.gate.add_permits(2);
    let rest = client.get(cluster.mcp(1), Some(&seen)).await.messages().await;
    let answers: Vec<_> = rest.iter().filter(|(_, message)| message["id"] == 5).collect();
    assert_eq!(answers.len(), 1, "{rest:?}");
    assert_eq!(answers[0].1["result"]["content"][0]["text"], "done");
    let sequences: Vec<u64> =
        rest.iter().map(|(id, _)| id.rsplit('.').next().unwrap().parse().unwrap()).collect();
    assert!(sequences.windows(2).all(|pair| pair[0] < pair[1]), "{sequences:?}");
    assert_eq!(backend.calls("reader"), 2);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_may_have_run_is_answered_with_node_lost() {
    let backend = Backend::start().await;
    let cluster = Cluster::three(&backend).await;
    let mut client = Client::new();
    client.initialize(cluster.mcp(0)).await;
    let mut stream = client.call(cluster.mcp(0), 5, "b_slow", json!({})).await;
    let (seen, _) = stream.message().await.unwrap();
    cluster.kill(0).await;
    let rest = client.get(cluster.mcp(1), Some(&seen)).await.messages().await;
    assert_eq!(rest.len(), 1, "{rest:?}");
    assert_eq!(rest[0].1["error"]["data"], json!({"reason": "NODE_LOST", "retryable": true}));
    assert_eq!(rest[0].1["id"], 5);
    assert_eq!(backend.calls("slow"), 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_after_a_loss_lead_to_one_anchor() {
    let backend = Backend::start().await;
    let cluster = Cluster::three(&backend).await;
    let mut client = Client::new();
    client.initialize(cluster.mcp(0)).await;
    client.call(cluster.mcp(0), 1, "b_echo", json!({})).await.json().await;
    cluster.kill(0).await;
    let calls = (0..20).map(|n| {
        let (client, edge) = (client.clone(), cluster.mcp(1 + n % 2));
        async move { client.call(edge, 100 + n as u64, "b_echo", json!({"text": "x"})).await.json().await }
    });
    for answer in futures::future::join_all(calls).await {
        assert!(answer["result"].is_object(), "{answer}");
    }
    let stored = cluster.store.get(&client.session, "anonymous", None).await.unwrap();
    let record = <proto::edge::SessionRecord as prost::Message>::decode(stored.value).unwrap();
    assert_eq!(record.epoch, 2);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anchor_that_froze_is_given_up_when_gossip_says_so() {
    let backend = Backend::start().await;
    let cluster = Cluster::three(&backend).await;
    let mut client = Client::new();
    client.initialize(cluster.mcp(0)).await;
    // It takes connections and answers nothing.
    let frozen = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    cluster.announce_at("n1", frozen.local_addr().unwrap(), State::Suspect);
    let calling = tokio::spawn({
        let (client, edge) = (client.clone(), cluster.mcp(1));
        async move { client.call(edge, 1, "b_echo", json!({"text": "x"})).await.json().await }
    });
    let _held = frozen.accept().await.unwrap();
    cluster.announce_at("n1", frozen.local_addr().unwrap(), State::Down);
    let answer = calling.await.unwrap();
    assert!(answer["result"].is_object(), "{answer}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anchor_that_was_taken_over_writes_nothing_more() {
    let backend = Backend::start().await;
    let cluster = Cluster::three(&backend).await;
    let mut client = Client::new();
    client.initialize(cluster.mcp(0)).await;
    let mut stream = client.call(cluster.mcp(0), 5, "b_slow", json!({})).await;
    let (seen, _) = stream.message().await.unwrap();
    // The others believe it dead, but it lives: it is fenced off.
    cluster.announce(|name| if name == "n1" { State::Down } else { State::Up });
    let rest = client.get(cluster.mcp(1), Some(&seen)).await.messages().await;
    assert_eq!(rest[0].1["error"]["data"]["reason"], "NODE_LOST");
    backend.gate.add_permits(1);
    assert_eq!(stream.messages().await, []);
    let again = client.get(cluster.mcp(1), Some(&seen)).await.messages().await;
    assert_eq!(again, rest);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_stops_sessions_but_not_modern_calls() {
    let backend = Backend::start().await;
    let cluster = Cluster::one(&backend).await;
    let edge = cluster.mcp(0);
    let mut client = Client::new();
    client.initialize(edge).await;
    client.call(edge, 1, "b_echo", json!({})).await.json().await;
    cluster.store.cut(true);
    let status = eventually("the lease runs out", PATIENCE, || async {
        let status = client.call(edge, 2, "b_echo", json!({})).await.status;
        (status != 200).then_some(status)
    })
    .await;
    assert_eq!(status, 503);
    assert_eq!(
        Client::new().modern(edge, json!(1), "tools/call", json!({"name": "b_echo"})).await.status,
        200
    );
    cluster.store.cut(false);
    assert_eq!(client.call(edge, 3, "b_echo", json!({})).await.status, 200);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_finishes_what_is_in_flight_and_hands_sessions_over() {
    let backend = Backend::start().await;
    let cluster = Cluster::three(&backend).await;
    let mut client = Client::new();
    client.initialize(cluster.mcp(0)).await;
    let before = client.call(cluster.mcp(0), 4, "b_echo", json!({"text": "x"})).await.json().await;
    let mut standing = client.get(cluster.mcp(0), None).await;
    standing.event().await.unwrap();
    let mut stream = client.call(cluster.mcp(0), 5, "b_slow", json!({})).await;
    let (_, first) = stream.message().await.unwrap();
    assert_eq!(first["params"]["progress"], 1);
    cluster.nodes[0].served.shutdown();
    // The standing stream ends, so that its client goes elsewhere; the call is finished.
    while standing.event().await.is_some() {}
    backend.gate.add_permits(1);
    let rest = stream.messages().await;
    assert_eq!(rest.last().unwrap().1["id"], 5);
    cluster.nodes[0].served.stopped().await.unwrap();
    assert!(tokio::net::TcpStream::connect(cluster.mcp(0)).await.is_err());
    cluster.announce(|name| if name == "n1" { State::Down } else { State::Up });
    let answer = client.call(cluster.mcp(1), 6, "b_echo", json!({"text": "x"})).await.json().await;
    // The backend's own session was kept: the conversation goes on.
    assert_eq!(answer["result"], before["result"]);
    cluster.stop().await;
}
