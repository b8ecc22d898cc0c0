//! Raft id -> instance -> address, from the directory and the configured peers.
//!
//! An id belongs to a disk, a name to an instance: after a disk was lost the same name shows a
//! new id, and nothing is sent to the old one any more.

use crate::core::bootstrap::Candidate;
use futures::future::join_all;
use kit::{
    directory::{Directory, State},
    rpc::{Channels, with_deadline},
};
use parking_lot::RwLock;
use proto::coordinator::{
    StatusRequest, StatusResponse, coordinator_service_client::CoordinatorServiceClient,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// The service's name in the directory.
pub const SERVICE: &str = "coordinator";
/// Where an announced instance says its Raft id.
pub const META_RAFT_ID: &str = "raft_id";
const ASK: Duration = Duration::from_millis(500);

/// A coordinator instance whose Raft id is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its Raft id.
    pub raft_id: u64,
    /// Its name.
    pub name: String,
    /// host:port of its gRPC.
    pub addr: String,
    /// Whether it seems alive.
    pub up: bool,
}

/// The other instances; clones share what is known.
#[derive(Clone)]
pub struct Peers {
    own: Arc<Peer>,
    directory: Directory,
    channels: Channels,
    fixed: Arc<BTreeMap<String, String>>,
    known: Arc<RwLock<BTreeMap<u64, Peer>>>,
}

struct Endpoint {
    name: String,
    addr: String,
    up: bool,
    raft_id: Option<u64>,
}

impl Peers {
    /// Knows only this instance. `fixed` are configured peers, name -> host:port.
    pub fn new(
        own: Peer,
        directory: Directory,
        channels: Channels,
        fixed: BTreeMap<String, String>,
    ) -> Peers {
        let known = BTreeMap::from([(own.raft_id, own.clone())]);
        Peers {
            own: Arc::new(own),
            directory,
            channels,
            fixed: Arc::new(fixed),
            known: Arc::new(RwLock::new(known)),
        }
    }

    /// This instance.
    pub fn own(&self) -> &Peer {
        &self.own
    }

    /// Channels to them.
    pub fn channels(&self) -> &Channels {
        &self.channels
    }

    /// The instance that has a Raft id.
    pub fn get(&self, raft_id: u64) -> Option<Peer> {
        self.known.read().get(&raft_id).cloned()
    }

    /// Looks at the directory again, and asks those who do not say their id there.
    pub async fn refresh(&self) {
        let resolved = join_all(self.endpoints().into_iter().map(|endpoint| self.resolve(endpoint))).await;
        let mut known: BTreeMap<u64, Peer> =
            resolved.into_iter().flatten().map(|peer| (peer.raft_id, peer)).collect();
        known.insert(self.own.raft_id, (*self.own).clone());
        *self.known.write() = known;
    }

    /// Every live instance. Those that are members are not asked whether they have a history.
    pub async fn candidates(&self, members: &BTreeSet<u64>) -> Vec<Candidate> {
        let peers: Vec<Peer> = self.known.read().values().filter(|peer| peer.up).cloned().collect();
        let asked =
            peers.into_iter().filter(|peer| peer.raft_id != self.own.raft_id).map(|peer| async move {
                let pristine = !members.contains(&peer.raft_id) && {
                    let status =
                        self.ask(&peer.addr).await.filter(|status| status.raft_id == peer.raft_id)?;
                    status.term == 0 && status.last_log_index == 0 && status.voters.is_empty()
                };
                Some(Candidate { raft_id: peer.raft_id, name: peer.name, pristine })
            });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// The directory, to see its changes with: each clone sees every change once.
    pub fn directory(&self) -> Directory {
        self.directory.clone()
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        let announced = self.directory.of(SERVICE).into_iter().map(|instance| Endpoint {
            raft_id: instance.meta.get(META_RAFT_ID).and_then(|id| id.parse().ok()),
            name: instance.name,
            addr: instance.addr,
            up: instance.state != State::Down,
        });
        let announced: BTreeMap<String, Endpoint> =
            announced.map(|endpoint| (endpoint.name.clone(), endpoint)).collect();
        let fixed = self.fixed.iter().filter(|(name, _)| !announced.contains_key(*name));
        let fixed: Vec<Endpoint> = fixed
            .map(|(name, addr)| Endpoint { name: name.clone(), addr: addr.clone(), up: true, raft_id: None })
            .collect();
        announced.into_values().chain(fixed).filter(|endpoint| endpoint.name != self.own.name).collect()
    }

    async fn resolve(&self, endpoint: Endpoint) -> Option<Peer> {
        let Endpoint { name, addr, up, raft_id } = endpoint;
        if let Some(raft_id) = raft_id {
            return Some(Peer { raft_id, name, addr, up });
        }
        if let Some(status) = self.ask(&addr).await.filter(|status| status.instance == name) {
            return Some(Peer { raft_id: status.raft_id, name, addr, up });
        }
        let before = self.known.read().values().find(|peer| peer.name == name)?.raft_id;
        Some(Peer { raft_id: before, name, addr, up: false })
    }

    async fn ask(&self, addr: &str) -> Option<StatusResponse> {
        let mut client = CoordinatorServiceClient::new(self.channels.get(addr));
        let answer = tokio::time::timeout(ASK, client.status(with_deadline(StatusRequest {}, ASK))).await;
        Some(answer.ok()?.ok()?.into_inner())
    }
}
