//! JSON of the flags' admin API. Field names are stable.

use kit::flags::Record;
use serde::{Deserialize, Serialize};

/// `GET /api/v1/flags`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FlagList {
    /// Node that answers: in this phase each node keeps its own flags.
    pub node: String,
    /// Revision in force there.
    pub revision: u64,
    /// Why its file is not in force, if it is not.
    pub problem: Option<String>,
    /// What in its file has no effect.
    pub warnings: Vec<String>,
    /// By key.
    pub flags: Vec<Flag>,
}

/// One flag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flag {
    /// Its key.
    pub key: String,
    /// What it is, in words: `on 5%, else off`.
    pub setting: String,
    /// What it is for nobody in particular.
    pub variant: String,
    /// "kill", "env", "file" or "default".
    pub source: String,
    /// "live": the flag decides. "fixed" or "absent": it cannot be set in this build.
    pub stage: String,
    /// Whether a kill switch decides.
    pub killed: bool,
    /// What it can be; the first is safe.
    pub variants: Vec<String>,
    /// What it is when nobody sets it.
    pub default: String,
    /// What must hold before it may be anything but safe: `a=on,b=on`.
    pub requires: String,
    /// "none", "attributes" (by tenant) or "percent" (by percentage and by tenant).
    pub targeting: String,
    /// What it does.
    pub description: String,
}

/// `POST /api/v1/flags/{key}`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeRequest {
    /// The variant; `null` removes the setting, so that the default holds.
    pub variant: Option<String>,
    /// For this share of targeting keys only.
    #[serde(default)]
    pub percent: Option<u8>,
    /// For these tenants only.
    #[serde(default)]
    pub tenants: Vec<String>,
    /// Why.
    pub reason: String,
    /// Who, for the audit.
    #[serde(default)]
    pub actor: String,
    /// Refused when the flags are at another revision.
    #[serde(default)]
    pub expected_revision: Option<u64>,
    /// Sets back what builds on the flag, instead of refusing.
    #[serde(default)]
    pub cascade: bool,
}

/// `POST /api/v1/flags/{key}/kill`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KillRequest {
    /// Takes a kill back.
    #[serde(default)]
    pub lift: bool,
    /// Why.
    pub reason: String,
    /// Who, for the audit.
    #[serde(default)]
    pub actor: String,
    /// Refused when the flags are at another revision.
    #[serde(default)]
    pub expected_revision: Option<u64>,
}

/// What a change did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Changed {
    /// Node that changed.
    pub node: String,
    /// Its revision now.
    pub revision: u64,
    /// What changed; nothing when it was so already.
    pub changed: Vec<Change>,
}

/// One flag that changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Change {
    /// Its key.
    pub key: String,
    /// What it was, in words.
    pub old: String,
    /// What it is, in words.
    pub new: String,
}

/// `GET /api/v1/flag-history`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct History {
    /// Node that answers.
    pub node: String,
    /// The newest first.
    pub records: Vec<Record>,
}
