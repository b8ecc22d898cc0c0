//! Feature flags at the admin port and on the command line. What a flag is and how it is kept is
//! `kit::flags`; which flags there are is `phases`; this is where the two meet.
//!
//! | path | what |
//! |---|---|
//! | `GET /api/v1/flags`, `GET /api/v1/flags/{key}` | every flag, one flag |
//! | `POST /api/v1/flags/{key}` | a change ([`wire::ChangeRequest`]) |
//! | `POST /api/v1/flags/{key}/kill` | a kill, or its lifting ([`wire::KillRequest`]) |
//! | `GET /api/v1/flag-history?key=&limit=` | the audit, newest first |
//! | `/ofrep/v1/...` | OpenFeature's remote evaluation, for programs |

mod cli;
mod ofrep;
mod run;
mod views;
pub mod wire;

pub use cli::FlagsCommand;
pub use run::run;

use axum::Router;
use kit::{config::ConfigError, flags::Flags};

/// Makes the flags of the roll-out known to a node.
///
/// # Errors
/// When the environment names an unknown flag, or settings break a requirement: exit code 78.
pub fn define(flags: &Flags) -> Result<(), ConfigError> {
    flags.define(phases::plain())
}

/// The routes; to be merged where requests of other origins are refused.
pub fn router<S: Clone + Send + Sync + 'static>(node: &str, flags: Flags) -> Router<S> {
    views::router(node, flags.clone()).merge(ofrep::router(flags))
}

#[cfg(test)]
mod tests;
