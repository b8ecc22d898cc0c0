//! The pure part: no socket, no clock, no task. Time comes in as an argument.

pub mod acceptor;
pub mod change;
pub mod lease;
pub mod log;
pub mod quorum;
pub mod record;
