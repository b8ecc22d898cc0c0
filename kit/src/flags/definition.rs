//! What flags there are. Passed in as data; nothing here knows what a flag is for.

use serde::Serialize;
use std::{collections::BTreeMap, sync::Arc};

/// For whom a flag can differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Targeting {
    /// One value for all.
    None,
    /// By attributes of the context, such as a tenant.
    Attributes,
    /// By attributes, and by percentage of the targeting key's hash.
    Percent,
}

/// One flag that the program knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Definition {
    /// Dotted name. A trailing `*` stands for any name.
    pub key: String,
    /// What it can be. The first one is safe: it requires nothing.
    pub variants: Vec<String>,
    /// What it is when nobody sets it.
    pub default: String,
    /// `(flag, variant)` pairs that must hold for everybody before it may be anything but safe for
    /// anybody.
    pub requires: Vec<(String, String)>,
    /// For whom it can differ.
    pub targeting: Targeting,
    /// Whether it is a kill switch: above the environment once it is not safe.
    pub kill: bool,
    /// Where it is in its life. Only `live` flags can be set.
    pub stage: String,
    /// What it does.
    pub description: String,
}

impl Definition {
    /// A live flag for all, without requirements.
    pub fn new(key: &str, variants: &[&str], default: &str) -> Self {
        Self {
            key: key.into(),
            variants: variants.iter().map(|variant| (*variant).into()).collect(),
            default: default.into(),
            requires: Vec::new(),
            targeting: Targeting::None,
            kill: false,
            stage: Self::LIVE.into(),
            description: String::new(),
        }
    }

    /// The stage of a flag that switches something.
    pub const LIVE: &str = "live";

    /// Adds a requirement.
    #[must_use]
    pub fn requires(mut self, key: &str, variant: &str) -> Self {
        self.requires.push((key.into(), variant.into()));
        self
    }

    /// For whom it can differ.
    #[must_use]
    pub fn targeting(mut self, targeting: Targeting) -> Self {
        self.targeting = targeting;
        self
    }

    /// Makes it a kill switch.
    #[must_use]
    pub fn kill(mut self) -> Self {
        self.kill = true;
        self
    }

    /// The variant that requires nothing and leaves the path that was there before.
    pub fn safe(&self) -> &str {
        self.variants.first().map_or("off", String::as_str)
    }

    /// Whether it cannot be set: setting it would change nothing in this program.
    pub fn locked(&self) -> bool {
        self.stage != Self::LIVE
    }

    /// Whether it is the definition of `key`.
    pub fn covers(&self, key: &str) -> bool {
        match self.key.strip_suffix('*') {
            Some(prefix) => key.strip_prefix(prefix).is_some_and(|name| !name.is_empty()),
            None => self.key == key,
        }
    }
}

/// The plain shape in which a crate that knows flags but not this one hands them over: key,
/// variants, default, requirements; then for whom (`cluster`, `tenant`, `percent` or `kill`), stage,
/// description.
pub type Plain<'a> =
    ((&'a str, &'a [&'a str], &'a str, Vec<(&'a str, &'a str)>), (&'a str, &'a str, &'a str));

impl From<Plain<'_>> for Definition {
    fn from(((key, variants, default, requires), (scope, stage, description)): Plain<'_>) -> Self {
        let targeting = match scope {
            "percent" => Targeting::Percent,
            "tenant" => Targeting::Attributes,
            _ => Targeting::None,
        };
        let requires = requires.into_iter().map(|(key, variant)| (key.into(), variant.into())).collect();
        Self {
            requires,
            targeting,
            kill: scope == "kill",
            stage: stage.into(),
            description: description.into(),
            ..Self::new(key, variants, default)
        }
    }
}

/// Every known flag.
#[derive(Debug, Clone, Default)]
pub(super) struct Definitions {
    by_key: BTreeMap<String, Arc<Definition>>,
}

impl Definitions {
    pub(super) fn insert(&mut self, definition: Definition) {
        self.by_key.insert(definition.key.clone(), Arc::new(definition));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Definition>> {
        self.by_key.values()
    }

    /// `kill.backend.time` finds `kill.backend.*`.
    pub(super) fn find(&self, key: &str) -> Option<&Arc<Definition>> {
        let exact = self.by_key.get(key).filter(|definition| definition.covers(key));
        exact.or_else(|| self.all().find(|definition| definition.covers(key)))
    }

    /// The known key most like `key`, as words: `; did you mean ...?`, or nothing.
    pub(super) fn hint(&self, key: &str) -> String {
        let near = crate::config::nearest(key, self.by_key.keys().map(String::as_str));
        near.map(|near| format!("; did you mean {near}?")).unwrap_or_default()
    }
}
