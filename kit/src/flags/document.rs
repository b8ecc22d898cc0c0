//! `flags.json` in flagd's format, read strictly.

use super::{
    definition::{Definition, Definitions, Targeting},
    rule::Rule,
    strict,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Largest file that is read.
pub const BYTES_MAX: usize = 256 * 1024;
/// Most flags in one file.
pub const FLAGS_MAX: usize = 256;
const VARIANTS_MAX: usize = 16;
const METADATA_MAX: usize = 32;
const TEXT_MAX: usize = 1024;
const KEY_MAX: usize = 128;
const SCHEMA: &str = "https://flagd.dev/schema/v0/flags.json";

/// Where a file is wrong, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct DocumentError {
    /// A path of keys such as `flags.registry.sharding.state`, or "file".
    pub place: String,
    /// What is wrong.
    pub reason: String,
}

fn wrong(place: impl Into<String>, reason: impl Into<String>) -> DocumentError {
    DocumentError { place: place.into(), reason: reason.into() }
}

/// A file that is well formed.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Document {
    /// Ours, in the file's metadata: grows with every change.
    pub(super) revision: u64,
    /// The rest of the file's metadata.
    pub(super) metadata: Map<String, Value>,
    pub(super) flags: BTreeMap<String, Flag>,
}

/// One flag of a file.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Flag {
    pub(super) enabled: bool,
    /// Name to value; values are strings, numbers or booleans.
    pub(super) variants: Map<String, Value>,
    pub(super) default_variant: Option<String>,
    pub(super) targeting: Option<Targeted>,
    /// Whether the flag's own kill switch is thrown.
    pub(super) killed: bool,
    pub(super) metadata: Map<String, Value>,
}

/// A rule beside its text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Targeted {
    pub(super) rule: Rule,
    pub(super) raw: Value,
}

impl Flag {
    /// A flag as the definition knows it, set to nothing.
    pub(super) fn of(definition: &Definition) -> Self {
        let variants = definition.variants.iter().map(|name| (name.clone(), Value::from(name.as_str())));
        Self { enabled: true, variants: variants.collect(), ..Self::default() }
    }
}

impl Document {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        if bytes.len() > BYTES_MAX {
            return Err(wrong("file", format!("{} bytes; at most {BYTES_MAX} are read", bytes.len())));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| wrong("file", "not UTF-8"))?;
        if text.trim().is_empty() {
            return Err(wrong("file", "blank; {\"flags\": {}} means that nothing is set"));
        }
        let value = strict::parse(text).map_err(|error| wrong("file", error.to_string()))?;
        let mut document = Document::default();
        for (key, part) in object("file", value)? {
            match key.as_str() {
                "$schema" => {}
                "metadata" => document.read_metadata(part)?,
                "flags" => document.flags = read_flags(part)?,
                "$evaluators" => {
                    return Err(wrong(key, "shared evaluators are not supported; write the rule out"));
                }
                _ => return Err(wrong(key, "unknown key; $schema, metadata and flags are known")),
            }
        }
        Ok(document)
    }

    fn read_metadata(&mut self, part: Value) -> Result<(), DocumentError> {
        self.metadata = metadata("metadata", part)?;
        if let Some(revision) = self.metadata.remove("revision") {
            let number = revision.as_u64();
            self.revision =
                number.ok_or_else(|| wrong("metadata.revision", format!("{revision} is no whole number")))?;
        }
        Ok(())
    }

    /// Whether it goes with what the program knows. What only another version knows is skipped and
    /// answered as warnings: nodes of two versions may read the same file.
    pub(super) fn validate(&self, known: &Definitions) -> Result<Vec<String>, DocumentError> {
        let mut warnings = Vec::new();
        for (key, flag) in &self.flags {
            let Some(definition) = known.find(key) else {
                if !known.is_empty() {
                    warnings.push(format!("no flag is named {key:?}{}; it is skipped", known.hint(key)));
                }
                continue;
            };
            flag.validate(key, definition)?;
            let default = Some(definition.default.as_str());
            if definition.locked() && (flag.killed || flag.default_variant.as_deref().or(default) != default)
            {
                let (default, stage) = (&definition.default, &definition.stage);
                warnings.push(format!("{key} stays {default}: it is {stage} in this build, and the file's setting changes nothing"));
            }
        }
        Ok(warnings)
    }

    /// The file's text.
    pub(super) fn to_text(&self) -> String {
        let mut metadata = self.metadata.clone();
        metadata.insert("revision".into(), self.revision.into());
        let flags: Map<String, Value> =
            self.flags.iter().map(|(key, flag)| (key.clone(), flag.to_json())).collect();
        let file = json!({"$schema": SCHEMA, "metadata": metadata, "flags": flags});
        format!("{}\n", serde_json::to_string_pretty(&file).unwrap_or_default())
    }
}

impl Flag {
    fn validate(&self, key: &str, definition: &Definition) -> Result<(), DocumentError> {
        let place = |part: &str| format!("flags.{key}.{part}");
        if let Some(unknown) = self.variants.keys().find(|name| !definition.variants.contains(name)) {
            let allowed = definition.variants.join("|");
            return Err(wrong(place("variants"), format!("{unknown:?} is unknown; {allowed} are known")));
        }
        let outcomes = self.targeting.iter().flat_map(|targeted| targeted.rule.outcomes());
        if definition.targeting == Targeting::None && outcomes.flatten().next().is_some() {
            return Err(wrong(
                place("targeting"),
                "this flag has one value for all: a mix would be two systems",
            ));
        }
        Ok(())
    }

    fn to_json(&self) -> Value {
        let mut json = Map::new();
        let state = if self.enabled { "ENABLED" } else { "DISABLED" };
        json.insert("state".into(), state.into());
        json.insert("variants".into(), Value::Object(self.variants.clone()));
        if let Some(variant) = &self.default_variant {
            json.insert("defaultVariant".into(), variant.as_str().into());
        }
        if let Some(targeted) = &self.targeting {
            json.insert("targeting".into(), targeted.raw.clone());
        }
        let mut metadata = self.metadata.clone();
        if self.killed {
            metadata.insert("killed".into(), true.into());
        }
        if !metadata.is_empty() {
            json.insert("metadata".into(), Value::Object(metadata));
        }
        Value::Object(json)
    }
}

fn read_flags(part: Value) -> Result<BTreeMap<String, Flag>, DocumentError> {
    let flags = object("flags", part)?;
    if flags.len() > FLAGS_MAX {
        return Err(wrong("flags", format!("{} flags; at most {FLAGS_MAX} are read", flags.len())));
    }
    flags.into_iter().map(|(key, flag)| Ok((key.clone(), read_flag(&key, flag)?))).collect()
}

fn read_flag(key: &str, part: Value) -> Result<Flag, DocumentError> {
    let at = |part: &str| format!("flags.{key}.{part}");
    if let Err(reason) = check_key(key) {
        return Err(wrong(format!("flags.{}", key.escape_debug()), reason));
    }
    let mut parts = object(&format!("flags.{key}"), part)?;
    let enabled = match parts.remove("state") {
        Some(Value::String(state)) if state == "ENABLED" => true,
        Some(Value::String(state)) if state == "DISABLED" => false,
        Some(other) => {
            return Err(wrong(at("state"), format!("{other} is neither \"ENABLED\" nor \"DISABLED\"")));
        }
        None => return Err(wrong(at("state"), "missing")),
    };
    let variants = parts.remove("variants").ok_or_else(|| wrong(at("variants"), "missing"))?;
    let variants = read_variants(&at("variants"), variants)?;
    let default_variant = match parts.remove("defaultVariant") {
        None | Some(Value::Null) => None,
        Some(Value::String(variant)) if variants.contains_key(&variant) => Some(variant),
        Some(other) => {
            return Err(wrong(at("defaultVariant"), format!("{other} is none of the flag's variants")));
        }
    };
    let targeting = read_targeting(&at("targeting"), parts.remove("targeting"), &variants)?;
    let mut metadata = metadata(&at("metadata"), parts.remove("metadata").unwrap_or_else(|| json!({})))?;
    let killed = match metadata.remove("killed") {
        None => false,
        Some(Value::Bool(killed)) => killed,
        Some(other) => {
            return Err(wrong(at("metadata.killed"), format!("{other} is neither true nor false")));
        }
    };
    match parts.keys().next() {
        Some(key) => Err(wrong(
            at(key),
            "unknown key; state, variants, defaultVariant, targeting and metadata are known",
        )),
        None => Ok(Flag { enabled, variants, default_variant, targeting, killed, metadata }),
    }
}

fn read_variants(place: &str, part: Value) -> Result<Map<String, Value>, DocumentError> {
    let variants = object(place, part)?;
    if variants.is_empty() || variants.len() > VARIANTS_MAX {
        return Err(wrong(place, format!("{} variants; 1 to {VARIANTS_MAX} are allowed", variants.len())));
    }
    check_scalars(place, &variants)?;
    let kinds = |kind: fn(&Value) -> bool| variants.values().all(kind);
    if kinds(Value::is_string) || kinds(Value::is_number) || kinds(Value::is_boolean) {
        return Ok(variants);
    }
    Err(wrong(place, "values of several types"))
}

fn read_targeting(
    place: &str,
    part: Option<Value>,
    variants: &Map<String, Value>,
) -> Result<Option<Targeted>, DocumentError> {
    match part {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(rule)) if rule.is_empty() => Ok(None),
        Some(raw @ Value::Object(_)) => {
            let rule = Rule::parse(&raw, &|variant| variants.contains_key(variant));
            rule.map(|rule| Some(Targeted { rule, raw })).map_err(|reason| wrong(place, reason))
        }
        Some(other) => Err(wrong(place, format!("{other} is no rule"))),
    }
}

/// OFREP carries strings, numbers and booleans only.
fn metadata(place: &str, part: Value) -> Result<Map<String, Value>, DocumentError> {
    let metadata = object(place, part)?;
    if metadata.len() > METADATA_MAX {
        return Err(wrong(place, format!("{} entries; at most {METADATA_MAX} are read", metadata.len())));
    }
    check_scalars(place, &metadata)?;
    Ok(metadata)
}

fn check_scalars(place: &str, values: &Map<String, Value>) -> Result<(), DocumentError> {
    for (key, value) in values {
        let fits = match value {
            Value::String(text) => text.len() <= TEXT_MAX,
            Value::Number(_) | Value::Bool(_) => true,
            _ => false,
        };
        if !fits || key.len() > KEY_MAX {
            let reason = format!("must be a number, true, false or text of at most {TEXT_MAX} bytes");
            return Err(wrong(format!("{place}.{}", key.escape_debug()), reason));
        }
    }
    Ok(())
}

/// Letters, digits, `.`, `_` and `-`.
pub(super) fn check_key(key: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if (1..=KEY_MAX).contains(&key.len()) && key.chars().all(allowed) {
        return Ok(());
    }
    Err(format!("a key is 1 to {KEY_MAX} characters of A-Z a-z 0-9 . _ -"))
}

fn object(place: &str, value: Value) -> Result<Map<String, Value>, DocumentError> {
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(wrong(place, "must be an object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"$schema": "x", "metadata": {"revision": 7, "flagSetId": "swarm"}, "flags": {
        "a": {"state": "ENABLED", "variants": {"off": "off", "on": "on"}, "defaultVariant": "off",
              "targeting": {"fractional": [["on", 5], ["off", 95]]}, "metadata": {"requires": "b=on"}},
        "b": {"state": "DISABLED", "variants": {"off": false, "on": true}, "metadata": {"killed": true}}}}"#;

    #[test]
    fn what_is_read_is_written_back() {
        let document = Document::parse(GOOD.as_bytes()).unwrap();
        assert_eq!((document.revision, document.flags.len()), (7, 2));
        assert!(document.flags["b"].killed && !document.flags["b"].enabled);
        assert_eq!(Document::parse(document.to_text().as_bytes()).unwrap(), document);
    }

    #[test]
    fn every_fault_names_its_place() {
        let flag = |flag: &str| format!(r#"{{"flags": {{"a.b": {flag}}}}}"#);
        let many = (0..257).map(|n| format!(r#""f{n}": {{"state": "ENABLED", "variants": {{"a": 1}}}}"#));
        let many = format!(r#"{{"flags": {{{}}}}}"#, many.collect::<Vec<_>>().join(","));
        for (text, place, reason) in [
            (String::new(), "file", "blank"),
            ("  \n".into(), "file", "blank"),
            (GOOD[..GOOD.len() - 9].into(), "file", "EOF"),
            (format!("{GOOD}{GOOD}"), "file", "trailing"),
            ("[]".into(), "file", "an object"),
            ("x".repeat(BYTES_MAX + 1), "file", "at most 262144"),
            (many, "flags", "257 flags"),
            (r#"{"flag": {}}"#.into(), "flag", "unknown key"),
            (r#"{"$evaluators": {}}"#.into(), "$evaluators", "not supported"),
            (r#"{"metadata": {"revision": -1}}"#.into(), "metadata.revision", "whole number"),
            (r#"{"metadata": {"x": []}}"#.into(), "metadata.x", "must be a number"),
            (r#"{"flags": {"a b": {}}}"#.into(), "flags.a b", "a key is"),
            (flag("1"), "flags.a.b", "an object"),
            (flag("{}"), "flags.a.b.state", "missing"),
            (flag(r#"{"state": "on"}"#), "flags.a.b.state", "neither"),
            (flag(r#"{"state": "ENABLED"}"#), "flags.a.b.variants", "missing"),
            (flag(r#"{"state": "ENABLED", "variants": {}}"#), "flags.a.b.variants", "0 variants"),
            (
                flag(r#"{"state": "ENABLED", "variants": {"a": 1, "b": "2"}}"#),
                "flags.a.b.variants",
                "several types",
            ),
            (
                flag(r#"{"state": "ENABLED", "variants": {"a": 1}, "defaultVariant": "b"}"#),
                "flags.a.b.defaultVariant",
                "none of",
            ),
            (
                flag(r#"{"state": "ENABLED", "variants": {"a": 1}, "targeting": {"if": []}}"#),
                "flags.a.b.targeting",
                "if needs",
            ),
            (
                flag(r#"{"state": "ENABLED", "variants": {"a": 1}, "tageting": {}}"#),
                "flags.a.b.tageting",
                "unknown key",
            ),
            (
                flag(r#"{"state": "ENABLED", "state": "ENABLED", "variants": {"a": 1}}"#),
                "file",
                "stands twice",
            ),
        ] {
            let error = Document::parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.place, place, "{error}");
            assert!(error.reason.contains(reason), "{error}");
        }
    }

    #[test]
    fn unknown_flags_are_skipped_with_a_warning_and_unknown_variants_refused() {
        let mut known = Definitions::default();
        known.insert(Definition::new("registry.sharding", &["off", "on"], "on"));
        known.insert(Definition {
            stage: "fixed".into(),
            ..Definition::new("fixed.flag", &["off", "on"], "on")
        });
        let text = r#"{"flags": {
            "registry.shardng": {"state": "ENABLED", "variants": {"x": "x"}},
            "fixed.flag": {"state": "ENABLED", "variants": {"off": "off"}, "defaultVariant": "off"}}}"#;
        let warnings = Document::parse(text.as_bytes()).unwrap().validate(&known).unwrap();
        assert_eq!(warnings.len(), 2);
        assert!(warnings[1].contains("did you mean registry.sharding?"), "{warnings:?}");
        assert!(warnings[0].contains("stays on"), "{warnings:?}");
        let text = r#"{"flags": {"registry.sharding": {"state": "ENABLED", "variants": {"maybe": "x"}}}}"#;
        let error = Document::parse(text.as_bytes()).unwrap().validate(&known).unwrap_err();
        assert_eq!(error.place, "flags.registry.sharding.variants");
        let text = r#"{"flags": {"registry.sharding": {"state": "ENABLED", "variants": {"on": "on", "off": "off"},
            "targeting": {"fractional": [["on", 1]]}}}}"#;
        let error = Document::parse(text.as_bytes()).unwrap().validate(&known).unwrap_err();
        assert!(error.reason.contains("one value for all"));
    }
}
