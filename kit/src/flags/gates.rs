//! Flags pinned by the environment.

use super::definition::Definitions;
use crate::config::ConfigError;
use std::collections::BTreeMap;

/// The variable: `a=on,b=shadow`.
pub const GATES: &str = "SWARM_FEATURE_GATES";

/// What the environment pins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gates {
    pinned: BTreeMap<String, String>,
}

impl Gates {
    /// Those of this process.
    ///
    /// # Errors
    /// When the variable does not parse.
    pub fn of_environment() -> Result<Self, ConfigError> {
        match std::env::var(GATES) {
            Ok(text) => Self::parse(&text),
            Err(std::env::VarError::NotPresent) => Ok(Self::default()),
            Err(error) => Err(invalid(error.to_string())),
        }
    }

    /// Reads `a=on,b=shadow`.
    ///
    /// # Errors
    /// Names the pair that does not parse, or the flag that stands twice.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut pinned = BTreeMap::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (key, variant) =
                pair.split_once('=').ok_or_else(|| invalid(format!("{pair:?} is not flag=variant")))?;
            if pinned.insert(key.trim().to_owned(), variant.trim().to_owned()).is_some() {
                return Err(invalid(format!("{:?} stands twice", key.trim())));
            }
        }
        Ok(Self { pinned })
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.pinned.get(key).map(String::as_str)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.pinned.keys().map(String::as_str)
    }

    pub(super) fn validate(&self, known: &Definitions) -> Result<(), ConfigError> {
        for (key, variant) in &self.pinned {
            let Some(definition) = known.find(key) else {
                return Err(invalid(format!("no flag is named {key:?}{}", known.hint(key))));
            };
            if !definition.variants.contains(variant) {
                let allowed = definition.variants.join("|");
                return Err(invalid(format!("{key} cannot be {variant:?}; it can be {allowed}")));
            }
            if definition.locked() && *variant != definition.default {
                let (default, stage) = (&definition.default, &definition.stage);
                return Err(invalid(format!(
                    "{key} cannot be {variant}: it is {stage} in this build and stays {default}"
                )));
            }
        }
        Ok(())
    }
}

fn invalid(message: String) -> ConfigError {
    ConfigError::Value { origin: GATES.into(), message }
}

#[cfg(test)]
mod tests {
    use super::super::definition::Definition;
    use super::*;

    #[test]
    fn pairs_are_read_and_faults_named() {
        let gates = Gates::parse(" a=on, b=shadow,").unwrap();
        assert_eq!((gates.get("a"), gates.get("b"), gates.get("c")), (Some("on"), Some("shadow"), None));
        for (text, fault) in [("a", "not flag=variant"), ("a=on,a=off", "stands twice")] {
            let error = Gates::parse(text).unwrap_err().to_string();
            assert!(error.starts_with("SWARM_FEATURE_GATES: ") && error.contains(fault), "{error}");
        }
    }

    #[test]
    fn unknown_names_and_variants_and_locked_flags_are_refused() {
        let mut known = Definitions::default();
        known.insert(Definition::new("cache.size", &["small", "large"], "small"));
        known.insert(Definition { stage: "fixed".into(), ..Definition::new("old", &["off", "on"], "on") });
        let refused = |text: &str| Gates::parse(text).unwrap().validate(&known).unwrap_err().to_string();
        assert!(refused("cache.sise=large").contains("did you mean cache.size?"));
        assert!(refused("cache.size=huge").contains("it can be small|large"));
        assert!(refused("old=off").contains("stays on"));
        assert!(Gates::parse("cache.size=large,old=on").unwrap().validate(&known).is_ok());
    }
}
