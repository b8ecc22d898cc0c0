//! The few errors that the machinery itself gives, in the shape of `proto::error`.
//!
//! kit does not import proto; the reasons are the wire's and `proto::error::Code::of` reads them.

use std::error::Error as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// `ErrorInfo.domain` of every error of ours (`proto::error::DOMAIN`).
pub const DOMAIN: &str = "swarm";

/// A status with an `ErrorInfo` of our domain.
pub fn with_reason(code: Code, reason: &str, message: impl Into<String>) -> Status {
    let details = ErrorDetails::with_error_info(reason, DOMAIN, [] as [(String, String); 0]);
    Status::with_error_details(code, message, details)
}

/// `ErrorInfo.reason`, if the status is one of ours.
pub fn reason(status: &Status) -> Option<String> {
    let info = status.get_details_error_info()?;
    (info.domain == DOMAIN).then_some(info.reason)
}

/// `UNAVAILABLE`: nothing was applied, a retry may succeed.
pub fn unavailable(message: impl Into<String>) -> Status {
    with_reason(Code::Unavailable, "UNAVAILABLE", message)
}

/// `OUTCOME_UNKNOWN`: the call may or may not have been applied.
pub fn outcome_unknown(message: impl Into<String>) -> Status {
    with_reason(Code::Unknown, "OUTCOME_UNKNOWN", message)
}

/// `DEADLINE_REQUIRED`: the call came without a deadline.
pub fn deadline_required() -> Status {
    with_reason(Code::InvalidArgument, "DEADLINE_REQUIRED", "every call needs a deadline (grpc-timeout)")
}

/// Tells what the caller may conclude. A refused connection stays `UNAVAILABLE`; a connection
/// that broke after the request may have left becomes `OUTCOME_UNKNOWN`, for tonic gives both
/// the same code.
pub fn settle(status: Status) -> Status {
    if status.source().is_none() || reason(&status).is_some() {
        return status;
    }
    if never_sent(&status) {
        return unavailable(words(&status));
    }
    match status.code() {
        Code::Unavailable | Code::Internal | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded => {
            outcome_unknown(words(&status))
        }
        _ => status,
    }
}

fn never_sent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn words(status: &Status) -> String {
    let mut words = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !words.contains(&text) {
            words.push_str(": ");
            words.push_str(&text);
        }
        cause = error.source();
    }
    words
}
