//! Errors of the service, and their one mapping to the wire.

use crate::{
    core::command::{Invalid, Rejection},
    raft::node::CallError,
};
use proto::error::Code;
use std::io;
use tonic::Status;

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot work.
    #[error("{0}")]
    Config(String),
    /// The store cannot be opened, read or written.
    #[error("coordinator store: {0}")]
    Store(#[from] io::Error),
}

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request is malformed.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The group did not take it.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The state did not take it.
    #[error("{}", rejection_words(.0))]
    Rejected(Rejection),
    /// Too many calls wait for tasks.
    #[error("too many calls wait for a task")]
    Busy,
}

fn rejection_words(rejection: &Rejection) -> String {
    match rejection {
        Rejection::Revision { current } => format!("the key is at revision {current}"),
        Rejection::NoTask => "no such task".into(),
        Rejection::Fenced { current } => format!("the lease is not in force; the newest token is {current}"),
        Rejection::Full { limit } => format!("limit {limit} is reached"),
        Rejection::Reused => "the request id was used for another kind of call".into(),
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Status {
        let words = refusal.to_string();
        let with = |code: Code, key: &str, value: &str| code.status(words.clone(), &[(key, value)]);
        match &refusal {
            Refusal::Invalid(_) | Refusal::Rejected(Rejection::Reused) => {
                Code::InvalidArgument.status(words, &[])
            }
            Refusal::Call(CallError::NotLeader { leader: Some((name, addr)) }) => {
                Code::NotLeader.status(words, &[("leader", name), ("leader_addr", addr)])
            }
            Refusal::Call(CallError::NotLeader { leader: None }) => Code::NotLeader.status(words, &[]),
            Refusal::Call(CallError::Unavailable(_)) => Code::Unavailable.status(words, &[]),
            Refusal::Call(CallError::Unknown(_)) => Code::OutcomeUnknown.status(words, &[]),
            Refusal::Rejected(Rejection::Revision { current }) => {
                with(Code::VersionMismatch, "current", &current.to_string())
            }
            Refusal::Rejected(Rejection::NoTask) => Code::NotFound.status(words, &[]),
            Refusal::Rejected(Rejection::Fenced { current }) => {
                with(Code::Fenced, "epoch", &current.to_string())
            }
            Refusal::Rejected(Rejection::Full { limit }) => with(Code::Exhausted, "limit", limit),
            Refusal::Busy => with(Code::Exhausted, "limit", "waiting_leases"),
        }
    }
}
