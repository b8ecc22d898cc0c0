//! What a boring `main` is made of. The parts are public, for the `swarm` binary composes them
//! differently.

use crate::{
    config::{ConfigError, EXIT_CONFIG, NodeConfig, Section, ServiceFile, load, sha256},
    data_dir::write_durably,
    directory::DirectoryWriter,
    host::{Context, Host, HostError, Parts, Served},
    shutdown::{Failure, Shutdown},
    telemetry,
};
use clap::Args;
use serde_json::{Value, json};
use std::{future::Future, io::Write as _, net::SocketAddr, path::PathBuf, process::ExitCode};
use tokio::signal::unix::{SignalKind, signal};

/// The options that every service binary takes.
#[derive(Debug, Clone, Default, Args)]
pub struct ServiceArgs {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Name of the node, stable over restarts
    #[arg(long)]
    pub name: Option<String>,
    /// Data directory; `:memory:` keeps nothing
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,
    /// Address of the admin port (metrics, probes); port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<SocketAddr>,
    /// Address of the gRPC port; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub grpc: Option<SocketAddr>,
    /// Host under which other nodes reach this one
    #[arg(long, value_name = "HOST")]
    pub advertise: Option<String>,
    /// Gossip addresses of nodes to join
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pub join: Vec<String>,
    /// Nodes to wait for before the first Raft bootstrap
    #[arg(long, value_name = "N")]
    pub expect: Option<u32>,
    /// NATS servers, e.g. nats://127.0.0.1:4222
    #[arg(long, value_name = "URL")]
    pub nats: Option<String>,
    /// gRPC addresses of gossip-svc
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pub gossip_endpoint: Vec<String>,
    /// Timings: default, seed or wan
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Failure domain
    #[arg(long)]
    pub zone: Option<String>,
    /// Name of the cluster
    #[arg(long)]
    pub cluster: Option<String>,
    /// Log filter, e.g. info,kit=debug
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

impl ServiceArgs {
    /// The options as a layer of the configuration: `{"node": {...}}`; unset ones are null.
    pub fn flags(&self) -> Value {
        let list = |values: &Vec<String>| (!values.is_empty()).then(|| values.clone());
        json!({"node": {
            "name": self.name,
            "data": self.data,
            "admin": self.admin,
            "grpc": self.grpc,
            "advertise": self.advertise,
            "join": list(&self.join),
            "expect": self.expect,
            "nats": self.nats,
            "gossip_endpoints": list(&self.gossip_endpoint),
            "profile": self.profile,
            "zone": self.zone,
            "cluster": self.cluster,
            "log": {"filter": self.log},
        }})
    }
}

/// What a service's starter gets.
pub struct Node {
    /// For `start(config, &node.context)`.
    pub context: Context,
    /// For gossip-client, or [`DirectoryWriter::follow`].
    pub directory: DirectoryWriter,
    /// Section `[node]`.
    pub config: NodeConfig,
}

/// Further `key=value` pairs of the ready line, such as `("mcp", "http://...")`.
pub type Extras = Vec<(&'static str, String)>;

/// The whole main of a service: load, bind, start, serve, say ready, wait, drain. `start` runs
/// the service and answers the extras of the ready line.
pub fn service<S, F, Fut>(args: &ServiceArgs, descriptors: &'static [u8], start: F) -> ExitCode
where
    S: Section,
    F: FnOnce(S, Node) -> Fut,
    Fut: Future<Output = anyhow::Result<Extras>>,
{
    exit_code(try_service(args, descriptors, start))
}

/// [`service`] with the error instead of the exit code.
pub fn try_service<S, F, Fut>(args: &ServiceArgs, descriptors: &'static [u8], start: F) -> anyhow::Result<()>
where
    S: Section,
    F: FnOnce(S, Node) -> Fut,
    Fut: Future<Output = anyhow::Result<Extras>>,
{
    let file: ServiceFile<S> = load(args.config.as_deref(), args.flags())?;
    file.service.check().map_err(|why| ConfigError::Invalid(format!("{}: {why}", S::NAME)))?;
    telemetry::init(&file.node.log).map_err(|error| ConfigError::Invalid(error.to_string()))?;
    let parts = Parts { config_sha256: sha256(&file), descriptors: vec![descriptors], ..Parts::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let ServiceFile { node: config, service } = file;
        let mut host = Host::bind(&config, parts).await?;
        let context = host.context().clone();
        stop_on_signals(&context.shutdown)?;
        let directory = host.directory_writer().unwrap_or_else(|| crate::directory::Directory::channel().0);
        let extras = start(service, Node { context, directory, config }).await?;
        let served = host.serve().await;
        until_stopped(&served, &extras).await
    })
}

/// Says ready once the node is, waits for its end, and tidies up.
pub async fn until_stopped(served: &Served, extras: &Extras) -> anyhow::Result<()> {
    let context = served.context();
    tokio::select! {
        () = context.readiness.wait_ready() => say_ready(context, extras)?,
        () = context.shutdown.wait() => {}
    }
    let end = served.stopped().await;
    if let Some(data) = &context.data {
        let _ = std::fs::remove_file(data.join(ENDPOINTS_FILE));
    }
    Ok(end?)
}

/// Name of the file in the data directory that holds what the ready line says.
pub const ENDPOINTS_FILE: &str = "endpoints.json";

/// Prints the ready line to stdout and writes [`ENDPOINTS_FILE`].
pub fn say_ready(context: &Context, extras: &Extras) -> std::io::Result<()> {
    let endpoints = endpoints(context, extras);
    if let Some(data) = &context.data {
        let object: serde_json::Map<_, _> =
            endpoints.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
        write_durably(&data.join(ENDPOINTS_FILE), format!("{}\n", Value::Object(object)).as_bytes())?;
    }
    let pairs: Vec<_> = endpoints.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready {}", pairs.join(" "))?;
    out.flush()
}

/// `name`, the MCP endpoints, `admin`, `grpc`, then the rest.
pub fn endpoints(context: &Context, extras: &Extras) -> Extras {
    let (mcp, rest): (Extras, Extras) = extras.iter().cloned().partition(|(key, _)| key.starts_with("mcp"));
    let own = [("admin", format!("http://{}", context.admin_addr)), ("grpc", context.grpc_addr.to_string())];
    [("name", context.node.clone())].into_iter().chain(mcp).chain(own).chain(rest).collect()
}

/// SIGTERM and Ctrl-C drain; a second one aborts.
pub fn stop_on_signals(shutdown: &Shutdown) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if shutdown.is_triggered() {
                tracing::warn!("second signal: aborting");
                shutdown.fail(1, "aborted by a second signal");
                return;
            }
            tracing::info!("draining; a second signal aborts");
            shutdown.trigger();
        }
    });
    Ok(())
}

/// [`report`] as the result of a `main`.
pub fn exit_code(result: anyhow::Result<()>) -> ExitCode {
    ExitCode::from(report(&result))
}

/// Says an error on stderr and gives its exit code: 78 for a configuration, a failure's own,
/// else 1; 0 when there is none.
#[allow(clippy::print_stderr)]
pub fn report(result: &anyhow::Result<()>) -> u8 {
    let Err(error) = result else {
        return 0;
    };
    eprintln!("error: {error:#}");
    let config = error.chain().any(|cause| cause.is::<ConfigError>())
        || matches!(error.downcast_ref(), Some(HostError::Config(_)));
    if config {
        return EXIT_CONFIG;
    }
    error.downcast_ref::<Failure>().map_or(1, |failure| failure.code)
}
