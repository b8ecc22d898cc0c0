//! One or three `swarm up` processes on loopback.

use crate::process::{Process, swarm_binary};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tokio::process::Command;

/// Nodes of one cluster, their data, and the backends imported by each.
pub struct Cluster {
    nodes: Vec<Node>,
    import: PathBuf,
    folder: TempDir,
}

/// One node; `process` is empty while it is dead.
pub struct Node {
    name: String,
    process: Option<Process>,
    gossip: Option<String>,
}

impl Cluster {
    /// Starts `size` nodes that expect each other and import `backends` (an `mcpServers` map).
    pub async fn start(size: usize, backends: Value) -> Result<Cluster> {
        let folder = tempfile::tempdir()?;
        let import = folder.path().join("mcp.json");
        std::fs::write(&import, serde_json::to_vec_pretty(&json!({ "mcpServers": backends }))?)?;
        let name = |index: usize| format!("n{}", index + 1);
        let nodes = (0..size).map(|i| Node { name: name(i), process: None, gossip: None }).collect();
        let mut cluster = Cluster { nodes, import, folder };
        cluster.start_all().await?;
        Ok(cluster)
    }

    /// All at once: a node is ready only when the expected ones are there.
    async fn start_all(&mut self) -> Result<()> {
        let ports = free_udp_ports(self.nodes.len())?;
        for (node, port) in self.nodes.iter_mut().zip(&ports) {
            node.gossip = Some(format!("127.0.0.1:{port}"));
        }
        let starts = (0..self.nodes.len()).map(|index| self.spawn(index));
        let started = futures::future::try_join_all(starts).await?;
        for (node, process) in self.nodes.iter_mut().zip(started) {
            node.process = Some(process);
        }
        Ok(())
    }

    async fn spawn(&self, index: usize) -> Result<Process> {
        let node = self.nodes.get(index).context("no such node")?;
        let gossip = node.gossip.as_deref().context("no gossip address")?;
        let joins: Vec<&str> =
            self.nodes.iter().filter_map(|n| n.gossip.as_deref()).filter(|g| *g != gossip).collect();
        let mut command = Command::new(swarm_binary()?);
        command.args(["up", "--name", &node.name, "--gossip", gossip]);
        command.args(["--mcp", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]);
        command.args(["--expect", &self.nodes.len().to_string()]);
        command.arg("--data").arg(self.folder.path().join(&node.name));
        command.arg("--import").arg(&self.import);
        if !joins.is_empty() {
            command.args(["--join", &joins.join(",")]);
        }
        Process::start(&mut command, &self.log(index)).await
    }

    fn log(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("n{}.log", index + 1))
    }

    /// The folder that holds data and logs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The MCP URL of a node.
    pub fn mcp(&self, index: usize) -> String {
        self.fact(index, "mcp")
    }

    /// The admin URL of a node.
    pub fn admin(&self, index: usize) -> String {
        self.fact(index, "admin")
    }

    fn fact(&self, index: usize, key: &str) -> String {
        let process = self.nodes.get(index).and_then(|node| node.process.as_ref());
        process.map_or_else(String::new, |process| process.fact(key).to_owned())
    }

    /// SIGKILL.
    pub async fn kill(&mut self, index: usize) -> Result<()> {
        let node = self.nodes.get_mut(index).context("no such node")?;
        match node.process.take() {
            Some(mut process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// Starts a dead node again on its data and its gossip address.
    pub async fn restart(&mut self, index: usize) -> Result<()> {
        let process = self.spawn(index).await?;
        self.nodes.get_mut(index).context("no such node")?.process = Some(process);
        Ok(())
    }

    /// SIGTERM to every node; each must end well.
    pub async fn terminate(mut self) -> Result<()> {
        let ends = self.nodes.iter_mut().filter_map(|node| node.process.as_mut()).map(Process::terminate);
        for status in futures::future::try_join_all(ends).await? {
            anyhow::ensure!(status.success(), "a node ended with {status}");
        }
        Ok(())
    }

    /// What every node logged last, for a failing test.
    pub fn logs(&self) -> String {
        let logs = self.nodes.iter().enumerate().map(|(index, node)| {
            let text = std::fs::read_to_string(self.log(index)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("--- {}\n{}", node.name, lines[lines.len().saturating_sub(25)..].join("\n"))
        });
        logs.collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

/// Gossip addresses must be known before the others start, so they cannot be bound to port 0.
fn free_udp_ports(count: usize) -> Result<Vec<u16>> {
    let sockets: Vec<_> =
        (0..count).map(|_| std::net::UdpSocket::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    Ok(sockets
        .iter()
        .map(std::net::UdpSocket::local_addr)
        .map(|a| a.map(|a| a.port()))
        .collect::<Result<_, _>>()?)
}
