//! Calls to the other members: gRPC with a deadline, bodies in postcard.

use super::{
    peers::Peers,
    types::{Member, Snapshot, TypeConfig, Vote, decode, encode},
};
use bytes::Bytes;
use futures::stream;
use kit::rpc::{Channel, MAX_MESSAGE, with_deadline};
use openraft::{
    OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable},
    network::{RPCOption, RPCTypes},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use proto::coordinator as wire;
use proto::coordinator::raft_service_client::RaftServiceClient;
use serde::{Serialize, de::DeserializeOwned};
use std::{future::Future, io, time::Duration};
use tonic::{Code, Response, Status};

/// Bytes of one message of a snapshot.
const CHUNK: usize = 1024 * 1024;
/// Entries may wait for the peer's disk; a heartbeat may not.
const APPEND: Duration = Duration::from_secs(2);

/// Makes connections to members.
pub struct Network {
    own: u64,
    peers: Peers,
}

impl Network {
    /// Connections from this member.
    pub fn new(own: u64, peers: Peers) -> Network {
        Network { own, peers }
    }
}

/// One member, wherever it is now.
pub struct Connection {
    own: u64,
    target: u64,
    /// Where it was when it joined, if the directory does not know it.
    joined_at: String,
    peers: Peers,
}

type Rpc<T> = Result<T, RPCError<TypeConfig>>;

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, node: &Member) -> Connection {
        Connection { own: self.own, target, joined_at: node.addr.clone(), peers: self.peers.clone() }
    }
}

impl Connection {
    fn client(&self) -> RaftServiceClient<Channel> {
        let addr = self.peers.get(self.target).map_or_else(|| self.joined_at.clone(), |peer| peer.addr);
        let client = RaftServiceClient::new(self.peers.channels().get(&addr));
        client.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
    }

    /// Encodes, calls within `ttl`, decodes.
    async fn call<Q, A, F>(
        &self,
        action: RPCTypes,
        ttl: Duration,
        request: &Q,
        send: impl FnOnce(RaftServiceClient<Channel>, Bytes) -> F,
    ) -> Rpc<A>
    where
        Q: Serialize,
        A: DeserializeOwned,
        F: Future<Output = Result<Bytes, Status>>,
    {
        let payload = encode(request).map_err(|error| broken(&error))?;
        match tokio::time::timeout(ttl, send(self.client(), payload.into())).await {
            Ok(Ok(answer)) => decode(&answer).map_err(|error| broken(&error)),
            Ok(Err(status)) => Err(self.failed(action, ttl, &status)),
            Err(_) => Err(self.late(action, ttl)),
        }
    }

    fn late(&self, action: RPCTypes, timeout: Duration) -> RPCError<TypeConfig> {
        RPCError::Timeout(Timeout { action, id: self.own, target: self.target, timeout })
    }

    fn failed(&self, action: RPCTypes, ttl: Duration, status: &Status) -> RPCError<TypeConfig> {
        match status.code() {
            Code::DeadlineExceeded | Code::Cancelled => self.late(action, ttl),
            // Nobody there, or somebody else: wait before the next try.
            Code::Unavailable | Code::FailedPrecondition => RPCError::Unreachable(Unreachable::new(status)),
            _ => RPCError::Network(NetworkError::new(status)),
        }
    }
}

fn broken(error: &io::Error) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(error))
}

fn payload<T>(response: Response<T>, take: impl FnOnce(T) -> Bytes) -> Bytes {
    take(response.into_inner())
}

impl RaftNetworkV2<TypeConfig> for Connection {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<TypeConfig>> {
        let ttl = if rpc.entries.is_empty() { option.hard_ttl() } else { APPEND.max(option.hard_ttl()) };
        let target = self.target;
        self.call(RPCTypes::AppendEntries, ttl, &rpc, |mut client, payload| async move {
            let request = with_deadline(wire::AppendEntriesRequest { target, payload }, ttl);
            Ok(self::payload(client.append_entries(request).await?, |answer| answer.payload))
        })
        .await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        let (ttl, target) = (option.hard_ttl(), self.target);
        self.call(RPCTypes::Vote, ttl, &rpc, |mut client, payload| async move {
            let request = with_deadline(wire::VoteRequest { target, payload }, ttl);
            Ok(self::payload(client.vote(request).await?, |answer| answer.payload))
        })
        .await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        let (ttl, target) = (option.hard_ttl(), self.target);
        self.call(RPCTypes::Vote, ttl, &rpc, |mut client, payload| async move {
            let request = with_deadline(wire::PreVoteRequest { target, payload }, ttl);
            Ok(self::payload(client.pre_vote(request).await?, |answer| answer.payload))
        })
        .await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let (ttl, target) = (option.hard_ttl(), self.target);
        let (head, data) = ((vote, snapshot.meta), snapshot.snapshot);
        let send = self.call(RPCTypes::InstallSnapshot, ttl, &head, |mut client, header| async move {
            let messages = snapshot_messages(target, header, data);
            let request = with_deadline(stream::iter(messages), ttl);
            Ok(self::payload(client.install_snapshot(request).await?, |answer| answer.payload))
        });
        tokio::select! {
            answer = send => Ok(answer?),
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<TypeConfig>> {
        let (ttl, target) = (option.hard_ttl(), self.target);
        self.call(RPCTypes::TransferLeader, ttl, &req, |mut client, payload| async move {
            let request = with_deadline(wire::TransferLeaderRequest { target, payload }, ttl);
            Ok(self::payload(client.transfer_leader(request).await?, |answer| answer.payload))
        })
        .await
    }
}

/// The header, then the data in pieces.
fn snapshot_messages(target: u64, header: Bytes, mut data: Bytes) -> Vec<wire::InstallSnapshotRequest> {
    let mut messages = vec![wire::InstallSnapshotRequest { target, header, chunk: Bytes::new() }];
    while !data.is_empty() {
        let chunk = data.split_to(data.len().min(CHUNK));
        messages.push(wire::InstallSnapshotRequest { target, header: Bytes::new(), chunk });
    }
    messages
}
