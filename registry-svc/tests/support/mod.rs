//! Several instances of registry-svc in one process, and a directory that the test writes.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "tests")]

pub(crate) mod process;
pub(crate) mod proxy;

use kit::{
    clock::{Clock, SystemClock},
    config::{DataDir, NodeConfig},
    directory::{Directory, DirectoryWriter, Instance, State},
    host::{Host, Parts, Served},
    rpc::Channel,
};
use parking_lot::Mutex;
use proto::registry::{
    BackendSpec, Durability, Kind, Registration, StdioTransport, backend_spec::Transport, registration::Spec,
    registry_service_client::RegistryServiceClient,
};
use registry_client::RegistryClient;
use registry_svc::{Config, start};
use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) struct Cluster {
    writer: DirectoryWriter,
    pub(crate) directory: Directory,
    instances: Mutex<BTreeMap<String, Instance>>,
    nodes: Mutex<BTreeMap<String, Served>>,
    disks: tempfile::TempDir,
    config: Config,
    /// Of the nodes that are started from now on.
    pub(crate) clock: Arc<dyn Clock>,
}

impl Cluster {
    pub(crate) fn new(config: Config) -> Self {
        let (writer, directory) = Directory::channel();
        let disks = tempfile::tempdir().unwrap();
        let (instances, nodes) = (Mutex::default(), Mutex::default());
        Self { writer, directory, instances, nodes, disks, config, clock: Arc::new(SystemClock) }
    }

    /// A cluster of n1, n2 and so on.
    pub(crate) async fn of(count: usize, config: Config) -> Self {
        let cluster = Self::new(config);
        for n in 1..=count {
            cluster.start(&format!("n{n}")).await;
        }
        cluster
    }

    /// Starts a node on its disk, and waits until it is ready.
    pub(crate) async fn start(&self, name: &str) {
        let config =
            NodeConfig { data: DataDir::Path(self.disks.path().join(name)), ..NodeConfig::for_test(name) };
        let clock = self.clock.clone();
        let parts = Parts { directory: Some(self.directory.clone()), clock, ..Parts::default() };
        let host = Host::bind(&config, parts).await.unwrap();
        start(self.config.clone(), host.context()).await.unwrap();
        let instance = host.context().instance("registry");
        let served = host.serve().await;
        self.instances.lock().insert(name.into(), instance);
        self.tell();
        tokio::time::timeout(SOON, served.context().readiness.wait_ready()).await.unwrap();
        self.nodes.lock().insert(name.into(), served);
    }

    /// Ends a node as a crash would, and lets the directory know.
    pub(crate) async fn kill(&self, name: &str) {
        let node = self.nodes.lock().remove(name).unwrap();
        node.kill().await;
        self.instances.lock().get_mut(name).unwrap().state = State::Down;
        self.tell();
    }

    /// Loses what a node has on its disk.
    pub(crate) fn wipe(&self, name: &str) {
        std::fs::remove_dir_all(self.disks.path().join(name)).unwrap();
    }

    pub(crate) fn node(&self, name: &str) -> Served {
        self.nodes.lock()[name].clone()
    }

    /// A client that asks this node only.
    pub(crate) fn client(&self, name: &str) -> RegistryClient {
        let instance = self.instances.lock()[name].clone();
        let channels = self.node(name).context().channels.clone();
        RegistryClient::new(channels, Directory::fixed(vec![instance]), Some(name.into()))
    }

    /// A client that knows all nodes and prefers one of them.
    pub(crate) fn roaming(&self, channels_of: &str, local: &str) -> RegistryClient {
        let channels = self.node(channels_of).context().channels.clone();
        RegistryClient::new(channels, self.directory.clone(), Some(local.into()))
    }

    pub(crate) fn stub(&self, name: &str) -> RegistryServiceClient<Channel> {
        let context = self.node(name).context().clone();
        RegistryServiceClient::new(context.channels.get(&context.advertise))
    }

    fn tell(&self) {
        self.writer.set(self.instances.lock().values().cloned().collect());
    }
}

pub(crate) fn durable(name: &str, owner: &str, command: &str) -> Registration {
    let stdio = StdioTransport { command: command.into(), ..Default::default() };
    let spec = BackendSpec { transport: Some(Transport::Stdio(stdio)), ..Default::default() };
    Registration {
        name: name.into(),
        owner: owner.into(),
        kind: Kind::Backend.into(),
        durability: Durability::Durable.into(),
        spec: Some(Spec::Backend(spec.into())),
        ..Default::default()
    }
}

pub(crate) fn ephemeral(name: &str, owner: &str, ttl: Duration) -> Registration {
    Registration {
        name: name.into(),
        owner: owner.into(),
        kind: Kind::Worker.into(),
        durability: Durability::Ephemeral.into(),
        ttl_ms: ttl.as_millis() as u64,
        ..Default::default()
    }
}

/// Names that a client sees.
pub(crate) async fn names(client: &RegistryClient) -> Vec<String> {
    let all = client.list(&Default::default()).await.unwrap();
    all.into_iter().map(|registration| registration.name).collect()
}

/// Waits for a condition.
pub(crate) async fn until<F, Fut>(what: &str, mut check: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    kit::test::eventually(what, SOON, || {
        let holds = check();
        async move { holds.await.then_some(()) }
    })
    .await;
}
