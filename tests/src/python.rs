//! The real clients and servers in `tests/python`, run by the prepared Python environments.

use crate::process::{Process, root};
use anyhow::{Context, Result, ensure};
use std::{path::PathBuf, time::Duration};
use tempfile::TempDir;
use tokio::{process::Command, time::timeout};

/// One of the prepared environments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sdk {
    /// `mcp` 2.x, and the real servers.
    Current,
    /// `mcp<2`.
    Old,
}

impl Sdk {
    /// The interpreter, or nothing after a loud word on what is left out.
    pub fn python(self) -> Option<PathBuf> {
        let bin = kit::test::tool("mcp-server-time")?.parent()?.to_owned();
        match self {
            Sdk::Current => Some(bin.join("python")),
            Sdk::Old => Some(bin.join("../old/bin/python")).filter(|python| python.exists()),
        }
    }
}

/// A program of the prepared environment, such as `mcp-server-time`.
pub fn program(name: &str) -> Option<PathBuf> {
    kit::test::tool(name)
}

/// A script of `tests/python`.
pub fn script(name: &str) -> PathBuf {
    root().join("tests/python").join(name)
}

/// Runs a client script to its end and returns what it printed; each case is an `ok` line.
pub async fn run(sdk: Sdk, name: &str, arguments: &[&str]) -> Result<String> {
    let python = sdk.python().context("the Python environment is not prepared")?;
    let run = Command::new(python).arg(script(name)).args(arguments).kill_on_drop(true).output();
    let output = timeout(Duration::from_secs(240), run).await.context("the client hangs")??;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} {arguments:?}\n{printed}\n{errors}");
    Ok(printed)
}

/// The Streamable HTTP server written with the SDK; its URL is the `url` fact.
pub async fn sdk_server(folder: &TempDir, arguments: &[&str]) -> Result<Process> {
    let python = Sdk::Current.python().context("the Python environment is not prepared")?;
    let mut command = Command::new(python);
    command.arg(script("sdk_server.py")).args(arguments);
    Process::start(&mut command, &folder.path().join("sdk_server.log")).await
}
