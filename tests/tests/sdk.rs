//! The official Python SDK, current in every mode and old, against `swarm up` with real backends.

use anyhow::Result;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{
    cluster::Cluster,
    process::Process,
    python::{self, Sdk, program, script, sdk_server},
};
use tokio::process::Command;

/// A git repository for mcp-server-git, the SDK's HTTP server, and the three backends' entries.
async fn real_backends(folder: &TempDir) -> Result<Option<(Process, Value)>> {
    let (Some(time), Some(git)) = (program("mcp-server-time"), program("mcp-server-git")) else {
        return Ok(None);
    };
    let repository = folder.path().join("repository");
    Command::new("git").arg("init").arg("-q").arg(&repository).status().await?;
    let sdk = sdk_server(folder, &[]).await?;
    let backends = json!({
        "time": {"command": time, "args": ["--local-timezone", "UTC"]},
        "git": {"command": git, "args": ["--repository", repository]},
        "sdk": {"type": "http", "url": sdk.fact("url")},
    });
    Ok(Some((sdk, backends)))
}

async fn every_case_holds(mode: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let Some((_sdk, backends)) = real_backends(&folder).await? else {
        return Ok(());
    };
    let cluster = Cluster::start(1, backends).await?;
    let printed = python::run(Sdk::Current, "sdk_client.py", &[&cluster.mcp(0), mode]).await?;
    let cases = std::fs::read_to_string(script("sdk_client.py"))?.matches("\nasync def ").count();
    // Every async function but the helpers on_elicit, on_sample and main is a case.
    assert_eq!(printed.matches("ok ").count(), cases - 3, "{printed}");
    cluster.terminate().await
}

#[tokio::test]
async fn the_sdk_in_legacy_mode() -> Result<()> {
    every_case_holds("legacy").await
}

#[tokio::test]
async fn the_sdk_in_auto_mode() -> Result<()> {
    every_case_holds("auto").await
}

#[tokio::test]
async fn the_sdk_in_modern_mode() -> Result<()> {
    every_case_holds("2026-07-28").await
}

#[tokio::test]
async fn the_old_sdk() -> Result<()> {
    if Sdk::Old.python().is_none() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let Some((_sdk, backends)) = real_backends(&folder).await? else {
        return Ok(());
    };
    let cluster = Cluster::start(1, backends).await?;
    let printed = python::run(Sdk::Old, "old_client.py", &[&cluster.mcp(0)]).await?;
    assert_eq!(printed.matches("ok ").count(), 8, "{printed}");
    cluster.terminate().await
}
