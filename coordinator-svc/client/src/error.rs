//! What a caller may act on.

use proto::error::{Code, detail};
use tonic::Status;

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request is malformed; repeating it will not help.
    #[error("{0}")]
    Invalid(String),
    /// No such task.
    #[error("{0}")]
    NotFound(String),
    /// The key is at another revision.
    #[error("the key is at revision {current}")]
    Revision {
        /// The key's revision, 0 when absent.
        current: u64,
    },
    /// The lease is not in force any more.
    #[error("the lease is not in force; the newest token is {newest}")]
    Fenced {
        /// The newest fencing token of the task.
        newest: u64,
    },
    /// A limit of the coordinators is reached; nothing was applied.
    #[error("limit {limit} of the coordinators is reached")]
    Full {
        /// Its name.
        limit: String,
    },
    /// Nothing was applied: no leader was reached by the deadline.
    #[error("no coordinator leads: {0}")]
    Unavailable(String),
    /// The write may or may not be applied; repeat it with the same request id.
    #[error("the outcome is not known: {0}")]
    Unknown(String),
    /// Anything else, such as a store that failed.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    pub(crate) fn of(status: &Status) -> Error {
        let words = status.message().to_owned();
        let number = |key| detail(status, key).and_then(|value| value.parse().ok()).unwrap_or(0);
        match Code::of(status) {
            Code::InvalidArgument | Code::DeadlineRequired => Error::Invalid(words),
            Code::NotFound => Error::NotFound(words),
            Code::VersionMismatch => Error::Revision { current: number("current") },
            Code::Fenced => Error::Fenced { newest: number("epoch") },
            Code::Exhausted => Error::Full { limit: detail(status, "limit").unwrap_or_default() },
            Code::Unavailable | Code::QuorumUnavailable | Code::NotLeader | Code::NotOwner => {
                Error::Unavailable(words)
            }
            Code::OutcomeUnknown => Error::Unknown(words),
            _ => Error::Failed(words),
        }
    }
}
