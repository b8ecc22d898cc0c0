//! Upstreams that all modern clients of this edge share.

use super::{edge::Edge, modern::refuse_request};
use crate::{
    backend::{Backend, BackendError, Core, Peer, RawId, Unsolicited, Upstream},
    core::{
        era::Legacy,
        jsonrpc::{Envelope, Field, Kind},
    },
    session::tell,
};
use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use kit::backoff::Backoff;
use parking_lot::RwLock;
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::sync::{OnceCell, mpsc};

/// Unsolicited messages that wait.
const EVENTS_MAX: usize = 256;

/// One upstream per backend.
#[derive(Default)]
pub(crate) struct Shared(RwLock<HashMap<String, Arc<OnceCell<Upstream>>>>);

impl Shared {
    /// The shared upstream to a backend, opened if need be.
    pub(crate) async fn get(
        &self,
        edge: &Arc<Edge>,
        backend: &Arc<Backend>,
    ) -> Result<Upstream, BackendError> {
        if let Some(upstream) = self.ready(backend.name()) {
            return Ok(upstream);
        }
        let slot = self.0.write().entry(backend.name().to_owned()).or_default().clone();
        let opened = slot.get_or_try_init(|| open(edge, backend)).await;
        opened.cloned()
    }

    /// One that is open.
    pub(crate) fn ready(&self, backend: &str) -> Option<Upstream> {
        self.0.read().get(backend)?.get().cloned()
    }

    fn forget(&self, backend: &str) {
        self.0.write().remove(backend);
    }

    /// Closes all.
    pub(crate) fn clear(&self) {
        self.0.write().clear();
    }
}

async fn open(edge: &Arc<Edge>, backend: &Arc<Backend>) -> Result<Upstream, BackendError> {
    let (events, inbox) = mpsc::channel(EVENTS_MAX);
    let peer = Peer {
        session: None,
        protocol_version: Legacy::LATEST.as_str().to_owned(),
        client_info: Bytes::new(),
        capabilities: Bytes::new(),
        resume: None,
        events,
    };
    let upstream = backend.open(peer).await?;
    tokio::spawn(follow(Arc::downgrade(edge), backend.name().to_owned(), inbox));
    Ok(upstream)
}

/// Takes what a backend says outside of requests to the clients that listen.
async fn follow(edge: Weak<Edge>, backend: String, mut inbox: mpsc::Receiver<Unsolicited>) {
    while let Some(event) = inbox.recv().await {
        let Some(edge) = edge.upgrade() else { return };
        match event {
            Unsolicited::Message(said) => message(&edge, &backend, &said.raw, &said.envelope).await,
            Unsolicited::Reopened => {
                for uri in edge.listeners.watched(&backend) {
                    edge.listeners.updated(&backend, &uri);
                }
            }
            Unsolicited::Gone { reason } => {
                tracing::info!(backend, reason, "shared upstream is gone; the next use opens another");
                edge.shared.forget(&backend);
                tokio::spawn(watch_again(Arc::downgrade(&edge), backend.clone()));
            }
        }
    }
}

/// Subscriptions end with their upstream: somebody still listens, so another is opened, and what
/// is watched counts as changed.
fn watch_again(edge: Weak<Edge>, backend: String) -> BoxFuture<'static, ()> {
    // Boxed, for opening an upstream starts a task that may come here again.
    look_again(edge, backend).boxed()
}

async fn look_again(edge: Weak<Edge>, backend: String) {
    let mut backoff = Backoff::random(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        tokio::time::sleep(backoff.next()).await;
        let Some(edge) = edge.upgrade() else { return };
        let watched = edge.listeners.watched(&backend);
        let Some(found) = edge.backends.get(&backend).filter(|_| !watched.is_empty()) else { return };
        let Ok(upstream) = edge.shared.get(&edge, &found).await else { continue };
        for uri in watched {
            let core = Core(edge.relay_core());
            tell(
                &upstream,
                core,
                "resources/subscribe",
                &serde_json::json!({ "uri": uri }),
                edge.clock.now(),
            )
            .await;
            edge.listeners.updated(&backend, &uri);
        }
        return;
    }
}

async fn message(edge: &Arc<Edge>, backend: &str, raw: &Bytes, envelope: &Envelope) {
    match envelope.kind {
        Kind::Notification if envelope.method(raw) == "notifications/resources/updated" => {
            if let Some(uri) = envelope.text(raw, Field::Uri) {
                edge.listeners.updated(backend, &uri);
            }
        }
        Kind::Request => {
            let (Some(upstream), Some(id)) = (edge.shared.ready(backend), envelope.id(raw)) else { return };
            refuse_request(&upstream, raw, RawId(raw.slice_ref(id))).await;
        }
        _ => {}
    }
}
