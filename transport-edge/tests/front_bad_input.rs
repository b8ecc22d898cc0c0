//! What is refused, and how: over a real socket, byte for byte where it matters.

mod front_support;

use front_support::{Answer, Backend, Client, Cluster};
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const JSON: (&str, &str) = ("content-type", "application/json");
const BOTH: (&str, &str) = ("accept", "application/json, text/event-stream");

async fn edge() -> (Backend, Cluster, SocketAddr) {
    let backend = Backend::start().await;
    let cluster = Cluster::one(&backend).await;
    let edge = cluster.mcp(0);
    (backend, cluster, edge)
}

async fn refusal(answer: Answer) -> (u16, i64) {
    let status = answer.status.as_u16();
    let bytes = answer.bytes().await;
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    (status, body["error"]["code"].as_i64().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_bodies_are_refused_with_the_code_that_fits() {
    let (_backend, cluster, edge) = edge().await;
    let mut client = Client::new();
    client.initialize(edge).await;
    let session = ("mcp-session-id", client.session.as_str());
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{}1{}}}"#,
        r#"{"a":"#.repeat(70),
        "}".repeat(70)
    );
    for (body, status, code) in [
        ("{", 400, -32700),
        ("", 400, -32700),
        ("nonsense", 400, -32700),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping"} x"#, 400, -32700),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":NaN}}"#, 400, -32700),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, 400, -32600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, 400, -32600),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, 400, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","Method":"x"}"#, 400, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","id":2}"#, 400, -32600),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, 400, -32600),
        (r#"7"#, 400, -32600),
        (deep.as_str(), 400, -32600),
    ] {
        for headers in [vec![JSON, BOTH], vec![JSON, BOTH, session]] {
            let answer = client.send("POST", edge, &headers, body.to_owned()).await;
            assert_eq!(refusal(answer).await, (status, code), "{body}");
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_and_versions_are_checked() {
    let (_backend, cluster, edge) = edge().await;
    let mut client = Client::new();
    client.initialize(edge).await;
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
    let send = async |headers: &[(&str, &str)]| {
        let headers = [&[JSON, BOTH], headers].concat();
        refusal(client.send("POST", edge, &headers, ping.clone()).await).await
    };
    let id = client.session.as_str();
    assert_eq!(send(&[]).await, (400, -32600));
    assert_eq!(send(&[("mcp-session-id", "nonsense")]).await, (404, -32001));
    assert_eq!(send(&[("mcp-session-id", &"0".repeat(36))]).await, (404, -32001));
    assert_eq!(send(&[("mcp-session-id", id)]).await, (200, 0));
    assert_eq!(send(&[("mcp-session-id", id), ("mcp-protocol-version", "2025-06-18")]).await, (200, 0));
    assert_eq!(send(&[("mcp-session-id", id), ("mcp-protocol-version", "1999-01-01")]).await, (400, -32600));
    // Without a session the unknown version is one of the stateless kind.
    assert_eq!(send(&[("mcp-protocol-version", "1999-01-01")]).await, (400, -32602));
    let headers = [("mcp-session-id", id)];
    assert_eq!(client.send("GET", edge, &[("accept", "application/json"), headers[0]], "").await.status, 406);
    assert_eq!(client.send("GET", edge, &[BOTH], "").await.status, 400);
    assert_eq!(client.send("PUT", edge, &headers, "").await.status, 405);
    assert_eq!(client.send("OPTIONS", edge, &headers, "").await.status, 405);
    assert_eq!(
        client.send("POST", edge, &[JSON, ("accept", "text/html"), headers[0]], ping.clone()).await.status,
        406
    );
    assert_eq!(
        Client { path: "/other", ..client.clone() }.send("POST", edge, &[JSON], ping.clone()).await.status,
        404
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_initialize_must_be_whole() {
    let (_backend, cluster, edge) = edge().await;
    let client = Client::new();
    for params in [
        json!({}),
        json!({"protocolVersion": "2025-11-25"}),
        json!({"protocolVersion": 1, "capabilities": {}, "clientInfo": {}}),
    ] {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
        assert_eq!(refusal(client.post(edge, body).await).await, (400, -32602), "{params}");
    }
    assert!(cluster.store.is_empty());
    // A modern revision is answered with the newest that has sessions.
    let client = Client { version: "2026-07-28", ..Client::new() };
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2026-07-28", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
    assert_eq!(client.post(edge, body).await.json().await["result"]["protocolVersion"], "2025-11-25");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_odd_shapes_are_refused_before_the_body_is_read() {
    let (_backend, cluster, edge) = edge().await;
    let client = Client::new();
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
    let status = async |headers: &[(&str, &str)], body: String| {
        client.send("POST", edge, headers, body).await.status.as_u16()
    };
    assert_eq!(status(&[JSON, ("host", "evil.example")], body.clone()).await, 403);
    assert_eq!(status(&[JSON, ("origin", "https://evil.example")], body.clone()).await, 403);
    assert_eq!(status(&[("content-type", "text/plain")], body.clone()).await, 415);
    assert_eq!(status(&[JSON, ("content-encoding", "gzip")], body.clone()).await, 415);
    assert_eq!(status(&[JSON, ("x-big", &"x".repeat(17 << 10))], body.clone()).await, 431);
    let many: Vec<(String, &str)> = (0..120).map(|n| (format!("x-{n}"), "1")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(status(&many, body).await, 431);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_refused_by_its_length_and_by_its_bytes() {
    let (_backend, cluster, edge) = edge().await;
    // By its announced length: the answer comes before any byte of it.
    let mut stream = tokio::net::TcpStream::connect(edge).await.unwrap();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: {edge}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        5 << 20
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 64];
    let read = stream.read(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer[..read]).starts_with("HTTP/1.1 413"));
    // Without one: as soon as it is too much.
    let mut stream = tokio::net::TcpStream::connect(edge).await.unwrap();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: {edge}\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = [format!("{:x}\r\n", 1 << 20).into_bytes(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
    for _ in 0..5 {
        if stream.write_all(&chunk).await.is_err() {
            break;
        }
    }
    let read = stream.read(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer[..read]).starts_with("HTTP/1.1 413"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_head_and_a_slow_body_are_cut_off() {
    let backend = Backend::start().await;
    let mut config = front_support::config(&[("b", &backend.url)]);
    config.header_timeout = std::time::Duration::from_millis(200);
    config.body_timeout = std::time::Duration::from_millis(200);
    let cluster = Cluster::start(1, &config).await;
    let edge = cluster.mcp(0);
    for (sent, answered) in [
        ("", ""),
        ("POST /mcp HTT", ""),
        ("POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{", "HTTP/1.1 408"),
    ] {
        let mut stream = tokio::net::TcpStream::connect(edge).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let end = tokio::time::timeout(front_support::PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(end.is_ok(), "{sent:?} is never cut off");
        assert!(String::from_utf8_lossy(&answer).starts_with(answered), "{sent:?}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_outlives_the_time_for_a_head() {
    let backend = Backend::start().await;
    let mut config = front_support::config(&[("b", &backend.url)]);
    config.header_timeout = std::time::Duration::from_millis(100);
    let cluster = Cluster::start(1, &config).await;
    let edge = cluster.mcp(0);
    let mut stream = tokio::net::TcpStream::connect(edge).await.unwrap();
    let request = format!("GET /other HTTP/1.1\r\nhost: {edge}\r\n\r\n");
    let mut answer = vec![0; 256];
    for _ in 0..2 {
        stream.write_all(request.as_bytes()).await.unwrap();
        let read = stream.read(&mut answer).await.unwrap();
        assert!(String::from_utf8_lossy(&answer[..read]).starts_with("HTTP/1.1 404"));
        // Longer than a head may take.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_modern_era_checks_header_against_body() {
    let (_backend, cluster, edge) = edge().await;
    let client = Client::new();
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}});
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "b_echo", "_meta": meta}}).to_string();
    let version = ("mcp-protocol-version", "2026-07-28");
    let method = ("mcp-method", "tools/call");
    let name = ("mcp-name", "b_echo");
    let send = async |headers: &[(&str, &str)], body: &str| {
        let headers = [&[JSON, BOTH], headers].concat();
        refusal(client.send("POST", edge, &headers, body.to_owned()).await).await
    };
    assert_eq!(send(&[version, method, name], &call).await, (200, 0));
    assert_eq!(send(&[method, name], &call).await, (400, -32020));
    assert_eq!(send(&[("mcp-protocol-version", "2025-11-25"), method, name], &call).await, (400, -32020));
    assert_eq!(send(&[version, name], &call).await, (400, -32020));
    assert_eq!(send(&[version, method], &call).await, (400, -32020));
    assert_eq!(send(&[version, method, ("mcp-name", "b_slow")], &call).await, (400, -32020));
    assert_eq!(send(&[version, method, name, name], &call).await, (400, -32020));
    let bare = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string();
    assert_eq!(send(&[version, ("mcp-method", "tools/list")], &bare).await, (400, -32602));
    let future = call.replace("2026-07-28", "2030-01-01");
    assert_eq!(send(&[("mcp-protocol-version", "2030-01-01"), method, name], &future).await, (400, -32022));
    let unknown = call.replace("tools/call", "no/such");
    assert_eq!(send(&[version, ("mcp-method", "no/such")], &unknown).await, (404, -32601));
    let answer = json!({"jsonrpc": "2.0", "id": 1, "result": {}}).to_string();
    assert_eq!(send(&[version], &answer).await, (400, -32600));
    assert_eq!(client.send("GET", edge, &[version, BOTH], "").await.status, 405);
    assert_eq!(client.send("DELETE", edge, &[version], "").await.status, 405);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_every_backend_is_out_each_is_named_with_its_reason() {
    let cluster = Cluster::start(
        1,
        &front_support::config(&[("dead", "http://127.0.0.1:1/mcp"), ("gone", "http://127.0.0.1:2/mcp")]),
    )
    .await;
    let edge = cluster.mcp(0);
    let client = Client::new();
    let answer = client.modern(edge, json!(1), "tools/list", json!({})).await;
    assert_eq!(answer.status, 503);
    let answer = answer.json().await;
    let named: Vec<_> = answer["error"]["data"]["backends"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["backend"].clone())
        .collect();
    assert_eq!(named, ["dead", "gone"]);
    assert!(answer["error"]["message"].as_str().unwrap().contains("dead ("), "{answer}");
    cluster.stop().await;
}
