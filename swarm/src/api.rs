//! The admin API's JSON (`/api/v1/...`): what a node answers and the operator's commands read.
//! Field names are stable.

pub(crate) mod listing;
mod plan;

pub use plan::{
    Action, Change, Export, ExportRequest, ImportReport, ImportRequest, ImportServer, ImportTarget, Mode,
    Plan, PlanRequest, Step,
};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where a node answers: the ready line and `endpoints.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// The node's name.
    pub name: String,
    /// URL of the MCP endpoint, when the edge runs here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp: Option<String>,
    /// host:port of MCP over TCP, when it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp_tcp: Option<String>,
    /// URL of the admin port.
    pub admin: String,
    /// host:port of gRPC.
    pub grpc: String,
    /// host:port of gossip (UDP), when it runs here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gossip: Option<String>,
}

/// `GET /api/v1/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// "healthy", "degraded" (serves, but tolerates less or misses something) or "unhealthy".
    pub health: String,
    /// Why it is not healthy.
    pub reasons: Vec<String>,
    /// Node that answers.
    pub node: String,
    /// Its version.
    pub version: String,
    /// How long it runs.
    pub uptime_ms: u64,
    /// Where it answers.
    pub endpoints: Endpoints,
    /// Nodes that may be lost now, by operation (K4).
    pub failure_tolerance: Tolerance,
    /// The coordinator as this node sees it.
    pub raft: Option<Raft>,
    /// The ring of session owners, as this node sees it.
    pub ring: Option<Ring>,
    /// Every known node.
    pub nodes: Vec<Member>,
    /// Every registered backend.
    pub backends: Vec<Backend>,
    /// Open legacy sessions, all edges.
    pub sessions: usize,
}

/// How many nodes each operation survives the loss of, from now on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tolerance {
    /// Calls without a session.
    pub calls: u32,
    /// Reading any session.
    pub session_reads: u32,
    /// Writing any session.
    pub session_writes: u32,
    /// Consensus: leader, tasks, flags.
    pub coordinator: u32,
}

/// Raft at a glance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Raft {
    /// Role of the node that answers.
    pub role: String,
    /// Name of the leader, when known.
    pub leader: Option<String>,
    /// Term.
    pub term: u64,
    /// Highest committed log index known here.
    pub committed_index: u64,
    /// Highest applied log index here.
    pub applied_index: u64,
    /// Names of the voters.
    pub voters: Vec<String>,
}

/// How sessions are spread.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ring {
    /// Instances on it.
    pub members: usize,
    /// Points on it.
    pub vnodes: usize,
    /// The heaviest instance against the mean.
    pub max_to_mean: f64,
    /// Name of the heaviest instance.
    pub heaviest: String,
}

/// `GET /api/v1/members`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Members {
    /// Node that answers.
    pub node: String,
    /// Every known node.
    pub members: Vec<Member>,
}

/// One node of the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Name.
    pub name: String,
    /// "alive", "suspect", "dead" or "left".
    pub state: String,
    /// Grows with every start.
    pub generation: u64,
    /// Suspicion level.
    pub phi: f64,
    /// Failure domain.
    pub zone: String,
    /// Version of swarm.
    pub version: String,
    /// host:port of gossip.
    pub gossip: String,
    /// Its services: name to "up", "suspect" or "down".
    pub services: BTreeMap<String, String>,
    /// Its MCP endpoint, when it runs an edge.
    pub mcp: Option<String>,
    /// Its admin URL.
    pub admin: Option<String>,
}

/// `GET /api/v1/registry`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Registry {
    /// Registered backends, or what was asked for, in name order.
    pub registrations: Vec<Backend>,
    /// Where the rest begins, when a limit ended the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// One registered backend. A name of another kind has no transport, no state and no counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    /// Name.
    pub name: String,
    /// "backend", "agent", "worker", "property" or "counter".
    #[serde(default)]
    pub kind: String,
    /// "stdio" or "http".
    pub transport: String,
    /// Command line or URL.
    pub target: String,
    /// Who registered it.
    pub owner: String,
    /// Where it runs; empty when nobody said.
    #[serde(default)]
    pub zone: String,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its state on the worst edge: "ready", "starting", "failing", "stopped" (switched off by an
    /// operator) or "unknown".
    pub state: String,
    /// Why it is not ready.
    pub reason: String,
    /// "legacy" or "modern", once known.
    pub era: String,
    /// How many tools it has.
    pub tools: u32,
    /// Prompts.
    pub prompts: u32,
    /// Resources.
    pub resources: u32,
    /// Calls served, all edges.
    pub calls: u64,
    /// Calls that failed, all edges.
    pub errors: u64,
    /// Restarts, all edges.
    pub restarts: u64,
    /// State by edge.
    pub edges: BTreeMap<String, String>,
}

/// `GET /api/v1/tools`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tools {
    /// Each as `tools/list` gives it.
    pub tools: Vec<serde_json::Value>,
    /// Backends that are switched off, with the reason: their tools are listed and not called.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stopped: BTreeMap<String, String>,
}

/// `GET /api/v1/sessions`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sessions {
    /// Open sessions of all edges that answered.
    pub sessions: Vec<Session>,
    /// Edges that did not answer, with the reason.
    pub missing: BTreeMap<String, String>,
}

/// One open legacy session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Hash of its id; the id itself is a secret of the client.
    pub id_hash: String,
    /// Edge that holds it.
    pub anchor: String,
    /// Fencing epoch: how often it moved, from 1.
    pub epoch: u64,
    /// Negotiated protocol version.
    pub protocol_version: String,
    /// The client's name and version.
    pub client: String,
    /// Age.
    pub age_ms: u64,
    /// Open streams.
    pub streams: u32,
    /// Requests being served.
    pub in_flight: u32,
}

/// `POST /api/v1/check`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Check {
    /// Groups in order.
    pub groups: Vec<CheckGroup>,
}

/// Checks that belong together.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckGroup {
    /// "preflight", "cluster", "sessions" or "backends".
    pub name: String,
    /// In order.
    pub results: Vec<CheckResult>,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckResult {
    /// How it went.
    pub status: CheckStatus,
    /// What was seen.
    pub message: String,
    /// What to do, when it did not go well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// √
    Ok,
    /// ‼
    Warning,
    /// ×
    Error,
}

impl CheckResult {
    /// √
    pub fn ok(message: impl Into<String>) -> CheckResult {
        CheckResult { status: CheckStatus::Ok, message: message.into(), hint: None }
    }

    /// ‼
    pub fn warning(message: impl Into<String>, hint: impl Into<String>) -> CheckResult {
        let hint = Some(hint.into());
        CheckResult { status: CheckStatus::Warning, message: message.into(), hint }
    }

    /// ×
    pub fn error(message: impl Into<String>, hint: impl Into<String>) -> CheckResult {
        let hint = Some(hint.into());
        CheckResult { status: CheckStatus::Error, message: message.into(), hint }
    }
}

/// An error of the admin API.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiError {
    /// What happened.
    pub error: ApiErrorBody,
}

/// What happened.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiErrorBody {
    /// One of [`crate::error::Failure::word`]'s words.
    pub code: String,
    /// In words.
    pub message: String,
}

/// `DELETE /api/v1/registry/{name}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Removed {
    /// Name that is free now.
    pub removed: String,
}
