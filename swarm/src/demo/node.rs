//! One node: a `swarm up` process.

use super::servers::own_program;
use crate::api::Endpoints;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdout, Command},
};

const READY_DEADLINE: Duration = Duration::from_secs(30);
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// A node of the demo; it keeps its name, data and gossip address when it is started again.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) gossip: SocketAddr,
    folder: PathBuf,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    // Held open: the node would get a broken pipe at its next word.
    _stdout: BufReader<ChildStdout>,
    endpoints: Endpoints,
}

impl Node {
    /// A node that does not run yet.
    pub(super) fn new(name: String, gossip: SocketAddr, folder: &Path) -> Node {
        Node { folder: folder.join(&name), name, gossip, running: None }
    }

    /// Where it answers, while it runs.
    pub(super) fn endpoints(&self) -> Option<&Endpoints> {
        self.running.as_ref().map(|running| &running.endpoints)
    }

    /// Starts it and waits until it is ready. `expect` nodes form the cluster.
    pub(super) async fn start(
        &mut self,
        join: &[SocketAddr],
        expect: usize,
        import: &Path,
    ) -> Result<(), String> {
        let mut child = self.command(join, expect, import)?.spawn().map_err(|e| e.to_string())?;
        let stdout = child.stdout.take().ok_or("the node has no stdout")?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        let read = tokio::time::timeout(READY_DEADLINE, stdout.read_line(&mut line)).await;
        let endpoints = match read {
            Ok(Ok(_)) => parse_ready(&line),
            _ => None,
        };
        let endpoints = endpoints.ok_or_else(|| self.last_words())?;
        self.running = Some(Running { child, _stdout: stdout, endpoints });
        Ok(())
    }

    fn command(&self, join: &[SocketAddr], expect: usize, import: &Path) -> Result<Command, String> {
        let log = std::fs::File::options().create(true).append(true).open(self.log());
        let joins: Vec<String> = join.iter().map(SocketAddr::to_string).collect();
        let mut command = Command::new(own_program());
        command
            .args(["up", "--name", &self.name, "--expect", &expect.to_string()])
            .args(["--mcp", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--grpc", "127.0.0.1:0"])
            .args(["--gossip", &self.gossip.to_string(), "--join", &joins.join(",")])
            .arg("--data")
            .arg(&self.folder)
            .arg("--import")
            .arg(import)
            .args(["--die-with-parent", &std::process::id().to_string()])
            // What is set for the nodes of this machine is not meant for the demo's.
            .env_remove("SWARM__NODE__NAME")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.map_err(|error| error.to_string())?)
            // Ctrl-C in the terminal is for the demo, which then stops its nodes.
            .process_group(0)
            .kill_on_drop(true);
        Ok(command)
    }

    fn log(&self) -> PathBuf {
        self.folder.with_extension("log")
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(5).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        format!("{} did not become ready: {}", self.name, last.join(" | "))
    }

    /// SIGKILL. False when it did not run.
    pub(super) async fn kill(&mut self) -> bool {
        let Some(mut running) = self.running.take() else { return false };
        let _ = running.child.start_kill();
        let _ = running.child.wait().await;
        true
    }

    /// SIGTERM, and SIGKILL when that takes too long.
    pub(super) async fn stop(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        let pid = running.child.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if tokio::time::timeout(STOP_DEADLINE, running.child.wait()).await.is_err() {
            let _ = running.child.kill().await;
        }
    }
}

/// `ready name=n1 mcp=http://... admin=http://... grpc=... gossip=...`
fn parse_ready(line: &str) -> Option<Endpoints> {
    let facts = line.trim().strip_prefix("ready ")?;
    let fact = |key: &str| {
        let mut pairs = facts.split_whitespace().filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| *name == key).map(|(_, value)| value.to_owned())
    };
    Some(Endpoints {
        name: fact("name")?,
        mcp: fact("mcp"),
        mcp_tcp: fact("mcp_tcp"),
        admin: fact("admin")?,
        grpc: fact("grpc")?,
        gossip: fact("gossip"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_is_read_back() {
        let line = "ready name=n1 mcp=http://127.0.0.1:7700/mcp admin=http://127.0.0.1:7600 \
            grpc=127.0.0.1:7610 gossip=127.0.0.1:7620\n";
        let endpoints = parse_ready(line).expect("complete");
        assert_eq!(endpoints.mcp.as_deref(), Some("http://127.0.0.1:7700/mcp"));
        assert_eq!(endpoints.gossip.as_deref(), Some("127.0.0.1:7620"));
        assert_eq!(parse_ready(""), None);
    }
}
