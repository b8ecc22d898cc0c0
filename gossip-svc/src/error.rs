//! What can go wrong, and the wire code of each.

use crate::core::leases::Refused;
use kit::config::ConfigError;
use proto::error::Code;
use std::net::SocketAddr;

/// Why the service does not start, or stops.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Values that do not go together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The gossip port cannot be had.
    #[error("gossip cannot listen on {addr}/udp: {why}")]
    Bind {
        /// Where it should listen.
        addr: SocketAddr,
        /// Why it cannot.
        why: String,
    },
    /// Nobody could reach this node under the address found.
    #[error("gossip listens on {0}, but its own address cannot be found out; set gossip.advertise")]
    Advertise(SocketAddr),
    /// The advertised name does not resolve.
    #[error("gossip.advertise = {name:?} does not resolve: {why}")]
    Resolve {
        /// As configured.
        name: String,
        /// What the resolver says.
        why: String,
    },
    /// The engine ended and could not be started again.
    #[error("gossip engine ended and does not start again: {0}")]
    Engine(String),
}

impl From<Refused> for tonic::Status {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::Ttl(_) => Code::InvalidArgument.status(message, &[]),
            Refused::TooMany(_) => Code::Exhausted.status(message, &[("limit", "services")]),
            Refused::TooBig(_) => Code::Exhausted.status(message, &[("limit", "bytes")]),
            Refused::OldGeneration { current, .. } => {
                Code::Fenced.status(message, &[("epoch", &current.to_string())])
            }
        }
    }
}
