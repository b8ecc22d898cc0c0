//! One node: its ports, its data directory, its context, and how it starts and stops.

use crate::{
    admin,
    bus::{Bus, BusError, InProcBus, NatsBus},
    clock::{Clock, SystemClock},
    config::{ConfigError, NodeConfig},
    data_dir::{DataDirError, OpenDataDir},
    directory::{Announce, Directory, DirectoryWriter, Instance, State},
    flags::{self, Flags, Gates},
    metrics::Metrics,
    net::{Listener, Net, TcpNet},
    readiness::{Condition, Readiness},
    rpc::{self, Channels, server::Port},
    shared::Shared,
    shutdown::{Failure, Shutdown},
    supervise::Tasks,
};
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// How long the servers may take to finish open calls, after the tasks have ended.
const SERVER_DRAIN: Duration = Duration::from_secs(1);

/// What a service is given. Clones speak for the same node.
#[derive(Clone)]
pub struct Context {
    /// The node's name.
    pub node: String,
    /// Grows with every start of the node.
    pub generation: u64,
    /// Failure domain.
    pub zone: String,
    /// Part of every bus subject.
    pub cluster: String,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The network.
    pub net: Arc<dyn Net>,
    /// Facts.
    pub bus: Arc<dyn Bus>,
    /// The node's metrics.
    pub metrics: Metrics,
    /// What must hold before the node is ready.
    pub readiness: Readiness,
    /// The stop of the node.
    pub shutdown: Shutdown,
    /// The node's tasks.
    pub tasks: Tasks,
    /// Where state is kept; `None` keeps nothing. The host holds the lock on it.
    pub data: Option<PathBuf>,
    /// Nodes to wait for before the first Raft bootstrap.
    pub expect: u32,
    /// Where gRPC services are added.
    pub rpc: rpc::Routes,
    /// The bound gRPC address.
    pub grpc_addr: SocketAddr,
    /// The bound admin address.
    pub admin_addr: SocketAddr,
    /// host:port at which other nodes reach this node's gRPC.
    pub advertise: String,
    /// Channels to other processes.
    pub channels: Channels,
    /// Who answers where.
    pub directory: Directory,
    /// Where this node says "I am here".
    pub announce: Announce,
    /// Where admin routes are merged.
    pub admin: admin::Routes,
    /// Feature flags; services define those they ask for.
    pub flags: Flags,
    /// What client libraries keep once for the node.
    pub shared: Shared,
}

impl Context {
    /// A node in memory, not listening: for tests of drivers and cores. Tests over gRPC use
    /// [`Host::for_test`].
    pub fn for_test(name: &str) -> Self {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let config = NodeConfig::for_test(name);
        let parts = Parts::default();
        let bus = Arc::new(InProcBus::new());
        let generation = parts.clock.timestamp().0;
        let bound = Bound { grpc: nowhere, admin: nowhere };
        let flags = Flags::in_memory(Gates::default(), parts.clock.clone());
        Self::new(&config, &parts, bus, bound, None, generation, Directory::fixed(Vec::new()), flags)
    }

    /// This node's instance of a service, as it is announced.
    pub fn instance(&self, service: &str) -> Instance {
        Instance {
            service: service.into(),
            name: self.node.clone(),
            addr: self.advertise.clone(),
            generation: self.generation,
            zone: self.zone.clone(),
            state: State::Up,
            meta: BTreeMap::new(),
        }
    }

    #[allow(clippy::too_many_arguments)] // Each is a part of its own.
    fn new(
        config: &NodeConfig,
        parts: &Parts,
        bus: Arc<dyn Bus>,
        bound: Bound,
        data: Option<PathBuf>,
        generation: u64,
        directory: Directory,
        flags: Flags,
    ) -> Self {
        let shutdown = parts.shutdown.clone();
        let host = config.advertise.clone().unwrap_or_else(|| reachable(bound.grpc.ip()).to_string());
        Self {
            node: config.name.clone(),
            generation,
            zone: config.zone.clone(),
            cluster: config.cluster.clone(),
            clock: parts.clock.clone(),
            net: parts.net.clone(),
            bus,
            metrics: Metrics::new(),
            readiness: Readiness::new(),
            tasks: Tasks::new(shutdown.clone(), parts.clock.clone()),
            shutdown,
            data,
            expect: config.expect,
            rpc: rpc::Routes::new(),
            grpc_addr: bound.grpc,
            admin_addr: bound.admin,
            advertise: authority(&host, bound.grpc.port()),
            channels: Channels::new(parts.net.clone(), parts.clock.clone()),
            directory,
            announce: Announce::new(),
            admin: admin::Routes::new(),
            flags,
            shared: Shared::default(),
        }
    }
}

/// The address itself, or for "all interfaces" the one that the default route leaves from
/// (connecting a UDP socket sends nothing).
fn reachable(bound: IpAddr) -> IpAddr {
    if !bound.is_unspecified() {
        return bound;
    }
    let documentation_net = (Ipv4Addr::new(192, 0, 2, 1), 9);
    let routed = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect(documentation_net)?;
        socket.local_addr()
    });
    routed.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |addr| addr.ip())
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[derive(Clone, Copy)]
struct Bound {
    grpc: SocketAddr,
    admin: SocketAddr,
}

/// What a service's `start` gives back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// The bound address at which the service answers.
    pub addr: SocketAddr,
}

/// What a host is built from, beside the configuration.
pub struct Parts {
    /// The network; TCP by default.
    pub net: Arc<dyn Net>,
    /// Time; the machine's by default.
    pub clock: Arc<dyn Clock>,
    /// The bus; by default NATS if the configuration names a server, else in process.
    pub bus: Option<Arc<dyn Bus>>,
    /// A directory that is fed elsewhere; by default the host makes one
    /// ([`Host::directory_writer`]).
    pub directory: Option<Directory>,
    /// The stop of the node.
    pub shutdown: Shutdown,
    /// Version of the program, for `swarm_build_info`.
    pub version: String,
    /// SHA-256 of the effective configuration, for `swarm_config_info`.
    pub config_sha256: String,
    /// Encoded descriptor sets for reflection (`proto::DESCRIPTORS`).
    pub descriptors: Vec<&'static [u8]>,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            net: Arc::new(TcpNet),
            clock: Arc::new(SystemClock),
            bus: None,
            directory: None,
            shutdown: Shutdown::new(),
            version: env!("CARGO_PKG_VERSION").into(),
            config_sha256: String::new(),
            descriptors: Vec::new(),
        }
    }
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A port is taken or not ours.
    #[error("cannot listen on {addr} ({what}): {source}")]
    Bind {
        /// "grpc" or "admin".
        what: &'static str,
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The NATS URL does not parse.
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// A node that has its ports and does not serve yet.
pub struct Host {
    context: Context,
    grpc: Arc<dyn Listener>,
    loops: usize,
    admin: Arc<dyn Listener>,
    hosts: admin::Hosts,
    data: Option<OpenDataDir>,
    writer: Option<DirectoryWriter>,
    node: Condition,
    drain: Duration,
}

impl Host {
    /// Takes the data directory and the ports, and builds the context.
    pub async fn bind(config: &NodeConfig, parts: Parts) -> Result<Host, HostError> {
        config.validate()?;
        let now = parts.clock.timestamp().0;
        let data = config.data.resolve(&config.name)?.map(|path| OpenDataDir::open(path, now)).transpose()?;
        let generation = data.as_ref().map_or(now, OpenDataDir::generation);
        let (grpc, grpc_addr) = listen(&*parts.net, "grpc", config.grpc).await?;
        let (admin, admin_addr) = listen(&*parts.net, "admin", config.admin).await?;
        let bus = make_bus(config, &parts).await?;
        let (writer, directory) = match parts.directory.clone() {
            Some(directory) => (None, directory),
            None => {
                let (writer, directory) = Directory::channel();
                (Some(writer), directory)
            }
        };
        let bound = Bound { grpc: grpc_addr, admin: admin_addr };
        let path = data.as_ref().map(|data| data.path().to_owned());
        let flags = open_flags(config, &parts, path.as_deref())?;
        let context = Context::new(config, &parts, bus, bound, path, generation, directory, flags);
        for descriptors in &parts.descriptors {
            context.rpc.reflect(descriptors);
        }
        process_metrics(&context, &parts);
        context.flags.register(&context.metrics);
        let extra = config.admin_hosts.iter().cloned().chain([config.name.clone()]);
        let hosts = admin::Hosts::new(config.admin, extra);
        let node = context.readiness.condition("node");
        let loops = config.grpc_loops();
        Ok(Host { context, grpc, loops, admin, hosts, data, writer, node, drain: config.drain })
    }

    /// A node for tests: free ports on loopback, nothing kept.
    ///
    /// # Panics
    /// When loopback has no free port.
    pub async fn for_test(name: &str) -> Host {
        match Host::bind(&NodeConfig::for_test(name), Parts::default()).await {
            Ok(host) => host,
            Err(error) => panic!("host {name}: {error}"),
        }
    }

    /// What services are started with.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The writer of the context's directory, once: for gossip-client, or for
    /// [`DirectoryWriter::follow`]. `None` when the parts brought a directory.
    pub fn directory_writer(&mut self) -> Option<DirectoryWriter> {
        self.writer.take()
    }

    /// Serves both ports. The node is ready once every other condition holds too.
    pub async fn serve(self) -> Served {
        let Host { context, grpc, loops, admin, hosts, data, node, drain, writer: _ } = self;
        let stop = CancellationToken::new();
        let router = admin::router(&context.admin, context.metrics.clone(), context.readiness.clone(), hosts);
        let admin = tokio::spawn({
            let (shutdown, stop) = (context.shutdown.clone(), stop.clone());
            async move { admin::serve(router, admin, &shutdown, stop).await }
        });
        let grpc = tokio::spawn({
            let (context, stop) = (context.clone(), stop.clone());
            let port = Port { listener: grpc, loops };
            async move { serve_grpc(&context, port, stop).await }
        });
        if context.flags.in_file() {
            context.tasks.background("flags", context.flags.clone().watch());
        }
        node.met();
        let (done, stopped) = watch::channel(None);
        let life = Life { context: context.clone(), node, drain, stop, servers: [grpc, admin], _data: data };
        tokio::spawn(async move {
            let end = life.run().await;
            done.send_replace(Some(end));
        });
        Served { context, stopped }
    }
}

async fn serve_grpc(context: &Context, port: Port, stop: CancellationToken) {
    let Context { rpc, metrics, readiness, shutdown, .. } = context;
    if let Err(error) = rpc::server::serve(rpc, port, metrics, readiness.clone(), shutdown, stop).await {
        shutdown.fail(1, format!("grpc server: {error}"));
    }
}

async fn listen(
    net: &dyn Net,
    what: &'static str,
    addr: SocketAddr,
) -> Result<(Arc<dyn Listener>, SocketAddr), HostError> {
    let failed = |source| HostError::Bind { what, addr, source };
    let listener: Arc<dyn Listener> = net.bind(addr).await.map_err(failed)?.into();
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

fn open_flags(config: &NodeConfig, parts: &Parts, data: Option<&Path>) -> Result<Flags, ConfigError> {
    let (gates, clock) = (Gates::of_environment()?, parts.clock.clone());
    let file = config.flags.clone().or_else(|| data.map(|data| data.join(flags::FILE)));
    Ok(match file {
        Some(file) => Flags::open(file, data, gates, clock),
        None => Flags::in_memory(gates, clock),
    })
}

async fn make_bus(config: &NodeConfig, parts: &Parts) -> Result<Arc<dyn Bus>, BusError> {
    if let Some(bus) = &parts.bus {
        return Ok(bus.clone());
    }
    match &config.nats {
        Some(url) => Ok(Arc::new(NatsBus::connect(url, &config.name).await?)),
        None => Ok(Arc::new(InProcBus::new())),
    }
}

fn process_metrics(context: &Context, parts: &Parts) {
    let metrics = &context.metrics;
    metrics.info("swarm_build_info", "Version of the program", &[("version", &parts.version)]);
    metrics.info(
        "swarm_config_info",
        "SHA-256 of the effective configuration",
        &[("sha256", &parts.config_sha256)],
    );
    metrics.collect(Box::new(crate::process::ProcessCollector::new(context)));
}

/// How a node ended: `Err` when it gave itself up or had to be aborted.
pub type End = Result<(), Failure>;

/// A node that serves. Dropping the handle changes nothing.
#[derive(Clone)]
pub struct Served {
    context: Context,
    stopped: watch::Receiver<Option<End>>,
}

impl Served {
    /// The node's context, with the bound addresses.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Begins the drain.
    pub fn shutdown(&self) {
        self.context.shutdown.trigger();
    }

    /// Ends the node at once, as a crash would: connections break, tasks are dropped. Resolves
    /// when its ports and its data directory are free again.
    pub async fn kill(&self) {
        self.context.shutdown.abort();
        let _ = self.stopped().await;
    }

    /// Resolves when the node has ended.
    pub async fn stopped(&self) -> End {
        let mut stopped = self.stopped.clone();
        let end = stopped.wait_for(Option::is_some).await;
        end.ok().and_then(|end| end.clone()).unwrap_or(Ok(()))
    }
}

struct Life {
    context: Context,
    node: Condition,
    drain: Duration,
    stop: CancellationToken,
    servers: [JoinHandle<()>; 2],
    // Unlocked when the node has ended.
    _data: Option<OpenDataDir>,
}

impl Life {
    /// Not ready -> tasks drain (their calls to this very node still work) -> servers finish ->
    /// abort of what is left.
    async fn run(self) -> End {
        let Context { shutdown, tasks, .. } = &self.context;
        shutdown.wait().await;
        self.node.unmet("shutting down");
        let clean = tasks.clone().join(self.drain).await;
        self.stop.cancel();
        let [grpc, admin] = self.servers;
        let servers = async { tokio::join!(grpc, admin) };
        let mut servers = std::pin::pin!(servers);
        if tokio::time::timeout(SERVER_DRAIN, servers.as_mut()).await.is_err() {
            // Open streams do not make the end unclean: their readers go on elsewhere.
            shutdown.abort();
            let _ = servers.await;
        }
        shutdown.abort();
        match shutdown.failure() {
            Some(failure) => Err(failure),
            None if clean => Ok(()),
            None => Err(Failure { code: 1, why: "aborted before everything was finished".into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_on_all_interfaces_advertises_one_that_others_can_dial() {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!(reachable(loopback), loopback);
        assert!(!reachable(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).is_unspecified());
        assert_eq!(authority("::1", 7610), "[::1]:7610");
        assert_eq!(authority("n1", 7610), "n1:7610");
    }
}
