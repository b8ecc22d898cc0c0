//! Section `[edge]`.

use crate::{Error, backend::BackendsConfig, core::headers::Names};
use kit::config::Section;
use serde::{Deserialize, Serialize};
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

/// Where sessions of the legacy era are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionsIn {
    /// In session-svc: they survive this node.
    Service,
    /// In this process: they end with it (the model before phase 3).
    Local,
}

/// Where the names of backends come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendsFrom {
    /// registry-svc, and `backends.fixed` beside it.
    Registry,
    /// `backends.fixed` only.
    Config,
}

/// Configuration of the edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where MCP is served; `/mcp` and `/mcp/<server>`.
    pub mcp: SocketAddr,
    /// Event loops, each with a listener of its own; 0 is one per core.
    pub threads: usize,
    /// Host names (without port) beside loopback that requests may be addressed to; `*` is any.
    pub hosts: Vec<String>,
    /// Browser origins beside loopback that may call; `*` is any.
    pub origins: Vec<String>,
    /// Where sessions are kept.
    pub sessions: SessionsIn,
    /// Where backends come from.
    pub backends_from: BackendsFrom,
    /// Most connections per event loop; more wait in the listener's queue.
    pub max_connections: usize,
    /// Most sessions live here.
    pub max_sessions: usize,
    /// Largest request body, in bytes.
    pub max_body: usize,
    /// A head must be there within this time.
    #[serde(with = "kit::config::duration")]
    pub header_timeout: Duration,
    /// A body must be there within this time.
    #[serde(with = "kit::config::duration")]
    pub body_timeout: Duration,
    /// A call is given up after this time.
    #[serde(with = "kit::config::duration")]
    pub call_timeout: Duration,
    /// A legacy call without an answer becomes a resumable stream after this time.
    #[serde(with = "kit::config::duration")]
    pub stream_after: Duration,
    /// How long a first list waits for backends that are still starting.
    #[serde(with = "kit::config::duration")]
    pub settle: Duration,
    /// A session ends after this long without use.
    #[serde(with = "kit::config::duration")]
    pub session_ttl: Duration,
    /// The live part of a session closes after this long without use; the session stays.
    #[serde(with = "kit::config::duration")]
    pub session_idle: Duration,
    /// How long a copy of a session is served without asking (2 s at most, K27).
    #[serde(with = "kit::config::duration")]
    pub lease: Duration,
    /// How long the drain waits for requests in flight.
    #[serde(with = "kit::config::duration")]
    pub drain: Duration,
    /// The backends.
    pub backends: BackendsConfig,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            mcp: SocketAddr::from((Ipv4Addr::LOCALHOST, 7700)),
            threads: 0,
            hosts: Vec::new(),
            origins: Vec::new(),
            sessions: SessionsIn::Service,
            backends_from: BackendsFrom::Registry,
            max_connections: 65_536,
            max_sessions: 100_000,
            max_body: 4 << 20,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            call_timeout: Duration::from_secs(300),
            stream_after: Duration::from_millis(500),
            settle: Duration::from_secs(5),
            session_ttl: Duration::from_secs(24 * 3600),
            session_idle: Duration::from_secs(1800),
            lease: Duration::from_secs(2),
            drain: Duration::from_secs(8),
            backends: BackendsConfig::default(),
        }
    }
}

impl Section for Config {
    const NAME: &'static str = "edge";
}

impl Config {
    /// For tests: a free port, two event loops, sessions in this process, fixed backends.
    pub fn for_test() -> Self {
        Config {
            mcp: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            threads: 2,
            sessions: SessionsIn::Local,
            backends_from: BackendsFrom::Config,
            drain: Duration::from_secs(2),
            ..Config::default()
        }
    }

    /// Refuses what parses but makes no sense.
    pub fn validate(&self) -> Result<(), Error> {
        let refuse = |key: &str, rule: &str| Err(Error::Config(format!("edge.{key}: {rule}")));
        if self.threads > 1024 {
            return refuse("threads", "must be at most 1024");
        }
        if self.max_connections == 0 || self.max_sessions == 0 {
            return refuse("max_connections, edge.max_sessions", "must be at least 1");
        }
        if !(1024..=64 << 20).contains(&self.max_body) {
            return refuse("max_body", "must be between 1024 and 67108864");
        }
        if self.lease.is_zero() || self.lease > Duration::from_secs(2) {
            return refuse("lease", "must be over 0 and at most 2 s");
        }
        if self.call_timeout.is_zero() || self.header_timeout.is_zero() || self.body_timeout.is_zero() {
            return refuse("call_timeout, edge.header_timeout, edge.body_timeout", "must be over 0");
        }
        Ok(())
    }

    /// The number of event loops.
    pub fn event_loops(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }

    /// Who may call.
    pub fn names(&self) -> Names {
        Names { hosts: self.hosts.clone(), origins: self.origins.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_over_two_seconds_is_refused() {
        assert!(Config::default().validate().is_ok());
        let config = Config { lease: Duration::from_secs(3), ..Config::default() };
        assert!(config.validate().is_err());
    }
}
