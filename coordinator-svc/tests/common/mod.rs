//! Coordinators in one process that see each other as gossip would show them.
#![allow(dead_code, unreachable_pub)]

use coordinator_client::{CoordinatorClient, StatusResponse};
use coordinator_svc::{Config, start};
use kit::{
    Announce, Directory, Instance, State,
    clock::SystemClock,
    config::{DataDir, NodeConfig},
    directory::DirectoryWriter,
    host::{Context, Host, Parts, Served},
    net::TcpNet,
    rpc::Channels,
    test::eventually,
};
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tempfile::TempDir;

pub const SECOND: Duration = Duration::from_secs(1);
/// For what must happen, on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

/// A live node's announcements, or what a dead one announced last.
type Shown = (Option<Announce>, Vec<Instance>);

/// Shows every node what all nodes announce.
#[derive(Clone, Default)]
pub struct Board {
    nodes: Arc<Mutex<BTreeMap<String, Shown>>>,
    writers: Arc<Mutex<Vec<DirectoryWriter>>>,
}

impl Board {
    pub fn watch(&self) -> Directory {
        let (writer, directory) = Directory::channel();
        self.writers.lock().push(writer);
        self.sync();
        directory
    }

    pub fn join(&self, context: &Context, writer: DirectoryWriter) {
        self.writers.lock().push(writer);
        let announce = context.announce.clone();
        self.nodes.lock().insert(context.node.clone(), (Some(announce.clone()), Vec::new()));
        let (board, aborted) = (self.clone(), context.shutdown.clone());
        tokio::spawn(async move {
            let mut announce = announce;
            loop {
                board.sync();
                tokio::select! {
                    () = announce.changed() => {}
                    () = aborted.aborted() => return,
                }
            }
        });
    }

    /// Shows a node as dead.
    pub fn down(&self, name: &str) {
        if let Some((announce, last)) = self.nodes.lock().get_mut(name) {
            *last = announce.take().map(|announce| announce.current()).unwrap_or_default();
            last.iter_mut().for_each(|instance| instance.state = State::Down);
        }
        self.sync();
    }

    fn sync(&self) {
        let nodes = self.nodes.lock();
        let all: Vec<Instance> = nodes
            .values()
            .flat_map(|(announce, last)| announce.as_ref().map_or_else(|| last.clone(), Announce::current))
            .collect();
        self.writers.lock().iter().for_each(|writer| writer.set(all.clone()));
    }
}

pub struct Cluster {
    pub board: Board,
    pub data: TempDir,
    pub expect: u32,
    pub in_memory: bool,
    pub config: Config,
    pub nodes: BTreeMap<String, Served>,
    channels: Channels,
}

impl Cluster {
    pub fn new(expect: u32) -> Cluster {
        let channels = Channels::new(Arc::new(TcpNet), Arc::new(SystemClock));
        Cluster {
            board: Board::default(),
            data: tempfile::tempdir().unwrap(),
            expect,
            in_memory: false,
            config: Config::default(),
            nodes: BTreeMap::new(),
            channels,
        }
    }

    pub async fn started(expect: u32) -> Cluster {
        let mut cluster = Cluster::new(expect);
        for n in 1..=expect {
            cluster.start(&format!("n{n}")).await;
        }
        cluster.ready().await;
        cluster
    }

    pub async fn start(&mut self, name: &str) {
        let data = if self.in_memory { DataDir::Memory } else { DataDir::Path(self.data.path().join(name)) };
        let node = NodeConfig { data, expect: self.expect, ..NodeConfig::for_test(name) };
        let mut host = Host::bind(&node, Parts::default()).await.unwrap();
        let writer = host.directory_writer().unwrap();
        self.board.join(host.context(), writer);
        start(self.config.clone(), host.context()).await.unwrap();
        self.nodes.insert(name.to_owned(), host.serve().await);
    }

    pub async fn ready(&self) {
        for (name, node) in &self.nodes {
            let ready = tokio::time::timeout(SOON, node.context().readiness.wait_ready());
            assert!(ready.await.is_ok(), "{name}: {:?}", node.context().readiness.unmet());
        }
    }

    /// Ends a node as a crash would, and lets the others know.
    pub async fn kill(&mut self, name: &str) {
        let node = self.nodes.remove(name).unwrap();
        node.kill().await;
        self.board.down(name);
    }

    /// Loses a node's disk.
    pub fn wipe(&self, name: &str) {
        std::fs::remove_dir_all(self.data.path().join(name)).unwrap();
    }

    /// A client that sees everybody and has no coordinator of its own.
    pub fn client(&self) -> CoordinatorClient {
        CoordinatorClient::new(self.channels.clone(), self.board.watch(), None)
    }

    /// A client whose own coordinator is `name`.
    pub fn client_at(&self, name: &str) -> CoordinatorClient {
        let local = self.nodes[name].context().advertise.clone();
        CoordinatorClient::new(self.channels.clone(), self.board.watch(), Some(local))
    }

    pub async fn status(&self, name: &str) -> StatusResponse {
        let addr = self.nodes[name].context().advertise.clone();
        self.client().status_of(&addr, SECOND * 5).await.unwrap()
    }

    pub async fn leader(&self) -> String {
        eventually("a leader that is there", SOON, || async {
            for name in self.nodes.keys() {
                let status = self.status(name).await;
                if status.role == "leader" && &status.instance == name {
                    return Some(name.clone());
                }
            }
            None
        })
        .await
    }

    pub async fn follower(&self) -> String {
        let leader = self.leader().await;
        self.nodes.keys().find(|name| **name != leader).cloned().unwrap()
    }
}
