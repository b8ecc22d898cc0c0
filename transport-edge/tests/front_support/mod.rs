//! Edges in this process, with a directory that knows them all and one store of sessions.
#![allow(dead_code, unused_imports, unreachable_pub, clippy::unwrap_used)]

mod backend;
mod client;

pub use backend::Backend;
pub use client::{Answer, Client, call};

use kit::{
    Directory, NodeConfig, State,
    directory::DirectoryWriter,
    host::{Host, Parts, Served},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use transport_edge::{Config, LocalStore, Running, Seams, backend::FixedBackend, start_with};

pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Node {
    pub name: String,
    pub mcp: SocketAddr,
    pub grpc: SocketAddr,
    pub served: Served,
    instance: kit::Instance,
}

pub struct Cluster {
    pub nodes: Vec<Node>,
    pub store: LocalStore,
    writer: DirectoryWriter,
}

/// An edge's configuration with the given backends (name and URL).
pub fn config(backends: &[(&str, &str)]) -> Config {
    let mut config = Config::for_test();
    for (name, url) in backends {
        let entry = FixedBackend { url: (*url).to_owned(), ..FixedBackend::default() };
        config.backends.fixed.insert((*name).to_owned(), entry);
    }
    config.backends.exec = env!("CARGO_BIN_EXE_transport-edge").into();
    config.stream_after = Duration::from_millis(300);
    config
}

impl Cluster {
    pub async fn start(size: usize, config: &Config) -> Cluster {
        let (writer, directory) = Directory::channel();
        let store = LocalStore::new(Arc::new(kit::clock::SystemClock));
        let mut nodes = Vec::new();
        for n in 1..=size {
            nodes.push(Node::start(&format!("n{n}"), config.clone(), directory.clone(), &store).await);
        }
        let cluster = Cluster { nodes, store, writer };
        cluster.announce(|_| State::Up);
        cluster
    }

    pub async fn one(backend: &Backend) -> Cluster {
        Cluster::start(1, &config(&[("b", &backend.url)])).await
    }

    pub async fn three(backend: &Backend) -> Cluster {
        Cluster::start(3, &config(&[("b", &backend.url)])).await
    }

    pub fn mcp(&self, n: usize) -> SocketAddr {
        self.nodes[n].mcp
    }

    /// What gossip would say.
    pub fn announce(&self, state: impl Fn(&str) -> State) {
        let tell = |node: &Node| kit::Instance { state: state(&node.name), ..node.instance.clone() };
        self.writer.set(self.nodes.iter().map(tell).collect());
    }

    /// The same, with one edge in another state and at another address.
    pub fn announce_at(&self, name: &str, addr: SocketAddr, state: State) {
        let tell = |node: &Node| match node.name == name {
            true => kit::Instance { state, addr: addr.to_string(), ..node.instance.clone() },
            false => node.instance.clone(),
        };
        self.writer.set(self.nodes.iter().map(tell).collect());
    }

    /// A crash: nothing is finished, nothing is said.
    pub async fn kill(&self, n: usize) {
        self.nodes[n].served.kill().await;
    }

    pub async fn stop(self) {
        for node in &self.nodes {
            node.served.kill().await;
        }
    }
}

impl Node {
    async fn start(name: &str, config: Config, directory: Directory, store: &LocalStore) -> Node {
        let parts = Parts { directory: Some(directory), ..Parts::default() };
        let host = Host::bind(&NodeConfig::for_test(name), parts).await.unwrap();
        let context = host.context().clone();
        let seams = Seams { store: Some(Arc::new(store.clone())) };
        let Running { addr, mcp } = start_with(config, &context, seams).await.unwrap();
        let served = host.serve().await;
        Node { name: name.to_owned(), mcp, grpc: addr, served, instance: context.instance("edge") }
    }
}
