//! Layered configuration: defaults < file < environment (`SWARM__A__B`) < flags.
//!
//! Every config struct carries `#[serde(deny_unknown_fields, default)]`; then an error names
//! file, line, column, the key and the nearest known one, and the process exits with
//! [`EXIT_CONFIG`].

pub mod duration;
mod env;
mod member;
mod node;
mod section;

pub use env::ENV_PREFIX;
pub use member::StaticMember;
pub use node::{DataDir, NodeConfig};
pub use section::{SECTIONS, Section, ServiceFile};

use figment::{
    Figment,
    error::Kind,
    providers::{Format as _, Serialized, Toml},
};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Exit code of a process whose configuration is not valid.
pub const EXIT_CONFIG: u8 = 78;

/// A configuration that does not parse.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is wrong at a place.
    #[error("{}:{line}:{column}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// A value from the environment or a flag is wrong.
    #[error("{origin}: {message}")]
    Value {
        /// The variable or "flags".
        origin: String,
        /// What is wrong.
        message: String,
    },
    /// Values that do not go together.
    #[error("{0}")]
    Invalid(String),
}

/// Loads a configuration. `flags` is what the command line gave: unset options (`None`) are
/// skipped. The file is checked first and alone, so that its errors carry their place.
pub fn load<T>(file: Option<&Path>, flags: impl Serialize) -> Result<T, ConfigError>
where
    T: Serialize + DeserializeOwned + Default,
{
    let mut layers = Figment::from(Serialized::defaults(T::default()));
    if let Some(path) = file {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        toml::from_str::<T>(&text).map_err(|error| in_file(path, &text, &error))?;
        layers = layers.merge(Toml::string(&text));
    }
    let flags = serde_json::to_value(flags)
        .map(without_nulls)
        .map_err(|error| ConfigError::Invalid(format!("flags: {error}")))?;
    let layers = env::variables().fold(layers, Figment::merge);
    layers.merge(Serialized::globals(flags)).extract_lossy().map_err(|error| in_layers(&error))
}

/// SHA-256 of the effective configuration, to see drift between nodes.
pub fn sha256(config: &impl Serialize) -> String {
    // Through `Value`, whose maps are ordered by key.
    let value = serde_json::to_value(config).unwrap_or_default();
    Sha256::digest(value.to_string()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn without_nulls(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        other => other,
    }
}

fn in_file(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let offset = error.span().map_or(0, |span| span.start);
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let message = match unknown_field(error.message()) {
        Some((key, known)) => unknown_key(key, enclosing_table(before).as_deref(), known.iter().copied()),
        None => error.message().lines().next().unwrap_or_default().to_owned(),
    };
    ConfigError::File {
        path: path.into(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        message,
    }
}

fn in_layers(error: &figment::Error) -> ConfigError {
    let path = error.path.join(".");
    let origin = match &error.metadata {
        Some(metadata) if metadata.name.starts_with(ENV_PREFIX) => metadata.name.to_string(),
        Some(_) => format!("flags: {path}"),
        None => "configuration".into(),
    };
    let message = match &error.kind {
        Kind::UnknownField(key, known) => {
            // The path ends with the key itself.
            let table =
                path.rsplit_once('.').map(|(table, _)| table).filter(|_| path.ends_with(key.as_str()));
            unknown_key(key, table, known.iter().copied())
        }
        kind => kind.to_string(),
    };
    ConfigError::Value { origin, message }
}

/// Reads serde's words: unknown field `lisen`, expected one of `listen`, `port`.
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (key, rest) = rest.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2).collect();
    Some((key, known))
}

fn unknown_key<'a>(key: &str, table: Option<&str>, known: impl Iterator<Item = &'a str>) -> String {
    let place = table.map(|table| format!(" in [{table}]")).unwrap_or_default();
    let hint = nearest(key, known).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    format!("unknown key `{key}`{place}{hint}")
}

/// The known word most like `word`, if any is close.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The last `[table]` header before a place.
fn enclosing_table(before: &str) -> Option<String> {
    let header = before.lines().rev().map(str::trim).find(|line| line.starts_with('['))?;
    let name = header.split(']').next()?.trim_start_matches('[').trim();
    (!name.is_empty()).then(|| name.to_owned())
}
