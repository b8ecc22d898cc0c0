//! The plain values that cross between front and back.

use crate::core::jsonrpc::Envelope;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use proto::{edge::UpstreamRecord, registry::BackendSpec};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, watch};

/// Every backend that should be there, by name. The registry's mirror feeds it; a fixed list
/// serves tests and edges without a registry.
pub type Definitions = watch::Receiver<Arc<BTreeMap<String, BackendSpec>>>;

/// Which protocol a backend speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// 2024-11-05 to 2025-11-25: `initialize`, sessions.
    Legacy,
    /// 2026-07-28: every request stands alone.
    Modern,
}

impl Era {
    /// The word in views and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Era::Legacy => "legacy",
            Era::Modern => "modern",
        }
    }
}

/// Which per-core connection pool to use; the relay's runtime is the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Core(pub usize);

impl Core {
    /// For what is sent beside clients' requests, whichever thread sends it.
    pub const ASIDE: Core = Core(usize::MAX);
    /// How many slots there are for what each core has of its own.
    pub(crate) const SLOTS: usize = 65;

    /// The slot of this core; beside more cores than slots, they share some.
    pub(crate) fn slot(self) -> usize {
        let aside = Core::SLOTS - 1;
        if self == Core::ASIDE { aside } else { self.0 % aside }
    }
}

/// A JSON-RPC id as written: a string with its quotes, or an integer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RawId(pub Bytes);

/// For whom a conversation with a backend is held.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Hash of the downstream session id; `None` is shared by all modern clients of this edge.
    pub session: Option<String>,
    /// Legacy version wanted upstream: the one the client negotiated.
    pub protocol_version: String,
    /// `clientInfo` as raw JSON; empty for shared.
    pub client_info: Bytes,
    /// Client capabilities as raw JSON; empty means `{}`.
    pub capabilities: Bytes,
    /// Go on with the backend's own HTTP session instead of opening one.
    pub resume: Option<UpstreamRecord>,
    /// Messages that belong to no request. Bounded; when full, notifications are dropped and
    /// counted, requests are refused to the backend.
    pub events: mpsc::Sender<Unsolicited>,
}

/// What a backend says outside of any request.
#[derive(Debug, Clone)]
pub enum Unsolicited {
    /// A notification, or a request (its id is `envelope.id`; answer by [`RawId`] of it).
    Message(Box<Said>),
    /// The backend forgot the session and a new one was opened in its place, with the same log
    /// level and subscriptions: `Upstream::record` says something new.
    Reopened,
    /// The process died or the session ended. Drop the upstream; the next use opens another.
    Gone {
        /// In words.
        reason: String,
    },
}

/// A message outside of any request. Boxed, because the queue that it waits in is a session's
/// own and mostly empty.
#[derive(Debug, Clone)]
pub struct Said {
    /// As it came.
    pub raw: Bytes,
    /// Its scan.
    pub envelope: Envelope,
    /// The backend's event id, for [`UpstreamRecord::last_event_id`].
    pub last_event_id: Option<String>,
}

/// What accompanies one request.
#[derive(Debug, Clone)]
pub struct CallMeta {
    /// When the caller gives up.
    pub deadline: Instant,
    /// `Mcp-Param-*` of a modern client, forwarded to a modern HTTP backend as they came.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// What comes back for one request, with the client's id and progress token in place again.
#[derive(Debug, Clone)]
pub enum FromBackend {
    /// Always the last.
    Response {
        /// The answer.
        raw: Bytes,
        /// A JSON-RPC error.
        is_error: bool,
        /// A result with `isError: true`.
        tool_error: bool,
    },
    /// Progress, log and the like of this request.
    Notification {
        /// The notification.
        raw: Bytes,
    },
    /// Sampling, elicitation or roots asked during this request; `ping` is answered below.
    Request {
        /// The request as the backend sent it.
        raw: Bytes,
        /// Its id there: hand it to `Upstream::answer`.
        id: RawId,
    },
}

/// Limits and paths of the back. Section `[edge.backends]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackendsConfig {
    /// Backends that need no registry, by name, as `mcpServers` entries.
    pub fixed: BTreeMap<String, FixedBackend>,
    /// The binary whose hidden `backend-exec` runs stdio servers; empty is this executable.
    pub exec: PathBuf,
    /// Most processes of one stdio backend.
    pub max_processes: usize,
    /// A session's process ends after this long without a request, in ms.
    pub idle_ms: u64,
    /// Deadline of one list, ping or HTTP probe, in ms.
    pub probe_timeout_ms: u64,
    /// Deadline of an initialize, in ms: `npx` and `uvx` may download the server first.
    pub start_timeout_ms: u64,
    /// Commands that stdio servers may name; empty allows all that the registry names.
    pub allowed_commands: Vec<String>,
    /// Time between health pings, in ms.
    pub ping_interval_ms: u64,
    /// Most requests in flight on one upstream.
    pub max_in_flight: usize,
    /// Largest message from a backend, in bytes.
    pub max_message: usize,
    /// Largest pool of idle HTTP connections per core and backend.
    pub max_idle_connections: usize,
    /// A failing backend keeps its last good list for this long, in ms.
    pub list_grace_ms: u64,
    /// First and longest pause between restarts, in ms.
    pub restart_ms: [u64; 2],
}

/// One entry of [`BackendsConfig::fixed`]: `command` for stdio or `url` for HTTP.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FixedBackend {
    /// Program of a stdio server.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Added to its environment.
    pub env: BTreeMap<String, String>,
    /// Its working directory.
    pub cwd: String,
    /// Streamable HTTP endpoint.
    pub url: String,
    /// Headers of each request to it.
    pub headers: BTreeMap<String, String>,
    /// `per_connection`, `pooled` or empty.
    pub strategy: String,
    /// Deadline of one call in ms; 0 is the edge's default.
    pub call_timeout_ms: u32,
}

impl Default for BackendsConfig {
    fn default() -> Self {
        BackendsConfig {
            fixed: BTreeMap::new(),
            exec: PathBuf::new(),
            max_processes: 64,
            idle_ms: 600_000,
            probe_timeout_ms: 10_000,
            start_timeout_ms: 60_000,
            allowed_commands: Vec::new(),
            ping_interval_ms: 15_000,
            max_in_flight: 1024,
            max_message: 4 << 20,
            max_idle_connections: 256,
            list_grace_ms: 60_000,
            restart_ms: [250, 30_000],
        }
    }
}

impl BackendsConfig {
    pub(crate) fn probe_timeout(&self) -> Duration {
        Duration::from_millis(self.probe_timeout_ms)
    }

    pub(crate) fn start_timeout(&self) -> Duration {
        Duration::from_millis(self.start_timeout_ms)
    }

    pub(crate) fn idle(&self) -> Duration {
        Duration::from_millis(self.idle_ms)
    }
}
