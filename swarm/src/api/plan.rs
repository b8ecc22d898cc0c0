//! Registering many at once, and reading all back.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// `POST /api/v1/registry/plan` and `POST /api/v1/registry/apply`: what a file says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    /// Backends to register, in the order of the file.
    pub servers: Vec<ImportServer>,
    /// Names that the file speaks of but which cannot be used: they are not pruned.
    #[serde(default)]
    pub mentioned: BTreeSet<String>,
    /// Who registers.
    pub owner: String,
    /// How the file is meant.
    pub mode: Mode,
    /// Remove what was applied before and is not in the file any more (apply only).
    #[serde(default)]
    pub prune: bool,
    /// Show values of secrets in the answer.
    #[serde(default)]
    pub show_secrets: bool,
}

/// How a file is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// These servers are to be there.
    Import,
    /// This is all that there is to be of this owner.
    Apply,
}

impl Mode {
    /// The value of the registration's label `source`.
    pub fn source(self) -> &'static str {
        match self {
            Mode::Import => "import",
            Mode::Apply => "apply",
        }
    }
}

/// What would be done, or was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// True when nothing was changed.
    pub dry_run: bool,
    /// One for each name: entries in the order of the file, then removals.
    pub steps: Vec<Step>,
}

/// What becomes of one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The name.
    pub name: String,
    /// What becomes of it.
    pub action: Action,
    /// Command line or URL of a new one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Fields that change, for [`Action::Change`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// Why it is refused, or whose it is when it is the same.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

impl Step {
    /// Nothing more to say of it.
    pub fn new(name: &str, action: Action) -> Step {
        let (target, changes, reason) = (String::new(), Vec::new(), String::new());
        Step { name: name.to_owned(), action, target, changes, reason }
    }
}

/// What becomes of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// `+`
    Add,
    /// `~`
    Change,
    /// `=`
    Same,
    /// `-`
    Remove,
    /// `!`
    Refused,
}

/// One field that changes; values of secrets are masked unless they are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// `command`, `args`, `env.NAME`, `cwd`, `url`, `headers.NAME`, `transport`, `source`, ...
    pub field: String,
    /// What stands, if anything does.
    pub from: Option<String>,
    /// What comes, if anything does.
    pub to: Option<String>,
}

/// `POST /api/v1/registry/export`: asked for with a body, so that no page's link can ask.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportRequest {
    /// With values of environments and headers; else each is a variable to be set, `${NAME}`.
    #[serde(default)]
    pub show_secrets: bool,
}

/// Every backend as it is registered, in name order.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Export {
    /// The backends.
    pub servers: Vec<ImportServer>,
}

/// `POST /api/v1/registry/import`: an import of the operator's, for programs that need no plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    /// Backends to register.
    pub servers: Vec<ImportServer>,
}

impl From<ImportRequest> for PlanRequest {
    fn from(request: ImportRequest) -> PlanRequest {
        PlanRequest {
            servers: request.servers,
            mentioned: BTreeSet::new(),
            owner: "operator".to_owned(),
            mode: Mode::Import,
            prune: false,
            show_secrets: false,
        }
    }
}

/// What became of each name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportReport {
    /// New.
    pub added: Vec<String>,
    /// Stood there already, as it is or with an older spec of the same owner.
    pub kept: Vec<String>,
    /// Not registered: name to reason.
    pub rejected: BTreeMap<String, String>,
}

impl From<Plan> for ImportReport {
    fn from(plan: Plan) -> ImportReport {
        let mut report = ImportReport::default();
        for Step { name, action, reason, .. } in plan.steps {
            match action {
                Action::Add => report.added.push(name),
                Action::Change | Action::Same => report.kept.push(name),
                Action::Refused => {
                    report.rejected.insert(name, reason);
                }
                Action::Remove => {}
            }
        }
        report
    }
}

/// One backend to register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportServer {
    /// Name.
    pub name: String,
    /// How it is reached.
    #[serde(flatten)]
    pub target: ImportTarget,
    /// How the edge connects, empty for its default.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub strategy: String,
    /// Deadline of one call in ms; 0 is the edge's default.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub call_timeout_ms: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// How a backend is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "transport", rename_all = "lowercase")]
pub enum ImportTarget {
    /// A command on every edge's machine.
    Stdio {
        /// Program.
        command: String,
        /// Arguments.
        #[serde(default)]
        args: Vec<String>,
        /// Extra environment.
        #[serde(default)]
        env: BTreeMap<String, String>,
        /// Working directory, empty for the node's own.
        #[serde(default)]
        cwd: String,
    },
    /// A Streamable HTTP endpoint.
    Http {
        /// URL.
        url: String,
        /// Extra headers.
        #[serde(default)]
        headers: BTreeMap<String, String>,
    },
}
