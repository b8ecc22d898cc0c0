//! What can go wrong with a call, as a caller may act on it.

use proto::{
    error::{Code, detail},
    session::Version,
};
use std::time::Duration;
use tonic::Status;

/// The outcome of a failed call.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SessionError {
    /// No such session for this tenant and principal, or it has ended.
    #[error("no such session")]
    NotFound,
    /// The compare-and-set lost; nothing was applied.
    #[error("session has another version")]
    VersionMismatch {
        /// What is stored now.
        current: Option<Version>,
    },
    /// A later epoch owns the session's logs.
    #[error("fenced off by epoch {epoch}")]
    Fenced {
        /// The epoch in force.
        epoch: u64,
    },
    /// Nothing was applied; a later try may succeed.
    #[error("sessions are unavailable: {0}")]
    Unavailable(String),
    /// The write may or may not be applied.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// A limit is reached, the request is malformed, or a bug.
    #[error("{}", .0.message())]
    Other(Status),
}

impl SessionError {
    /// Reads a status that came over the wire.
    pub fn of(status: Status) -> SessionError {
        match Code::of(&status) {
            Code::NotFound => SessionError::NotFound,
            Code::VersionMismatch => SessionError::VersionMismatch {
                current: detail(&status, "current").and_then(|text| parse_version(&text)),
            },
            Code::Fenced => SessionError::Fenced {
                epoch: detail(&status, "epoch").and_then(|e| e.parse().ok()).unwrap_or(u64::MAX),
            },
            Code::Unavailable | Code::QuorumUnavailable | Code::Storage => {
                SessionError::Unavailable(status.message().to_owned())
            }
            Code::OutcomeUnknown => SessionError::Unknown(status.message().to_owned()),
            _ => SessionError::Other(status),
        }
    }

    /// Whether the same call may succeed later, at this or another instance.
    pub fn retryable(&self) -> bool {
        matches!(self, SessionError::Unavailable(_) | SessionError::Unknown(_))
    }
}

/// Writes a version as it travels in error metadata: `counter:writer`.
pub fn format_version(version: &Version) -> String {
    format!("{}:{}", version.counter, version.writer)
}

fn parse_version(text: &str) -> Option<Version> {
    let (counter, writer) = text.split_once(':')?;
    Some(Version { counter: counter.parse().ok()?, writer: writer.to_owned() })
}

pub(crate) fn out_of_time(after: Duration, ambiguous: bool) -> SessionError {
    let message = format!("no answer within {} ms", after.as_millis());
    match ambiguous {
        true => SessionError::Unknown(message),
        false => SessionError::Unavailable(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatch_tells_the_current_version() {
        let current = Version { counter: 7, writer: "a:b".into() };
        let status = Code::VersionMismatch.status("lost", &[("current", &format_version(&current))]);
        let SessionError::VersionMismatch { current: read } = SessionError::of(status) else {
            panic!("another error")
        };
        assert_eq!(read, Some(current));
    }
}
