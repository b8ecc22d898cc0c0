//! The composition root: which services a process runs, and how they are put together.

use crate::{
    admin,
    api::Endpoints,
    catalog,
    cli::NodeArgs,
    config::Config,
    error::{CliError, Failure},
    import::{self, Import},
    imports, output, parent,
};
use kit::{
    config::sha256,
    directory::{Directory, DirectoryWriter},
    host::{Context, Host, HostError, Parts, Served},
    run::{Extras, stop_on_signals, until_stopped},
    telemetry,
};

/// A service that a process may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// gossip-svc
    Gossip,
    /// registry-svc
    Registry,
    /// session-svc
    Session,
    /// coordinator-svc
    Coordinator,
    /// transport-edge
    Edge,
}

/// What `swarm up` runs, in the order of their start: each finds what it needs.
pub const ALL: [Service; 5] =
    [Service::Gossip, Service::Registry, Service::Session, Service::Coordinator, Service::Edge];

/// Runs a process until it is stopped: the ready line on stdout, logs on stderr.
pub async fn run(args: &NodeArgs, services: &[Service]) -> Result<(), CliError> {
    if let Some(pid) = args.die_with_parent {
        parent::die_with(pid).map_err(|reason| CliError::new(Failure::Failed, reason))?;
    }
    let node = launch(args, services).await?;
    stop_on_signals(&node.served.context().shutdown).map_err(anyhow::Error::from)?;
    until_stopped(&node.served, &node.extras).await.map_err(ended)
}

/// A node that runs inside of this process.
pub struct Node {
    served: Served,
    extras: Extras,
    endpoints: Endpoints,
}

impl Node {
    /// Where it answers.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Drains it.
    pub async fn stop(&self) {
        self.served.shutdown();
        let _ = self.served.stopped().await;
    }
}

/// Starts all five services and waits until the node is ready.
pub async fn start(args: &NodeArgs) -> Result<Node, CliError> {
    let node = launch(args, &ALL).await?;
    let context = node.served.context().clone();
    tokio::select! {
        () = context.readiness.wait_ready() => Ok(node),
        end = node.served.stopped() => {
            let error = CliError::new(Failure::Failed, "the node ended before it was ready");
            Err(match end {
                Ok(()) => error,
                Err(failure) => error.cause(failure),
            })
        }
    }
}

async fn launch(args: &NodeArgs, services: &[Service]) -> Result<Node, CliError> {
    if args.mcp_tcp.is_some() {
        let words = "MCP over TCP is not supported yet";
        return Err(CliError::new(Failure::Config, words).hint("leave --mcp-tcp away"));
    }
    let config = Config::load(args)?;
    telemetry::init(&config.node.log).map_err(|error| CliError::new(Failure::Config, error.to_string()))?;
    let import = args.import.as_deref().map(read_import).transpose()?;
    let parts = Parts {
        config_sha256: sha256(&config),
        descriptors: vec![proto::DESCRIPTORS],
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Parts::default()
    };
    let mut host = Host::bind(&config.node, parts).await.map_err(not_started)?;
    let writer = host.directory_writer().unwrap_or_else(|| Directory::channel().0);
    let context = host.context().clone();
    crate::flags::define(&context.flags)?;
    let extras = compose(&config, &context, writer, services).await?;
    let endpoints = endpoints(&context, &extras);
    announce_addresses(&context, &endpoints);
    let clients = admin::Clients::new(&context, &config);
    admin::mount(&context, clients.clone(), endpoints.clone());
    catalog::mount(&context, config.catalog.clone(), clients.clone(), &endpoints);
    if let Some(import) = import {
        imports::spawn(&context, clients, import);
    }
    let served = host.serve().await;
    Ok(Node { served, extras, endpoints })
}

/// Starts the services in order; answers the extras of the ready line.
async fn compose(
    config: &Config,
    context: &Context,
    writer: DirectoryWriter,
    services: &[Service],
) -> Result<Extras, CliError> {
    let mut extras = Extras::new();
    let runs = |service| services.contains(&service);
    if runs(Service::Gossip) {
        let gossip = config.gossip.clone().with_node(&config.node);
        let running = gossip_svc::start(gossip, context).await.map_err(service_error)?;
        extras.push(("gossip", running.gossip_addr.to_string()));
    }
    let follow = gossip_client::follow(&config.node, context, writer);
    context.tasks.spawn("directory", follow);
    if runs(Service::Registry) {
        registry_svc::start(config.registry.clone(), context).await.map_err(service_error)?;
    }
    if runs(Service::Session) {
        session_svc::start(config.session.clone(), context).await.map_err(service_error)?;
    }
    if runs(Service::Coordinator) {
        coordinator_svc::start(config.coordinator.clone(), context).await.map_err(service_error)?;
    }
    if runs(Service::Edge) {
        let running = transport_edge::start(config.edge.clone(), context).await.map_err(service_error)?;
        extras.push(("mcp", format!("http://{}/mcp", running.mcp)));
    }
    Ok(extras)
}

/// Reads the file and names its bad entries at once.
fn read_import(file: &std::path::Path) -> Result<Import, CliError> {
    let import = import::read(file).map_err(|error| CliError::new(Failure::Config, error.to_string()))?;
    for rejected in &import.rejected {
        imports::tell(&file.to_string_lossy(), &rejected.name, &rejected.reason);
    }
    Ok(import)
}

fn endpoints(context: &Context, extras: &Extras) -> Endpoints {
    let mut endpoints = Endpoints::default();
    for (key, value) in kit::run::endpoints(context, extras) {
        match key {
            "name" => endpoints.name = value,
            "mcp" => endpoints.mcp = Some(value),
            "admin" => endpoints.admin = value,
            "grpc" => endpoints.grpc = value,
            "gossip" => endpoints.gossip = Some(value),
            _ => {}
        }
    }
    endpoints
}

/// Other nodes' operators find these in the directory.
fn announce_addresses(context: &Context, endpoints: &Endpoints) {
    for mut instance in context.announce.current() {
        instance.meta.insert("admin".to_owned(), endpoints.admin.clone());
        context.announce.set(instance);
    }
}

fn not_started(error: HostError) -> CliError {
    let failure = match error {
        HostError::Config(_) => Failure::Config,
        _ => Failure::Failed,
    };
    let hint = match error {
        HostError::Bind { what, .. } => {
            Some(format!("another process listens there; give this one its own --{what}"))
        }
        _ => None,
    };
    CliError { hint, ..CliError::new(failure, error.to_string()) }
}

fn service_error(error: impl std::error::Error + Send + Sync + 'static) -> CliError {
    CliError::from(anyhow::Error::from(error))
}

fn ended(error: anyhow::Error) -> CliError {
    CliError::from(error)
}

/// A warning that is no log line: it is for the person who started the node.
pub(crate) fn warn(text: &str) {
    output::to_stderr(&format!("warning: {text}"));
}
