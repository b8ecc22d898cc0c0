//! Calls to owners: this process without a network hop, others by gRPC. Owners that seem up are
//! asked first and all at once; one that seems down is a last resort.

use crate::door::Door;
use futures::{StreamExt as _, stream::FuturesUnordered};
use kit::{
    State,
    rpc::{Channel, Channels, MAX_MESSAGE, status, with_deadline},
};
use proto::session::{self as wire, replica_service_client::ReplicaServiceClient};
use std::{future::Future, time::Duration};
use tokio::task::JoinHandle;
use tonic::{Response, Status};

/// An owner of a session.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    /// Instance name.
    pub(crate) name: String,
    /// host:port.
    pub(crate) addr: String,
    /// Whether it is this very instance.
    pub(crate) local: bool,
    /// How alive it seems.
    pub(crate) state: State,
}

/// Calls owners. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Peers {
    pub(crate) door: Door,
    pub(crate) channels: Channels,
}

macro_rules! calls {
    ($($name:ident => $rpc:ident($request:ident) -> $response:ident;)*) => {
        impl Peers {
            $(pub(crate) async fn $name(
                self,
                owner: Owner,
                request: wire::$request,
                within: Duration,
            ) -> Result<wire::$response, Status> {
                if owner.local {
                    return self.door.$name(request).await;
                }
                let mut rpc = self.rpc(&owner);
                timely(within, rpc.$rpc(with_deadline(request, within))).await
            })*
        }
    };
}

calls! {
    prepare => prepare_replica(PrepareReplicaRequest) -> PrepareReplicaResponse;
    write => write_replica(WriteReplicaRequest) -> WriteReplicaResponse;
    read => read_replica(ReadReplicaRequest) -> ReadReplicaResponse;
    touch => touch_replica(TouchReplicaRequest) -> TouchReplicaResponse;
    append => append_replica(AppendReplicaRequest) -> AppendReplicaResponse;
    replay => replay_replica(ReplayReplicaRequest) -> ReplayReplicaResponse;
    list => list_replica(ListReplicaRequest) -> ListReplicaResponse;
}

impl Peers {
    fn rpc(&self, owner: &Owner) -> ReplicaServiceClient<Channel> {
        ReplicaServiceClient::new(self.channels.get(&owner.addr)).max_decoding_message_size(MAX_MESSAGE)
    }
}

async fn timely<A>(
    within: Duration,
    call: impl Future<Output = Result<Response<A>, Status>>,
) -> Result<A, Status> {
    match tokio::time::timeout(within, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(error)) => Err(status::settle(error)),
        Err(_) => Err(status::outcome_unknown("owner did not answer in time")),
    }
}

/// Calls that are under way. Dropping it lets them run to their end unobserved.
pub(crate) struct Asked<A> {
    open: FuturesUnordered<JoinHandle<(usize, Result<A, Status>)>>,
}

impl<A: Send + 'static> Asked<A> {
    /// Begins a call to each of these owners.
    pub(crate) fn begin<F, Fut>(owners: &[Owner], which: impl Fn(&Owner) -> bool, call: F) -> Self
    where
        F: Fn(Owner) -> Fut,
        Fut: Future<Output = Result<A, Status>> + Send + 'static,
    {
        let asked = owners.iter().enumerate().filter(|(_, owner)| which(owner));
        let spawn = |(index, owner): (usize, &Owner)| {
            let call = call(owner.clone());
            // A task of its own: the owner gets the write also when the quorum was faster.
            tokio::spawn(async move { (index, call.await) })
        };
        Asked { open: asked.map(spawn).collect() }
    }

    /// The next answer, with its owner's place in the list; `None` when all have come.
    pub(crate) async fn next(&mut self) -> Option<(usize, Result<A, Status>)> {
        loop {
            match self.open.next().await? {
                Ok(answer) => return Some(answer),
                // Only the end of the runtime aborts the task.
                Err(_) => continue,
            }
        }
    }
}

/// Whether to ask at once.
pub(crate) fn seems_alive(owner: &Owner) -> bool {
    owner.local || owner.state != State::Down
}

/// Whether to ask only when nobody else is left.
pub(crate) fn seems_down(owner: &Owner) -> bool {
    !seems_alive(owner)
}
