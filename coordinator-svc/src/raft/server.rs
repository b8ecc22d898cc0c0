//! What other members call here.

use super::{
    node::Node,
    types::{Snapshot, SnapshotMeta, Vote, decode, encode},
};
use bytes::{Bytes, BytesMut};
use openraft::errors::Fatal;
use proto::{
    coordinator::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
        PreVoteRequest, PreVoteResponse, TransferLeaderRequest, TransferLeaderResponse, VoteRequest,
        VoteResponse, raft_service_server::RaftService,
    },
    error::Code,
};
use serde::Serialize;
use std::{fmt::Display, io};
use tonic::{Request, Response, Status, Streaming, async_trait};

/// Longest snapshot that is taken.
const SNAPSHOT_MAX: usize = 1024 * 1024 * 1024;

/// The handlers.
pub struct Server {
    node: Node,
}

impl Server {
    /// Handlers for a member.
    pub fn new(node: Node) -> Server {
        Server { node }
    }

    /// Refuses calls for another member: an address may have been taken over by somebody else.
    fn check_target(&self, target: u64) -> Result<(), Status> {
        if target == self.node.id() {
            return Ok(());
        }
        let own = self.node.id().to_string();
        Err(Code::NotOwner.status(format!("raft member {target} is not here"), &[("owner", &own)]))
    }
}

#[async_trait]
impl RaftService for Server {
    async fn vote(&self, request: Request<VoteRequest>) -> Result<Response<VoteResponse>, Status> {
        let VoteRequest { target, payload } = request.into_inner();
        self.check_target(target)?;
        let vote = decode(&payload).map_err(malformed)?;
        let payload = answer(&self.node.raft().vote(vote).await.map_err(stopped)?)?;
        Ok(Response::new(VoteResponse { payload }))
    }

    async fn pre_vote(&self, request: Request<PreVoteRequest>) -> Result<Response<PreVoteResponse>, Status> {
        let PreVoteRequest { target, payload } = request.into_inner();
        self.check_target(target)?;
        let vote = decode(&payload).map_err(malformed)?;
        let payload = answer(&self.node.raft().pre_vote(vote).await.map_err(stopped)?)?;
        Ok(Response::new(PreVoteResponse { payload }))
    }

    async fn append_entries(
        &self,
        request: Request<AppendEntriesRequest>,
    ) -> Result<Response<AppendEntriesResponse>, Status> {
        let AppendEntriesRequest { target, payload } = request.into_inner();
        self.check_target(target)?;
        let entries = decode(&payload).map_err(malformed)?;
        let payload = answer(&self.node.raft().append_entries(entries).await.map_err(stopped)?)?;
        Ok(Response::new(AppendEntriesResponse { payload }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<InstallSnapshotRequest>>,
    ) -> Result<Response<InstallSnapshotResponse>, Status> {
        let mut messages = request.into_inner();
        let first = messages.message().await?.ok_or_else(|| malformed("empty snapshot stream"))?;
        self.check_target(first.target)?;
        let (vote, meta): (Vote, SnapshotMeta) = decode(&first.header).map_err(malformed)?;
        let snapshot = Snapshot { meta, snapshot: collect(first.chunk, &mut messages).await? };
        let installed = self.node.raft().install_full_snapshot(vote, snapshot).await;
        let payload = answer(&installed.map_err(stopped::<Fatal<_>>)?)?;
        Ok(Response::new(InstallSnapshotResponse { payload }))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        let TransferLeaderRequest { target, payload } = request.into_inner();
        self.check_target(target)?;
        let transfer = decode(&payload).map_err(malformed)?;
        let payload = answer(&self.node.raft().handle_transfer_leader(transfer).await.map_err(stopped)?)?;
        Ok(Response::new(TransferLeaderResponse { payload }))
    }
}

async fn collect(first: Bytes, messages: &mut Streaming<InstallSnapshotRequest>) -> Result<Bytes, Status> {
    let mut data = BytesMut::from(first.as_ref());
    while let Some(message) = messages.message().await? {
        if data.len() + message.chunk.len() > SNAPSHOT_MAX {
            return Err(Code::Exhausted.status("snapshot is too long", &[("limit", "snapshot_bytes")]));
        }
        data.extend_from_slice(&message.chunk);
    }
    Ok(data.freeze())
}

fn answer<T: Serialize>(value: &T) -> Result<Bytes, Status> {
    let encoded = encode(value).map_err(|error: io::Error| Code::Internal.status(error.to_string(), &[]))?;
    Ok(encoded.into())
}

fn malformed(error: impl Display) -> Status {
    Code::InvalidArgument.status(error.to_string(), &[])
}

fn stopped<E: Display>(error: E) -> Status {
    Code::Unavailable.status(error.to_string(), &[])
}
