//! What a caller may act on.

use proto::{
    error::{Code, detail},
    registry::EntryError,
};
use tonic::Status;

/// Why a call to the registry failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request is malformed; repeating it will not help.
    #[error("{0}")]
    Invalid(String),
    /// The name is held with another value, or by another owner.
    #[error("{message}")]
    AlreadyRegistered {
        /// Who holds the name.
        owner: String,
        /// The registry's words.
        message: String,
    },
    /// No such name.
    #[error("{0}")]
    NotFound(String),
    /// The registration or lease belongs to another owner.
    #[error("{message}")]
    Denied {
        /// Whom it belongs to.
        owner: String,
        /// The registry's words.
        message: String,
    },
    /// The shard belongs to another instance.
    #[error("{message}")]
    NotOwner {
        /// Which one; empty when the instance that was asked does not know.
        owner: String,
        /// The registry's words.
        message: String,
    },
    /// The revision to resume from is not in the history: read the state again.
    #[error("{0}")]
    Compacted(String),
    /// A limit is reached; nothing was applied.
    #[error("{0}")]
    Exhausted(String),
    /// No instance could be asked; nothing was applied.
    #[error("registry is unavailable: {0}")]
    Unavailable(String),
    /// The write may or may not be applied; repeating it is safe.
    #[error("outcome is unknown: {0}")]
    Unknown(String),
    /// The registry's store failed, or a bug.
    #[error("registry failed: {0}")]
    Failed(String),
}

impl Error {
    /// The wire's code.
    pub fn code(&self) -> Code {
        match self {
            Error::Invalid(_) => Code::InvalidArgument,
            Error::AlreadyRegistered { .. } => Code::AlreadyRegistered,
            Error::NotFound(_) => Code::NotFound,
            Error::Denied { .. } => Code::Denied,
            Error::NotOwner { .. } => Code::NotOwner,
            Error::Compacted(_) => Code::Compacted,
            Error::Exhausted(_) => Code::Exhausted,
            Error::Unavailable(_) => Code::Unavailable,
            Error::Unknown(_) => Code::OutcomeUnknown,
            Error::Failed(_) => Code::Internal,
        }
    }

    /// Whether another instance, or this one later, may do it.
    pub fn is_transient(&self) -> bool {
        match self {
            // That instance is behind; another one may know.
            Error::NotOwner { owner, .. } => owner.is_empty(),
            Error::Exhausted(_) | Error::Unavailable(_) | Error::Unknown(_) | Error::Failed(_) => true,
            _ => false,
        }
    }
}

/// As if the entry had been asked for alone.
impl From<EntryError> for Error {
    fn from(error: EntryError) -> Self {
        let code = Code::of_reason(&error.reason).unwrap_or(Code::Internal);
        let metadata: Vec<(&str, &str)> =
            error.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        Error::from(code.status(error.message.clone(), &metadata))
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let message = status.message().to_owned();
        let owner = || detail(&status, "owner").unwrap_or_default();
        match Code::of(&status) {
            Code::InvalidArgument | Code::DeadlineRequired => Error::Invalid(message),
            Code::AlreadyRegistered => Error::AlreadyRegistered { owner: owner(), message },
            Code::NotFound => Error::NotFound(message),
            Code::Denied => Error::Denied { owner: owner(), message },
            Code::NotOwner => Error::NotOwner { owner: owner(), message },
            Code::Compacted => Error::Compacted(message),
            Code::Exhausted => Error::Exhausted(message),
            Code::Unavailable | Code::QuorumUnavailable => Error::Unavailable(message),
            Code::OutcomeUnknown => Error::Unknown(message),
            _ => Error::Failed(message),
        }
    }
}
