//! The three nodes.

use super::{balancer::Balancer, folder::Folder, node::Node, servers::Servers};
use crate::{
    api::Endpoints,
    error::{CliError, Failure},
};
use std::{
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::Mutex;

const NODES: usize = 3;

/// The nodes and what is in front of them; clones are handles on the same ones.
#[derive(Clone)]
pub(super) struct Cluster {
    nodes: Arc<Mutex<Vec<Node>>>,
    balancer: Balancer,
    servers: Servers,
    import: PathBuf,
}

impl Cluster {
    /// Three nodes that do not run yet.
    pub(super) async fn new(
        folder: &Folder,
        balancer: Balancer,
        import: Option<&Path>,
    ) -> Result<Cluster, CliError> {
        let servers = Servers::find(import).await?;
        let import = folder.path().join("mcp.json");
        std::fs::write(&import, servers.file().to_string()).map_err(anyhow::Error::from)?;
        let addrs = free_udp_addrs().map_err(anyhow::Error::from)?;
        let named = addrs.into_iter().enumerate();
        let nodes = named.map(|(i, addr)| Node::new(format!("n{}", i + 1), addr, folder.path()));
        let nodes = Arc::new(Mutex::new(nodes.collect()));
        Ok(Cluster { nodes, balancer, servers, import })
    }

    /// What runs behind the nodes.
    pub(super) fn servers(&self) -> &Servers {
        &self.servers
    }

    /// Starts all at once: none is ready before the others are there.
    pub(super) async fn start_all(&self) -> Result<(), CliError> {
        let mut nodes = self.nodes.lock().await;
        let join: Vec<SocketAddr> = nodes.iter().map(|node| node.gossip).collect();
        let starts = nodes.iter_mut().map(|node| node.start(&join, NODES, &self.import));
        let started = futures::future::try_join_all(starts).await;
        started.map_err(|reason| CliError::new(Failure::Failed, reason))?;
        self.rebalance(&nodes);
        Ok(())
    }

    /// Where the living nodes answer.
    pub(super) async fn living(&self) -> Vec<Endpoints> {
        let nodes = self.nodes.lock().await;
        nodes.iter().filter_map(|node| node.endpoints().cloned()).collect()
    }

    /// Every node, and whether it runs.
    pub(super) async fn all(&self) -> Vec<(String, bool)> {
        let nodes = self.nodes.lock().await;
        nodes.iter().map(|node| (node.name.clone(), node.endpoints().is_some())).collect()
    }

    /// Kills a node. The balancer is not told: it finds out, as the user's would.
    pub(super) async fn kill(&self, name: &str) -> Result<(), CliError> {
        let mut nodes = self.nodes.lock().await;
        if find(&mut nodes, name)?.kill().await {
            return Ok(());
        }
        Err(CliError::new(Failure::Failed, format!("{name} does not run")))
    }

    /// Starts a node again.
    pub(super) async fn start(&self, name: &str) -> Result<(), CliError> {
        let mut nodes = self.nodes.lock().await;
        let join: Vec<SocketAddr> = nodes.iter().map(|node| node.gossip).collect();
        let node = find(&mut nodes, name)?;
        if node.endpoints().is_some() {
            return Err(CliError::new(Failure::Failed, format!("{name} runs already")));
        }
        let started = node.start(&join, NODES, &self.import).await;
        started.map_err(|reason| CliError::new(Failure::Failed, reason))?;
        self.rebalance(&nodes);
        Ok(())
    }

    /// Ends all nodes.
    pub(super) async fn stop(&self) {
        let mut nodes = self.nodes.lock().await;
        futures::future::join_all(nodes.iter_mut().map(Node::stop)).await;
    }

    fn rebalance(&self, nodes: &[Node]) {
        let target = |node: &Node| Some((node.name.clone(), mcp_addr(node.endpoints()?)?));
        self.balancer.set(nodes.iter().filter_map(target).collect());
    }
}

fn find<'a>(nodes: &'a mut [Node], name: &str) -> Result<&'a mut Node, CliError> {
    let found = nodes.iter_mut().find(|node| node.name == name);
    found.ok_or_else(|| {
        CliError::new(Failure::NotFound, format!("no node is named `{name}`"))
            .hint("the nodes are n1, n2 and n3")
    })
}

fn mcp_addr(endpoints: &Endpoints) -> Option<SocketAddr> {
    let url: http::Uri = endpoints.mcp.as_ref()?.parse().ok()?;
    url.authority()?.as_str().parse().ok()
}

/// Nodes must know each other's gossip addresses before any of them is ready, so these are chosen
/// here; all at once, lest the system hands out one twice.
fn free_udp_addrs() -> std::io::Result<Vec<SocketAddr>> {
    let sockets: Vec<UdpSocket> =
        (0..NODES).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    sockets.iter().map(UdpSocket::local_addr).collect()
}
