//! gossip-svc: who is in the cluster, how alive each node seems, and where each service answers.
//!
//! Invariants (RELIABILITY.md 3.2):
//! * only a node changes its own facts, and an older generation of it changes nothing;
//! * a node that left stays left in that generation; a forgotten one is not revived by echoes;
//! * the loop ends on no input: receive errors are survived, an engine that ends is started again;
//! * a starved node accuses nobody: only time in which it listened counts as silence.
//!
//! It never decides for others: every node judges for itself, and nothing here needs a majority.

mod config;
mod core;
mod driver;
mod error;
mod events;
mod membership;
mod metrics;
mod rpc;
mod service;

pub use config::{Config, Profile, Span, Threshold, Timing};
pub use error::Error;
pub use service::{Running, start};
