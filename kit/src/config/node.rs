//! What every process of ours needs to know: section `[node]`.

use super::{ConfigError, StaticMember, duration};
use crate::telemetry::LogConfig;
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    thread::available_parallelism,
    time::Duration,
};

/// Event loops of the gRPC port: as many by default at most, and at most.
const LOOPS_MAX: usize = 8;
const LOOPS_LIMIT: usize = 256;

/// Section `[node]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// Name of the node, stable over restarts; 1 to 128 characters of `A-Z a-z 0-9 _ - .`.
    pub name: String,
    /// Where state is kept.
    pub data: DataDir,
    /// Admin listener: metrics, probes, console, API.
    pub admin: SocketAddr,
    /// Host names, beside loopback and the node's name, that the admin port answers to.
    pub admin_hosts: Vec<String>,
    /// gRPC listener.
    pub grpc: SocketAddr,
    /// Event loops that serve the gRPC port, each with connections of its own. Unset: one for each
    /// core, at most 8; 0: none of its own, the node's runtime serves it.
    pub grpc_loops: Option<usize>,
    /// Host under which others reach this node. Unset: the address of `grpc`, or when that
    /// is all interfaces, the address that the default route leaves from.
    pub advertise: Option<String>,
    /// Failure domain.
    pub zone: String,
    /// Name of the cluster, part of every NATS subject.
    pub cluster: String,
    /// NATS servers, e.g. `nats://127.0.0.1:4222`; unset means the in-process bus.
    pub nats: Option<String>,
    /// Nodes to wait for before the first Raft bootstrap.
    pub expect: u32,
    /// gRPC addresses of gossip-svc; empty means this node's own.
    pub gossip_endpoints: Vec<String>,
    /// Who answers where when no gossip tells: `service/name@host:port`, beside this process's own
    /// services. With it gossip-svc is not asked, and nobody is ever seen as down.
    pub members: Vec<StaticMember>,
    /// Gossip addresses of other nodes to join.
    pub join: Vec<String>,
    /// Timings by name: "default", "seed" or "wan".
    pub profile: String,
    /// Feature flags; unset means `flags.json` in the data directory, or in memory only when
    /// there is none. Several nodes of a machine may share one file.
    pub flags: Option<PathBuf>,
    /// How long the drain may take.
    #[serde(with = "duration")]
    pub drain: Duration,
    /// Logs.
    pub log: LogConfig,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            name: "n1".into(),
            data: DataDir::Default,
            admin: loopback(7600),
            admin_hosts: Vec::new(),
            grpc: loopback(7610),
            grpc_loops: None,
            advertise: None,
            zone: "default".into(),
            cluster: "local".into(),
            nats: None,
            expect: 1,
            gossip_endpoints: Vec::new(),
            members: Vec::new(),
            join: Vec::new(),
            profile: "default".into(),
            flags: None,
            drain: Duration::from_secs(10),
            log: LogConfig::default(),
        }
    }
}

impl NodeConfig {
    /// A node for tests: free ports on loopback, nothing kept, a short drain.
    pub fn for_test(name: &str) -> Self {
        Self {
            name: name.into(),
            data: DataDir::Memory,
            admin: loopback(0),
            grpc: loopback(0),
            // Tests move the clock of their own runtime.
            grpc_loops: Some(0),
            drain: Duration::from_secs(2),
            ..Self::default()
        }
    }

    /// Event loops of the gRPC port; 0 is the node's own runtime.
    pub fn grpc_loops(&self) -> usize {
        self.grpc_loops.unwrap_or_else(|| available_parallelism().map_or(1, usize::from).min(LOOPS_MAX))
    }

    /// Refuses what parses but makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check_word("name", &self.name)?;
        check_word("zone", &self.zone)?;
        check_word("cluster", &self.cluster)?;
        if self.cluster.contains('.') {
            return Err(invalid(
                "cluster",
                &self.cluster,
                "must not contain a dot: it is one token of a NATS subject",
            ));
        }
        if self.grpc.ip().is_unspecified() && self.advertise.is_none() {
            return Err(invalid(
                "grpc",
                &self.grpc.to_string(),
                "listens on every interface: set node.advertise, the host under which others reach this node",
            ));
        }
        if let Some(loops) = self.grpc_loops.filter(|loops| *loops > LOOPS_LIMIT) {
            return Err(invalid("grpc_loops", &loops.to_string(), "at most 256 are allowed"));
        }
        if !self.members.is_empty() && !self.gossip_endpoints.is_empty() {
            let first = self.members.first().map(ToString::to_string).unwrap_or_default();
            return Err(invalid(
                "members",
                &first,
                "stands beside node.gossip_endpoints: set one of the two",
            ));
        }
        if !matches!(self.expect, 1 | 3 | 5) {
            return Err(invalid("expect", &self.expect.to_string(), "must be 1, 3 or 5"));
        }
        if !["default", "seed", "wan"].contains(&self.profile.as_str()) {
            return Err(invalid("profile", &self.profile, "must be default, seed or wan"));
        }
        Ok(())
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

pub(super) fn check_word(key: &str, value: &str) -> Result<(), ConfigError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if (1..=128).contains(&value.len()) && value.chars().all(allowed) && !value.starts_with('.') {
        return Ok(());
    }
    Err(invalid(key, value, "must be 1 to 128 characters of A-Z a-z 0-9 _ - . and not start with a dot"))
}

fn invalid(key: &str, value: &str, rule: &str) -> ConfigError {
    ConfigError::Invalid(format!("node.{key} = {value:?}: {rule}"))
}

/// Where state is kept: `":memory:"`, a path, or `"default"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum DataDir {
    /// Keeps nothing.
    Memory,
    /// This directory, created when missing.
    Path(PathBuf),
    /// The platform's state directory, `swarm/<name>`.
    Default,
}

impl DataDir {
    /// The directory, or `None` for [`DataDir::Memory`].
    pub fn resolve(&self, node: &str) -> Result<Option<PathBuf>, ConfigError> {
        use etcetera::base_strategy::{BaseStrategy as _, choose_base_strategy};
        match self {
            DataDir::Memory => Ok(None),
            DataDir::Path(path) => Ok(Some(path.clone())),
            DataDir::Default => {
                let strategy = choose_base_strategy().map_err(|error| {
                    ConfigError::Invalid(format!("node.data: no home directory ({error}); set --data"))
                })?;
                let base = strategy.state_dir().unwrap_or_else(|| strategy.data_dir());
                Ok(Some(base.join("swarm").join(node)))
            }
        }
    }
}

impl From<String> for DataDir {
    fn from(text: String) -> Self {
        match text.as_str() {
            ":memory:" => DataDir::Memory,
            "default" | "" => DataDir::Default,
            path => DataDir::Path(path.into()),
        }
    }
}

impl From<DataDir> for String {
    fn from(data: DataDir) -> String {
        match data {
            DataDir::Memory => ":memory:".into(),
            DataDir::Default => "default".into(),
            DataDir::Path(path) => path.to_string_lossy().into_owned(),
        }
    }
}
