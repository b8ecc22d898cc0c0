//! Typed calls with deadlines, to the endpoint in use.

use crate::{
    feed::{self, Feed},
    publisher::{self, Publisher},
    view::{Member, Members, View},
};
use kit::{
    directory::{DirectoryWriter, Instance, State},
    host::Context,
    rpc::{CallPolicy, Channel, Channels, call, with_deadline},
    supervise::Policy,
};
use proto::{
    error::Code,
    gossip::{
        FactsRequest, LeaveRequest, MembersRequest, PublishRequest, ServiceInstance,
        gossip_service_client::GossipServiceClient,
    },
    ids::request_id,
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;
use tonic::Status;

/// Longest wait for one endpoint: below the renewal interval, so that the next one gets its turn.
const DEADLINE: Duration = Duration::from_millis(800);

/// Talks to gossip-svc. Clones share the endpoint in use.
#[derive(Debug, Clone)]
pub struct GossipClient {
    channels: Channels,
    endpoints: Arc<[String]>,
    in_use: Arc<AtomicUsize>,
}

impl GossipClient {
    /// A client of the first of `endpoints` (host:port of gRPC) that answers. Connects at the
    /// first call.
    pub fn connect(channels: Channels, endpoints: Vec<String>) -> Self {
        Self { channels, endpoints: endpoints.into(), in_use: Arc::default() }
    }

    /// Keeps the directory equal to the membership and publishes what the node announces, until
    /// the node stops. Then the announced services are told to be down.
    pub fn spawn(self, ctx: &Context, writer: DirectoryWriter) -> Members {
        let (views, shown) = watch::channel(Arc::new(View::default()));
        let ready = ctx.readiness.condition("directory");
        let feed = Arc::new(Feed { client: self.clone(), writer, views, clock: ctx.clock.clone(), ready });
        ctx.tasks.supervise("gossip-feed", Policy::POOL, {
            let shutdown = ctx.shutdown.clone();
            move || feed::run(feed.clone(), shutdown.clone())
        });
        let publisher = Publisher { client: self, announce: ctx.announce.clone() };
        let shutdown = ctx.shutdown.clone();
        ctx.tasks.supervise("gossip-publisher", Policy::POOL, move || {
            publisher::run(publisher.clone(), shutdown.clone())
        });
        Members::new(shown)
    }

    /// The membership now.
    ///
    /// # Errors
    /// `UNAVAILABLE` when no endpoint answers.
    pub async fn members(&self) -> Result<View, Status> {
        let answer = self.each(|channel, left| async move {
            GossipServiceClient::new(channel).members(with_deadline(MembersRequest {}, left)).await
        });
        let answer = answer.await?;
        let members = answer.members.into_iter().map(Member::from).collect();
        Ok(View { members, own: answer.self_, version: answer.view_version, stale_since: None })
    }

    /// The facts of one member.
    ///
    /// # Errors
    /// `NOT_FOUND` when there is no such member.
    pub async fn facts(&self, node: &str) -> Result<BTreeMap<String, String>, Status> {
        let node = node.to_owned();
        let answer = self.each(move |channel, left| {
            let request = with_deadline(FactsRequest { node: node.clone() }, left);
            async move { GossipServiceClient::new(channel).facts(request).await }
        });
        Ok(answer.await?.facts)
    }

    /// Publishes services for `ttl` (1 to 60 s) and removes `withdrawn` (service and name count).
    /// Repeating it renews the lease. An instance with [`State::Down`] is told to be down.
    ///
    /// # Errors
    /// `FENCED` when a newer generation of an instance is published; `INVALID_ARGUMENT`,
    /// `EXHAUSTED` by the limits of gossip-svc. Nothing was applied then.
    pub async fn publish(
        &self,
        services: &[Instance],
        withdrawn: &[Instance],
        ttl: Duration,
    ) -> Result<(), Status> {
        let encode = |instances: &[Instance]| instances.iter().cloned().map(encode).collect::<Vec<_>>();
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let message = PublishRequest { services: encode(services), ttl_ms, withdrawn: encode(withdrawn) };
        let answer = self.each(move |channel, left| {
            let request = with_deadline(message.clone(), left);
            async move { GossipServiceClient::new(channel).publish(request).await }
        });
        answer.await.map(drop)
    }

    /// Makes the node of the endpoint in use leave the cluster, for as long as it is not
    /// restarted.
    ///
    /// # Errors
    /// `UNAVAILABLE` when no endpoint answers.
    pub async fn leave(&self) -> Result<(), Status> {
        let request_id = request_id();
        let answer = self.each(move |channel, left| {
            let request = with_deadline(LeaveRequest { request_id: request_id.clone() }, left);
            async move { GossipServiceClient::new(channel).leave(request).await }
        });
        answer.await.map(drop)
    }

    /// Calls the endpoint in use; when it is away, the others in their order.
    async fn each<T, F, Fut>(&self, mut make: F) -> Result<T, Status>
    where
        F: FnMut(Channel, Duration) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let first = self.in_use.load(Ordering::Relaxed);
        let order = std::iter::once(first).chain((0..self.endpoints.len()).filter(|index| *index != first));
        let mut last = Code::Unavailable.status("no gossip endpoint is configured", &[]);
        for index in order {
            let Some(endpoint) = self.endpoints.get(index) else { continue };
            match call(&CallPolicy::once(DEADLINE), &self.channels, endpoint, &mut make).await {
                Ok(answer) => return Ok(answer),
                Err(status) if is_away(&status) => last = status,
                Err(status) => return Err(status),
            }
        }
        Err(last)
    }

    /// The endpoint at an index, and its channel.
    pub(crate) fn endpoint(&self, index: usize) -> Option<(&str, Channel)> {
        let endpoint = self.endpoints.get(index)?;
        Some((endpoint, self.channels.get(endpoint)))
    }

    pub(crate) fn endpoints(&self) -> usize {
        self.endpoints.len()
    }

    /// Calls go to this endpoint first from now on.
    pub(crate) fn prefer(&self, index: usize) {
        self.in_use.store(index, Ordering::Relaxed);
    }
}

/// Every call of gossip may be repeated elsewhere, so an unknown outcome is as good as none.
pub(crate) fn is_away(status: &Status) -> bool {
    matches!(Code::of(status), Code::Unavailable | Code::OutcomeUnknown)
}

fn encode(instance: Instance) -> ServiceInstance {
    let Instance { service, name, addr, generation, zone, state, meta } = instance;
    let down = state == State::Down;
    ServiceInstance { service, instance: name, grpc_addr: addr, generation, zone, meta, down }
}
