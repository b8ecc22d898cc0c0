//! The closed set of error codes, as `google.rpc.Status` with `ErrorInfo` and `RetryInfo`.
//!
//! A code fixes the gRPC status, the `ErrorInfo.reason` and whether the outcome of a write is
//! known. Clients decide on [`Code`], never on message text.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};
use tonic::{Code as Grpc, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// `ErrorInfo.domain` of every error of ours.
pub const DOMAIN: &str = "swarm";

/// What went wrong, as a caller may act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request is malformed; repeating it will not help.
    InvalidArgument,
    /// A call came without a deadline.
    DeadlineRequired,
    /// No such thing.
    NotFound,
    /// The name is held by another owner (metadata `owner`).
    AlreadyRegistered,
    /// A compare-and-set lost (metadata `current`).
    VersionMismatch,
    /// This instance does not own the key or session (metadata `owner`).
    NotOwner,
    /// This instance does not lead (metadata `leader`, `leader_addr`).
    NotLeader,
    /// An older epoch or fencing token than the one in force (metadata `epoch`).
    Fenced,
    /// A watch revision older than the history (metadata `oldest`).
    Compacted,
    /// Another tenant or principal.
    Denied,
    /// A limit is reached (metadata `limit`); `RetryInfo` says when to come back.
    Exhausted,
    /// Nothing was applied and a retry may succeed.
    Unavailable,
    /// Too few owners answered; nothing was applied.
    QuorumUnavailable,
    /// The write may or may not be applied; repeat it with the same request id.
    OutcomeUnknown,
    /// The store refused or is fenced off.
    Storage,
    /// A bug.
    Internal,
}

impl Code {
    /// Every code, for tables and tests.
    pub const ALL: [Code; 16] = [
        Code::InvalidArgument,
        Code::DeadlineRequired,
        Code::NotFound,
        Code::AlreadyRegistered,
        Code::VersionMismatch,
        Code::NotOwner,
        Code::NotLeader,
        Code::Fenced,
        Code::Compacted,
        Code::Denied,
        Code::Exhausted,
        Code::Unavailable,
        Code::QuorumUnavailable,
        Code::OutcomeUnknown,
        Code::Storage,
        Code::Internal,
    ];

    /// The `ErrorInfo.reason`.
    pub fn reason(self) -> &'static str {
        match self {
            Code::InvalidArgument => "INVALID_ARGUMENT",
            Code::DeadlineRequired => "DEADLINE_REQUIRED",
            Code::NotFound => "NOT_FOUND",
            Code::AlreadyRegistered => "ALREADY_REGISTERED",
            Code::VersionMismatch => "VERSION_MISMATCH",
            Code::NotOwner => "NOT_OWNER",
            Code::NotLeader => "NOT_LEADER",
            Code::Fenced => "FENCED",
            Code::Compacted => "COMPACTED",
            Code::Denied => "DENIED",
            Code::Exhausted => "EXHAUSTED",
            Code::Unavailable => "UNAVAILABLE",
            Code::QuorumUnavailable => "QUORUM_UNAVAILABLE",
            Code::OutcomeUnknown => "OUTCOME_UNKNOWN",
            Code::Storage => "STORAGE",
            Code::Internal => "INTERNAL",
        }
    }

    /// The gRPC status code it travels under.
    pub fn grpc(self) -> Grpc {
        match self {
            Code::InvalidArgument | Code::DeadlineRequired => Grpc::InvalidArgument,
            Code::NotFound => Grpc::NotFound,
            Code::AlreadyRegistered => Grpc::AlreadyExists,
            Code::VersionMismatch => Grpc::Aborted,
            Code::NotOwner | Code::NotLeader | Code::Fenced => Grpc::FailedPrecondition,
            Code::Compacted => Grpc::OutOfRange,
            Code::Denied => Grpc::PermissionDenied,
            Code::Exhausted => Grpc::ResourceExhausted,
            Code::Unavailable | Code::QuorumUnavailable => Grpc::Unavailable,
            Code::OutcomeUnknown => Grpc::Unknown,
            Code::Storage => Grpc::DataLoss,
            Code::Internal => Grpc::Internal,
        }
    }

    /// Whether the same call may succeed later without a change by the caller.
    pub fn retryable(self) -> bool {
        matches!(self, Code::Exhausted | Code::Unavailable | Code::QuorumUnavailable | Code::OutcomeUnknown)
    }

    /// Builds the status: message lower-case without a full stop, metadata as named above.
    pub fn status(self, message: impl Into<String>, metadata: &[(&str, &str)]) -> Status {
        let metadata: HashMap<String, String> =
            metadata.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let mut details = ErrorDetails::with_error_info(self.reason(), DOMAIN, metadata);
        if self.retryable() {
            details.set_retry_info(Some(Duration::from_millis(100)));
        }
        Status::with_error_details(self.grpc(), message, details)
    }

    /// The code of a reason.
    pub fn of_reason(reason: &str) -> Option<Code> {
        Code::ALL.into_iter().find(|code| code.reason() == reason)
    }

    /// Reads the code of a status that came over the wire. A status without our `ErrorInfo`
    /// (a transport error, a proxy) maps by its gRPC code: connection trouble is
    /// [`Code::Unavailable`], a deadline or anything after the send is [`Code::OutcomeUnknown`].
    pub fn of(status: &Status) -> Code {
        if let Some(info) = status.get_details_error_info()
            && info.domain == DOMAIN
            && let Some(code) = Code::of_reason(&info.reason)
        {
            return code;
        }
        match status.code() {
            Grpc::InvalidArgument | Grpc::Unimplemented => Code::InvalidArgument,
            Grpc::NotFound => Code::NotFound,
            Grpc::PermissionDenied | Grpc::Unauthenticated => Code::Denied,
            Grpc::ResourceExhausted => Code::Exhausted,
            Grpc::Unavailable => Code::Unavailable,
            Grpc::DeadlineExceeded | Grpc::Unknown | Grpc::Cancelled => Code::OutcomeUnknown,
            _ => Code::Internal,
        }
    }
}

/// The metadata value of an error of ours, such as `owner` of [`Code::AlreadyRegistered`].
pub fn detail(status: &Status, key: &str) -> Option<String> {
    status.get_details_error_info()?.metadata.remove(key)
}

/// The reason of an error and its metadata, for an answer that carries errors of its parts.
pub fn info(status: &Status) -> (&'static str, BTreeMap<String, String>) {
    let metadata = status.get_details_error_info().map(|info| info.metadata).unwrap_or_default();
    (Code::of(status).reason(), metadata.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire() {
        for code in Code::ALL {
            let status = code.status("it broke", &[("owner", "n1")]);
            assert_eq!(Code::of(&status), code);
            assert_eq!(info(&status), (code.reason(), [("owner".to_owned(), "n1".to_owned())].into()));
            assert_eq!(Code::of_reason(code.reason()), Some(code));
            assert_eq!(detail(&status, "owner").as_deref(), Some("n1"));
            assert_eq!(status.get_details_retry_info().is_some(), code.retryable());
        }
    }

    #[test]
    fn a_foreign_status_maps_by_its_grpc_code() {
        assert_eq!(Code::of(&Status::unavailable("refused")), Code::Unavailable);
        assert_eq!(Code::of(&Status::deadline_exceeded("late")), Code::OutcomeUnknown);
    }
}
