//! `/metrics` of a whole node, linted by promtool, and the probes beside it.

use anyhow::{Context, Result, ensure};
use http::Method;
use serde_json::json;
use std::process::Stdio;
use tests::{
    client::{Session, http},
    cluster::Cluster,
    process::swarm_binary,
};
use tokio::{io::AsyncWriteExt, process::Command};

#[tokio::test]
async fn every_metric_of_a_node_is_well_named() -> Result<()> {
    let Some(promtool) = kit::test::tool("promtool") else { return Ok(()) };
    let backends = json!({"local": {"command": swarm_binary()?, "args": ["example-server"]}});
    let cluster = Cluster::start(1, backends).await?;
    let session = Session::open(&cluster.mcp(0)).await?;
    session.call(&cluster.mcp(0), 1, "local_echo", json!({"text": "counted"})).await?;

    let scraped = http(Method::GET, &format!("{}/metrics", cluster.admin(0)), &[], "").await?;
    ensure!(scraped.status == 200, "{}", scraped.status);
    let text = String::from_utf8(scraped.body.to_vec())?;
    for name in [
        "swarm_build_info",
        "swarm_registry_",
        "swarm_gossip_members",
        "swarm_session",
        "swarm_raft_term",
        "mcp_server_operation_duration_seconds",
        "mcp_client_operation_duration_seconds",
    ] {
        ensure!(text.contains(name), "no {name} in\n{text}");
    }
    lint(&promtool, &text).await?;
    cluster.terminate().await
}

async fn lint(promtool: &std::path::Path, text: &str) -> Result<()> {
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    stdin.write_all(text.as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "promtool: {words}{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

#[tokio::test]
async fn the_probes_tell_a_ready_node() -> Result<()> {
    let cluster = Cluster::start(1, json!({})).await?;
    for probe in ["livez", "readyz"] {
        let answer = http(Method::GET, &format!("{}/{probe}", cluster.admin(0)), &[], "").await?;
        ensure!(answer.status == 200, "{probe}: {} {:?}", answer.status, answer.body);
    }
    cluster.terminate().await
}
