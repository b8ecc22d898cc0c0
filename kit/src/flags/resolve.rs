//! From definitions, file and environment to what is in force: kill switch > environment > file >
//! default.

use super::{
    context::EvalContext,
    definition::{Definition, Definitions},
    document::{Document, Flag},
    gates::Gates,
    rule::{Outcome, Rule},
};
use serde::Serialize;
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

/// Why a variant was chosen (OpenFeature's words).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Reason {
    /// The same for all.
    Static,
    /// There is a rule, and it leaves this context to the default.
    Default,
    /// A rule matched.
    TargetingMatch,
    /// By percentage.
    Split,
    /// The file disables the flag.
    Disabled,
    /// Not decided; the variant is the default, or the safe one.
    Error,
}

/// Where a variant comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A kill switch: the flag's own, that of a flag it requires, or a flag that is one.
    Kill,
    /// `SWARM_FEATURE_GATES`.
    Env,
    /// `flags.json`.
    File,
    /// The definition.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Kill => "kill",
            Source::Env => "env",
            Source::File => "file",
            Source::Default => "default",
        })
    }
}

/// Why nothing was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvalError {
    /// No such flag.
    FlagNotFound,
    /// A percentage is asked for, and the context has nothing to take it of.
    TargetingKeyMissing,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluation {
    /// The variant's name.
    pub variant: Arc<str>,
    /// Why.
    pub reason: Reason,
    /// From where.
    pub source: Source,
    /// Of which revision of the flags.
    pub revision: u64,
    /// What kept it from being decided, with [`Reason::Error`].
    pub error: Option<EvalError>,
}

/// One flag in force.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) key: Arc<str>,
    pub(super) definition: Option<Arc<Definition>>,
    pub(super) variant: Arc<str>,
    pub(super) rule: Option<Rule>,
    pub(super) reason: Reason,
    pub(super) source: Source,
    /// Values of variants, where they are not their names.
    pub(super) values: Map<String, Value>,
    pub(super) killed: bool,
}

impl Resolved {
    /// A flag that nobody knows: off, and the caller is told.
    pub(super) fn unknown(key: &str) -> Self {
        let (variant, reason) = ("off".into(), Reason::Error);
        Self {
            key: key.into(),
            definition: None,
            variant,
            rule: None,
            reason,
            source: Source::Default,
            values: Map::new(),
            killed: false,
        }
    }

    /// The variant for a context; on the request path.
    pub(super) fn variant(&self, context: &EvalContext<'_>) -> &Arc<str> {
        let Some(rule) = &self.rule else {
            return &self.variant;
        };
        match rule.evaluate(&self.key, context) {
            Outcome::Match(variant) | Outcome::Split(variant) => variant,
            Outcome::Default | Outcome::KeyMissing => &self.variant,
        }
    }

    pub(super) fn evaluate(&self, context: &EvalContext<'_>, revision: u64) -> Evaluation {
        let (variant, reason, error) = match &self.rule {
            None if self.reason == Reason::Error => {
                (&self.variant, self.reason, Some(EvalError::FlagNotFound))
            }
            None => (&self.variant, self.reason, None),
            Some(rule) => match rule.evaluate(&self.key, context) {
                Outcome::Match(variant) => (variant, Reason::TargetingMatch, None),
                Outcome::Split(variant) => (variant, Reason::Split, None),
                Outcome::Default => (&self.variant, Reason::Default, None),
                Outcome::KeyMissing => (&self.variant, Reason::Error, Some(EvalError::TargetingKeyMissing)),
            },
        };
        Evaluation { variant: variant.clone(), reason, source: self.source, revision, error }
    }

    /// Every variant that somebody gets.
    pub(super) fn reachable(&self) -> BTreeSet<Arc<str>> {
        let Some(rule) = &self.rule else {
            return [self.variant.clone()].into();
        };
        rule.outcomes().into_iter().map(|outcome| outcome.unwrap_or_else(|| self.variant.clone())).collect()
    }
}

/// Everything in force at one revision.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) revision: u64,
    pub(super) flags: BTreeMap<String, Arc<Resolved>>,
}

/// An unmet requirement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unmet {
    pub(super) key: String,
    pub(super) variant: String,
    pub(super) parent: String,
    pub(super) needed: String,
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, variant, parent, needed } = self;
        write!(f, "{key}={variant} requires {parent}={needed}")
    }
}

/// What the parts make of each flag.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub(super) known: &'a Definitions,
    pub(super) document: &'a Document,
    pub(super) gates: &'a Gates,
}

impl Inputs<'_> {
    pub(super) fn snapshot(&self) -> Snapshot {
        let flags = self.keys().into_iter().map(|key| (key.to_owned(), Arc::new(self.resolve(key, true))));
        Snapshot { revision: self.document.revision, flags: flags.collect() }
    }

    /// Requirements that the settings break. Kill switches break none: they take what builds on a
    /// killed flag back too.
    pub(super) fn unmet(&self) -> Vec<Unmet> {
        let keys = self.keys();
        let unmet = keys.iter().flat_map(|key| {
            let resolved = self.resolve(key, false);
            let definition = resolved.definition.clone();
            let safe = definition.as_ref().map(|definition| definition.safe().to_owned()).unwrap_or_default();
            let variant = resolved.reachable().into_iter().find(|variant| **variant != *safe);
            let needs =
                definition.filter(|_| variant.is_some()).map(|d| d.requires.clone()).unwrap_or_default();
            let broken = needs.into_iter().filter(|(parent, needed)| {
                self.resolve(parent, false).reachable().iter().any(|variant| **variant != **needed)
            });
            let variant = variant.map(|variant| variant.to_string()).unwrap_or_default();
            let name =
                |(parent, needed)| Unmet { key: (*key).into(), variant: variant.clone(), parent, needed };
            broken.map(name).collect::<Vec<_>>()
        });
        unmet.collect()
    }

    /// Known flags, and what the file and the environment name of those with a `*`.
    fn keys(&self) -> BTreeSet<&str> {
        let plain =
            self.known.all().map(|definition| definition.key.as_str()).filter(|key| !key.ends_with('*'));
        let named = self.document.flags.keys().map(String::as_str).chain(self.gates.keys());
        let named = named.filter(|key| self.known.is_empty() || self.known.find(key).is_some());
        plain.chain(named).collect()
    }

    pub(super) fn resolve(&self, key: &str, kills: bool) -> Resolved {
        let definition = self.known.find(key).cloned();
        let flag = self.document.flags.get(key);
        let default = definition.as_ref().map(|definition| definition.default.as_str());
        let Some(fallback) = default.or_else(|| flag.and_then(|flag| flag.default_variant.as_deref())) else {
            return Resolved::unknown(key);
        };
        let values = flag.map(|flag| flag.variants.clone()).unwrap_or_default();
        let mut resolved = Resolved {
            key: key.into(),
            definition: definition.clone(),
            variant: fallback.into(),
            rule: None,
            reason: Reason::Static,
            source: Source::Default,
            values,
            killed: kills && self.killed(key, &mut BTreeSet::new()),
        };
        if definition.as_ref().is_some_and(|definition| definition.locked()) {
            return resolved;
        }
        let switch = definition.as_ref().is_some_and(|definition| definition.kill);
        if resolved.killed && !switch {
            let safe = definition.as_ref().map_or("off", |definition| definition.safe());
            (resolved.variant, resolved.source) = (safe.into(), Source::Kill);
        } else if let Some(thrown) =
            flag.filter(|_| switch).and_then(|flag| thrown(flag, definition.as_deref()))
        {
            (resolved.variant, resolved.source, resolved.killed) = (thrown.into(), Source::Kill, true);
        } else if let Some(pinned) = self.gates.get(key) {
            (resolved.variant, resolved.source) = (pinned.into(), Source::Env);
        } else if let Some(flag) = flag {
            from_file(&mut resolved, flag);
        }
        resolved
    }

    /// Whether the kill switch of a flag, or of one that it requires, is thrown.
    fn killed<'a>(&'a self, key: &'a str, seen: &mut BTreeSet<&'a str>) -> bool {
        if !seen.insert(key) {
            return false;
        }
        let definition = self.known.find(key);
        let locked = definition.is_some_and(|definition| definition.locked());
        if !locked && self.document.flags.get(key).is_some_and(|flag| flag.killed) {
            return true;
        }
        let requires = definition.map(|definition| definition.requires.as_slice()).unwrap_or_default();
        requires.iter().any(|(parent, _)| self.killed(parent, seen))
    }
}

/// The variant of a flag that is a kill switch, once it is not safe.
fn thrown<'a>(flag: &'a Flag, definition: Option<&Definition>) -> Option<&'a str> {
    let variant = flag.default_variant.as_deref().filter(|_| flag.enabled)?;
    (Some(variant) != definition.map(Definition::safe)).then_some(variant)
}

fn from_file(resolved: &mut Resolved, flag: &Flag) {
    if !flag.enabled {
        resolved.reason = Reason::Disabled;
        return;
    }
    if let Some(variant) = &flag.default_variant {
        (resolved.variant, resolved.source) = (variant.as_str().into(), Source::File);
    }
    if let Some(targeted) = &flag.targeting {
        (resolved.rule, resolved.source) = (Some(targeted.rule.clone()), Source::File);
    }
}
