//! What every request handler of this edge shares.

use crate::{
    Config,
    backend::Backends,
    core::headers::Names,
    metrics::EdgeMetrics,
    session::{SessionStore, Sessions},
};
use http::HeaderMap;
use kit::{Clock, Directory, Shutdown, rpc::Channels};
use std::{borrow::Cow, sync::Arc, time::Instant};

use super::{kill::Kill, listen::Listeners, shared::Shared};

/// The edge as its handlers see it.
pub(crate) struct Edge {
    /// Name of the node.
    pub(crate) name: String,
    /// Its configuration.
    pub(crate) config: Config,
    /// Who may call.
    pub(crate) names: Names,
    /// Time.
    pub(crate) clock: Arc<dyn Clock>,
    /// When it started; times in ms count from here.
    pub(crate) origin: Instant,
    /// The backends.
    pub(crate) backends: Backends,
    /// Where sessions are kept.
    pub(crate) store: Arc<dyn SessionStore>,
    /// Sessions that are live here.
    pub(crate) sessions: Sessions,
    /// Anchors of sessions that are elsewhere.
    pub(crate) anchors: crate::relay::Anchors,
    /// Adoptions under way.
    pub(crate) adoptions: crate::relay::Adoptions,
    /// Other edges.
    pub(crate) directory: Directory,
    /// Channels to them.
    pub(crate) channels: Channels,
    /// What is counted.
    pub(crate) metrics: EdgeMetrics,
    /// The stop of the node.
    pub(crate) shutdown: Shutdown,
    /// Upstreams that all modern clients share.
    pub(crate) shared: Shared,
    /// Open `subscriptions/listen` streams.
    pub(crate) listeners: Listeners,
    /// What an operator has switched off.
    pub(crate) kill: Kill,
}

impl Edge {
    /// Now, in ms since the edge started.
    pub(crate) fn now_ms(&self) -> u64 {
        let since = self.clock.now().saturating_duration_since(self.origin);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// The index of the cells and pools that relayed requests use.
    pub(crate) fn relay_core(&self) -> usize {
        self.config.event_loops()
    }
}

/// On whose behalf a request is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal(pub Cow<'static, str>);

/// Resolves who calls, once per request. There is no authentication yet: everybody is
/// `anonymous`, and a session is bound to that.
pub(crate) fn principal(_headers: &HeaderMap) -> Principal {
    Principal(Cow::Borrowed("anonymous"))
}
