//! Handlers: decode, call, encode.

use crate::{
    batched,
    core::{
        check::{self, Malformed, REQUEST_ID_MAX},
        command::{Deregister, Done, Order, Refusal, Register, Registered, Update},
        index::Total,
        key,
    },
    driver::At,
    error::Failure,
    handle::Handle,
    listing, packed,
    together::Together,
    waiting::Place,
    watch::Watcher,
};
use async_trait::async_trait;
use futures::stream::BoxStream;
use kit::shutdown::Shutdown;
use proto::{
    ids::check_name,
    registry::{
        AwaitRequest, AwaitResponse, BackendReport, DeregisterBatchRequest, DeregisterBatchResponse,
        DeregisterOutcome, DeregisterRequest, DeregisterResponse, Durability, HoldersRequest,
        HoldersResponse, Kind, ListRequest, ListResponse, LookupRequest, LookupResponse, MonitorRequest,
        MonitorResponse, PackedAnswer, PackedLookup, RegisterBatchRequest, RegisterBatchResponse,
        RegisterOutcome, RegisterRequest, RegisterResponse, RenewRequest, RenewResponse, ReportStatusRequest,
        ReportStatusResponse, RouteRequest, RouteResponse, TotalRequest, TotalResponse, UpdateCounterRequest,
        UpdateCounterResponse, WatchRequest, WatchResponse, deregister_outcome, register_outcome,
        registration::Spec, registry_service_server::RegistryService,
    },
};
use registry_client::Direct;
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};

/// Entries, leases or reports in one request.
const BATCH_MAX: usize = 10_000;
/// Metadata that names the tenant on whose behalf a call is made.
const TENANT: &str = "swarm-tenant";
/// Longest state or reason of a status report.
const REASON_MAX: usize = 4096;
/// Tool names of a status report, and their bytes.
const TOOLS_MAX: usize = 1000;
const TOOL_BYTES_MAX: usize = 16 << 10;

/// The RPCs (`proto::registry::registry_service_server::RegistryService`).
pub struct Handler {
    pub(crate) handle: Handle,
    pub(crate) node: Arc<str>,
    pub(crate) shutdown: Shutdown,
    pub(crate) together: Together,
}

#[async_trait]
impl RegistryService for Handler {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let handle = self.handle_of(&request);
        let command = self.decode_register(request.into_inner(), self.now_ms())?;
        Ok(Response::new(registered(handle.register(command).await?)))
    }

    async fn deregister(
        &self,
        request: Request<DeregisterRequest>,
    ) -> Result<Response<DeregisterResponse>, Status> {
        let handle = self.handle_of(&request);
        let command = decode_deregister(request.into_inner())?;
        let ((), revision) = handle.deregister(command).await?;
        Ok(Response::new(DeregisterResponse { revision }))
    }

    async fn register_batch(
        &self,
        request: Request<RegisterBatchRequest>,
    ) -> Result<Response<RegisterBatchResponse>, Status> {
        let handle = self.handle_of(&request);
        let entries = request.into_inner().entries;
        check_batch("entries", entries.len())?;
        let now = self.now_ms();
        let orders = entries.into_iter().map(|entry| self.decode_register(entry, now).map(Order::Register));
        let outcomes = batched::write(&handle, orders.collect()).await?;
        let outcomes = outcomes.into_iter().map(register_outcome).collect();
        Ok(Response::new(RegisterBatchResponse { outcomes }))
    }

    async fn deregister_batch(
        &self,
        request: Request<DeregisterBatchRequest>,
    ) -> Result<Response<DeregisterBatchResponse>, Status> {
        let handle = self.handle_of(&request);
        let entries = request.into_inner().entries;
        check_batch("entries", entries.len())?;
        let orders = entries.into_iter().map(|entry| decode_deregister(entry).map(Order::Deregister));
        let outcomes = batched::write(&handle, orders.collect()).await?;
        let outcomes = outcomes.into_iter().map(deregister_outcome).collect();
        Ok(Response::new(DeregisterBatchResponse { outcomes }))
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
        let request = request.into_inner();
        self.together.arrive(&handle.shared().table, &request.name).await;
        Ok(Response::new(handle.answer(request)?))
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
        Ok(Response::new(listing::list(&handle, request.into_inner())?))
    }

    async fn holders(&self, request: Request<HoldersRequest>) -> Result<Response<HoldersResponse>, Status> {
        let handle = self.handle_of(&request);
        Ok(Response::new(listing::holders(&handle, request.into_inner())?))
    }

    async fn update_counter(
        &self,
        request: Request<UpdateCounterRequest>,
    ) -> Result<Response<UpdateCounterResponse>, Status> {
        let handle = self.handle_of(&request);
        let UpdateCounterRequest { request_id, name, owner, delta } = request.into_inner();
        check_request_id(&request_id)?;
        let name = key::key(Kind::Counter, &name, &owner).map_err(Failure::from)?;
        let (value, revision) = handle.update(Update { request_id, name, delta }).await?;
        Ok(Response::new(UpdateCounterResponse { value, revision }))
    }

    async fn total(&self, request: Request<TotalRequest>) -> Result<Response<TotalResponse>, Status> {
        let name = request.into_inner().name;
        check_name(&name).map_err(Malformed::from).map_err(Failure::from)?;
        let Total { sum, holders } = self.handle.total(&name);
        let fits = i64::try_from(sum);
        let nearest = if sum < 0 { i64::MIN } else { i64::MAX };
        let (sum, saturated) = (fits.unwrap_or(nearest), fits.is_err());
        Ok(Response::new(TotalResponse { sum, holders, saturated }))
    }

    async fn r#await(&self, request: Request<AwaitRequest>) -> Result<Response<AwaitResponse>, Status> {
        let AwaitRequest { name, wait_ms } = request.into_inner();
        check_name(&name).map_err(Malformed::from).map_err(Failure::from)?;
        Ok(Response::new(self.place().await_name(name, wait_ms).await?))
    }

    async fn monitor(&self, request: Request<MonitorRequest>) -> Result<Response<MonitorResponse>, Status> {
        Ok(Response::new(self.place().monitor(request.into_inner()).await?))
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

/// What Lookup answers, also to clients in this process.
impl Direct for Handle {
    fn answer(&self, request: LookupRequest) -> Result<LookupResponse, Status> {
        let LookupRequest { name, route_epoch } = request;
        check_name(&name).map_err(Malformed::from).map_err(Failure::from)?;
        let Some(entry) = self.lookup_routed(&name, route_epoch)? else {
            return Err(Failure::from(Refusal::NotFound { name }).into());
        };
        let (revision, route_epoch) = (entry.revision, self.route().epoch());
        let (registration, node) = (Some(self.with_status(&entry)), self.shared().node.to_string());
        Ok(LookupResponse { registration, revision, route_epoch, node })
    }
}

impl Handler {
    /// The registry as the caller's tenant sees it.
    fn handle_of<T>(&self, request: &Request<T>) -> Handle {
        self.handle.for_tenant(request.metadata().get(TENANT).and_then(|tenant| tenant.to_str().ok()))
    }

    fn place(&self) -> Place<'_> {
        Place { handle: &self.handle, node: &self.node, shutdown: &self.shutdown }
    }

    /// By the wall clock.
    fn now_ms(&self) -> u64 {
        self.handle.clock().timestamp().0
    }

    fn decode_register(&self, request: RegisterRequest, now_ms: u64) -> Result<Register, Failure> {
        let RegisterRequest { request_id, registration, ttl_ms, replace, lost_lease_id } = request;
        check_request_id(&request_id)?;
        let mut registration = registration.ok_or(Malformed::Missing { field: "registration" })?;
        if registration.durability() == Durability::Ephemeral {
            registration.ttl_ms = if ttl_ms == 0 { registration.ttl_ms } else { ttl_ms };
        } else {
            registration.ttl_ms = 0;
        }
        if key::is_shared_kind(registration.kind) {
            registration.name = key::key(registration.kind(), &registration.name, &registration.owner)?;
        }
        if let Some(Spec::Counter(counter)) = &mut registration.spec {
            counter.recent.clear();
        }
        registration.registered_at_ms = now_ms;
        check::check(&registration)?;
        let returns = lost_lease_id != 0 && registration.durability() == Durability::Ephemeral;
        Ok(Register { request_id, replace, returns, ..Register::new(registration) })
    }
}

fn decode_deregister(request: DeregisterRequest) -> Result<Deregister, Failure> {
    let kind = request.kind();
    let DeregisterRequest { request_id, name, owner, force, .. } = request;
    check_request_id(&request_id)?;
    Ok(Deregister { request_id, name: key::key(kind, &name, &owner)?, owner, force })
}

fn registered((registered, revision): At<Registered>) -> RegisterResponse {
    let Registered { lease_id, version, created } = registered;
    RegisterResponse { revision, lease_id, version, created }
}

fn register_outcome(outcome: Result<At<Done>, Failure>) -> RegisterOutcome {
    let outcome = match outcome {
        Ok((Done::Registered(answer), revision)) => {
            register_outcome::Outcome::Registered(registered((answer, revision)))
        }
        // What it is not asked for it does not answer.
        Ok((Done::Deregistered, _)) => return RegisterOutcome::default(),
        Err(failure) => register_outcome::Outcome::Error(failure.into()),
    };
    RegisterOutcome { outcome: Some(outcome) }
}

fn deregister_outcome(outcome: Result<At<Done>, Failure>) -> DeregisterOutcome {
    let outcome = match outcome {
        Ok((_, revision)) => deregister_outcome::Outcome::Deregistered(DeregisterResponse { revision }),
        Err(failure) => deregister_outcome::Outcome::Error(failure.into()),
    };
    DeregisterOutcome { outcome: Some(outcome) }
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

fn decode_report(report: BackendReport, edge: &str) -> Result<BackendReport, Failure> {
    check_name(&report.name).map_err(Malformed::from)?;
    let mut status = report.status.ok_or(Malformed::Missing { field: "status" })?;
    if !["starting", "ready", "failing", "stopped"].contains(&status.state.as_str()) {
        let allowed = "starting, ready, failing or stopped are allowed";
        return Err(Malformed::value("state", &status.state, allowed).into());
    }
    check::within("reason", &status.reason, REASON_MAX)?;
    check_tools(&status.tool_names)?;
    status.edge = edge.to_owned();
    Ok(BackendReport { name: report.name, status: Some(status) })
}

fn check_tools(names: &[String]) -> Result<(), Malformed> {
    let (count, bytes) = (names.len(), names.iter().map(String::len).sum());
    if count > TOOLS_MAX {
        return Err(Malformed::value("tool_names", &count.to_string(), "at most 1000 can be told"));
    }
    if bytes > TOOL_BYTES_MAX {
        return Err(Malformed::TooLong { field: "tool_names", bytes, max: TOOL_BYTES_MAX });
    }
    Ok(())
}
