//! Mechanism without a domain noun, shared by every service.
//!
//! # Code map
//! | module | what |
//! |---|---|
//! | [`host`] | one node: ports, data directory, [`Context`], start and stop |
//! | [`run`] | what a `main` is made of: arguments, signals, ready line, exit codes |
//! | [`config`] | defaults < file < `SWARM__A__B` < flags; errors with file, line, key and nearest key |
//! | [`rpc`] | gRPC server routes, cached channels, calls with deadline and retry budget |
//! | [`net`], [`clock`] | the seams that let a simulation in |
//! | [`bus`] | facts: NATS or in process |
//! | [`directory`] | who answers where ([`Directory`]), and "I am here" ([`Announce`]) |
//! | [`supervise`], [`shutdown`], [`readiness`] | the life of tasks and of the node |
//! | [`metrics`], [`telemetry`], [`admin`] | what an operator sees |
//! | [`flags`] | feature flags: file, kill switches, percentages, audit |
//! | [`backoff`], [`data_dir`], [`shared`] | small parts |
//! | [`mod@test`] | `eventually`, seeds, external tools, a network in memory |
//!
//! # A service
//! ```text
//! // src/service.rs: wiring only
//! pub async fn start(config: Config, ctx: &Context) -> Result<Running, Error> {
//!     config.validate()?;
//!     let store = Store::open(ctx.data.as_deref())?;
//!     let ready = ctx.readiness.condition("registry");
//!     let (requests, inbox) = tokio::sync::mpsc::channel(1024);
//!     let handler = rpc::Handler::new(requests);
//!     ctx.rpc.add(RegistryServiceServer::new(handler).max_decoding_message_size(kit::rpc::MAX_MESSAGE));
//!     let driver = Driver::new(config, store, inbox, ctx.clone());
//!     ctx.tasks.spawn("registry-driver", driver.run(ready));   // select! { .. () = ctx.shutdown.wait() => .. }
//!     ctx.announce.set(ctx.instance("registry"));
//!     Ok(Running { addr: ctx.grpc_addr })
//! }
//! // src/config.rs: #[derive(Serialize, Deserialize)] #[serde(deny_unknown_fields, default)] struct Config { .. }
//! impl kit::config::Section for Config { const NAME: &'static str = "registry"; }
//! // src/main.rs
//! fn main() -> std::process::ExitCode {
//!     kit::run::service(&Cli::parse().service, proto::DESCRIPTORS, |config: Config, node| async move {
//!         node.context.tasks.background("directory", gossip_client::follow(&node.config, &node.context, node.directory));
//!         start(config, &node.context).await?;
//!         Ok(vec![])                                             // extra pairs of the ready line
//!     })
//! }
//! // tests/over_grpc.rs
//! let host = Host::for_test("n1").await;
//! start(Config::default(), host.context()).await?;
//! let served = host.serve().await;                               // served.kill().await is a crash
//! ```
//!
//! # Rules that the types cannot say
//! * `ctx.rpc.add` and `ctx.admin.merge` come before `host.serve()`.
//! * `tasks.spawn` is for what the node cannot do without: its end before the shutdown stops the
//!   node, and the drain waits for it. What has nothing to finish is `tasks.background`. One connection or one job is `tasks.detach`; what may be started again is `tasks.supervise`.
//! * While tasks drain both ports still answer; server streams end themselves on `shutdown.wait()`.
//! * Errors of raw calls go through [`rpc::status::settle`] (as [`rpc::call`] does), so that
//!   `UNAVAILABLE` means "nothing was applied" and a broken connection `OUTCOME_UNKNOWN`.
//! * A config that is invalid is [`config::ConfigError`] somewhere in the error's chain, or
//!   refused by [`config::Section::check`]: exit code 78.
//! * A call without `grpc-timeout` is refused (`DEADLINE_REQUIRED`); use [`rpc::with_deadline`].

#![warn(missing_docs)]

pub mod admin;
pub mod backoff;
pub mod bus;
pub mod clock;
pub mod config;
pub mod data_dir;
pub mod directory;
pub mod flags;
pub mod host;
mod mem_net;
pub mod metrics;
pub mod net;
mod process;
pub mod readiness;
pub mod rpc;
pub mod run;
pub mod shared;
pub mod shutdown;
pub mod supervise;
pub mod telemetry;
pub mod test;

pub use clock::{Clock, Timestamp};
pub use config::NodeConfig;
pub use directory::{Announce, Directory, Instance, State};
pub use flags::Flags;
pub use host::{Context, Host, Running};
pub use metrics::Metrics;
pub use readiness::Readiness;
pub use shared::Shared;
pub use shutdown::Shutdown;
pub use supervise::{Policy, Tasks};
