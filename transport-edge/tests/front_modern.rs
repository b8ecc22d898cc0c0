//! The modern era at one edge: discovery, calls, streams, subscriptions.

mod front_support;

use front_support::{Backend, Client, Cluster, PATIENCE};
use kit::test::eventually;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_discovers_lists_and_calls_without_a_session() {
    let backend = Backend::start().await;
    let cluster = Cluster::one(&backend).await;
    let edge = cluster.mcp(0);
    let client = Client::new();
    let answer = client.modern(edge, json!("d"), "server/discover", json!({})).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.headers.contains_key("mcp-session-id"));
    let discovered = answer.json().await;
    assert_eq!(discovered["id"], "d");
    let result = &discovered["result"];
    assert_eq!(result["resultType"], "complete");
    assert!(result["supportedVersions"].as_array().unwrap().contains(&json!("2026-07-28")));
    assert_eq!(result["capabilities"]["tools"]["listChanged"], true);
    let listed = client.modern(edge, json!(1), "tools/list", json!({})).await.json().await;
    assert_eq!(listed["result"]["tools"].as_array().unwrap().len(), 5);
    assert_eq!(listed["result"]["resultType"], "complete");
    assert!(listed["result"]["ttlMs"].as_u64().is_some() && listed["result"]["cacheScope"] == "private");
    let called = client
        .modern(edge, json!(2), "tools/call", json!({"name": "b_echo", "arguments": {"text": "x"}}))
        .await
        .json()
        .await;
    assert_eq!(called["result"]["resultType"], "complete", "{called}");
    assert_eq!(called["id"], 2);
    assert!(cluster.store.is_empty());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_streams_its_notifications_and_closing_it_cancels() {
    let backend = Backend::start().await;
    let cluster = Cluster::one(&backend).await;
    let edge = cluster.mcp(0);
    let client = Client::new();
    let mut answer = client.modern(edge, json!(1), "tools/call", json!({"name": "b_slow"})).await;
    assert!(answer.is_stream());
    let first = answer.event().await.unwrap();
    assert_eq!(first.id, None);
    backend.gate.add_permits(1);
    let rest = answer.messages().await;
    assert_eq!(rest[0].1["params"], json!({"progressToken": 5, "progress": 2}));
    assert_eq!(rest[1].1["id"], 1);
    let mut closed = client.modern(edge, json!(2), "tools/call", json!({"name": "b_slow"})).await;
    closed.event().await.unwrap();
    drop(closed);
    eventually("the backend is told", PATIENCE, || async { backend.saw("notifications/cancelled").pop() })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_of_a_legacy_backend_is_refused_for_the_client() {
    let backend = Backend::start().await;
    let cluster = Cluster::one(&backend).await;
    let answer = Client::new()
        .modern(cluster.mcp(0), json!(1), "tools/call", json!({"name": "b_ask"}))
        .await
        .json()
        .await;
    assert_eq!(answer["result"]["content"][0]["text"], "nobody");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_gets_an_ack_then_what_it_asked_for() {
    let backend = Backend::start().await;
    let cluster = Cluster::one(&backend).await;
    let edge = cluster.mcp(0);
    let client = Client::new();
    let filter = json!({"notifications": {"toolsListChanged": true, "resourceSubscriptions": ["note://1", "other://2"]}});
    let mut stream = client.modern(edge, json!("l"), "subscriptions/listen", filter).await;
    assert!(stream.is_stream());
    let (_, ack) = stream.message().await.unwrap();
    assert_eq!(ack["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(ack["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "l");
    assert_eq!(ack["params"]["notifications"]["toolsListChanged"], true);
    assert_eq!(ack["params"]["notifications"].get("promptsListChanged"), None);
    assert_eq!(backend.saw("resources/subscribe").len(), 2);
    let updated =
        json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "note://1"}});
    backend.push(&backend.last_session(), updated).await;
    let (_, message) = stream.next("notifications/resources/updated").await;
    assert_eq!(message["method"], "notifications/resources/updated");
    assert_eq!(message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "l");
    drop(stream);
    eventually("the backend is unsubscribed", PATIENCE, || async {
        (backend.saw("resources/unsubscribe").len() == 2).then_some(())
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_with_prior_knowledge_is_served_on_the_same_port() {
    use http_body_util::{BodyExt as _, Full};
    let backend = Backend::start().await;
    let cluster = Cluster::one(&backend).await;
    let edge = cluster.mcp(0);
    let stream = tokio::net::TcpStream::connect(edge).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}}});
    let request = http::Request::post(format!("http://{edge}/mcp"))
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "server/discover")
        .body(Full::new(bytes::Bytes::from(body.to_string())));
    let response = sender.send_request(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(serde_json::from_slice::<serde_json::Value>(&body).unwrap()["result"].is_object());
    cluster.stop().await;
}
