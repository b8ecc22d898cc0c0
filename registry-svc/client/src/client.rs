//! One call, one method.

use crate::{Error, Mirror};
use kit::{
    directory::{Directory, Instance, State},
    rpc::{CallPolicy, Channels, MAX_MESSAGE, with_deadline},
};
use proto::{
    ids,
    registry::{
        BackendReport, DeregisterRequest, DeregisterResponse, Kind, ListRequest, LookupRequest,
        RegisterRequest, RegisterResponse, Registration, RenewRequest, RenewResponse, ReportStatusRequest,
        WatchRequest, WatchResponse, registry_service_client::RegistryServiceClient,
    },
};
use std::{collections::BTreeMap, fmt, future::Future, sync::Arc, time::Duration};
use tonic::{Response, Status, Streaming, transport::Channel};

/// The service's name in the directory.
pub const SERVICE: &str = "registry";

/// For one instance; a call asks at most [`INSTANCES_MAX`] of them.
const DEADLINE: Duration = Duration::from_secs(2);
const INSTANCES_MAX: usize = 3;
const PAGE_SIZE: u32 = 500;
/// Statuses or leases in one message.
const BATCH: usize = 1000;

type Stub = RegistryServiceClient<Channel>;

/// Which registrations [`RegistryClient::list`] answers; the default is all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this kind; `Kind::Unspecified` is any.
    pub kind: Kind,
    /// Only names that start with it.
    pub name_prefix: String,
    /// Only registrations that carry all of these.
    pub labels: BTreeMap<String, String>,
}

/// Typed calls to whichever instance of registry-svc answers. Cheap to clone.
#[derive(Clone)]
pub struct RegistryClient {
    channels: Channels,
    directory: Directory,
    local: Option<Arc<str>>,
}

impl RegistryClient {
    /// A client that prefers the instance named `local` (this node's own).
    pub fn new(channels: Channels, directory: Directory, local: Option<String>) -> Self {
        Self { channels, directory, local: local.map(Into::into) }
    }

    /// Registers, and waits until it is durable where that is asked for. `ttl_ms` of the
    /// registration is the lease's time to live. `replace` changes a registration of the same
    /// owner whose value differs; without it that is [`Error::AlreadyRegistered`].
    pub async fn register(
        &self,
        registration: Registration,
        replace: bool,
    ) -> Result<RegisterResponse, Error> {
        self.register_again(registration, replace, 0).await
    }

    /// The same for a registration whose lease the registry lost: before new work.
    pub(crate) async fn register_again(
        &self,
        registration: Registration,
        replace: bool,
        lost_lease_id: u64,
    ) -> Result<RegisterResponse, Error> {
        let request = RegisterRequest {
            request_id: ids::request_id(),
            ttl_ms: registration.ttl_ms,
            registration: Some(registration),
            replace,
            lost_lease_id,
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
        let request = DeregisterRequest { request_id: ids::request_id(), name, owner, force };
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

    /// One registration with what edges say of it.
    pub async fn lookup(&self, name: &str) -> Result<Registration, Error> {
        let request = LookupRequest { name: name.to_owned(), route_epoch: 0 };
        let call = |mut stub: Stub, left| {
            let request = with_deadline(request.clone(), left);
            async move { stub.lookup(request).await }
        };
        let answer = self.anywhere(call).await?;
        answer.registration.ok_or_else(|| Error::Failed("an answer without a registration".into()))
    }

    /// All registrations that pass the filter, over all pages, in name order.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<Registration>, Error> {
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListRequest {
                page_size: PAGE_SIZE,
                page_token,
                kind: filter.kind.into(),
                name_prefix: filter.name_prefix.clone(),
                labels: filter.labels.clone(),
            };
            let call = |mut stub: Stub, left| {
                let request = with_deadline(request.clone(), left);
                async move { stub.list(request).await }
            };
            let page = self.anywhere(call).await?;
            all.extend(page.registrations);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// Tells what an edge sees of its backends. Answers after which time reports are forgotten
    /// unless they are repeated: report every third of it, and at each change.
    pub async fn report_status(&self, edge: &str, reports: Vec<BackendReport>) -> Result<Duration, Error> {
        let mut ttl = Duration::from_secs(30);
        for chunk in reports.chunks(BATCH) {
            let request = ReportStatusRequest { edge: edge.to_owned(), reports: chunk.to_vec() };
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
        Mirror::start(self.clone(), kind)
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

    /// Instances in the order in which they are tried: the local one first, those that are up
    /// before suspects; dead ones only when there is nobody else.
    pub(crate) fn candidates(&self) -> Vec<Instance> {
        let mut instances = self.directory.of(SERVICE);
        let is_local = |instance: &Instance| self.local.as_deref() == Some(instance.name.as_str());
        instances.sort_by_key(|instance| (state_rank(instance.state), !is_local(instance)));
        let alive = instances.iter().filter(|instance| instance.state != State::Down).count();
        instances.truncate(if alive > 0 { alive.min(INSTANCES_MAX) } else { 1 });
        instances
    }

    async fn anywhere<T, F, Fut>(&self, mut call: F) -> Result<T, Error>
    where
        F: FnMut(Stub, Duration) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let mut unknown = false;
        let mut last = no_instance();
        for instance in self.candidates() {
            match self.at(&instance, &mut call).await {
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
    async fn at<T, F, Fut>(&self, instance: &Instance, mut call: F) -> Result<T, Error>
    where
        F: FnMut(Stub, Duration) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let policy = CallPolicy { attempts: 2, ..CallPolicy::idempotent(DEADLINE) };
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

fn no_instance() -> Error {
    Error::Unavailable("no instance of it is known".into())
}

impl fmt::Debug for RegistryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryClient").field("local", &self.local).finish_non_exhaustive()
    }
}
