//! Why a backend did not answer.

use std::time::Duration;

/// What went wrong between the edge and a backend. Every variant says whether the request may
/// have been processed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// It is starting, failing or at a limit. The request was not sent.
    #[error("backend is not ready: {reason}")]
    NotReady {
        /// In words, for the client and the operator.
        reason: String,
        /// When to come back.
        retry_after: Duration,
    },
    /// The deadline passed; the backend was told to cancel. The outcome is unknown.
    #[error("no answer within the deadline")]
    Timeout,
    /// The process died or the connection broke after the request was sent: outcome unknown.
    #[error("backend went away: {reason}")]
    Gone {
        /// In words.
        reason: String,
    },
    /// The backend refused at the HTTP level. Not processed.
    #[error("backend refused with status {status}: {reason}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// In words.
        reason: String,
    },
    /// The answer, or a line of it, was over the limit.
    #[error("message from the backend is too large")]
    TooLarge,
    /// The backend does not speak MCP as it should.
    #[error("backend broke the protocol: {reason}")]
    Protocol {
        /// In words.
        reason: String,
    },
    /// The backend's own session is gone and could not be opened again. Not processed.
    #[error("the backend's session expired")]
    SessionExpired,
}

impl BackendError {
    /// True when the request was certainly not processed, so that sending it again is safe.
    pub fn unsent(&self) -> bool {
        matches!(
            self,
            BackendError::NotReady { .. } | BackendError::Refused { .. } | BackendError::SessionExpired
        )
    }

    pub(crate) fn gone(reason: impl Into<String>) -> Self {
        BackendError::Gone { reason: reason.into() }
    }

    pub(crate) fn protocol(reason: impl Into<String>) -> Self {
        BackendError::Protocol { reason: reason.into() }
    }

    pub(crate) fn not_ready(reason: impl Into<String>, retry_after: Duration) -> Self {
        BackendError::NotReady { reason: reason.into(), retry_after }
    }
}
