//! Handlers: decode, call, encode.

use crate::{
    core::{
        check::{self, Malformed, REQUEST_ID_MAX},
        command::{Deregister, Refusal, Register},
    },
    error::Failure,
    handle::Handle,
    packed,
    watch::Watcher,
};
use async_trait::async_trait;
use futures::stream::BoxStream;
use kit::shutdown::Shutdown;
use proto::{
    ids::{NAME_MAX, check_name},
    registry::{
        BackendReport, DeregisterRequest, DeregisterResponse, Durability, Kind, ListRequest, ListResponse,
        LookupRequest, LookupResponse, PackedAnswer, PackedLookup, RegisterRequest, RegisterResponse,
        Registration, RenewRequest, RenewResponse, ReportStatusRequest, ReportStatusResponse, RouteRequest,
        RouteResponse, WatchRequest, WatchResponse, registry_service_server::RegistryService,
    },
};
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};

const PAGE_DEFAULT: u32 = 100;
const PAGE_MAX: u32 = 1000;
/// Encoded bytes of one page, well below the longest message.
const PAGE_BYTES: usize = 4 << 20;
/// Leases or reports in one request.
const BATCH_MAX: usize = 10_000;
/// Metadata that names the tenant on whose behalf a call is made.
const TENANT: &str = "swarm-tenant";
/// Longest state or reason of a status report.
const REASON_MAX: usize = 4096;

pub(crate) struct Handler {
    pub(crate) handle: Handle,
    pub(crate) node: Arc<str>,
    pub(crate) shutdown: Shutdown,
}

#[async_trait]
impl RegistryService for Handler {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let handle = self.handle_of(&request);
        let command = self.decode_register(request.into_inner())?;
        let (registered, revision) = handle.register(command).await?;
        Ok(Response::new(RegisterResponse {
            revision,
            lease_id: registered.lease_id,
            version: registered.version,
            created: registered.created,
        }))
    }

    async fn deregister(
        &self,
        request: Request<DeregisterRequest>,
    ) -> Result<Response<DeregisterResponse>, Status> {
        let handle = self.handle_of(&request);
        let DeregisterRequest { request_id, name, owner, force } = request.into_inner();
        check_name(&name).map_err(Malformed::from).map_err(Failure::from)?;
        check_request_id(&request_id)?;
        let ((), revision) = handle.deregister(Deregister { request_id, name, owner, force }).await?;
        Ok(Response::new(DeregisterResponse { revision }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let RenewRequest { lease_ids, owner } = request.into_inner();
        check_batch("lease_ids", lease_ids.len())?;
        let answer = self.handle.renew(&lease_ids, &owner).await?;
        if let Some((lease_id, owner)) = answer.foreign {
            return Err(Failure::OtherLease { lease_id, owner }.into());
        }
        let ttl_ms = answer.ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        Ok(Response::new(RenewResponse { renewed: answer.renewed, unknown: answer.unknown, ttl_ms }))
    }

    async fn lookup(&self, request: Request<LookupRequest>) -> Result<Response<LookupResponse>, Status> {
        let handle = self.handle_of(&request);
        let LookupRequest { name, route_epoch } = request.into_inner();
        check_name(&name).map_err(Malformed::from).map_err(Failure::from)?;
        let Some(entry) = handle.lookup_routed(&name, route_epoch)? else {
            return Err(Failure::from(Refusal::NotFound { name }).into());
        };
        let registration = Some(self.handle.with_status(&entry));
        let (revision, route_epoch) = (entry.revision, self.handle.route().epoch());
        Ok(Response::new(LookupResponse { registration, revision, route_epoch }))
    }

    type LookupStreamStream = BoxStream<'static, Result<PackedAnswer, Status>>;

    async fn lookup_stream(
        &self,
        request: Request<Streaming<PackedLookup>>,
    ) -> Result<Response<Self::LookupStreamStream>, Status> {
        let handle = self.handle_of(&request);
        let answers = packed::answers(handle, request.into_inner(), self.shutdown.clone());
        Ok(Response::new(Box::pin(answers)))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let handle = self.handle_of(&request);
        let request = request.into_inner();
        check_filter(&request)?;
        let revision = self.handle.feed().head();
        let limit = if request.page_size == 0 { PAGE_DEFAULT } else { request.page_size.min(PAGE_MAX) };
        let after = (!request.page_token.is_empty()).then_some(request.page_token.as_str());
        let page = handle
            .page(after, &request.name_prefix, limit as usize, |registration| passes(registration, &request));
        let all = page.entries.iter().map(|entry| self.handle.with_status(entry));
        let (registrations, cut) = within_bytes(all);
        let next_page_token = cut.or(page.next).unwrap_or_default();
        Ok(Response::new(ListResponse { registrations, next_page_token, revision }))
    }

    type WatchStream = BoxStream<'static, Result<WatchResponse, Status>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        if !request.follower.is_empty() {
            check_name(&request.follower).map_err(Malformed::from).map_err(Failure::from)?;
        }
        let watcher = Watcher::new(self.handle.clone(), self.node.clone(), &request, self.shutdown.clone())?;
        Ok(Response::new(Box::pin(watcher.into_stream())))
    }

    async fn route(&self, _request: Request<RouteRequest>) -> Result<Response<RouteResponse>, Status> {
        let route = self.handle.route();
        Ok(Response::new(RouteResponse {
            epoch: route.epoch(),
            shards: route.shards().into(),
            owners: route.owners().map(str::to_owned).collect(),
            revision: self.handle.feed().head(),
        }))
    }

    async fn report_status(
        &self,
        request: Request<ReportStatusRequest>,
    ) -> Result<Response<ReportStatusResponse>, Status> {
        let ReportStatusRequest { edge, reports } = request.into_inner();
        check_batch("reports", reports.len())?;
        check_name(&edge).map_err(Malformed::from).map_err(Failure::from)?;
        let reports =
            reports.into_iter().map(|report| decode_report(report, &edge)).collect::<Result<_, _>>()?;
        let ttl = self.handle.report(reports, true)?;
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        Ok(Response::new(ReportStatusResponse { ttl_ms }))
    }
}

impl Handler {
    /// The registry as the caller's tenant sees it.
    fn handle_of<T>(&self, request: &Request<T>) -> Handle {
        self.handle.for_tenant(request.metadata().get(TENANT).and_then(|tenant| tenant.to_str().ok()))
    }

    fn decode_register(&self, request: RegisterRequest) -> Result<Register, Failure> {
        let RegisterRequest { request_id, registration, ttl_ms, replace, lost_lease_id } = request;
        check_request_id(&request_id)?;
        let mut registration = registration.ok_or(Malformed::Missing { field: "registration" })?;
        if registration.durability() == Durability::Ephemeral {
            registration.ttl_ms = if ttl_ms == 0 { registration.ttl_ms } else { ttl_ms };
        } else {
            registration.ttl_ms = 0;
        }
        registration.registered_at_ms = self.handle.clock().timestamp().0;
        check::check(&registration)?;
        let returns = lost_lease_id != 0 && registration.durability() == Durability::Ephemeral;
        Ok(Register { request_id, registration, replace, returns })
    }
}

fn check_request_id(request_id: &str) -> Result<(), Failure> {
    Ok(check::within("request_id", request_id, REQUEST_ID_MAX)?)
}

fn check_batch(what: &'static str, len: usize) -> Result<(), Failure> {
    if len <= BATCH_MAX {
        return Ok(());
    }
    let allowed = "at most 10000 in one request are allowed";
    Err(Malformed::Value { field: what, found: len.to_string(), allowed }.into())
}

fn check_filter(request: &ListRequest) -> Result<(), Failure> {
    let is_name_part = |text: &str| text.len() <= NAME_MAX && (text.is_empty() || check_name(text).is_ok());
    if !is_name_part(&request.page_token) {
        return Err(Failure::PageToken);
    }
    if !is_name_part(&request.name_prefix) {
        check_name(&request.name_prefix).map_err(Malformed::from)?;
    }
    if Kind::try_from(request.kind).is_err() {
        let found = request.kind.to_string();
        return Err(Malformed::Value { field: "kind", found, allowed: "1, 2, 3 or 0 for any" }.into());
    }
    Ok(())
}

fn passes(registration: &Registration, filter: &ListRequest) -> bool {
    let kind = filter.kind();
    let of_kind = kind == Kind::Unspecified || registration.kind() == kind;
    of_kind && filter.labels.iter().all(|(key, value)| registration.labels.get(key) == Some(value))
}

/// As many as fit one message; the last name that did when not all do.
fn within_bytes(all: impl Iterator<Item = Registration>) -> (Vec<Registration>, Option<String>) {
    let mut bytes = 0;
    let mut fit: Vec<Registration> = Vec::new();
    for registration in all {
        bytes += prost::Message::encoded_len(&registration);
        if bytes > PAGE_BYTES && !fit.is_empty() {
            let last = fit.last().map(|last| last.name.clone());
            return (fit, last);
        }
        fit.push(registration);
    }
    (fit, None)
}

fn decode_report(report: BackendReport, edge: &str) -> Result<BackendReport, Failure> {
    check_name(&report.name).map_err(Malformed::from)?;
    let mut status = report.status.ok_or(Malformed::Missing { field: "status" })?;
    if !["starting", "ready", "failing", "stopped"].contains(&status.state.as_str()) {
        let found = status.state.chars().take(200).collect();
        let allowed = "starting, ready, failing or stopped are allowed";
        return Err(Malformed::Value { field: "state", found, allowed }.into());
    }
    check::within("reason", &status.reason, REASON_MAX)?;
    status.edge = edge.to_owned();
    Ok(BackendReport { name: report.name, status: Some(status) })
}
