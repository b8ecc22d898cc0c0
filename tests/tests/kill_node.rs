//! Kill the node, keep the session: three `swarm up` processes, SIGKILL, no sticky routing.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{
    client::{Session, Stream},
    cluster::Cluster,
    process::{Process, swarm_binary},
};
use tokio::process::Command;

const NODES: usize = 3;
/// How often the serving node is killed; `SWARM_KILLS` changes it.
const KILLS: usize = 100;
const BEFORE: u64 = 12;
const READ: u64 = 5;
const AFTER: u64 = 4;

async fn remote(folder: &std::path::Path) -> Result<Process> {
    let mut command = Command::new(swarm_binary()?);
    command.args(["example-server", "--http", "127.0.0.1:0"]);
    Process::start(&mut command, &folder.join("remote.log")).await
}

/// Reads numbered notifications `first..=last`: none missing, none twice, in order.
async fn expect_numbers(stream: &mut Stream, first: u64, last: u64) -> Result<String> {
    let mut id = String::new();
    let mut next = first;
    while next <= last {
        let event = stream.next().await?.with_context(|| format!("the stream ended before {next}"))?;
        let message = event.json();
        if message["method"] != "notifications/message" {
            continue;
        }
        ensure!(number_of(&message) == Some(next), "expected {next}, got {message}");
        id = event.id;
        next += 1;
    }
    Ok(id)
}

fn number_of(message: &Value) -> Option<u64> {
    message["params"]["data"]["n"].as_u64()
}

/// One try: a session opened at `a`, used, its stream read in part, `a` killed; the same session
/// and stream go on at `b`.
async fn survive_one_kill(cluster: &mut Cluster, a: usize, b: usize) -> Result<()> {
    let session = Session::open(&cluster.mcp(a)).await?;
    let mut stream = session.listen(&cluster.mcp(a), None).await?;
    ensure!(session.call(&cluster.mcp(a), 1, "remote_echo", json!({"text": "before"})).await? == "before");
    session.call(&cluster.mcp(a), 2, "remote_emit", json!({"count": BEFORE, "from": 1})).await?;
    let last_seen = expect_numbers(&mut stream, 1, READ).await?;

    cluster.kill(a).await?;

    let url = cluster.mcp(b);
    ensure!(session.call(&url, 3, "remote_echo", json!({"text": "after"})).await? == "after");
    let mut stream = session.listen(&url, Some(&last_seen)).await?;
    expect_numbers(&mut stream, READ + 1, BEFORE).await?;
    session.call(&url, 4, "remote_emit", json!({"count": AFTER, "from": BEFORE + 1})).await?;
    expect_numbers(&mut stream, BEFORE + 1, BEFORE + AFTER).await?;
    session.delete(&url).await
}

#[tokio::test]
async fn a_session_and_its_stream_survive_the_death_of_its_node() -> Result<()> {
    let kills = std::env::var("SWARM_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let folder = tempfile::tempdir()?;
    let remote = remote(folder.path()).await?;
    let backends = json!({"remote": {"type": "http", "url": remote.fact("url")}});
    let mut cluster = Cluster::start(NODES, backends).await?;
    for kill in 0..kills {
        let (a, b) = (kill % NODES, (kill + 1) % NODES);
        let survived = survive_one_kill(&mut cluster, a, b).await;
        survived.with_context(|| format!("kill {} of {kills}\n{}", kill + 1, cluster.logs()))?;
        cluster.restart(a).await.with_context(|| format!("restart after kill {}", kill + 1))?;
    }
    Ok(())
}

#[tokio::test]
async fn a_stream_relayed_by_another_edge_ends_with_its_anchor_and_resumes_there() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let remote = remote(folder.path()).await?;
    let backends = json!({"remote": {"type": "http", "url": remote.fact("url")}});
    let mut cluster = Cluster::start(NODES, backends).await?;
    let session = Session::open(&cluster.mcp(0)).await?;
    let mut stream = session.listen(&cluster.mcp(1), None).await?;
    session.call(&cluster.mcp(0), 1, "remote_emit", json!({"count": 3, "from": 1})).await?;
    let last_seen = expect_numbers(&mut stream, 1, 3).await?;

    cluster.kill(0).await?;
    ensure!(stream.next().await?.is_none(), "the stream of a dead anchor says nothing new");

    let mut stream = session.listen(&cluster.mcp(1), Some(&last_seen)).await?;
    session.call(&cluster.mcp(2), 2, "remote_emit", json!({"count": 3, "from": 4})).await?;
    expect_numbers(&mut stream, 4, 6).await?;
    Ok(())
}

#[tokio::test]
async fn an_answer_reaches_the_waiting_call_through_any_edge() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let remote = remote(folder.path()).await?;
    let backends = json!({"remote": {"type": "http", "url": remote.fact("url")}});
    let cluster = Cluster::start(NODES, backends).await?;
    let session = Session::open(&cluster.mcp(0)).await?;
    let call = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call",
        "params": {"name": "remote_elicit", "arguments": {"message": "Which flavour?"}}});
    let mut stream = session.stream(&cluster.mcp(1), &call).await?;
    let asked = stream.next().await?.context("nobody asked")?.json();
    ensure!(asked["method"] == "elicitation/create", "{asked}");

    let answer = json!({"jsonrpc": "2.0", "id": asked["id"],
        "result": {"action": "accept", "content": {"answer": "lemon"}}});
    let accepted = session.post(&cluster.mcp(2), &answer).await?;
    ensure!(accepted.status == 202, "{} {:?}", accepted.status, accepted.body);

    let result = stream.next().await?.context("the call has no answer")?.json();
    ensure!(result["id"] == 7 && result.to_string().contains("lemon"), "{result}");
    Ok(())
}

#[tokio::test]
async fn a_deleted_session_is_gone_at_every_edge() -> Result<()> {
    let cluster =
        Cluster::start(NODES, json!({"local": {"command": swarm_binary()?, "args": ["example-server"]}}))
            .await?;
    let session = Session::open(&cluster.mcp(0)).await?;
    for node in 0..NODES {
        session.call(&cluster.mcp(node), 1, "local_echo", json!({"text": "here"})).await?;
    }
    session.delete(&cluster.mcp(1)).await?;
    for node in 0..NODES {
        let ping = json!({"jsonrpc": "2.0", "id": 9, "method": "ping"});
        ensure!(session.post(&cluster.mcp(node), &ping).await?.status == 404, "node {node} still serves");
    }
    Ok(())
}
