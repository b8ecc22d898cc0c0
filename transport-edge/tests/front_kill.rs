//! What an operator switches off at a running edge, and on again.

#![allow(clippy::unwrap_used)]

mod front_support;

use front_support::{Backend, Client, Cluster, config};
use kit::flags::{Change, Setting};
use proto::edge::{BackendsRequest, edge_service_client::EdgeServiceClient};
use serde_json::{Value, json};
use std::net::SocketAddr;
use tonic::transport::Channel;

async fn set(cluster: &Cluster, key: &str, to: Setting) {
    let (reason, actor) = ("a test".into(), "tester".into());
    let change = Change { key: key.into(), to, reason, actor, expected_revision: None, cascade: false };
    cluster.nodes[0].served.context().flags.change(change).await.unwrap();
}

/// The answer to `b_echo` in each era: HTTP status, `Retry-After`, body.
async fn echo(edge: SocketAddr, session: &Client, tool: &str) -> [(u16, bool, Value); 2] {
    let legacy = session.call(edge, 5, tool, json!({"text": "x"})).await;
    let modern = Client::new();
    let modern = modern.modern(edge, json!(6), "tools/call", json!({"name": tool, "arguments": {}})).await;
    let mut answers = Vec::new();
    for answer in [legacy, modern] {
        let (status, retry) = (answer.status.as_u16(), answer.headers.contains_key("retry-after"));
        answers.push((status, retry, answer.json().await));
    }
    answers.try_into().unwrap()
}

/// What a modern client finds in the list.
async fn tools(edge: SocketAddr) -> Value {
    Client::new().modern(edge, json!(1), "tools/list", json!({})).await.json().await["result"]["tools"]
        .clone()
}

/// State and reason of a backend, as this edge tells them to other services.
async fn state(cluster: &Cluster, name: &str) -> (String, String) {
    let channel = Channel::from_shared(format!("http://{}", cluster.nodes[0].grpc)).unwrap();
    let mut edge = EdgeServiceClient::new(channel.connect().await.unwrap());
    let request = kit::rpc::with_deadline(BackendsRequest {}, front_support::PATIENCE);
    let backends = edge.backends(request).await.unwrap().into_inner().backends;
    let view = backends.into_iter().find(|view| view.name == name).unwrap();
    (view.state, view.reason)
}

fn switch(answer: &Value) -> &str {
    assert_eq!(answer["error"]["data"]["retryable"], true, "{answer}");
    answer["error"]["data"]["switch"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_tool_calls_are_refused_in_both_eras_and_the_session_stays() {
    let backend = Backend::start().await;
    let cluster = Cluster::one(&backend).await;
    let edge = cluster.mcp(0);
    let mut client = Client::new();
    client.initialize(edge).await;
    set(&cluster, "kill.tool-calls", Setting::Kill).await;
    let [legacy, modern] = echo(edge, &client, "b_echo").await;
    // In a session an error is an answer (200); alone it has the HTTP status that it means.
    assert_eq!((legacy.0, legacy.2["id"].as_u64()), (200, Some(5)), "{legacy:?}");
    assert_eq!((modern.0, modern.1, modern.2["id"].as_u64()), (503, true, Some(6)), "{modern:?}");
    for answer in [&legacy.2, &modern.2] {
        assert_eq!((switch(answer), answer["error"]["code"].as_i64()), ("kill.tool-calls", Some(503)));
    }
    assert_eq!(backend.calls("echo"), 0, "the backend hears nothing");
    let read = json!({"jsonrpc": "2.0", "id": 7, "method": "resources/read", "params": {"uri": "note://1"}});
    assert!(client.post(edge, read).await.json().await["result"].is_object(), "other requests go on");
    set(&cluster, "kill.tool-calls", Setting::Revive).await;
    let answers = echo(edge, &client, "b_echo").await;
    assert!(answers.iter().all(|(status, _, body)| *status == 200 && body["result"].is_object()));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_killed_backend_is_cut_off_and_the_other_serves() {
    let (one, two) = (Backend::start().await, Backend::start().await);
    let cluster = Cluster::start(1, &config(&[("b", &one.url), ("c", &two.url)])).await;
    let edge = cluster.mcp(0);
    let mut client = Client::new();
    client.initialize(edge).await;
    let listed = tools(edge).await;
    assert_eq!(state(&cluster, "b").await, ("ready".into(), String::new()));
    set(&cluster, "kill.backend.b", Setting::Kill).await;
    let reason = "switched off by an operator (kill.backend.b)".to_owned();
    assert_eq!(state(&cluster, "b").await, ("stopped".into(), reason));
    assert_eq!(state(&cluster, "c").await, ("ready".into(), String::new()));
    assert_eq!(tools(edge).await, listed, "its names stay in the lists");
    let [legacy, modern] = echo(edge, &client, "b_echo").await;
    assert_eq!((switch(&legacy.2), switch(&modern.2)), ("kill.backend.b", "kill.backend.b"));
    assert_eq!((legacy.0, modern.0, modern.1), (200, 503, true));
    assert!(echo(edge, &client, "c_echo").await.iter().all(|(_, _, body)| body["result"].is_object()));
    // Its own endpoint is closed as a whole.
    let transparent = Client { path: "/mcp/b", ..Client::new() };
    let answer = transparent.modern(edge, json!(1), "tools/list", json!({})).await;
    assert_eq!((answer.status.as_u16(), answer.headers.contains_key("retry-after")), (503, true));
    assert_eq!(switch(&answer.json().await), "kill.backend.b");
    assert_eq!(one.calls("echo"), 0, "the backend hears nothing");
    set(&cluster, "kill.backend.b", Setting::Revive).await;
    assert_eq!(state(&cluster, "b").await, ("ready".into(), String::new()));
    assert!(echo(edge, &client, "b_echo").await.iter().all(|(_, _, body)| body["result"].is_object()));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_transport_answers_503_with_the_reason_to_everything() {
    let backend = Backend::start().await;
    let cluster = Cluster::one(&backend).await;
    let edge = cluster.mcp(0);
    let mut client = Client::new();
    client.initialize(edge).await;
    set(&cluster, "kill.transport.http", Setting::Kill).await;
    for answer in [
        client.call(edge, 5, "b_echo", json!({})).await,
        Client::new().modern(edge, json!(1), "server/discover", json!({})).await,
        client.get(edge, None).await,
        client.delete(edge).await,
    ] {
        assert_eq!((answer.status.as_u16(), answer.headers.contains_key("retry-after")), (503, true));
        let body = answer.json().await;
        assert_eq!(switch(&body), "kill.transport.http");
        assert!(body["error"]["message"].as_str().unwrap().contains("switched off by an operator"));
    }
    set(&cluster, "kill.transport.http", Setting::Revive).await;
    let called = client.call(edge, 6, "b_echo", json!({"text": "x"})).await;
    assert_eq!(called.status, 200, "the session outlived the kill");
    cluster.stop().await;
}

/// MCP.md 1.2, 26: a client that tries the modern era finds no answer that it knows in the 400, and
/// initializes.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_modern_era_the_edge_answers_as_a_server_that_only_knows_sessions() {
    let backend = Backend::start().await;
    let cluster = Cluster::one(&backend).await;
    let edge = cluster.mcp(0);
    set(&cluster, "mcp.modern-era", Setting::all("off")).await;
    for method in ["server/discover", "tools/list"] {
        let answer = Client::new().modern(edge, json!(1), method, json!({})).await;
        assert_eq!(answer.status, 400, "{method}");
        let body = answer.json().await;
        assert_eq!(body["error"]["code"], -32600, "{body}");
        assert!(body["error"]["message"].as_str().unwrap().contains("send initialize first"), "{body}");
    }
    let mut client = Client::new();
    client.initialize(edge).await;
    let called = client.call(edge, 1, "b_echo", json!({"text": "x"})).await.json().await;
    assert!(called["result"].is_object(), "{called}");
    set(&cluster, "mcp.modern-era", Setting::all("on")).await;
    let found = Client::new().modern(edge, json!(1), "server/discover", json!({})).await;
    assert_eq!(found.status, 200);
    cluster.stop().await;
}
