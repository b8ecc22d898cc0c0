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

/// The preset files that are written so far: what a phase switches, in which steps, and what must
/// hold. Beside each lies its run-book.
pub const FILES: &[(Phase, &str)] = &[(Phase::Sharding, include_str!("../1-sharding.toml"))];

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
    fn a_preset_file_says_what_the_preset_does_and_only_goes_up() {
        for (phase, text) in FILES {
            let file: toml::Table = text.parse().expect("toml");
            assert_eq!(file["phase"].as_integer(), Some(phase.number().into()));
            let flags: Vec<_> = file["flags"].as_table().expect("flags").iter().collect();
            let wanted = preset(*phase);
            let wanted: Vec<_> = wanted.settings().collect();
            let flags: Vec<_> =
                flags.iter().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or(""))).collect();
            assert_eq!(flags, wanted);
            for step in file["steps"].as_array().expect("steps") {
                let flag = crate::flag(step["flag"].as_str().expect("flag")).expect("known");
                let to = step["to"].as_str().expect("to");
                assert!(flag.variants.contains(&to), "{}: {to}", flag.key);
                let percents = step.get("percent").and_then(|list| list.as_array());
                let percents: Vec<_> =
                    percents.into_iter().flatten().filter_map(toml::Value::as_integer).collect();
                assert!(percents.is_sorted() && percents.last().is_none_or(|last| *last == 100));
                assert!(
                    percents.is_empty() || matches!(flag.scope, crate::Scope::Percent(_)),
                    "{}",
                    flag.key
                );
            }
            let back: Vec<_> =
                file["back"].as_array().expect("back").iter().filter_map(toml::Value::as_str).collect();
            assert!(back.iter().all(|key| crate::flag(key).is_some()), "{back:?}");
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
