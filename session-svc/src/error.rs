//! What goes wrong here, and its one mapping to the closed set of wire codes.

use crate::{
    core::{log::LogError, record::Version},
    store::StoreError,
};
use proto::error::Code;
use tonic::Status;

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value of the configuration makes no sense.
    #[error("session.{key}: {rule}")]
    Config {
        /// The key.
        key: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{0}")]
    Invalid(String),
    #[error("no such session")]
    NotFound,
    #[error("session has another version")]
    Mismatch(Version),
    #[error("fenced off by epoch {0}")]
    Fenced(u64),
    #[error("{0}")]
    Limit(&'static str),
    #[error("{have} of {need} owners answered; nothing was applied")]
    Quorum { have: usize, need: usize },
    #[error("the write may or may not be applied: {0}")]
    Unknown(&'static str),
    #[error("{0}")]
    Storage(String),
}

impl Fault {
    /// The value of the metric label `result`.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Fault::Invalid(_) => "invalid",
            Fault::NotFound => "not_found",
            Fault::Mismatch(_) => "mismatch",
            Fault::Fenced(_) => "fenced",
            Fault::Limit(_) => "limit",
            Fault::Quorum { .. } => "unavailable",
            Fault::Unknown(_) => "unknown",
            Fault::Storage(_) => "storage",
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Fault::Storage(error.to_string())
    }
}

impl From<LogError> for Fault {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Fenced(epoch) => Fault::Fenced(epoch),
            LogError::TooManyStreams => Fault::Limit("streams of a session"),
            error => Fault::Invalid(error.to_string()),
        }
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Status {
        let message = fault.to_string();
        match fault {
            Fault::Invalid(_) => Code::InvalidArgument.status(message, &[]),
            Fault::NotFound => Code::NotFound.status(message, &[]),
            Fault::Mismatch(current) => {
                let current = session_client::error::format_version(&current.into());
                Code::VersionMismatch.status(message, &[("current", &current)])
            }
            Fault::Fenced(epoch) => Code::Fenced.status(message, &[("epoch", &epoch.to_string())]),
            Fault::Limit(limit) => Code::Exhausted.status(message, &[("limit", limit)]),
            Fault::Quorum { .. } => Code::QuorumUnavailable.status(message, &[]),
            Fault::Unknown(_) => Code::OutcomeUnknown.status(message, &[]),
            Fault::Storage(_) => Code::Storage.status(message, &[]),
        }
    }
}
