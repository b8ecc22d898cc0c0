//! One member of the Raft group: propose, read, look, change the members.

use super::{
    log_store::LogStore,
    machine::{Event, Machine, View},
    network::Network,
    peers::Peers,
    types::{Member, TypeConfig},
};
use crate::{
    config::Timing,
    core::{
        bootstrap::{Change, Members, failure_tolerance},
        command::{Command, Outcome},
    },
};
use kit::clock::Clock;
use openraft::{
    ChangeMembers, Instant as _, Raft, RaftMetrics, ReadPolicy, ServerState, SnapshotPolicy,
    async_runtime::WatchReceiver,
    errors::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError},
    metrics::RaftServerMetrics,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Pause before an election that is under way is asked about again.
const RETRY: Duration = Duration::from_millis(10);
/// How long a snapshot may take on its way.
const SNAPSHOT: Duration = Duration::from_secs(60);
/// How long a membership change may take.
const CHANGE: Duration = Duration::from_secs(10);

/// Why a call was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Another member leads, or nobody does.
    #[error("this instance does not lead")]
    NotLeader {
        /// Name and address of the leader, if known.
        leader: Option<(String, String)>,
    },
    /// Nothing was applied.
    #[error("{0}")]
    Unavailable(String),
    /// The command may or may not be applied.
    #[error("{0}")]
    Unknown(String),
}

/// A command that was committed and applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its place in the log.
    pub index: u64,
    /// The leader's term.
    pub term: u64,
    /// What it did.
    pub outcome: Outcome,
}

/// What this member does in the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes proposals.
    Leader,
    /// Follows a leader.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Follows without a vote.
    Learner,
    /// Stopped.
    Down,
}

impl Role {
    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Candidate => "candidate",
            Role::Learner => "learner",
            Role::Down => "down",
        }
    }
}

/// A member with a vote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voter {
    /// Its Raft id.
    pub raft_id: u64,
    /// Its name.
    pub name: String,
    /// host:port of its gRPC.
    pub addr: String,
    /// At the leader: the last index known to be on its disk.
    pub matched: u64,
}

/// The group as this member sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// This member.
    pub raft_id: u64,
    /// What it does.
    pub role: Role,
    /// The newest term it knows.
    pub term: u64,
    /// Id, name and address of the leader.
    pub leader: Option<(u64, String, String)>,
    /// The last index in its log.
    pub last_log_index: u64,
    /// The last index known to be committed.
    pub committed: u64,
    /// The last index applied.
    pub applied: u64,
    /// Who votes.
    pub voters: Vec<Voter>,
    /// Voters that may be lost now.
    pub failure_tolerance: u32,
}

/// A handle; clones speak for the same member.
#[derive(Clone)]
pub struct Node {
    id: u64,
    raft: Raft<TypeConfig, Machine>,
    view: View,
    peers: Peers,
    timing: Timing,
    clock: Arc<dyn Clock>,
}

/// Where changes of role, leader and members are told.
pub struct Changes(openraft::alias::WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>);

impl Changes {
    /// Resolves at the next change, or when the member stopped.
    pub async fn changed(&mut self) {
        // An error means that the member is gone, which is a change too.
        let _ = self.0.changed().await;
    }
}

impl Node {
    /// Starts a member on its store. Its applied events come out of the receiver.
    pub async fn start(
        store: LogStore,
        peers: Peers,
        timing: Timing,
        snapshot_every: u64,
        clock: Arc<dyn Clock>,
    ) -> io::Result<(Node, mpsc::Receiver<Event>)> {
        let id = peers.own().raft_id;
        let config = library_config(&timing, snapshot_every)?;
        let network = Network::new(id, peers.clone());
        let (machine, view, events) = Machine::new(store.clone());
        let raft = Raft::new(id, config, network, store, machine).await.map_err(io::Error::other)?;
        let node = Node { id, raft, view, peers, timing, clock };
        node.lead_at_once_if_alone().await;
        Ok((node, events))
    }

    /// The state as applied here.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The library's handle, for the calls of other members.
    pub(super) fn raft(&self) -> &Raft<TypeConfig, Machine> {
        &self.raft
    }

    /// This member's id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Proposes a command and waits until it is applied here, until `end`.
    pub async fn write(&self, command: Command, end: Instant) -> Result<Written, CallError> {
        // Right after an election a leader refuses for a moment; this is waited out.
        let settled = end.min(self.clock.now() + self.timing.election_max);
        loop {
            let proposal = self.raft.client_write(command.clone());
            let Ok(answer) = tokio::time::timeout(self.left(end), proposal).await else {
                return Err(CallError::Unknown("not committed by the deadline".into()));
            };
            let forward = match answer {
                Ok(done) => {
                    let (index, term) = (done.log_id.index(), done.log_id.leader_id.term);
                    return Ok(Written { index, term, outcome: done.data });
                }
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => forward,
                Err(error) => return Err(CallError::Unknown(error.to_string())),
            };
            self.wait_for_leader(&forward, settled).await?;
        }
    }

    /// Confirms leadership with a quorum and waits until everything committed before this call
    /// is applied here (ReadIndex). Answers the applied index.
    pub async fn read_index(&self, end: Instant) -> Result<u64, CallError> {
        let settled = end.min(self.clock.now() + self.timing.election_max);
        loop {
            let confirm = self.raft.ensure_linearizable(ReadPolicy::ReadIndex);
            let Ok(answer) = tokio::time::timeout(self.left(end), confirm).await else {
                return Err(CallError::Unavailable("leadership not confirmed by the deadline".into()));
            };
            match answer {
                Ok(_) => return Ok(self.view.read().last.map_or(0, |last| last.index())),
                Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                    self.wait_for_leader(&forward, settled).await?;
                }
                Err(error) => return Err(CallError::Unavailable(error.to_string())),
            }
        }
    }

    /// Goes on when the caller should try here again.
    async fn wait_for_leader(
        &self,
        forward: &ForwardToLeader<TypeConfig>,
        settled: Instant,
    ) -> Result<(), CallError> {
        let other = forward.leader_id.filter(|id| *id != self.id);
        if other.is_some() || self.clock.now() + RETRY >= settled {
            let leader = other.map(|id| self.name_and_addr(id, forward.leader_node.as_ref()));
            return Err(CallError::NotLeader { leader });
        }
        tokio::time::sleep(RETRY).await;
        Ok(())
    }

    fn left(&self, end: Instant) -> Duration {
        end.saturating_duration_since(self.clock.now())
    }

    fn name_and_addr(&self, id: u64, joined: Option<&Member>) -> (String, String) {
        match (self.peers.get(id), joined) {
            (Some(peer), _) => (peer.name, peer.addr),
            (None, Some(member)) => (member.name.clone(), member.addr.clone()),
            (None, None) => (String::new(), String::new()),
        }
    }

    /// Where changes of role, leader and members are told.
    pub fn changes(&self) -> Changes {
        Changes(self.raft.server_metrics())
    }

    /// Why the member stopped, if it did so by itself.
    pub fn failure(&self) -> Option<String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.running_state.as_ref().err().map(ToString::to_string)
    }

    /// The group as seen from here.
    pub fn status(&self) -> Status {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched().clone();
        let members = metrics.membership_config.membership();
        let voters: Vec<Voter> = members.voter_ids().map(|id| self.voter(id, &metrics)).collect();
        let leader = metrics.current_leader.map(|id| {
            let (name, addr) = self.name_and_addr(id, members.get_node(&id));
            (id, name, addr)
        });
        let alive = voters.iter().filter(|voter| self.alive(voter.raft_id, &metrics)).count();
        Status {
            raft_id: self.id,
            role: role(&metrics),
            term: metrics.current_term,
            leader,
            last_log_index: metrics.last_log_index.unwrap_or(0),
            committed: metrics.cluster_committed.max(metrics.local_committed).map_or(0, |id| id.index()),
            applied: metrics.last_applied.map_or(0, |id| id.index()),
            failure_tolerance: failure_tolerance(voters.len(), alive) as u32,
            voters,
        }
    }

    fn voter(&self, id: u64, metrics: &RaftMetrics<TypeConfig>) -> Voter {
        let (name, addr) = self.name_and_addr(id, metrics.membership_config.membership().get_node(&id));
        let replication = metrics.replication.as_ref();
        let matched = replication.and_then(|all| all.get(&id)).and_then(|last| last.as_ref());
        Voter { raft_id: id, name, addr, matched: matched.map_or(0, |last| last.index()) }
    }

    /// At the leader: whether the member answered within an election's time. Elsewhere: whether
    /// the directory shows it.
    fn alive(&self, id: u64, metrics: &RaftMetrics<TypeConfig>) -> bool {
        if id == self.id {
            return true;
        }
        match metrics.heartbeat.as_ref().and_then(|all| all.get(&id)) {
            Some(Some(acked)) => acked.elapsed() < self.timing.election_max,
            Some(None) => false,
            None => self.peers.get(id).is_some_and(|peer| peer.up),
        }
    }

    /// The members as of the newest entry that names them.
    pub fn members(&self) -> Members {
        let metrics = self.raft.metrics();
        let config = Arc::clone(&metrics.borrow_watched().membership_config);
        let members = config.membership();
        Members {
            voters: members.voter_ids().collect(),
            names: members.nodes().map(|(id, node)| (*id, node.name.clone())).collect(),
        }
    }

    /// Founds the group. Refused by the library when this member has a history.
    pub async fn initialize(&self, voters: &[u64]) -> Result<(), String> {
        let members: BTreeMap<u64, Member> = voters.iter().map(|id| (*id, self.member(*id))).collect();
        self.raft.initialize(members).await.map_err(|error| error.to_string())
    }

    /// Takes one step of a change of members; only the leader can.
    pub async fn change(&self, change: &Change) -> Result<(), String> {
        let changing = async {
            match change {
                Change::AddLearner(id) => self.raft.add_learner(*id, self.member(*id), true).await,
                Change::Replace { old, new } => {
                    let mut voters: BTreeSet<u64> = self.members().voters;
                    voters.remove(old);
                    voters.insert(*new);
                    self.raft.change_membership(voters, false).await
                }
                Change::RemoveLearner(id) => {
                    self.raft
                        .change_membership(ChangeMembers::RemoveNodes(BTreeSet::from([*id])), false)
                        .await
                }
            }
        };
        match tokio::time::timeout(CHANGE, changing).await {
            Ok(done) => done.map(drop).map_err(|error| error.to_string()),
            Err(_) => Err("not done in time".into()),
        }
    }

    fn member(&self, id: u64) -> Member {
        let (name, addr) = self.name_and_addr(id, None);
        Member { name, addr }
    }

    /// A lone voter need not wait for the silence of a leader.
    async fn lead_at_once_if_alone(&self) {
        if self.members().voters == BTreeSet::from([self.id])
            && let Err(error) = self.raft.trigger().elect(false).await
        {
            tracing::warn!(%error, "cannot start an election");
        }
    }

    /// Hands leadership to the member that is furthest, before this one stops.
    pub async fn hand_over(&self) {
        let status = self.status();
        let others = status.voters.iter().filter(|voter| voter.raft_id != self.id);
        let Some(heir) = others.max_by_key(|voter| voter.matched) else { return };
        if status.role != Role::Leader || self.raft.trigger().transfer_leader(heir.raft_id).await.is_err() {
            return;
        }
        let followed = self.raft.wait(Some(self.timing.election_max));
        let _ = followed.metrics(|metrics| metrics.current_leader != Some(self.id), "handed over").await;
    }

    /// Stops the member; its store is free when everything that holds it is dropped.
    pub async fn stop(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
    }
}

fn role(metrics: &RaftMetrics<TypeConfig>) -> Role {
    match metrics.state {
        ServerState::Leader => Role::Leader,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Learner => Role::Learner,
        ServerState::Shutdown => Role::Down,
    }
}

fn library_config(timing: &Timing, snapshot_every: u64) -> io::Result<Arc<openraft::Config>> {
    let millis = |duration: Duration| duration.as_millis() as u64;
    let config = openraft::Config {
        cluster_name: "swarm".into(),
        heartbeat_interval: millis(timing.heartbeat),
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: millis(timing.election_max),
        install_snapshot_timeout: millis(SNAPSHOT),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_every),
        replication_lag_threshold: snapshot_every.saturating_mul(2),
        max_in_snapshot_log_to_keep: snapshot_every / 5,
        purge_batch_size: 64,
        enable_pre_vote: Some(true),
        // A restarted leader has forgotten what it had applied: it must be elected again.
        enable_leader_restore: Some(false),
        backoff: "50ms ...500ms".into(),
        api_channel_size: Some(4096),
        ..openraft::Config::default()
    };
    config.validate().map(Arc::new).map_err(io::Error::other)
}
