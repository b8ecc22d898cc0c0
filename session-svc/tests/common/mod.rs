//! Several instances in one process on loopback, with a directory that the test writes.
#![allow(dead_code, unreachable_pub)]

use kit::{
    Directory, Instance, NodeConfig, State,
    clock::SystemClock,
    config::DataDir,
    directory::DirectoryWriter,
    host::{Host, Parts, Served},
    net::TcpNet,
    rpc::Channels,
};
use session_client::{Binding, SessionClient};
use session_svc::Config;
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

pub const LONG: Duration = Duration::from_secs(600);
pub const PATIENCE: Duration = Duration::from_secs(15);

pub struct Cluster {
    pub directory: Directory,
    pub channels: Channels,
    pub config: Config,
    expect: u32,
    writer: DirectoryWriter,
    data: BTreeMap<String, PathBuf>,
    nodes: BTreeMap<String, Served>,
    instances: BTreeMap<String, Instance>,
    _dir: Option<tempfile::TempDir>,
}

impl Cluster {
    /// Instances n1..n`count` that keep nothing.
    pub async fn in_memory(count: usize) -> Cluster {
        Self::start(count, None, Config::default()).await
    }

    pub async fn on_disk(count: usize) -> Cluster {
        let dir = tempfile::tempdir().expect("dir");
        Self::start(count, Some(dir), Config::default()).await
    }

    pub async fn start(count: usize, dir: Option<tempfile::TempDir>, config: Config) -> Cluster {
        let (writer, directory) = Directory::channel();
        let names = (1..=count).map(|i| format!("n{i}"));
        let data =
            dir.as_ref().map(|dir| names.clone().map(|name| (name.clone(), dir.path().join(name))).collect());
        let mut cluster = Cluster {
            directory,
            channels: Channels::new(Arc::new(TcpNet), Arc::new(SystemClock)),
            config,
            expect: if count >= 3 { 3 } else { 1 },
            writer,
            data: data.unwrap_or_default(),
            nodes: BTreeMap::new(),
            instances: BTreeMap::new(),
            _dir: dir,
        };
        for name in names {
            cluster.add(&name).await;
        }
        cluster.ready().await;
        cluster
    }

    /// Starts an instance, a new one or one that was killed.
    pub async fn add(&mut self, name: &str) {
        let data = self.data.get(name).map_or(DataDir::Memory, |path| DataDir::Path(path.clone()));
        let node = NodeConfig { data, expect: self.expect, ..NodeConfig::for_test(name) };
        let parts = Parts { directory: Some(self.directory.clone()), ..Parts::default() };
        let host = Host::bind(&node, parts).await.expect("host");
        session_svc::start(self.config.clone(), host.context()).await.expect("started");
        self.instances.insert(name.into(), host.context().instance("session"));
        self.nodes.insert(name.into(), host.serve().await);
        self.publish();
    }

    /// Every instance sees enough others.
    pub async fn ready(&self) {
        for node in self.nodes.values() {
            tokio::time::timeout(PATIENCE, node.context().readiness.wait_ready()).await.expect("ready");
        }
    }

    /// A crash. The others are not told.
    pub async fn kill(&mut self, name: &str) {
        self.nodes.remove(name).expect("running").kill().await;
    }

    /// What gossip would say.
    pub fn tell(&mut self, name: &str, state: State) {
        self.instances.get_mut(name).expect("known").state = state;
        self.publish();
    }

    fn publish(&self) {
        self.writer.set(self.instances.values().cloned().collect());
    }

    pub fn addr(&self, name: &str) -> String {
        self.instances[name].addr.clone()
    }

    pub fn metrics(&self, name: &str) -> String {
        self.nodes[name].context().metrics.encode()
    }

    /// A client beside one instance.
    pub fn client(&self, local: &str) -> SessionClient {
        SessionClient::new(self.channels.clone(), self.directory.clone(), Some(local.into()))
    }
}

pub fn alice() -> Binding {
    Binding { tenant: "acme".into(), principal: "alice".into() }
}

pub fn event(sequence: u64) -> session_client::Event {
    let data = format!("event {sequence}").into();
    session_client::Event { sequence, data, kind: 1, epoch: 0 }
}
