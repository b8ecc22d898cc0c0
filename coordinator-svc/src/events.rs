//! Facts for the bus. A lost fact is repaired by whoever asks the service.

use kit::bus::Bus;
use prost::Message;
use proto::{coordinator as wire, subjects::Fact};
use std::sync::Arc;

/// Says facts of this service.
#[derive(Clone)]
pub(crate) struct Facts {
    bus: Arc<dyn Bus>,
    cluster: String,
}

impl Facts {
    /// Facts of a cluster.
    pub(crate) fn new(bus: Arc<dyn Bus>, cluster: String) -> Facts {
        Facts { bus, cluster }
    }

    /// This member was elected.
    pub(crate) async fn leader_elected(&self, status: wire::StatusResponse) {
        self.say(Fact::LeaderElected, status.encode_to_vec()).await;
    }

    /// A task reached a terminal state.
    pub(crate) async fn task_completed(&self, task: wire::Task) {
        self.say(Fact::TaskCompleted, task.encode_to_vec()).await;
    }

    async fn say(&self, fact: Fact, payload: Vec<u8>) {
        let subject = fact.subject(&self.cluster);
        if let Err(error) = self.bus.publish(&subject, payload.into()).await {
            tracing::debug!(%error, subject, "fact not published");
        }
    }
}
