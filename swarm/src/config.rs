//! The whole configuration file: every section, each owned by its service.

use crate::{catalog, cli::NodeArgs, error::CliError};
use kit::config::{NodeConfig, load};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// `swarm.toml`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `[node]`
    pub node: NodeConfig,
    /// `[registry]`
    pub registry: registry_svc::Config,
    /// `[gossip]`
    pub gossip: gossip_svc::Config,
    /// `[session]`
    pub session: session_svc::Config,
    /// `[coordinator]`
    pub coordinator: coordinator_svc::Config,
    /// `[edge]`
    pub edge: transport_edge::Config,
    /// `[catalog]`
    pub catalog: catalog::Config,
}

impl Config {
    /// Defaults, file, environment, options.
    pub fn load(args: &NodeArgs) -> Result<Config, CliError> {
        let config: Config = load(args.process.config.as_deref(), args.flags())?;
        config.node.validate()?;
        config.catalog.validate()?;
        Ok(config)
    }

    /// Defaults, file, environment.
    pub fn of_file(file: Option<&Path>) -> Result<Config, CliError> {
        let mut args = NodeArgs::default();
        args.process.config = file.map(Path::to_path_buf);
        Config::load(&args)
    }
}
