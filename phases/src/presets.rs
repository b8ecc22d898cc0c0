//! What each phase switches on when it is finished.

use crate::{Flags, Phase};

/// Settings that a phase adds to the one before.
const ADDED: &[(Phase, &[(&str, &str)])] = &[
    (Phase::Sharding, &[("registry.sharding", "on"), ("registry.cache", "on"), ("mcp.modern-era", "on")]),
    (Phase::Gossip, &[("cluster.gossip", "on"), ("cluster.phi-detector", "on")]),
    (Phase::Sessions, &[("session.distributed", "on"), ("session.tiering", "on")]),
    (Phase::Coordinator, &[("coordinator.raft", "on")]),
    (Phase::Orchestration, &[("orchestration.adaptive", "on"), ("orchestration.claude-flow-tools", "on")]),
];

/// The flags of a finished phase: its own and those of the phases before it.
pub fn preset(phase: Phase) -> Flags {
    let mut flags = Flags::safe();
    let reached = ADDED.iter().filter(|(added, _)| *added <= phase);
    for (key, variant) in reached.flat_map(|(_, settings)| settings.iter()) {
        // The table is in the order of requirements; the test below holds it to that.
        let _ = flags.set(key, variant);
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FLAGS;

    #[test]
    fn every_preset_goes_together_is_complete_and_contains_the_one_before() {
        let mut before = Flags::safe();
        for phase in Phase::ALL {
            let flags = preset(phase);
            assert_eq!(flags.check(), Ok(()), "{phase}");
            let wanted: usize = ADDED.iter().filter(|(p, _)| *p <= phase).map(|(_, added)| added.len()).sum();
            assert_eq!(flags.settings().count(), wanted, "{phase}: a setting was refused");
            for (key, variant) in before.settings() {
                assert_eq!(flags.get(key), variant, "{phase} takes {key} back");
            }
            before = flags;
        }
    }

    #[test]
    fn the_last_preset_has_every_off_on_flag_of_every_phase_on() {
        let flags = preset(Phase::Orchestration);
        for flag in FLAGS.iter().filter(|flag| flag.phase.is_some() && flag.safe() == "off") {
            assert_eq!(flags.get(flag.key), "on", "{}", flag.key);
        }
    }
}
