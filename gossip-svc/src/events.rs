//! Membership events onto the bus. Every observer tells what it saw.

use crate::{
    core::{Event, Happening},
    rpc,
};
use bytes::Bytes;
use kit::bus::Bus;
use prometheus_client::metrics::counter::Counter;
use prost::Message as _;
use proto::subjects::Fact;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Events that wait for the bus; more are dropped and counted, for views are the truth.
const QUEUE: usize = 256;

/// The driver's end: never waits.
#[derive(Debug)]
pub(crate) struct Events {
    queue: mpsc::Sender<(String, Bytes)>,
    cluster: String,
    dropped: Counter,
}

impl Events {
    /// The queue and the task that empties it into the bus.
    pub(crate) fn new(
        bus: Arc<dyn Bus>,
        cluster: String,
        dropped: Counter,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let events = Self { queue, cluster, dropped: dropped.clone() };
        (events, forward(bus, waiting, dropped))
    }

    pub(crate) fn tell(&self, events: &[Event]) {
        for event in events {
            let member = &event.member;
            tracing::info!(what = ?event.what, node = member.node, generation = member.generation, phi = member.phi, "member");
            let payload = rpc::encode_member(member).encode_to_vec().into();
            if self.queue.try_send((fact(event.what).subject(&self.cluster), payload)).is_err() {
                self.dropped.inc();
            }
        }
    }
}

async fn forward(bus: Arc<dyn Bus>, mut waiting: mpsc::Receiver<(String, Bytes)>, dropped: Counter) {
    while let Some((subject, payload)) = waiting.recv().await {
        if let Err(error) = bus.publish(&subject, payload).await {
            tracing::debug!(%error, subject, "event not told");
            dropped.inc();
        }
    }
}

fn fact(what: Happening) -> Fact {
    match what {
        Happening::Joined => Fact::MemberJoined,
        Happening::Suspected => Fact::MemberSuspected,
        Happening::Died => Fact::MemberDied,
        Happening::Left => Fact::MemberLeft,
    }
}
