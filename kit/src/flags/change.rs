//! Changes: what can be asked for, and what it makes of a file. Pure.

use super::{
    definition::{Definition, Definitions, Targeting},
    document::{Document, Flag, Targeted, check_key},
    gates::Gates,
    resolve::{Inputs, Resolved},
    rule::{Condition, Operand, Rule},
};
use serde_json::{Value, json};
use std::sync::Arc;

const REASON_MAX: usize = 1024;
const ACTOR_MAX: usize = 128;
const TENANTS_MAX: usize = 100;

/// One change of one flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The flag.
    pub key: String,
    /// What becomes of it.
    pub to: Setting,
    /// Why; 1 to 1024 bytes, for the audit.
    pub reason: String,
    /// Who; for the audit. It is what the caller says.
    pub actor: String,
    /// Refused when the flags are at another revision.
    pub expected_revision: Option<u64>,
    /// Sets back what builds on the flag, instead of refusing.
    pub cascade: bool,
}

/// What becomes of a flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// A variant, for all or for some.
    Variant {
        /// The variant.
        variant: String,
        /// For this share of targeting keys; the others keep what the flag is for all.
        percent: Option<u8>,
        /// For these tenants only; with a percentage, for this share of their keys.
        tenants: Vec<String>,
    },
    /// What the definition says: the file's setting is removed.
    Default,
    /// Throws the flag's kill switch (safe for all, above the environment), or, for a flag that is
    /// a kill switch, turns it on.
    Kill,
    /// Takes a kill back: the flag is what was set before.
    Revive,
}

impl Setting {
    /// A variant for all.
    pub fn all(variant: &str) -> Self {
        Setting::Variant { variant: variant.into(), percent: None, tenants: Vec::new() }
    }
}

/// Why a change is refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// No flag has this name.
    #[error("no flag is named {key:?}{hint}")]
    UnknownFlag {
        /// As given.
        key: String,
        /// `; did you mean ...?`, or nothing.
        hint: String,
    },
    /// The change makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// In this build, nothing would change.
    #[error("{key} is {stage} in this build and stays {variant}; setting it would change nothing")]
    Locked {
        /// The flag.
        key: String,
        /// Its stage.
        stage: String,
        /// What it is.
        variant: String,
    },
    /// The environment decides.
    #[error(
        "{key} is pinned to {variant} by SWARM_FEATURE_GATES on this node; restart it without, or kill the flag"
    )]
    Pinned {
        /// The flag.
        key: String,
        /// What it is.
        variant: String,
    },
    /// A kill switch decides.
    #[error("{key} is killed; take that back first")]
    Killed {
        /// The flag.
        key: String,
    },
    /// Another flag must be set first.
    #[error("{key}={variant} requires {missing}")]
    Requires {
        /// The flag.
        key: String,
        /// What it would be.
        variant: String,
        /// `key=variant` of what is missing, separated by commas.
        missing: String,
    },
    /// Other flags build on this one.
    #[error("{key} cannot be changed while {dependents} builds on it; set that back first, or cascade")]
    NeededBy {
        /// The flag.
        key: String,
        /// The flags that build on it, separated by commas.
        dependents: String,
    },
    /// Somebody was faster.
    #[error("the flags are at revision {current}, not {expected}: look again, then repeat")]
    Conflict {
        /// As given.
        expected: u64,
        /// What it is.
        current: u64,
    },
    /// Another process holds the lock for too long. Nothing was changed.
    #[error("{0} is locked by another process; nothing was changed")]
    Busy(String),
    /// The disk refused. Nothing was changed.
    #[error("{0}; nothing was changed")]
    Store(String),
    /// The disk failed half way: the change may or may not survive a restart.
    #[error("{0}; whether the change survives a restart is unknown")]
    Unknown(String),
}

/// One flag that a change touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// The flag.
    pub key: String,
    /// What it was, in words.
    pub old: String,
    /// What it is, in words.
    pub new: String,
}

/// What a change makes of a file, and what it touches. The revision is the next one, or the same
/// when it was so already: a change may be repeated.
pub(super) fn apply(
    known: &Definitions,
    document: &Document,
    gates: &Gates,
    change: &Change,
) -> Result<(Document, Vec<Touched>), ChangeError> {
    let definition = check(known, document, gates, change)?;
    let mut next = document.clone();
    next.revision += 1;
    set(&mut next, &definition, &change.key, &change.to)?;
    let mut keys = vec![change.key.clone()];
    loop {
        let unmet = Inputs { known, document: &next, gates }.unmet();
        let missing: Vec<_> = unmet.iter().filter(|unmet| unmet.key == change.key).collect();
        if let Some(first) = missing.first() {
            let words: Vec<_> =
                missing.iter().map(|unmet| format!("{}={}", unmet.parent, unmet.needed)).collect();
            let (key, variant) = (change.key.clone(), first.variant.clone());
            return Err(ChangeError::Requires { key, variant, missing: words.join(",") });
        }
        let mut dependents: Vec<_> = unmet.into_iter().map(|unmet| unmet.key).collect();
        dependents.dedup();
        if dependents.is_empty() {
            break;
        }
        // What was set back already has no requirements, unless something else decides over it.
        let stuck = dependents.iter().any(|key| keys.contains(key) || !settable(known, gates, key));
        if !change.cascade || stuck {
            return Err(ChangeError::NeededBy { key: change.key.clone(), dependents: dependents.join(",") });
        }
        for key in dependents {
            if let Some(definition) = known.find(&key) {
                set(&mut next, definition, &key, &Setting::all(definition.safe()))?;
            }
            keys.push(key);
        }
    }
    if next.flags == document.flags {
        return Ok((document.clone(), Vec::new()));
    }
    let words =
        |document: &Document, key: &str| describe(&Inputs { known, document, gates }.resolve(key, true));
    let touched =
        keys.into_iter().map(|key| Touched { old: words(document, &key), new: words(&next, &key), key });
    Ok((next.clone(), touched.collect()))
}

fn settable(known: &Definitions, gates: &Gates, key: &str) -> bool {
    gates.get(key).is_none() && known.find(key).is_some_and(|definition| !definition.locked())
}

fn check(
    known: &Definitions,
    document: &Document,
    gates: &Gates,
    change: &Change,
) -> Result<Arc<Definition>, ChangeError> {
    let key = change.key.clone();
    let invalid = |words: String| Err(ChangeError::Invalid(words));
    let definition = known.find(&key).filter(|_| check_key(&key).is_ok());
    let Some(definition) = definition.cloned() else {
        let hint = known.hint(&key);
        return Err(ChangeError::UnknownFlag { key, hint });
    };
    if change.reason.trim().is_empty() || change.reason.len() > REASON_MAX {
        return invalid(format!("a change needs a reason of 1 to {REASON_MAX} bytes"));
    }
    if change.actor.len() > ACTOR_MAX {
        return invalid(format!("the actor's name is longer than {ACTOR_MAX} bytes"));
    }
    if let Some(expected) = change.expected_revision.filter(|expected| *expected != document.revision) {
        return Err(ChangeError::Conflict { expected, current: document.revision });
    }
    if definition.locked() {
        let (stage, variant) = (definition.stage.clone(), definition.default.clone());
        return Err(ChangeError::Locked { key, stage, variant });
    }
    let killing = matches!(change.to, Setting::Kill | Setting::Revive);
    if killing || definition.kill {
        return Ok(definition);
    }
    if document.flags.get(&key).is_some_and(|flag| flag.killed) {
        return Err(ChangeError::Killed { key });
    }
    match gates.get(&key) {
        Some(variant) => Err(ChangeError::Pinned { variant: variant.into(), key }),
        None => Ok(definition),
    }
}

fn set(document: &mut Document, definition: &Definition, key: &str, to: &Setting) -> Result<(), ChangeError> {
    match to {
        Setting::Default => {
            document.flags.remove(key);
        }
        Setting::Kill if definition.kill => {
            let on = definition.variants.get(1).map_or("on", String::as_str);
            flag(document, definition, key).default_variant = Some(on.into());
        }
        Setting::Revive if definition.kill => {
            flag(document, definition, key).default_variant = Some(definition.safe().into());
        }
        Setting::Kill => flag(document, definition, key).killed = true,
        Setting::Revive => flag(document, definition, key).killed = false,
        Setting::Variant { variant, percent, tenants } => {
            if !definition.variants.contains(variant) {
                let allowed = definition.variants.join("|");
                return Err(ChangeError::Invalid(format!(
                    "{key} cannot be {variant:?}; it can be {allowed}"
                )));
            }
            check_scope(definition, key, *percent, tenants)?;
            set_variant(flag(document, definition, key), definition, variant, *percent, tenants)?;
        }
    }
    Ok(())
}

/// The flag in the file, in the definition's terms.
fn flag<'a>(document: &'a mut Document, definition: &Definition, key: &str) -> &'a mut Flag {
    let flag = document.flags.entry(key.to_owned()).or_insert_with(|| Flag::of(definition));
    for variant in &definition.variants {
        if !flag.variants.contains_key(variant) {
            flag.variants.insert(variant.clone(), variant.as_str().into());
        }
    }
    flag
}

fn check_scope(
    definition: &Definition,
    key: &str,
    percent: Option<u8>,
    tenants: &[String],
) -> Result<(), ChangeError> {
    let fault = match definition.targeting {
        Targeting::None if percent.is_some() || !tenants.is_empty() => "has one value for all",
        Targeting::Attributes if percent.is_some() => "goes by tenant, not by percentage",
        _ if percent.is_some_and(|percent| percent > 100) => "takes percentages from 0 to 100",
        _ if tenants.len() > TENANTS_MAX => {
            "takes at most 100 tenants by command; write a rule into the file for more"
        }
        _ if tenants.iter().any(|tenant| tenant.is_empty() || tenant.len() > ACTOR_MAX) => {
            "takes tenants of 1 to 128 bytes"
        }
        _ => return Ok(()),
    };
    Err(ChangeError::Invalid(format!("{key} {fault}")))
}

fn set_variant(
    flag: &mut Flag,
    definition: &Definition,
    variant: &str,
    percent: Option<u8>,
    tenants: &[String],
) -> Result<(), ChangeError> {
    // Those outside keep what holds for all; when that is the variant itself, they go back to safe.
    let base = flag.default_variant.as_deref().filter(|_| flag.enabled).unwrap_or(&definition.default);
    let base = if base == variant { definition.safe() } else { base }.to_owned();
    flag.enabled = true;
    let share = match percent {
        Some(percent @ 0..100) => json!({"fractional": [[variant, percent], [base, 100 - percent]]}),
        _ => json!(variant),
    };
    let raw = match tenants {
        [] => share,
        tenants => json!({"if": [{"in": [{"var": "tenant"}, tenants]}, share, base]}),
    };
    if let Value::String(variant) = raw {
        (flag.default_variant, flag.targeting) = (Some(variant), None);
        return Ok(());
    }
    let rule =
        Rule::parse(&raw, &|variant| flag.variants.contains_key(variant)).map_err(ChangeError::Invalid)?;
    (flag.default_variant, flag.targeting) = (Some(base), Some(Targeted { rule, raw }));
    Ok(())
}

/// A setting in words: `on`, `on 5%, else off`, `on for tenants a,b, else off`.
pub(super) fn describe(resolved: &Resolved) -> String {
    let base = &resolved.variant;
    let words = match &resolved.rule {
        None => base.to_string(),
        Some(rule) => format!("{}, else {base}", describe_rule(rule, base)),
    };
    if resolved.killed { format!("{words} (killed)") } else { words }
}

fn describe_rule(rule: &Rule, base: &str) -> String {
    match rule {
        Rule::Variant(variant) => variant.to_string(),
        Rule::Default => "default".into(),
        Rule::Fractional { shares, total, .. } => {
            let share =
                |(variant, weight): &(Arc<str>, u64)| format!("{variant} {}%", percent(*weight, *total));
            let named = shares.iter().filter(|(variant, _)| **variant != *base);
            named.map(share).collect::<Vec<_>>().join(", ")
        }
        Rule::If { branches, .. } => {
            let words = branches.iter().map(|(condition, rule)| {
                format!("{} for {}", describe_rule(rule, base), describe_condition(condition))
            });
            words.collect::<Vec<_>>().join(", ")
        }
    }
}

/// In tenths, for people: the rule itself counts in whole weights.
fn percent(weight: u64, total: u64) -> String {
    let tenths = weight * 1000 / total.max(1);
    if tenths.is_multiple_of(10) {
        (tenths / 10).to_string()
    } else {
        format!("{}.{}", tenths / 10, tenths % 10)
    }
}

fn describe_condition(condition: &Condition) -> String {
    match condition {
        Condition::In(Operand::Var(name), list) => {
            let words = list.iter().filter_map(|item| match item {
                Operand::Text(text) => Some(text.as_str()),
                _ => None,
            });
            format!("{name} {}", words.collect::<Vec<_>>().join(","))
        }
        Condition::Equal(Operand::Var(name), Operand::Text(text)) => format!("{name} {text}"),
        _ => "those of a rule".into(),
    }
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
