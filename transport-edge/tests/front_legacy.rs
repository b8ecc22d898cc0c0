//! The legacy era at one edge: life cycle, streams, requests to the client, cancellation.

mod front_support;

use front_support::{Backend, Client, Cluster, PATIENCE};
use kit::test::eventually;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_lives_from_initialize_to_delete() {
    let backend = Backend::start().await;
    let cluster = Cluster::one(&backend).await;
    let edge = cluster.mcp(0);
    let mut client = Client::new();
    let result = client.initialize(edge).await;
    assert_eq!(result["result"]["protocolVersion"], "2025-11-25");
    assert_eq!(result["result"]["serverInfo"]["name"], "swarm");
    assert_eq!(result["result"]["capabilities"]["resources"]["subscribe"], true);
    let listed =
        client.post(edge, json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})).await.json().await;
    let names: Vec<&str> = listed["result"]["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| tool["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["b_ask", "b_echo", "b_hang", "b_reader", "b_slow"]);
    let answer = client.call(edge, 2, "b_echo", json!({"text": "hi"})).await;
    assert!(!answer.is_stream());
    let answer = answer.json().await;
    assert_eq!(answer["id"], 2);
    assert!(answer["result"]["content"][0]["text"].as_str().unwrap().ends_with(" hi"), "{answer}");
    assert_eq!(client.delete(edge).await.status, 204);
    assert_eq!(client.call(edge, 3, "b_echo", json!({})).await.status, 404);
    assert_eq!(client.get(edge, None).await.status, 404);
    // The backend's own session ends with the client's.
    eventually("the backend's session is deleted", PATIENCE, || async {
        (backend.state.deleted.lock().len() == 1).then_some(())
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_of_the_aggregate_reaches_its_backend() {
    let backend = Backend::start().await;
    let cluster = Cluster::one(&backend).await;
    let edge = cluster.mcp(0);
    let mut client = Client::new();
    client.initialize(edge).await;
    let ask = async |id: u64, method: &str, params: Value| {
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        client.post(edge, body).await.json().await
    };
    assert_eq!(ask(1, "ping", json!({})).await["result"], json!({}));
    assert_eq!(ask(2, "prompts/get", json!({"name": "b_greet"})).await["result"]["description"], "greet");
    let reference =
        json!({"ref": {"type": "ref/prompt", "name": "b_greet"}, "argument": {"name": "a", "value": ""}});
    assert_eq!(ask(3, "completion/complete", reference).await["result"]["completion"]["values"][0], "greet");
    assert_eq!(
        ask(4, "resources/read", json!({"uri": "note://1"})).await["result"]["contents"][0]["text"],
        "one"
    );
    assert_eq!(ask(5, "resources/subscribe", json!({"uri": "note://1"})).await["result"], json!({}));
    assert_eq!(ask(6, "logging/setLevel", json!({"level": "debug"})).await["result"], json!({}));
    assert_eq!(backend.saw("logging/setLevel").len(), 1);
    assert_eq!(ask(7, "logging/setLevel", json!({"level": "loud"})).await["error"]["code"], -32602);
    assert_eq!(ask(8, "tools/call", json!({"name": "b_none"})).await["error"]["code"], -32602);
    assert_eq!(ask(9, "tools/list", json!({"cursor": "nonsense"})).await["error"]["code"], -32602);
    assert_eq!(ask(10, "no/such", json!({})).await["error"]["code"], -32601);
    assert_eq!(ask(11, "initialize", json!({})).await["error"]["code"], -32600);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_backend_has_an_endpoint_of_its_own() {
    let backend = Backend::start().await;
    let cluster = Cluster::one(&backend).await;
    let edge = cluster.mcp(0);
    let mut client = Client { path: "/mcp/b", ..Client::new() };
    let result = client.initialize(edge).await;
    assert_eq!(result["result"]["serverInfo"]["name"], "scripted");
    let answer = client.call(edge, 1, "echo", json!({"text": "x"})).await.json().await;
    assert!(answer["result"].is_object(), "{answer}");
    // A session belongs to its endpoint.
    let elsewhere = Client { path: "/mcp", ..client.clone() };
    assert_eq!(elsewhere.call(edge, 2, "b_echo", json!({})).await.status, 404);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_with_progress_becomes_a_stream_that_can_be_resumed() {
    let backend = Backend::start().await;
    let cluster = Cluster::one(&backend).await;
    let edge = cluster.mcp(0);
    let mut client = Client::new();
    client.initialize(edge).await;
    let mut answer = client.call(edge, 7, "b_slow", json!({})).await;
    assert!(answer.is_stream());
    let priming = answer.event().await.unwrap();
    assert!(priming.data.is_empty() && priming.retry.is_some());
    let (id, progress) = answer.message().await.unwrap();
    assert_eq!(progress["params"], json!({"progressToken": 7, "progress": 1}));
    // The client goes away; the call goes on, and so does its log.
    drop(answer);
    backend.gate.add_permits(1);
    let rest = client.get(edge, Some(&id)).await.messages().await;
    assert_eq!(rest.len(), 2, "{rest:?}");
    assert_eq!(rest[0].1["params"]["progress"], 2);
    assert_eq!(rest[1].1["id"], 7);
    // The whole of it once more, also after its end.
    let all = client.get(edge, priming.id.as_deref()).await.messages().await;
    assert_eq!(all.len(), 3);
    assert_eq!(all[1..], rest[..]);
    assert_eq!(backend.calls("slow"), 1);
    // What was never sent cannot be resumed.
    for unknown in ["9-9.1", "nonsense", "c.1"] {
        assert_eq!(client.get(edge, Some(unknown)).await.status, 400, "{unknown}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_call_becomes_a_stream_after_a_while() {
    let backend = Backend::start().await;
    let cluster = Cluster::one(&backend).await;
    let edge = cluster.mcp(0);
    let mut client = Client::new();
    client.initialize(edge).await;
    let mut answer = client.call(edge, 1, "b_hang", json!({})).await;
    assert!(answer.is_stream());
    assert!(answer.event().await.unwrap().data.is_empty());
    // Cancelled, it ends without an answer, and the backend is told.
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1, "reason": "enough"}});
    assert_eq!(client.post(edge, cancel).await.status, 202);
    assert_eq!(answer.messages().await, []);
    eventually("the backend is told", PATIENCE, || async { backend.saw("notifications/cancelled").pop() })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_elicitation_reaches_the_client_and_its_answer_the_backend() {
    let backend = Backend::start().await;
    let cluster = Cluster::one(&backend).await;
    let edge = cluster.mcp(0);
    let mut client = Client::new();
    client.initialize(edge).await;
    let mut answer = client.call(edge, 1, "b_ask", json!({})).await;
    let (_, question) = answer.message().await.unwrap();
    assert_eq!(question["method"], "elicitation/create");
    assert_eq!(question["params"]["_meta"]["swarm/backend"], "b");
    let reply = json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"name": "ada"}}});
    assert_eq!(client.post(edge, reply.clone()).await.status, 202);
    let (_, done) = answer.message().await.unwrap();
    assert_eq!(done["result"]["content"][0]["text"], "ada");
    // A second answer has nobody who waits, and is no error.
    assert_eq!(client.post(edge, reply).await.status, 202);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_no_request_comes_on_the_standing_stream() {
    let backend = Backend::start().await;
    let cluster = Cluster::one(&backend).await;
    let edge = cluster.mcp(0);
    let mut client = Client::new();
    client.initialize(edge).await;
    let mut standing = client.get(edge, None).await;
    assert_eq!(standing.status, 200);
    assert_eq!(standing.event().await.unwrap().id.as_deref(), Some("g.1"));
    client.call(edge, 1, "b_echo", json!({})).await.json().await;
    let updated =
        json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "note://1"}});
    backend.push(&backend.last_session(), updated).await;
    let (id, message) = standing.next("notifications/resources/updated").await;
    assert_eq!(message["params"]["uri"], "note://1");
    // A newer client replaces the older, and misses nothing.
    let mut newer = client.get(edge, Some("g.1")).await;
    assert_eq!(newer.next("notifications/resources/updated").await, (id, message));
    while standing.event().await.is_some() {}
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_ids_of_many_clients_are_never_mixed_up() {
    let backend = Backend::start().await;
    let cluster = Cluster::one(&backend).await;
    let edge = cluster.mcp(0);
    let clients = (0..40).map(|n| async move {
        let mut client = Client::new();
        client.initialize(edge).await;
        for round in 0..5 {
            let said = format!("{n}-{round}");
            let answer = client.call(edge, 1, "b_echo", json!({"text": said})).await.json().await;
            assert!(
                answer["result"]["content"][0]["text"].as_str().unwrap().ends_with(&format!(" {said}")),
                "{answer}"
            );
        }
    });
    futures::future::join_all(clients).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_taken_in_2025_03_26_only() {
    let backend = Backend::start().await;
    let cluster = Cluster::one(&backend).await;
    let edge = cluster.mcp(0);
    let batch = json!([
        {"jsonrpc": "2.0", "id": 1, "method": "ping"},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        front_support::call(2, "b_echo", json!({"text": "x"})),
    ]);
    let mut old = Client { version: "2025-03-26", ..Client::new() };
    old.initialize(edge).await;
    let answers = old.post(edge, batch.clone()).await.json().await;
    assert_eq!(
        answers.as_array().unwrap().iter().map(|answer| answer["id"].clone()).collect::<Vec<_>>(),
        [1, 2]
    );
    let mut new = Client::new();
    new.initialize(edge).await;
    assert_eq!(new.post(edge, batch).await.status, 400);
    cluster.stop().await;
}
