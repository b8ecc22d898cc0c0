//! `SessionService`: decode, call, encode.

use crate::{
    config::{Config, VALUE_MAX, millis},
    coordinate::{Coordinator, Wanted},
    core::{
        change::{Change, Kind},
        log::{EVENTS_MAX, STREAM_NAME_MAX},
        record::Record,
    },
    door::{PAGE_MAX, check_count, check_id, entry, event, whole},
    error::Fault,
};
use proto::session::{self as wire, session_service_server::SessionService};
use session_client::SessionId;
use std::{future::Future, sync::Arc, time::Duration};
use tonic::{Request, Response, Status, metadata::MetadataMap};

const WORD_MAX: usize = 256;
const REQUEST_ID_MAX: usize = 64;
const PAGE_DEFAULT: usize = 100;
/// A caller's deadline counts up to this.
const DEADLINE_MAX: Duration = Duration::from_secs(10);

/// The door for clients.
#[derive(Clone)]
pub(crate) struct Handler {
    coordinator: Arc<Coordinator>,
}

impl Handler {
    pub(crate) fn new(coordinator: Arc<Coordinator>) -> Self {
        Handler { coordinator }
    }

    /// Runs a call to its end even if its caller goes away, and counts its outcome.
    async fn run<A, F, Fut>(&self, op: &'static str, call: F) -> Result<Response<A>, Status>
    where
        A: Send + 'static,
        F: FnOnce(Arc<Coordinator>) -> Fut,
        Fut: Future<Output = Result<A, Fault>> + Send + 'static,
    {
        let (metrics, call) = (self.coordinator.metrics.clone(), call(self.coordinator.clone()));
        whole(async move {
            let outcome = call.await;
            metrics.op(op, outcome.as_ref().map_or_else(Fault::label, |_| "ok"));
            outcome.map(Response::new).map_err(Status::from)
        })
        .await
    }
}

#[tonic::async_trait]
impl SessionService for Handler {
    async fn create(
        &self,
        request: Request<wire::CreateRequest>,
    ) -> Result<Response<wire::CreateResponse>, Status> {
        let (within, request) = opened(request);
        self.run("create", |coordinator| create(coordinator, request, within)).await
    }

    async fn get(&self, request: Request<wire::GetRequest>) -> Result<Response<wire::GetResponse>, Status> {
        let (within, request) = opened(request);
        self.run("get", |coordinator| get(coordinator, request, within)).await
    }

    async fn put(&self, request: Request<wire::PutRequest>) -> Result<Response<wire::PutResponse>, Status> {
        let (within, request) = opened(request);
        self.run("put", |coordinator| put(coordinator, request, within)).await
    }

    async fn touch(
        &self,
        request: Request<wire::TouchRequest>,
    ) -> Result<Response<wire::TouchResponse>, Status> {
        let (within, request) = opened(request);
        self.run("touch", |coordinator| touch(coordinator, request, within)).await
    }

    async fn delete(
        &self,
        request: Request<wire::DeleteRequest>,
    ) -> Result<Response<wire::DeleteResponse>, Status> {
        let (within, request) = opened(request);
        self.run("delete", |coordinator| delete(coordinator, request, within)).await
    }

    async fn list(
        &self,
        request: Request<wire::ListRequest>,
    ) -> Result<Response<wire::ListResponse>, Status> {
        let (within, request) = opened(request);
        self.run("list", |coordinator| list(coordinator, request, within)).await
    }

    async fn append(
        &self,
        request: Request<wire::AppendRequest>,
    ) -> Result<Response<wire::AppendResponse>, Status> {
        let (within, request) = opened(request);
        self.run("append", |coordinator| append(coordinator, request, within)).await
    }

    async fn replay(
        &self,
        request: Request<wire::ReplayRequest>,
    ) -> Result<Response<wire::ReplayResponse>, Status> {
        let (within, request) = opened(request);
        self.run("replay", |coordinator| replay(coordinator, request, within)).await
    }
}

async fn create(
    coordinator: Arc<Coordinator>,
    request: wire::CreateRequest,
    within: Duration,
) -> Result<wire::CreateResponse, Fault> {
    check_value(&request.value)?;
    let id = match request.id.is_empty() {
        true => SessionId::mint(&coordinator.ring(), None),
        false => check_id(&request.id)?,
    };
    let kind = Kind::Create {
        id: id.to_string(),
        value: request.value,
        ttl_ms: ttl_ms(&coordinator.config, request.ttl_ms),
    };
    let change = change(request.request_id, request.tenant, request.principal, kind)?;
    let done = coordinator.create(&id, &change, within).await?;
    Ok(wire::CreateResponse { id: id.into(), version: Some(done.version.into()), acks: done.acks as u32 })
}

async fn get(
    coordinator: Arc<Coordinator>,
    request: wire::GetRequest,
    within: Duration,
) -> Result<wire::GetResponse, Fault> {
    let id = check_id(&request.id)?;
    let wanted = Wanted {
        consistency: request.consistency(),
        lease: Duration::from_millis(request.lease_ms).min(crate::core::lease::LEASE_MAX),
        token: request.token.map(Into::into),
        lease_holder: request.lease_holder,
    };
    let found = coordinator.get(&id, &wanted, within).await?;
    let record = visible(found.record, &request.tenant, &request.principal, coordinator.now_ms())?;
    Ok(wire::GetResponse {
        session: Some(record.to_session()),
        stale: found.stale,
        lease_ms: millis(found.lease),
    })
}

async fn put(
    coordinator: Arc<Coordinator>,
    request: wire::PutRequest,
    within: Duration,
) -> Result<wire::PutResponse, Fault> {
    let id = check_id(&request.id)?;
    check_value(&request.value)?;
    let Some(expected) = request.expected else {
        return Err(Fault::Invalid("expected version is missing".into()));
    };
    let kind = Kind::Put { expected: expected.into(), value: request.value };
    let change = change(request.request_id, request.tenant, request.principal, kind)?;
    let done = coordinator.change(&id, &change, "", within).await?;
    Ok(wire::PutResponse { version: Some(done.version.into()), acks: done.acks as u32 })
}

async fn touch(
    coordinator: Arc<Coordinator>,
    request: wire::TouchRequest,
    within: Duration,
) -> Result<wire::TouchResponse, Fault> {
    check_count(request.ids.len())?;
    let ids = request.ids.iter().map(|id| check_id(id)).collect::<Result<Vec<_>, _>>()?;
    let unknown = coordinator.touch(ids, within).await?;
    Ok(wire::TouchResponse { unknown })
}

async fn delete(
    coordinator: Arc<Coordinator>,
    request: wire::DeleteRequest,
    within: Duration,
) -> Result<wire::DeleteResponse, Fault> {
    let id = check_id(&request.id)?;
    let started = tokio::time::Instant::now();
    let change = change(request.request_id, request.tenant, request.principal, Kind::Delete)?;
    let done = coordinator.change(&id, &change, &request.lease_holder, within).await?;
    let left = within.saturating_sub(started.elapsed());
    coordinator.outlast(done.lease_remaining, left).await?;
    coordinator.facts.deleted(&id);
    Ok(wire::DeleteResponse {})
}

async fn list(
    coordinator: Arc<Coordinator>,
    request: wire::ListRequest,
    within: Duration,
) -> Result<wire::ListResponse, Fault> {
    let limit = match request.page_size as usize {
        0 => PAGE_DEFAULT,
        size => size.min(PAGE_MAX),
    };
    if !request.page_token.is_empty() {
        check_id(&request.page_token)?;
    }
    coordinator.list(&request.page_token, limit, request.cluster, within).await
}

async fn append(
    coordinator: Arc<Coordinator>,
    request: wire::AppendRequest,
    within: Duration,
) -> Result<wire::AppendResponse, Fault> {
    let id = check_id(&request.session_id)?;
    check_stream(&request.stream)?;
    if request.events.len() > EVENTS_MAX {
        return Err(Fault::Invalid(format!(
            "{} events; at most {EVENTS_MAX} are allowed",
            request.events.len()
        )));
    }
    // The epoch of an event is that of its writer; a client cannot claim another.
    let own = |event: wire::Event| entry(wire::Event { epoch: request.epoch, ..event }, request.epoch);
    let entries = request.events.into_iter().map(own).collect();
    let acks = coordinator.append(&id, &request.stream, request.epoch, entries, within).await?;
    Ok(wire::AppendResponse { acks: acks as u32 })
}

async fn replay(
    coordinator: Arc<Coordinator>,
    request: wire::ReplayRequest,
    within: Duration,
) -> Result<wire::ReplayResponse, Fault> {
    let id = check_id(&request.session_id)?;
    check_stream(&request.stream)?;
    let (after, fence) = (request.after_sequence, request.fence_epoch);
    let view = coordinator.replay(&id, &request.stream, after, fence, within).await?;
    Ok(wire::ReplayResponse {
        events: view.entries.into_iter().map(event).collect(),
        first_sequence: view.first_sequence,
        last_sequence: view.last_sequence,
        known: view.known,
        epoch: view.epoch,
    })
}

/// What the caller may see: another tenant's or principal's session does not exist for it.
fn visible(record: Option<Record>, tenant: &str, principal: &str, now_ms: u64) -> Result<Record, Fault> {
    let record = record.filter(|record| record.tenant == tenant && record.principal == principal);
    record.filter(|record| record.live(now_ms)).ok_or(Fault::NotFound)
}

fn change(request_id: String, tenant: String, principal: String, kind: Kind) -> Result<Change, Fault> {
    let request_id = match request_id.is_empty() {
        true => proto::ids::request_id(),
        false => request_id,
    };
    let visible = request_id.bytes().all(|byte| byte.is_ascii_graphic());
    if request_id.len() > REQUEST_ID_MAX || !visible {
        return Err(Fault::Invalid(format!(
            "request id must be {REQUEST_ID_MAX} visible characters at most"
        )));
    }
    if tenant.len() > WORD_MAX || principal.len() > WORD_MAX {
        return Err(Fault::Invalid(format!("tenant and principal must be {WORD_MAX} bytes at most")));
    }
    Ok(Change { request_id, tenant, principal, kind })
}

fn check_value(value: &[u8]) -> Result<(), Fault> {
    match value.len() > VALUE_MAX {
        true => {
            Err(Fault::Invalid(format!("value has {} bytes; at most {VALUE_MAX} are allowed", value.len())))
        }
        false => Ok(()),
    }
}

fn check_stream(stream: &str) -> Result<(), Fault> {
    let visible = stream.bytes().all(|byte| byte.is_ascii_graphic());
    match (1..=STREAM_NAME_MAX).contains(&stream.len()) && visible {
        true => Ok(()),
        false => Err(Fault::Invalid(format!("stream must be 1 to {STREAM_NAME_MAX} visible characters"))),
    }
}

fn ttl_ms(config: &Config, asked: u64) -> u64 {
    match asked {
        0 => millis(config.default_ttl),
        asked => asked.min(millis(config.max_ttl)),
    }
}

/// The request and the time it may take: the caller's, less a tenth for the way back.
fn opened<Q>(request: Request<Q>) -> (Duration, Q) {
    let within = deadline(request.metadata()).unwrap_or(DEADLINE_MAX).min(DEADLINE_MAX);
    (within - within / 10, request.into_inner())
}

/// Reads `grpc-timeout`: at most 8 digits and a unit.
fn deadline(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value.saturating_mul(3600))),
        "M" => Some(Duration::from_secs(value.saturating_mul(60))),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_deadline_is_read_in_every_unit() {
        let read = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().expect("ascii"));
            deadline(&metadata)
        };
        assert_eq!(read("2S"), Some(Duration::from_secs(2)));
        assert_eq!(read("1500000u"), Some(Duration::from_millis(1500)));
        assert_eq!(read("S"), None);
        assert_eq!(read(""), None);
    }

    #[test]
    fn words_of_a_request_are_bounded() {
        assert!(check_stream("g").is_ok());
        assert!(check_stream("").is_err() && check_stream(&"s".repeat(65)).is_err());
        assert!(change("a b".into(), String::new(), String::new(), Kind::Delete).is_err());
        assert!(change("a".into(), "t".repeat(257), String::new(), Kind::Delete).is_err());
    }
}
