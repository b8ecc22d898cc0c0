//! Typed calls to the services, wherever they run.

use crate::config::Config;
use gossip_client::{GossipClient, View};
use kit::{
    directory::{Instance, State},
    host::Context,
    rpc::{CallPolicy, call, with_deadline},
};
use proto::{
    coordinator::{
        ProposeRequest, ProposeResponse, StatusRequest, StatusResponse,
        coordinator_service_client::CoordinatorServiceClient,
    },
    edge::{
        Backend, BackendsRequest, SessionSummary, SessionsRequest, ToolsRequest,
        edge_service_client::EdgeServiceClient,
    },
    error::{Code, detail},
    ids::request_id,
};
use registry_client::RegistryClient;
use serde_json::Value;
use session_client::SessionClient;
use std::{collections::BTreeMap, time::Duration};
use tonic::Status;

/// For one question to one instance.
const DEADLINE: Duration = Duration::from_secs(2);
/// Sessions that are read from one edge.
const SESSIONS_MAX: usize = 10_000;

/// Answers by edge, and the edges that gave none with the reason.
pub struct ByEdge<T> {
    /// Name of the edge to its answer.
    pub answers: BTreeMap<String, T>,
    /// Name of the edge to what went wrong.
    pub missing: BTreeMap<String, String>,
}

/// Clients of every service.
#[derive(Clone)]
pub struct Clients {
    context: Context,
    gossip: GossipClient,
    /// Names.
    pub registry: RegistryClient,
    /// State by handle.
    pub session: SessionClient,
}

impl Clients {
    /// Clients that prefer the services of this very node.
    pub fn new(context: &Context, config: &Config) -> Clients {
        let (channels, directory) = (context.channels.clone(), context.directory.clone());
        let local = Some(context.node.clone());
        let mut gossip = config.node.gossip_endpoints.clone();
        if gossip.is_empty() {
            gossip.push(context.grpc_addr.to_string());
        }
        Clients {
            context: context.clone(),
            gossip: GossipClient::connect(channels.clone(), gossip),
            registry: RegistryClient::new(channels.clone(), directory.clone(), local.clone()),
            session: SessionClient::new(channels, directory, local),
        }
    }

    /// The membership.
    pub async fn members(&self) -> Result<View, Status> {
        self.gossip.members().await
    }

    /// The instances of a service, this node's first, dead ones last.
    pub fn instances(&self, service: &str) -> Vec<Instance> {
        let mut instances = self.context.directory.of(service);
        let own = &self.context.node;
        instances.sort_by_key(|i| (i.state == State::Down, i.name != *own, i.name.clone()));
        instances
    }

    /// Raft as the first coordinator that answers sees it.
    pub async fn raft(&self) -> Result<StatusResponse, Status> {
        let mut last = Code::Unavailable.status("no coordinator is known", &[]);
        for instance in self.instances("coordinator") {
            let asked = self.raft_at(&instance.addr).await;
            match asked {
                Ok(status) => return Ok(status),
                Err(status) => last = status,
            }
        }
        Err(last)
    }

    async fn raft_at(&self, addr: &str) -> Result<StatusResponse, Status> {
        let policy = CallPolicy::once(DEADLINE);
        call(&policy, &self.context.channels, addr, |channel, left| async move {
            let request = with_deadline(StatusRequest {}, left);
            CoordinatorServiceClient::new(channel).status(request).await
        })
        .await
    }

    /// Commits a value through the leader.
    pub async fn commit(&self, key: &str, value: String) -> Result<ProposeResponse, Status> {
        let mut leader = self.raft().await?.leader_addr;
        let request = ProposeRequest {
            request_id: request_id(),
            key: key.to_owned(),
            value: Some(value.into()),
            expected_revision: None,
        };
        // One more try when the leadership moved meanwhile.
        for _ in 0..2 {
            if leader.is_empty() {
                break;
            }
            match self.propose(&leader, &request).await {
                Err(status) if Code::of(&status) == Code::NotLeader => {
                    leader = detail(&status, "leader_addr").unwrap_or_default();
                }
                settled => return settled,
            }
        }
        Err(Code::Unavailable.status("there is no leader", &[]))
    }

    async fn propose(&self, addr: &str, request: &ProposeRequest) -> Result<ProposeResponse, Status> {
        let policy = CallPolicy::idempotent(DEADLINE);
        call(&policy, &self.context.channels, addr, |channel, left| {
            let request = with_deadline(request.clone(), left);
            async move { CoordinatorServiceClient::new(channel).propose(request).await }
        })
        .await
    }

    /// What every living edge knows of its backends.
    pub async fn backends(&self) -> ByEdge<Vec<Backend>> {
        self.each_edge(|addr| async move {
            let policy = CallPolicy::idempotent(DEADLINE);
            let answer = call(&policy, &self.context.channels, &addr, |channel, left| async move {
                let request = with_deadline(BackendsRequest {}, left);
                EdgeServiceClient::new(channel).backends(request).await
            });
            Ok(answer.await?.backends)
        })
        .await
    }

    /// The sessions of every living edge.
    pub async fn sessions(&self) -> ByEdge<Vec<SessionSummary>> {
        self.each_edge(|addr| async move { self.sessions_at(&addr).await }).await
    }

    async fn sessions_at(&self, addr: &str) -> Result<Vec<SessionSummary>, Status> {
        let mut sessions = Vec::new();
        let mut page_token = String::new();
        let policy = CallPolicy::idempotent(DEADLINE);
        while sessions.len() < SESSIONS_MAX {
            let request = SessionsRequest { page_size: 1000, page_token };
            let page = call(&policy, &self.context.channels, addr, |channel, left| {
                let request = with_deadline(request.clone(), left);
                async move { EdgeServiceClient::new(channel).sessions(request).await }
            });
            let page = page.await?;
            sessions.extend(page.sessions);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        Ok(sessions)
    }

    /// The aggregated tools as the first edge that answers lists them.
    pub async fn tools(&self) -> Result<Vec<Value>, Status> {
        let mut last = Code::Unavailable.status("no edge is known", &[]);
        for instance in self.instances("edge") {
            let policy = CallPolicy::idempotent(Duration::from_secs(15));
            let channels = &self.context.channels;
            let asked = call(&policy, channels, &instance.addr, |channel, left| async move {
                let request = with_deadline(ToolsRequest {}, left);
                EdgeServiceClient::new(channel).tools(request).await
            });
            match asked.await {
                Ok(answer) => {
                    let tools = answer.tools.iter();
                    return Ok(tools.filter_map(|t| serde_json::from_slice(t).ok()).collect());
                }
                Err(status) => last = status,
            }
        }
        Err(last)
    }

    async fn each_edge<T, F>(&self, ask: impl Fn(String) -> F) -> ByEdge<T>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let edges = self.instances("edge");
        let living = edges.into_iter().filter(|edge| edge.state != State::Down);
        let asked = living.map(|edge| {
            let answer = ask(edge.addr.clone());
            async move { (edge.name, answer.await) }
        });
        let mut by_edge = ByEdge { answers: BTreeMap::new(), missing: BTreeMap::new() };
        for (edge, answer) in futures::future::join_all(asked).await {
            match answer {
                Ok(answer) => {
                    by_edge.answers.insert(edge, answer);
                }
                Err(status) => {
                    by_edge.missing.insert(edge, status.message().to_owned());
                }
            }
        }
        by_edge
    }
}
