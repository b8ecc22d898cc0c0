//! Wiring: configuration becomes choices of implementation here, and nowhere else.

use crate::{
    Config, Error,
    backend::Backends,
    config::{BackendsFrom, SessionsIn},
    core::headers::Names,
    front::{self, Edge, Kill, Listeners, Shared, Stages},
    metrics::EdgeMetrics,
    relay::{Adoptions, Anchors, SERVICE},
    rpc::Handler,
    session::{LocalStore, ServiceStore, SessionStore, Sessions, keep},
};
use kit::{Context, Policy};
use proto::edge::edge_service_server::EdgeServiceServer;
use registry_client::{RegistryClient, Tiers};
use session_client::SessionClient;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::sync::oneshot;

/// Key of the MCP address in the announced instance's meta.
pub const META_MCP: &str = "mcp";

/// A started edge.
#[derive(Debug, Clone)]
pub struct Running {
    /// Where EdgeService answers.
    pub addr: SocketAddr,
    /// Where MCP is served.
    pub mcp: SocketAddr,
}

/// What tests may replace.
#[derive(Default)]
pub struct Seams {
    /// Where sessions are kept; by default as configured.
    pub store: Option<Arc<dyn SessionStore>>,
}

/// Starts the edge: binds the MCP port, starts the event loops, adds EdgeService.
pub async fn start(config: Config, ctx: &Context) -> Result<Running, Error> {
    start_with(config, ctx, Seams::default()).await
}

/// The same, with parts replaced.
pub async fn start_with(config: Config, ctx: &Context, seams: Seams) -> Result<Running, Error> {
    config.validate()?;
    ctx.flags.define(phases::plain()).map_err(Error::Flags)?;
    let loops = config.event_loops();
    let (listeners, mcp) = front::bind(config.mcp, loops)?;
    let ready = ctx.readiness.condition("edge");
    let store = seams.store.unwrap_or_else(|| store(&config, ctx));
    let registry = match config.backends_from {
        BackendsFrom::Registry => Some((RegistryClient::of(ctx), Tiers::of(ctx))),
        BackendsFrom::Config => None,
    };
    let backends = Backends::start(config.backends.clone(), registry, ctx).map_err(Error::Thread)?;
    let edge = Arc::new(Edge {
        name: ctx.node.clone(),
        names: names(&config, ctx),
        clock: ctx.clock.clone(),
        origin: ctx.clock.now(),
        backends,
        store,
        sessions: Sessions::new(config.max_sessions),
        anchors: Anchors::default(),
        adoptions: Adoptions::default(),
        directory: ctx.directory.clone(),
        channels: ctx.channels.clone(),
        metrics: EdgeMetrics::new(&ctx.metrics, loops + 1),
        shutdown: ctx.shutdown.clone(),
        shared: Shared::default(),
        listeners: Listeners::default(),
        kill: Kill::new(&ctx.flags),
        config,
    });
    ctx.rpc.add(
        EdgeServiceServer::new(Handler::new(edge.clone())).max_decoding_message_size(kit::rpc::MAX_MESSAGE),
    );
    let stages = Stages::default();
    let ends = front::start(&edge, listeners, &stages, &ctx.shutdown.abort_token())?;
    let keeper = edge.clone();
    ctx.tasks.supervise("edge-sessions", Policy::DRIVER, move || keep(keeper.clone()));
    ctx.tasks.spawn("edge-drain", drain(edge, ctx.clone(), stages, ends));
    announce(ctx, mcp);
    ready.met();
    Ok(Running { addr: ctx.grpc_addr, mcp })
}

fn store(config: &Config, ctx: &Context) -> Arc<dyn SessionStore> {
    match config.sessions {
        SessionsIn::Local => Arc::new(LocalStore::new(ctx.clock.clone())),
        SessionsIn::Service => {
            let client =
                SessionClient::new(ctx.channels.clone(), ctx.directory.clone(), Some(ctx.node.clone()));
            Arc::new(ServiceStore::new(client, ctx.node.clone()))
        }
    }
}

/// Who may call: beside what is configured, the names under which this node is known.
fn names(config: &Config, ctx: &Context) -> Names {
    let mut names = config.names();
    let advertised = ctx.advertise.rsplit_once(':').map(|(host, _)| host.to_owned());
    names.hosts.extend(advertised.into_iter().chain([ctx.node.clone()]));
    names
}

fn announce(ctx: &Context, mcp: SocketAddr) {
    let mut instance = ctx.instance(SERVICE);
    instance.meta.insert(META_MCP.into(), mcp.to_string());
    ctx.announce.set(instance);
}

/// At the shutdown: no new connections, requests in flight finish, standing streams end so that
/// their clients go elsewhere, and only then does this edge stop being an anchor.
async fn drain(edge: Arc<Edge>, ctx: Context, stages: Stages, ends: Vec<oneshot::Receiver<()>>) {
    ctx.shutdown.wait().await;
    let deadline = edge.clock.now() + edge.config.drain;
    stages.stop.cancel();
    for live in edge.sessions.all() {
        if let Some(stream) = live.standing() {
            stream.detach().await;
        }
    }
    while busy(&edge) && edge.clock.now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for live in edge.sessions.all() {
        for stream in live.open_streams() {
            stream.detach().await;
        }
    }
    let left = deadline.saturating_duration_since(edge.clock.now()) + Duration::from_millis(200);
    let _ = tokio::time::timeout(left, futures::future::join_all(ends)).await;
    ctx.announce.remove(SERVICE, &ctx.node);
    for live in edge.sessions.all() {
        live.end();
    }
    edge.shared.clear();
    stages.done.cancel();
    edge.backends.stop().await;
}

fn busy(edge: &Edge) -> bool {
    let streams = || edge.sessions.all().iter().any(|live| !live.open_streams().is_empty());
    edge.metrics.in_flight() > 0 || streams()
}
