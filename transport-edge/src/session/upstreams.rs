//! A session's conversations with backends: opened on first use, resumed after an adoption.

use super::{
    live::{Live, Scope},
    stream::Source,
};
use crate::{
    backend::{Backend, BackendError, CallMeta, Core, FromBackend, Peer, RawId, Said, Unsolicited, Upstream},
    core::jsonrpc::{Envelope, Kind, scan},
    front::ask_client,
};
use bytes::Bytes;
use parking_lot::Mutex;
use proto::edge::UpstreamRecord;
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Instant,
};
use tokio::sync::{OnceCell, mpsc};

/// Unsolicited messages that wait to be logged.
const EVENTS_MAX: usize = 256;

/// The upstreams of one session, by backend.
pub(crate) struct Upstreams {
    slots: Mutex<HashMap<String, Arc<OnceCell<Upstream>>>>,
    resume: Mutex<HashMap<String, UpstreamRecord>>,
}

impl Upstreams {
    /// None is open; what `records` name can be resumed.
    pub(crate) fn new(records: &[UpstreamRecord]) -> Self {
        let resume = records.iter().map(|record| (record.backend.clone(), record.clone())).collect();
        Upstreams { slots: Mutex::default(), resume: Mutex::new(resume) }
    }

    /// An upstream that is open.
    pub(crate) fn ready(&self, backend: &str) -> Option<Upstream> {
        self.slots.lock().get(backend)?.get().cloned()
    }

    /// All that are open.
    pub(crate) fn open(&self) -> Vec<(String, Upstream)> {
        let slots = self.slots.lock();
        slots.iter().filter_map(|(name, slot)| Some((name.clone(), slot.get()?.clone()))).collect()
    }

    /// Forgets one; the next use opens another.
    pub(crate) fn forget(&self, backend: &str) {
        self.slots.lock().remove(backend);
    }

    /// Leaves the sessions that backends hold alive when the upstreams close.
    pub(crate) fn keep(&self) {
        for (_, upstream) in self.open() {
            upstream.keep();
        }
    }

    /// Forgets all.
    pub(crate) fn clear(&self) {
        self.slots.lock().clear();
    }

    /// The upstream to a backend, opened if need be. Concurrent callers share one opening.
    pub(crate) async fn get(
        &self,
        live: &Arc<Live>,
        backend: &Arc<Backend>,
        core: Core,
        now: Instant,
    ) -> Result<Upstream, BackendError> {
        if let Some(upstream) = self.ready(backend.name()) {
            return Ok(upstream);
        }
        let slot = self.slots.lock().entry(backend.name().to_owned()).or_default().clone();
        let opened = Box::pin(slot.get_or_try_init(|| self.open_one(live, backend, core, now))).await;
        opened.cloned()
    }

    async fn open_one(
        &self,
        live: &Arc<Live>,
        backend: &Arc<Backend>,
        core: Core,
        now: Instant,
    ) -> Result<Upstream, BackendError> {
        let (events, inbox) = mpsc::channel(EVENTS_MAX);
        let record = live.record();
        let resume = self.resume.lock().remove(backend.name());
        let resumed = resume.is_some();
        let peer = Peer {
            session: Some(live.hash.clone()),
            protocol_version: live.version.as_str().to_owned(),
            client_info: record.client_info.clone(),
            capabilities: record.client_capabilities.clone(),
            resume,
            events,
        };
        let upstream = backend.open(peer).await?;
        tokio::spawn(follow(Arc::downgrade(live), backend.name().to_owned(), inbox));
        restore(live, backend.name(), &upstream, core, now).await;
        remember(live, upstream.record()).await;
        let fresh = !resumed && live.epoch > 1;
        if fresh && live.scope != Scope::All {
            // What it offers may differ from what the one at the lost node did (K29).
            announce_lists(live).await;
        }
        Ok(upstream)
    }
}

/// Brings a fresh upstream to the state that the session had: log level, subscriptions.
async fn restore(live: &Live, backend: &str, upstream: &Upstream, core: Core, now: Instant) {
    let record = live.record();
    if !record.log_level.is_empty() {
        let params = serde_json::json!({ "level": record.log_level });
        tell(upstream, core, "logging/setLevel", &params, now).await;
    }
    for subscription in record.subscriptions.iter().filter(|subscription| subscription.backend == backend) {
        let params = serde_json::json!({ "uri": subscription.uri });
        tell(upstream, core, "resources/subscribe", &params, now).await;
    }
}

/// A request of the edge's own, whose answer does not matter beyond having come.
pub(crate) async fn tell(
    upstream: &Upstream,
    core: Core,
    method: &str,
    params: &serde_json::Value,
    now: Instant,
) {
    let body = serde_json::json!({ "jsonrpc": "2.0", "id": "swarm", "method": method, "params": params });
    let raw = Bytes::from(body.to_string());
    let Ok(envelope) = scan(&raw) else { return };
    let meta = CallMeta { deadline: now + std::time::Duration::from_secs(5), headers: Vec::new() };
    let Ok(mut exchange) = upstream.request(core, raw, &envelope, Default::default(), meta).await else {
        return;
    };
    while let Some(Ok(message)) = exchange.next().await {
        if matches!(message, FromBackend::Response { .. }) {
            return;
        }
    }
}

/// Keeps what another edge needs to go on with the backend's own session.
async fn remember(live: &Live, upstream: UpstreamRecord) {
    if upstream.session_id.is_empty() {
        return;
    }
    let kept = live.update(|record| {
        record.upstreams.retain(|known| known.backend != upstream.backend);
        record.upstreams.push(upstream);
    });
    if let Err(error) = kept.await {
        tracing::warn!(session = live.hash, %error, "the upstream's session is not kept: an adopting edge will open another");
    }
}

async fn announce_lists(live: &Live) {
    for kind in ["tools", "prompts", "resources"] {
        let body = format!(r#"{{"jsonrpc":"2.0","method":"notifications/{kind}/list_changed"}}"#);
        to_standing(live, body.into(), None).await;
    }
}

/// Takes what a backend says outside of requests to the standing stream.
async fn follow(live: Weak<Live>, backend: String, mut inbox: mpsc::Receiver<Unsolicited>) {
    while let Some(event) = inbox.recv().await {
        let Some(live) = live.upgrade().filter(|live| !live.is_ended()) else { return };
        match event {
            Unsolicited::Message(said) => {
                let Said { raw, envelope, last_event_id } = *said;
                let source = last_event_id.map(|event| Source { backend: backend.clone(), event });
                match envelope.kind {
                    Kind::Notification => notification(&live, raw, &envelope, source).await,
                    Kind::Request => request(&live, &backend, raw, &envelope, source).await,
                    Kind::Response | Kind::Error => {}
                }
            }
            Unsolicited::Reopened => {
                if let Some(upstream) = live.upstreams.ready(&backend) {
                    remember(&live, upstream.record()).await;
                }
                announce_lists(&live).await;
            }
            Unsolicited::Gone { reason } => {
                tracing::info!(
                    session = live.hash,
                    backend,
                    reason,
                    "upstream is gone; the next use opens another"
                );
                live.upstreams.forget(&backend);
            }
        }
    }
}

async fn notification(live: &Live, raw: Bytes, envelope: &Envelope, source: Option<Source>) {
    let method = envelope.method(&raw);
    // The aggregate's lists change when the catalog does, which the front tells.
    if live.scope == Scope::All && method.ends_with("/list_changed") {
        return;
    }
    to_standing(live, raw, source).await;
}

async fn request(live: &Arc<Live>, backend: &str, raw: Bytes, envelope: &Envelope, source: Option<Source>) {
    let Some(upstream) = live.upstreams.ready(backend) else { return };
    let Some(id) = envelope.id(&raw) else { return };
    let id = RawId(raw.slice_ref(id));
    let asked = ask_client(live, upstream, &raw, envelope, id);
    to_standing(live, asked, source).await;
}

/// Sends on the standing stream if the client ever opened it; the protocol has no other place.
pub(crate) async fn to_standing(live: &Live, message: Bytes, source: Option<Source>) {
    let Some(stream) = live.standing() else { return };
    if let Err(error) = stream.send(live, message, source).await {
        tracing::warn!(session = live.hash, %error, "a message for the standing stream is lost");
    }
}
