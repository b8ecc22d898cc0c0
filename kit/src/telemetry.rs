//! Logs to stderr; stdout is for data.

use serde::{Deserialize, Serialize};
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// How logs are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Directives as `RUST_LOG` takes them, e.g. `info,kit=debug`. `RUST_LOG` wins.
    pub filter: String,
    /// Text for people, JSON for machines.
    pub format: LogFormat,
}

/// The two formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line a record, coloured on a terminal unless `NO_COLOR` is set.
    Text,
    /// One JSON object a record.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".into(), format: LogFormat::Text }
    }
}

/// A filter that does not parse.
#[derive(Debug, thiserror::Error)]
#[error("log filter {filter:?} is not valid: {reason}")]
pub struct TelemetryError {
    filter: String,
    reason: String,
}

/// A library that tells each of its steps at `info` and each failed heartbeat at `warn`.
const QUIET: &str = "openraft=error";

/// Starts logging. A second call in one process (tests, several nodes) changes nothing.
pub fn init(config: &LogConfig) -> Result<(), TelemetryError> {
    let directives = std::env::var("RUST_LOG").unwrap_or_else(|_| config.filter.clone());
    // What the caller names comes later and wins.
    let filter = EnvFilter::try_new(format!("{QUIET},{directives}"))
        .map_err(|error| TelemetryError { filter: directives, reason: error.to_string() })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // An error means that a subscriber is set already.
    let _ = match config.format {
        LogFormat::Text => builder.with_ansi(colour).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
