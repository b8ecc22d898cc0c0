//! What an owner answers to another: decode, call, encode. The same for a call from this process
//! and for one from the network.

use crate::{
    core::{
        log::{Entry, View},
        record::Record,
    },
    error::Fault,
    replica::{Mode, Replica},
};
use proto::session::{self as wire, replica_service_server::ReplicaService};
use session_client::SessionId;
use std::{future::Future, sync::Arc, time::Duration};
use tonic::{Request, Response, Status};

/// Most sessions of a page or a touch.
pub(crate) const PAGE_MAX: usize = 1000;

/// The door of one instance's copies.
#[derive(Clone)]
pub(crate) struct Door {
    replica: Arc<Replica>,
}

impl Door {
    pub(crate) fn new(replica: Arc<Replica>) -> Self {
        Door { replica }
    }

    pub(crate) async fn prepare(
        &self,
        request: wire::PrepareReplicaRequest,
    ) -> Result<wire::PrepareReplicaResponse, Status> {
        check_id(&request.id)?;
        let ballot = request.ballot.unwrap_or_default().into();
        let prepared = self.replica.prepare(&request.id, &ballot).await?;
        let stored = prepared.stored.as_deref();
        Ok(wire::PrepareReplicaResponse {
            promised: prepared.promised.is_ok(),
            in_force: prepared.promised.err().map(Into::into),
            found: stored.is_some(),
            session: stored.map(Record::to_session),
            ballot: stored.map(|record| record.ballot.clone().into()),
            recent: stored.map(Record::recent_wire).unwrap_or_default(),
        })
    }

    pub(crate) async fn write(
        &self,
        request: wire::WriteReplicaRequest,
    ) -> Result<wire::WriteReplicaResponse, Status> {
        let session = request.session.unwrap_or_default();
        check_id(&session.id)?;
        let record = Record::from_wire(session, request.ballot, request.recent);
        let mode = if request.create { Mode::Create } else { Mode::Ballot };
        let written = self.replica.write(record, mode, &request.lease_holder).await?;
        Ok(wire::WriteReplicaResponse {
            applied: written.refused.is_none(),
            current: written.current.map(|current| current.version.clone().into()),
            lease_remaining_ms: millis_up(written.lease_remaining),
            in_force: written.refused.map(Into::into),
        })
    }

    pub(crate) async fn read(
        &self,
        request: wire::ReadReplicaRequest,
    ) -> Result<wire::ReadReplicaResponse, Status> {
        check_id(&request.id)?;
        let lease = Duration::from_millis(request.lease_ms);
        let (record, lease) = self.replica.read(&request.id, &request.lease_holder, lease);
        let record = record.as_deref();
        Ok(wire::ReadReplicaResponse {
            found: record.is_some(),
            session: record.map(Record::to_session),
            ballot: record.map(|record| record.ballot.clone().into()),
            recent: record.map(Record::recent_wire).unwrap_or_default(),
            lease_ms: crate::config::millis(lease),
        })
    }

    pub(crate) async fn touch(
        &self,
        request: wire::TouchReplicaRequest,
    ) -> Result<wire::TouchReplicaResponse, Status> {
        check_count(request.ids.len())?;
        let unknown = self.replica.touch(request.ids).await?;
        Ok(wire::TouchReplicaResponse { unknown })
    }

    pub(crate) async fn append(
        &self,
        request: wire::AppendReplicaRequest,
    ) -> Result<wire::AppendReplicaResponse, Status> {
        check_id(&request.session_id)?;
        let entries = request.events.into_iter().map(|event| entry(event, request.epoch)).collect();
        let (id, stream) = (&request.session_id, &request.stream);
        match self.replica.append(id, stream, request.epoch, entries).await {
            Ok(()) => Ok(wire::AppendReplicaResponse { fenced: false, epoch: request.epoch }),
            Err(Fault::Fenced(epoch)) => Ok(wire::AppendReplicaResponse { fenced: true, epoch }),
            Err(fault) => Err(fault.into()),
        }
    }

    pub(crate) async fn replay(
        &self,
        request: wire::ReplayReplicaRequest,
    ) -> Result<wire::ReplayReplicaResponse, Status> {
        check_id(&request.session_id)?;
        let (id, after, fence) = (&request.session_id, request.after_sequence, request.fence_epoch);
        let view = self.replica.replay(id, &request.stream, after, fence).await?;
        Ok(wire::ReplayReplicaResponse {
            events: view.entries.into_iter().map(event).collect(),
            first_sequence: view.first_sequence,
            last_sequence: view.last_sequence,
            known: view.known,
            epoch: view.epoch,
        })
    }

    pub(crate) async fn list(
        &self,
        request: wire::ListReplicaRequest,
    ) -> Result<wire::ListReplicaResponse, Status> {
        let limit = (request.limit as usize).clamp(1, PAGE_MAX);
        let sessions = self.replica.list_live(&request.after_id, limit);
        let bare = |record: &Record| wire::Session { value: Default::default(), ..record.to_session() };
        Ok(wire::ListReplicaResponse { sessions: sessions.iter().map(|r| bare(r)).collect() })
    }
}

/// Runs to its end even if the caller goes away: half a write would leave memory behind the disk.
pub(crate) async fn whole<A: Send + 'static>(
    work: impl Future<Output = Result<A, Status>> + Send + 'static,
) -> Result<A, Status> {
    match tokio::spawn(work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Fault::Unknown("the call was aborted").into()),
    }
}

macro_rules! handlers {
    ($($name:ident => $call:ident($request:ident) -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl ReplicaService for Door {
            $(async fn $name(&self, request: Request<wire::$request>) -> Result<Response<wire::$response>, Status> {
                let door = self.clone();
                whole(async move { door.$call(request.into_inner()).await }).await.map(Response::new)
            })*
        }
    };
}

handlers! {
    prepare_replica => prepare(PrepareReplicaRequest) -> PrepareReplicaResponse;
    write_replica => write(WriteReplicaRequest) -> WriteReplicaResponse;
    read_replica => read(ReadReplicaRequest) -> ReadReplicaResponse;
    touch_replica => touch(TouchReplicaRequest) -> TouchReplicaResponse;
    append_replica => append(AppendReplicaRequest) -> AppendReplicaResponse;
    replay_replica => replay(ReplayReplicaRequest) -> ReplayReplicaResponse;
    list_replica => list(ListReplicaRequest) -> ListReplicaResponse;
}

/// An event as stored; one without an epoch is of the appending epoch.
pub(crate) fn entry(event: wire::Event, epoch: u64) -> Entry {
    let epoch = if event.epoch == 0 { epoch } else { event.epoch };
    Entry { sequence: event.sequence, kind: event.kind, data: event.data, epoch }
}

/// An event as it travels.
pub(crate) fn event(entry: Entry) -> wire::Event {
    wire::Event { sequence: entry.sequence, data: entry.data, kind: entry.kind, epoch: entry.epoch }
}

/// What an owner knows of a stream.
pub(crate) fn view(response: wire::ReplayReplicaResponse) -> View {
    View {
        known: response.known,
        entries: response.events.into_iter().map(|event| entry(event, 0)).collect(),
        first_sequence: response.first_sequence,
        last_sequence: response.last_sequence,
        epoch: response.epoch,
    }
}

pub(crate) fn check_id(id: &str) -> Result<SessionId, Fault> {
    id.parse().map_err(|error: session_client::InvalidId| Fault::Invalid(error.to_string()))
}

pub(crate) fn check_count(count: usize) -> Result<(), Fault> {
    match count > PAGE_MAX {
        true => Err(Fault::Invalid(format!("{count} sessions; at most {PAGE_MAX} are allowed"))),
        false => Ok(()),
    }
}

/// Rounded up, so that a waiter does not come a fraction too early.
fn millis_up(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}
