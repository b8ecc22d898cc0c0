//! Sick backends beside healthy ones, and no child that outlives its node.

// Wall clock of real processes, not of a core.
#![allow(clippy::disallowed_methods)]

use anyhow::{Result, ensure};
use http::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tests::{
    client::{Session, http},
    cluster::Cluster,
    process::{processes_with, swarm_binary},
};
use tokio::process::Command;

fn example(mark: &str) -> Result<Value> {
    Ok(json!({"command": swarm_binary()?, "args": ["example-server", "--mark", mark]}))
}

async fn tool_names(session: &Session, url: &str) -> Result<Vec<String>> {
    let result = session.request(url, 50, "tools/list", json!({})).await?;
    let tools = result["tools"].as_array().cloned().unwrap_or_default();
    Ok(tools.iter().filter_map(|tool| tool["name"].as_str()).map(str::to_owned).collect())
}

/// What `swarm registry list -o json` says of every backend, by name.
async fn registry_list(cluster: &Cluster) -> Result<Vec<Value>> {
    let output = Command::new(swarm_binary()?)
        .args(["registry", "list", "-o", "json", "--endpoint", &cluster.admin(0)])
        .output()
        .await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed: Value = serde_json::from_slice(&output.stdout)?;
    let rows = listed.as_array().or_else(|| listed["registrations"].as_array()).cloned();
    Ok(rows.unwrap_or_default())
}

async fn reason_of(cluster: &Cluster, backend: &str) -> String {
    kit::test::eventually(&format!("{backend} is told to be out"), Duration::from_secs(20), || async {
        let rows = registry_list(cluster).await.ok()?;
        let row = rows.into_iter().find(|row| row["name"] == backend)?;
        let reason = row["reason"].as_str().or_else(|| row["status"]["reason"].as_str())?;
        (!reason.is_empty()).then(|| reason.to_owned())
    })
    .await
}

#[tokio::test]
async fn sick_backends_do_not_disturb_the_healthy_ones() -> Result<()> {
    let backends = json!({
        "good": example("faults-good")?,
        "missing": {"command": "/no/such/program"},
        "exits": {"command": "false"},
        "silent": {"command": "sleep", "args": ["1000"]},
        "unreachable": {"type": "http", "url": "http://127.0.0.1:9/mcp"},
        "dying": example("faults-dying")?,
        "hanging": example("faults-hanging")?,
        "flooding": example("faults-flooding")?,
    });
    let cluster = Cluster::start(1, backends).await?;
    let url = cluster.mcp(0);
    let session = Session::open(&url).await?;
    let names = tool_names(&session, &url).await?;
    for healthy in ["good_echo", "dying_echo", "hanging_echo", "flooding_echo"] {
        ensure!(names.iter().any(|name| name == healthy), "{healthy} is not in {names:?}");
    }

    // One hangs for ever, one floods its output, one dies in the middle of a call …
    let (hanging, at) = (session.clone(), url.clone());
    let hang = tokio::spawn(async move { hanging.call(&at, 100, "hanging_hang", json!({})).await });
    ensure!(session.call(&url, 101, "dying_crash", json!({})).await.is_err());
    ensure!(session.call(&url, 102, "flooding_flood", json!({})).await.is_err());

    // … and the good one answers as if nothing were.
    for id in 1..=50 {
        let started = Instant::now();
        ensure!(session.call(&url, id, "good_echo", json!({"text": "undisturbed"})).await? == "undisturbed");
        ensure!(started.elapsed() < Duration::from_secs(2), "call {id} took {:?}", started.elapsed());
    }
    ensure!(tool_names(&session, &url).await?.iter().any(|name| name == "good_echo"));

    // What died or flooded comes back by itself.
    for (id, tool) in [(201, "dying_echo"), (202, "flooding_echo")] {
        kit::test::eventually(tool, Duration::from_secs(20), || async {
            session.call(&url, id, tool, json!({"text": "back"})).await.ok()
        })
        .await;
    }
    ensure!(reason_of(&cluster, "missing").await.contains("/no/such/program"));
    ensure!(!reason_of(&cluster, "exits").await.is_empty());
    ensure!(!reason_of(&cluster, "silent").await.is_empty());
    ensure!(reason_of(&cluster, "unreachable").await.contains("127.0.0.1:9"));
    hang.abort();
    cluster.terminate().await
}

#[tokio::test]
async fn when_all_are_out_the_answer_is_an_error_that_names_them() -> Result<()> {
    let backends = json!({"missing": {"command": "/no/such/program"}, "exits": {"command": "false"}});
    let cluster = Cluster::start(1, backends).await?;
    let url = cluster.mcp(0);
    let session = Session::open(&url).await?;
    let asked = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let answer = session.post(&url, &asked).await?.message()?;
    let error = answer["error"]["message"].as_str().unwrap_or_default();
    ensure!(error.contains("missing") && error.contains("exits"), "{answer}");
    cluster.terminate().await
}

/// Two children of the node: the catalogue's and the session's own.
async fn node_with_children(mark: &str) -> Result<Cluster> {
    let cluster = Cluster::start(1, json!({"child": example(mark)?})).await?;
    let session = Session::open(&cluster.mcp(0)).await?;
    session.call(&cluster.mcp(0), 1, "child_echo", json!({"text": "x"})).await?;
    ensure!(!children(mark).is_empty(), "the backend does not run");
    Ok(cluster)
}

fn children(mark: &str) -> Vec<u32> {
    processes_with(&format!("example-server --mark {mark}"))
}

async fn no_child_is_left(mark: &str) {
    kit::test::eventually("every child is gone", Duration::from_secs(10), || async {
        children(mark).is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn no_child_outlives_a_killed_node() -> Result<()> {
    let mut cluster = node_with_children("faults-killed").await?;
    cluster.kill(0).await?;
    no_child_is_left("faults-killed").await;
    Ok(())
}

#[tokio::test]
async fn no_child_outlives_a_drained_node() -> Result<()> {
    node_with_children("faults-drained").await?.terminate().await?;
    no_child_is_left("faults-drained").await;
    Ok(())
}

/// What is sent (in words, headers, body) and what must come back (status, JSON-RPC code).
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, u16, Option<i64>);

/// The rows of MCP.md that a stranger on the wire meets first, against the real process.
#[tokio::test]
async fn bad_input_gets_the_answer_of_the_specification() -> Result<()> {
    let cluster = Cluster::start(1, json!({"good": example("faults-input")?})).await?;
    let url = cluster.mcp(0);
    let json_headers =
        [("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
    let modern = [
        json_headers[0],
        json_headers[1],
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/list"),
    ];
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
    let list = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{{meta}}}}}"#);
    let unknown = list.replace("tools/list", "tools/unknown");
    let unknown_headers = [modern[0], modern[1], modern[2], ("mcp-method", "tools/unknown")];
    let mismatched = [modern[0], modern[1], modern[2], ("mcp-method", "tools/call")];
    let big =
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"x":"{}"}}}}"#, "x".repeat(5 << 20));
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let foreign = [json_headers[0], json_headers[1], ("origin", "http://evil.example")];
    let lost = [json_headers[0], json_headers[1], ("mcp-session-id", "nobody")];

    let cases: [Case<'_>; 9] = [
        ("malformed JSON", &json_headers, "{\"jsonrpc\":", 400, Some(-32700)),
        ("a batch", &json_headers, "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}]", 400, Some(-32600)),
        ("a 5 MB body", &json_headers, &big, 413, None),
        ("no session id", &json_headers, ping, 400, None),
        ("a wrong session id", &lost, ping, 404, None),
        ("a foreign origin", &foreign, ping, 403, None),
        ("an unknown modern method", &unknown_headers, &unknown, 404, Some(-32601)),
        ("a header that contradicts the body", &mismatched, &list, 400, Some(-32020)),
        ("modern and right", &modern, &list, 200, None),
    ];
    for (what, headers, body, status, code) in cases {
        // An edge that refuses by the length closes while the body is still being written: whether
        // this client then reads the answer or hits the closed pipe first is a race (RFC 9112, 9.6).
        let answer = kit::test::eventually(what, Duration::from_secs(20), || async {
            http(Method::POST, &url, headers, body.to_owned()).await.ok()
        })
        .await;
        ensure!(answer.status == status, "{what}: {} {:?}", answer.status, answer.body);
        if let Some(code) = code {
            ensure!(answer.message()?["error"]["code"] == code, "{what}: {:?}", answer.body);
        }
    }

    let session = Session::open(&url).await?;
    let version = [
        json_headers[0],
        json_headers[1],
        ("mcp-session-id", &session.id),
        ("mcp-protocol-version", "1999-01-01"),
    ];
    let answer = http(Method::POST, &url, &version, ping).await?;
    ensure!(answer.status == 400, "a wrong protocol version: {}", answer.status);
    let unknown =
        session.post(&url, &json!({"jsonrpc": "2.0", "id": 3, "method": "no/such"})).await?.message()?;
    ensure!(unknown["error"]["code"] == -32601, "an unknown legacy method: {unknown}");
    cluster.terminate().await
}
