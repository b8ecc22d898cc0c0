//! The roll-out: phases, flags, what each flag needs, and the preset of each phase.
//!
//! This is the one definition (docs/adr/0006-flag-scope.md). It imports nothing of ours and decides
//! nothing at run time: flags become choices of implementation in each service's `service.rs`.
//!
//! Invariants, each with a test:
//! * every flag has a safe variant, which needs nothing and leaves the path that was there before;
//! * what a flag requires exists and belongs to the same phase or an earlier one;
//! * no circle among requirements; every preset passes [`Flags::check`] and contains the one before.

#![warn(missing_docs)]

mod flags;
mod presets;
mod rules;

pub use flags::{FLAGS, FlagDef, Plain, Requirement, Scope, Today, flag, plain};
pub use presets::{FILES, preset};
pub use rules::{Flags, Violation};

use serde::Serialize;
use std::{fmt, str::FromStr};

/// A step of the roll-out. Each one keeps what the earlier ones brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "u8")]
pub enum Phase {
    /// Registry: 16 shards, three tiers of lookup.
    Sharding = 1,
    /// Membership by gossip, phi-accrual failure detection.
    Gossip = 2,
    /// Sessions on a ring with quorum writes and tiers.
    Sessions = 3,
    /// Coordinator: Raft, scheduler.
    Coordinator = 4,
    /// Adaptive orchestration and the tools of claude-flow.
    Orchestration = 5,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Phase; 5] =
        [Phase::Sharding, Phase::Gossip, Phase::Sessions, Phase::Coordinator, Phase::Orchestration];

    /// 1 to 5.
    pub fn number(self) -> u8 {
        self as u8
    }
}

impl From<Phase> for u8 {
    fn from(phase: Phase) -> u8 {
        phase.number()
    }
}

/// `phase-1` to `phase-5`.
impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "phase-{}", self.number())
    }
}

/// A word that names no phase.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a phase; phase-1 to phase-5 (or 1 to 5) are")]
pub struct UnknownPhase(String);

impl FromStr for Phase {
    type Err = UnknownPhase;
    fn from_str(word: &str) -> Result<Self, UnknownPhase> {
        let number = word.strip_prefix("phase-").unwrap_or(word);
        let known = Phase::ALL.into_iter().find(|phase| phase.number().to_string() == number);
        known.ok_or_else(|| UnknownPhase(word.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_reads_back_as_it_is_written() {
        for phase in Phase::ALL {
            assert_eq!(phase.to_string().parse(), Ok(phase));
            assert_eq!(phase.number().to_string().parse(), Ok(phase));
        }
        assert!("phase-6".parse::<Phase>().is_err());
    }
}
