//! What a command can end with, and how it is told.

use crate::output::Format;
use serde_json::json;
use std::process::ExitCode;

/// How a command failed; its number is the exit code (UX.md 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It was done and failed, or a check failed.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// No such thing.
    NotFound = 3,
    /// Nobody answers.
    Unreachable = 4,
    /// Not allowed.
    Denied = 5,
    /// The cluster is not healthy.
    Unhealthy = 10,
    /// The configuration is not valid.
    Config = 78,
    /// It took longer than was allowed.
    TimedOut = 124,
}

impl Failure {
    /// The word in JSON errors.
    pub fn word(self) -> &'static str {
        match self {
            Failure::Failed => "failed",
            Failure::Usage => "usage",
            Failure::NotFound => "not_found",
            Failure::Unreachable => "unreachable",
            Failure::Denied => "denied",
            Failure::Unhealthy => "unhealthy",
            Failure::Config => "invalid_config",
            Failure::TimedOut => "timed_out",
        }
    }
}

/// An error for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CliError {
    /// What kind it is.
    pub failure: Failure,
    /// What happened.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// What lies below.
    pub cause: Option<String>,
    /// Already told on the way: only the exit code is left.
    pub silent: bool,
}

impl CliError {
    /// An error of a kind.
    pub fn new(failure: Failure, message: impl Into<String>) -> CliError {
        CliError { failure, message: message.into(), hint: None, cause: None, silent: false }
    }

    /// An exit code whose reason is on the screen already.
    pub fn told(failure: Failure) -> CliError {
        CliError { silent: true, ..CliError::new(failure, "") }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> CliError {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what lies below.
    #[must_use]
    pub fn cause(mut self, cause: impl ToString) -> CliError {
        self.cause = Some(cause.to_string());
        self
    }

    /// Writes the error to stderr and gives the exit code.
    pub fn report(&self, format: Format) -> ExitCode {
        if !self.silent {
            crate::output::to_stderr(&self.text(format));
        }
        ExitCode::from(self.failure as u8)
    }

    fn text(&self, format: Format) -> String {
        if format.is_data() {
            let error = json!({
                "code": self.failure.word(), "message": self.message,
                "hint": self.hint, "cause": self.cause,
            });
            return json!({ "error": error }).to_string();
        }
        let mut text = format!("error: {}", self.message);
        for (label, part) in [("cause", &self.cause), ("hint", &self.hint)] {
            if let Some(part) = part {
                text.push_str(&format!("\n  {label}: {part}"));
            }
        }
        text
    }
}

impl From<anyhow::Error> for CliError {
    fn from(error: anyhow::Error) -> CliError {
        let below = error.chain().skip(1).map(ToString::to_string).collect::<Vec<_>>().join(": ");
        let cause = (!below.is_empty()).then_some(below);
        CliError { cause, ..CliError::new(Failure::Failed, error.to_string()) }
    }
}

impl From<kit::config::ConfigError> for CliError {
    fn from(error: kit::config::ConfigError) -> CliError {
        CliError::new(Failure::Config, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_errors_are_one_object_with_four_fields() {
        let error = CliError::new(Failure::Unreachable, "nobody there").hint("start it");
        let text = error.text(Format::Json);
        let value: serde_json::Value = serde_json::from_str(&text).expect("json");
        assert_eq!(value["error"]["code"], "unreachable");
        assert_eq!(value["error"]["hint"], "start it");
        assert!(value["error"]["cause"].is_null());
        assert_eq!(error.text(Format::Table), "error: nobody there\n  hint: start it");
    }
}
