//! Which settings go together.

use crate::flags::{FLAGS, FlagDef, flag};
use serde::Serialize;
use std::collections::BTreeMap;

/// A setting of all flags: what is not named has its safe variant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Flags {
    set: BTreeMap<String, String>,
}

/// Why a setting is refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Violation {
    /// No flag has this name.
    #[error("no flag is named {key:?}")]
    UnknownFlag {
        /// As given.
        key: String,
    },
    /// The flag cannot be set to this.
    #[error("{key} cannot be {variant:?}; it can be {allowed}")]
    UnknownVariant {
        /// The flag.
        key: String,
        /// As given.
        variant: String,
        /// The variants, separated by `|`.
        allowed: String,
    },
    /// Another flag must be set first.
    #[error("{key}={variant} requires {missing}")]
    Requires {
        /// The flag.
        key: String,
        /// What it would be.
        variant: String,
        /// `key=variant` of what is missing.
        missing: String,
    },
    /// Other flags build on this one.
    #[error("{key} cannot be {variant:?} while {dependents} build on it; set them back first, or cascade")]
    NeededBy {
        /// The flag.
        key: String,
        /// What it would be.
        variant: String,
        /// The flags that build on it, separated by commas.
        dependents: String,
    },
}

impl Flags {
    /// Every flag safe.
    pub fn safe() -> Self {
        Self::default()
    }

    /// What this build runs, whatever is configured.
    pub fn today() -> Self {
        let set = FLAGS.iter().filter(|flag| flag.runs() != flag.safe());
        Self { set: set.map(|flag| (flag.key.to_owned(), flag.runs().to_owned())).collect() }
    }

    /// Exactly these settings, checked one by one and together.
    ///
    /// # Errors
    /// Everything that is wrong, so that an operator mends it in one go.
    pub fn new<'a>(settings: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Vec<Violation>> {
        let set = settings.into_iter().map(|(key, variant)| (key.to_owned(), variant.to_owned()));
        let flags = Self { set: set.collect() };
        flags.check()?;
        Ok(flags)
    }

    /// The variant in force. An unknown flag is `off`.
    pub fn get(&self, key: &str) -> &str {
        let safe = || flag(key).map_or("off", FlagDef::safe);
        self.set.get(key).map_or_else(safe, String::as_str)
    }

    /// The settings that differ from safe, ordered by key.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.set.iter().map(|(key, variant)| (key.as_str(), variant.as_str()));
        all.filter(|(key, variant)| flag(key).is_none_or(|flag| flag.safe() != *variant))
    }

    /// Checks names, variants and requirements of all settings.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn check(&self) -> Result<(), Vec<Violation>> {
        let mut wrong: Vec<_> =
            self.set.iter().flat_map(|(key, variant)| self.check_one(key, variant)).collect();
        wrong.sort();
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Sets one flag, if the result goes together.
    ///
    /// # Errors
    /// Names what is missing, or what builds on the flag; nothing is changed then.
    pub fn set(&mut self, key: &str, variant: &str) -> Result<(), Violation> {
        if let Some(violation) = self.check_one(key, variant).into_iter().next() {
            return Err(violation);
        }
        let dependents = self.dependents(key, variant);
        if !dependents.is_empty() {
            let (key, variant, dependents) = (key.into(), variant.into(), dependents.join(","));
            return Err(Violation::NeededBy { key, variant, dependents });
        }
        self.set.insert(key.to_owned(), variant.to_owned());
        Ok(())
    }

    /// Sets one flag after setting back everything that builds on it. Answers what was set back.
    ///
    /// # Errors
    /// As [`Flags::set`], but for what builds on the flag; nothing is changed then.
    pub fn cascade(&mut self, key: &str, variant: &str) -> Result<Vec<String>, Violation> {
        if let Some(violation) = self.check_one(key, variant).into_iter().next() {
            return Err(violation);
        }
        let mut set_back = Vec::new();
        let mut waiting = vec![(key.to_owned(), variant.to_owned())];
        while let Some((key, variant)) = waiting.pop() {
            for dependent in self.dependents(&key, &variant) {
                let safe = flag(&dependent).map_or("off", FlagDef::safe).to_owned();
                set_back.push(dependent.clone());
                self.set.remove(&dependent);
                waiting.push((dependent, safe));
            }
        }
        self.set.insert(key.to_owned(), variant.to_owned());
        Ok(set_back)
    }

    fn check_one(&self, key: &str, variant: &str) -> Vec<Violation> {
        let Some(flag) = flag(key) else {
            return vec![Violation::UnknownFlag { key: key.into() }];
        };
        if !flag.variants.contains(&variant) {
            let (key, variant, allowed) = (key.into(), variant.into(), flag.variants.join("|"));
            return vec![Violation::UnknownVariant { key, variant, allowed }];
        }
        if variant == flag.safe() {
            return Vec::new();
        }
        let missing = flag.requires.iter().filter(|needed| self.get(needed.key) != needed.variant);
        let violation = missing.map(|needed| Violation::Requires {
            key: key.into(),
            variant: variant.into(),
            missing: format!("{}={}", needed.key, needed.variant),
        });
        violation.collect()
    }

    /// Flags in force that would miss `key` if it became `variant`.
    fn dependents(&self, key: &str, variant: &str) -> Vec<String> {
        let in_force = self.settings().filter(|(child, _)| {
            let needs = flag(child).map_or(&[][..], |flag| flag.requires);
            needs.iter().any(|needed| needed.key == key && needed.variant != variant)
        });
        in_force.map(|(child, _)| child.to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_missing_parent_is_named_and_nothing_changes() {
        let mut flags = Flags::safe();
        let refused = flags.set("session.distributed", "shadow").unwrap_err();
        assert_eq!(refused.to_string(), "session.distributed=shadow requires cluster.gossip=on");
        assert_eq!(flags, Flags::safe());
        flags.set("cluster.gossip", "shadow").unwrap();
        assert!(flags.set("session.distributed", "on").is_err(), "shadow is not on");
        flags.set("cluster.gossip", "on").unwrap();
        flags.set("session.distributed", "on").unwrap();
    }

    #[test]
    fn a_parent_stays_while_others_build_on_it_unless_cascaded() {
        let mut flags = crate::preset(crate::Phase::Orchestration);
        let refused = flags.set("coordinator.raft", "off").unwrap_err();
        assert!(matches!(&refused, Violation::NeededBy { dependents, .. }
            if dependents == "orchestration.adaptive,orchestration.claude-flow-tools"));
        let mut set_back = flags.cascade("cluster.gossip", "off").unwrap();
        set_back.sort();
        assert_eq!(set_back[0], "cluster.phi-detector");
        assert_eq!(flags.check(), Ok(()));
        assert_eq!(flags.get("session.distributed"), "off");
        assert_eq!(flags.get("registry.sharding"), "on");
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let wrong =
            Flags::new([("cluster.gosip", "on"), ("registry.cache", "shadow"), ("session.tiering", "on")]);
        assert_eq!(wrong.unwrap_err().len(), 3);
    }

    #[test]
    fn what_this_build_runs_goes_together() {
        assert_eq!(Flags::today().check(), Ok(()));
    }

    fn any_step() -> impl Strategy<Value = (&'static str, &'static str, bool)> {
        (0..FLAGS.len(), 0usize..3, any::<bool>()).prop_map(|(index, variant, cascade)| {
            let flag = &FLAGS[index];
            let key = if flag.key.ends_with('*') { "kill.backend.time" } else { flag.key };
            (key, flag.variants[variant % flag.variants.len()], cascade)
        })
    }

    proptest! {
        #[test]
        fn no_sequence_of_changes_ends_with_an_unmet_requirement(
            steps in proptest::collection::vec(any_step(), 1..60)
        ) {
            let mut flags = Flags::safe();
            for (key, variant, cascade) in steps {
                let before = flags.clone();
                let changed = if cascade {
                    flags.cascade(key, variant).map(drop)
                } else {
                    flags.set(key, variant)
                };
                match changed {
                    Ok(()) => prop_assert_eq!(flags.get(key), variant),
                    Err(_) => prop_assert_eq!(&flags, &before),
                }
                prop_assert_eq!(flags.check(), Ok(()));
            }
        }
    }
}
