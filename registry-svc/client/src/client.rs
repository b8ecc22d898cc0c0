//! One call, one method.

use crate::{
    Error, Mirror,
    batch::messages,
    route::{Door, Routes},
};
use kit::{
    Context,
    directory::{Directory, Instance, State},
    rpc::{CallPolicy, Channel, Channels, MAX_MESSAGE, with_deadline},
};
use proto::{
    ids,
    registry::{
        BackendReport, DeregisterRequest, DeregisterResponse, Kind, ListRequest, RegisterRequest,
        RegisterResponse, Registration, RenewRequest, RenewResponse, ReportStatusRequest, WatchRequest,
        WatchResponse, registry_service_client::RegistryServiceClient,
    },
};
use std::{collections::BTreeMap, fmt, future::Future, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status, Streaming};

/// The service's name in the directory.
pub const SERVICE: &str = "registry";

/// For one instance; a call asks at most [`INSTANCES_MAX`] of them.
pub(crate) const DEADLINE: Duration = Duration::from_secs(2);
const INSTANCES_MAX: usize = 3;
const PAGE_SIZE: u32 = 500;
/// Leases in one message.
const BATCH: usize = 1000;

pub(crate) type Stub = RegistryServiceClient<Channel>;

/// Which registrations [`RegistryClient::list`] answers; the default is all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this kind; `Kind::Unspecified` is any.
    pub kind: Kind,
    /// Only names that start with it.
    pub name_prefix: String,
    /// Only registrations that carry all of these.
    pub labels: BTreeMap<String, String>,
    /// Only backends of which an edge reports a tool of this name; empty is any.
    pub tool: String,
    /// Only backends reached by `stdio` or `http`; empty is any.
    pub transport: String,
    /// Only backends of this zone; empty is any.
    pub zone: String,
    /// Whether a label key that no registration has is [`Error::Invalid`], as for words that a
    /// person typed; else nothing passes.
    pub known_labels: bool,
}

/// One page of a listing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// In name order; may be none although more follow.
    pub registrations: Vec<Registration>,
    /// Where the next page starts, for the same filter; `None` at the end.
    pub next: Option<String>,
}

/// Typed calls to whichever instance of registry-svc answers. Cheap to clone.
#[derive(Clone)]
pub struct RegistryClient {
    channels: Channels,
    directory: Directory,
    local: Option<Arc<str>>,
    // What clones have learnt of owners.
    routes: Arc<Routes>,
    door: Door,
}

impl RegistryClient {
    /// A client that prefers the instance named `local` (this node's own).
    pub fn new(channels: Channels, directory: Directory, local: Option<String>) -> Self {
        let (local, routes, door) = (local.map(Into::into), Arc::default(), Door::default());
        Self { channels, directory, local, routes, door }
    }

    /// A node's client: it prefers the node's own instance, and looks names up there without a
    /// call when that runs in the same process.
    pub fn of(ctx: &Context) -> Self {
        let client = Self::new(ctx.channels.clone(), ctx.directory.clone(), Some(ctx.node.clone()));
        Self { door: ctx.shared.get(Door::default), ..client }
    }

    /// Registers, and waits until it is durable where that is asked for. `ttl_ms` of the
    /// registration is the lease's time to live. `replace` changes a registration of the same
    /// owner whose value differs; without it that is [`Error::AlreadyRegistered`].
    pub async fn register(
        &self,
        registration: Registration,
        replace: bool,
    ) -> Result<RegisterResponse, Error> {
        let request = RegisterRequest {
            request_id: ids::request_id(),
            ttl_ms: registration.ttl_ms,
            registration: Some(registration),
            replace,
            lost_lease_id: 0,
        };
        let call = |mut stub: Stub, left| {
            let request = with_deadline(request.clone(), left);
            async move { stub.register(request).await }
        };
        self.anywhere(call).await
    }

    /// Frees a name. `owner` must be the registration's, unless `force`.
    pub async fn deregister(
        &self,
        name: &str,
        owner: &str,
        force: bool,
    ) -> Result<DeregisterResponse, Error> {
        let (name, owner) = (name.to_owned(), owner.to_owned());
        self.free(DeregisterRequest { request_id: ids::request_id(), name, owner, force, kind: 0 }).await
    }

    pub(crate) async fn free(&self, request: DeregisterRequest) -> Result<DeregisterResponse, Error> {
        let mut unknown = false;
        let mut last = no_instance();
        for instance in self.candidates() {
            let call = |mut stub: Stub, left| {
                let request = with_deadline(request.clone(), left);
                async move { stub.deregister(request).await }
            };
            match self.at(&instance, call).await {
                // An earlier try that went unanswered did it, and this instance heard of it.
                Err(Error::NotFound(_)) if unknown => return Ok(DeregisterResponse::default()),
                Err(error) if error.is_transient() => {
                    unknown |= matches!(error, Error::Unknown(_));
                    last = error;
                }
                settled => return settled,
            }
        }
        Err(if unknown { Error::Unknown(last.to_string()) } else { last })
    }

    /// Extends leases at the instance that calls go to now. Leases that it did not grant come
    /// back as unknown. `owner` may be empty; else a lease of another owner is [`Error::Denied`].
    pub async fn renew(&self, lease_ids: &[u64], owner: &str) -> Result<RenewResponse, Error> {
        let mut all = RenewResponse::default();
        for chunk in lease_ids.chunks(BATCH) {
            let request = RenewRequest { lease_ids: chunk.to_vec(), owner: owner.to_owned() };
            let call = |mut stub: Stub, left| {
                let request = with_deadline(request.clone(), left);
                async move { stub.renew(request).await }
            };
            let part = self.anywhere(call).await?;
            all.ttl_ms = [all.ttl_ms, part.ttl_ms].into_iter().filter(|ttl| *ttl > 0).min().unwrap_or(0);
            all.renewed.extend(part.renewed);
            all.unknown.extend(part.unknown);
        }
        Ok(all)
    }

    /// All registrations that pass the filter, over all pages, in name order.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<Registration>, Error> {
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let page = self.page(filter, PAGE_SIZE, page_token).await?;
            all.extend(page.registrations);
            match page.next {
                Some(next) => page_token = next,
                None => return Ok(all),
            }
        }
    }

    /// One page of up to `page_size` (at most 1000). `token` is empty, or the `next` of the page
    /// before, of whichever instance: what stands all the time is neither missed nor repeated.
    pub async fn page(&self, filter: &Filter, page_size: u32, token: String) -> Result<Page, Error> {
        let request = ListRequest {
            page_size,
            page_token: token,
            kind: filter.kind.into(),
            name_prefix: filter.name_prefix.clone(),
            labels: filter.labels.clone(),
            tool: filter.tool.clone(),
            transport: filter.transport.clone(),
            zone: filter.zone.clone(),
            known_labels: filter.known_labels,
        };
        let call = |mut stub: Stub, left| {
            let request = with_deadline(request.clone(), left);
            async move { stub.list(request).await }
        };
        let answer = self.anywhere(call).await?;
        let next = Some(answer.next_page_token).filter(|token| !token.is_empty());
        Ok(Page { registrations: answer.registrations, next })
    }

    /// Tells what an edge sees of its backends. Answers after which time reports are forgotten
    /// unless they are repeated: report every third of it, and at each change.
    pub async fn report_status(&self, edge: &str, reports: Vec<BackendReport>) -> Result<Duration, Error> {
        let mut ttl = Duration::from_secs(30);
        for reports in messages(reports) {
            let request = ReportStatusRequest { edge: edge.to_owned(), reports };
            let call = |mut stub: Stub, left| {
                let request = with_deadline(request.clone(), left);
                async move { stub.report_status(request).await }
            };
            ttl = Duration::from_millis(self.anywhere(call).await?.ttl_ms);
        }
        Ok(ttl)
    }

    /// A copy of all registrations of a kind (`Kind::Unspecified`: all), kept fresh by a task
    /// that ends with the last clone of the mirror. Must be called within a tokio runtime.
    pub fn mirror(&self, kind: Kind) -> Mirror {
        Mirror::start(self.clone(), kind, None, &CancellationToken::new())
    }

    /// Opens a watch at one instance; the deadline is for its first answer.
    pub(crate) async fn watch(
        &self,
        instance: &Instance,
        request: WatchRequest,
    ) -> Result<Streaming<WatchResponse>, Error> {
        let call = |mut stub: Stub, left| {
            let request = with_deadline(request.clone(), left);
            async move { stub.watch(request).await }
        };
        self.at(instance, call).await
    }

    pub(crate) fn directory(&self) -> Directory {
        self.directory.clone()
    }

    pub(crate) fn channels(&self) -> &Channels {
        &self.channels
    }

    pub(crate) fn routes(&self) -> &Routes {
        &self.routes
    }

    pub(crate) fn door(&self) -> &Door {
        &self.door
    }

    pub(crate) fn is_local(&self, name: &str) -> bool {
        self.local.as_deref() == Some(name)
    }

    /// Instances in the order in which they are tried: the local one first, those that are up
    /// before suspects; dead ones only when there is nobody else.
    pub(crate) fn candidates(&self) -> Vec<Instance> {
        let mut instances = self.directory.of(SERVICE);
        instances.sort_by_key(|instance| (state_rank(instance.state), !self.is_local(&instance.name)));
        let alive = instances.iter().filter(|instance| instance.state != State::Down).count();
        instances.truncate(if alive > 0 { alive.min(INSTANCES_MAX) } else { 1 });
        instances
    }

    pub(crate) async fn anywhere<T, F, Fut>(&self, call: F) -> Result<T, Error>
    where
        F: FnMut(Stub, Duration) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.anywhere_within(DEADLINE, call).await
    }

    /// The same with another deadline for each instance.
    pub(crate) async fn anywhere_within<T, F, Fut>(&self, deadline: Duration, mut call: F) -> Result<T, Error>
    where
        F: FnMut(Stub, Duration) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let mut unknown = false;
        let mut last = no_instance();
        for instance in self.candidates() {
            match self.at_within(deadline, &instance, &mut call).await {
                Err(error) if error.is_transient() => {
                    unknown |= matches!(error, Error::Unknown(_));
                    last = error;
                }
                settled => return settled,
            }
        }
        // That the last instance did nothing says nothing of those before it.
        Err(if unknown { Error::Unknown(last.to_string()) } else { last })
    }

    /// Every call may be repeated: reads, and writes by their request id or their value.
    pub(crate) async fn at<T, F, Fut>(&self, instance: &Instance, call: F) -> Result<T, Error>
    where
        F: FnMut(Stub, Duration) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.at_within(DEADLINE, instance, call).await
    }

    async fn at_within<T, F, Fut>(
        &self,
        deadline: Duration,
        instance: &Instance,
        mut call: F,
    ) -> Result<T, Error>
    where
        F: FnMut(Stub, Duration) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let policy = CallPolicy { attempts: 2, ..CallPolicy::idempotent(deadline) };
        let make = |channel: Channel, left| {
            let stub = RegistryServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
            call(stub, left)
        };
        Ok(kit::rpc::call(&policy, &self.channels, &instance.addr, make).await?)
    }
}

fn state_rank(state: State) -> u8 {
    match state {
        State::Up => 0,
        State::Suspect => 1,
        State::Down => 2,
    }
}

pub(crate) fn no_instance() -> Error {
    Error::Unavailable("no instance of it is known".into())
}

impl fmt::Debug for RegistryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryClient").field("local", &self.local).finish_non_exhaustive()
    }
}
