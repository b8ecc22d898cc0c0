//! What goes wrong, and how it is told on the wire.

use crate::{
    core::{
        check::Malformed, command::Refusal, cursor::BadCursor, history::Compacted, key::name_of,
        route::NotOwner, waiters::Full,
    },
    store::StoreError,
};
use proto::{
    error::{self, Code},
    registry::EntryError,
};
use tonic::Status;

/// Why registry-svc does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration makes no sense.
    #[error("[registry] {0}")]
    Config(String),
    /// Flags that break a requirement, or that the environment names wrongly.
    #[error("flags")]
    Flags(#[source] kit::config::ConfigError),
    /// The store cannot be opened or read.
    #[error("registry store: {0}")]
    Store(String),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Error::Store(error.to_string())
    }
}

/// Why a call fails.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("lease {lease_id} belongs to {owner:?}")]
    OtherLease { lease_id: u64, owner: String },
    #[error("{what} of {limit} is reached")]
    Exhausted { what: &'static str, limit: usize },
    #[error("revision {asked} is not in the history ({}..={}); read the state again", .history.oldest, .history.newest)]
    Compacted { asked: u64, history: Compacted },
    #[error("watcher is more than the history behind; resume or read the state again")]
    WatcherTooSlow,
    #[error("shard {} of epoch {} belongs to {:?}", .0.shard.0, .0.epoch, .0.owner)]
    NotOwner(NotOwner),
    #[error(transparent)]
    PageToken(#[from] BadCursor),
    #[error("no registration has a label {key:?}; {known}")]
    UnknownLabel { key: String, known: String },
    /// The store failed at this very write: it may come back after a restart, or not.
    #[error("the store failed, the write may or may not be kept: {0}")]
    StoreUnsure(String),
    #[error("the store has failed earlier; nothing is written any more")]
    StoreFenced,
    #[error("shutting down")]
    ShuttingDown,
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Failure::Refused(malformed.into())
    }
}

impl From<Full> for Failure {
    fn from(full: Full) -> Self {
        Failure::Exhausted { what: "max_waiters", limit: full.limit }
    }
}

impl From<Failure> for EntryError {
    fn from(failure: Failure) -> Self {
        let status = Status::from(failure);
        let (reason, metadata) = error::info(&status);
        EntryError { reason: reason.into(), message: status.message().to_owned(), metadata }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Status {
        let message = failure.to_string();
        match &failure {
            Failure::Refused(refusal) => refusal_status(refusal, message),
            Failure::OtherLease { lease_id, owner } => {
                Code::Denied.status(message, &[("lease_id", &lease_id.to_string()), ("owner", owner)])
            }
            Failure::Exhausted { limit, .. } => {
                Code::Exhausted.status(message, &[("limit", &limit.to_string())])
            }
            Failure::Compacted { history, .. } => {
                Code::Compacted.status(message, &[("oldest", &history.oldest.to_string())])
            }
            Failure::WatcherTooSlow => Code::Exhausted.status(message, &[("limit", "history")]),
            Failure::NotOwner(NotOwner { owner, epoch, .. }) => {
                Code::NotOwner.status(message, &[("owner", owner), ("epoch", &epoch.to_string())])
            }
            Failure::UnknownLabel { key, .. } => {
                Code::InvalidArgument.status(message, &[("field", "labels"), ("label", key)])
            }
            Failure::PageToken(_) => Code::InvalidArgument.status(message, &[("field", "page_token")]),
            Failure::StoreUnsure(_) => Code::OutcomeUnknown.status(message, &[]),
            Failure::StoreFenced => Code::Storage.status(message, &[]),
            Failure::ShuttingDown => Code::Unavailable.status(message, &[]),
        }
    }
}

fn refusal_status(refusal: &Refusal, message: String) -> Status {
    match refusal {
        Refusal::Malformed(malformed) => {
            Code::InvalidArgument.status(message, &[("field", malformed.field())])
        }
        Refusal::AlreadyRegistered { name, owner, .. } => {
            Code::AlreadyRegistered.status(message, &[("name", name_of(name)), ("owner", owner)])
        }
        Refusal::NotFound { name } => Code::NotFound.status(message, &[("name", name_of(name))]),
        Refusal::OtherOwner { name, owner } => {
            Code::Denied.status(message, &[("name", name_of(name)), ("owner", owner)])
        }
        Refusal::OutOfBounds { name, value, .. } => {
            let value = value.to_string();
            Code::InvalidArgument
                .status(message, &[("field", "delta"), ("name", name_of(name)), ("value", &value)])
        }
        Refusal::RequestIdReused { .. } => Code::InvalidArgument.status(message, &[("field", "request_id")]),
    }
}
