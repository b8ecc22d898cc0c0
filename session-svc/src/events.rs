//! What others are told over the bus. A lost fact costs nothing: caches are leased.

use bytes::Bytes;
use kit::{Context, Tasks, bus::Bus};
use prost::Message as _;
use proto::{session as wire, subjects::Fact};
use session_client::SessionId;
use std::sync::Arc;

/// Publishes facts without making anybody wait.
#[derive(Clone)]
pub(crate) struct Facts {
    bus: Arc<dyn Bus>,
    tasks: Tasks,
    cluster: String,
}

impl Facts {
    pub(crate) fn new(ctx: &Context) -> Self {
        Facts { bus: ctx.bus.clone(), tasks: ctx.tasks.clone(), cluster: ctx.cluster.clone() }
    }

    /// A session ended on request.
    pub(crate) fn deleted(&self, id: &SessionId) {
        self.publish(Fact::SessionDeleted, id, true);
    }

    /// A session's logs were fenced for a new anchor.
    pub(crate) fn moved(&self, id: &SessionId) {
        self.publish(Fact::SessionMoved, id, false);
    }

    fn publish(&self, fact: Fact, id: &SessionId, deleted: bool) {
        let session = wire::Session { id: id.to_string(), deleted, ..wire::Session::default() };
        let (bus, subject) = (self.bus.clone(), fact.subject(&self.cluster));
        self.tasks.detach("session-facts", async move {
            let payload = Bytes::from(session.encode_to_vec());
            if let Err(error) = bus.publish(&subject, payload).await {
                tracing::debug!(%error, subject, "a fact was not published");
            }
        });
    }
}
