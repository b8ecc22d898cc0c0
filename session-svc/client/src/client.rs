//! Typed calls with deadlines, retries and version tokens.

use crate::{
    Member, Ring, SessionId,
    error::{SessionError, out_of_time},
    tokens::Tokens,
};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use kit::{
    directory::{Directory, Instance, State},
    rpc::{Channel, Channels, status::settle, with_deadline},
};
use proto::session::{self as wire, session_service_client::SessionServiceClient};
use std::{future::Future, sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::{Response, Status};

/// Name of the service in the directory.
pub const SERVICE: &str = "session";
/// Owners of a session unless configured otherwise.
pub const REPLICATION_FACTOR: usize = 3;
/// Instances tried before a call is given up.
const ATTEMPTS: usize = 6;
/// No attempt gets less than this while there is time left.
const ATTEMPT_MIN: Duration = Duration::from_millis(200);
/// Tries of a call that cost nothing: the first, and one at another instance. Further ones come out
/// of the budget.
const FREE_ATTEMPTS: usize = 2;

/// Whose session it is; every access must name the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Binding {
    /// Tenant.
    pub tenant: String,
    /// Principal within the tenant.
    pub principal: String,
}

/// How a read is done.
#[derive(Debug, Clone, Default)]
pub struct Read {
    /// `Token` (the default) sees every write and read of this client; `Quorum` every acked write
    /// of anyone; `One` is any owner's copy, which may show a write that is still undecided.
    pub consistency: wire::Consistency,
    /// Ask for a lease (K27): the holder may serve the session from this copy until
    /// [`Fetched::lease_until`]. Makes it a quorum read.
    pub lease: Option<(String, Duration)>,
}

impl Read {
    /// A read that sees every acked write of anyone.
    pub fn quorum() -> Self {
        Read { consistency: wire::Consistency::Quorum, lease: None }
    }

    /// A read that lets `holder` serve its copy for `lease` (2 s at most).
    pub fn leased(holder: &str, lease: Duration) -> Self {
        Read { consistency: wire::Consistency::Quorum, lease: Some((holder.to_owned(), lease)) }
    }
}

/// A session as read.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The state; its `version` is what a put expects.
    pub session: wire::Session,
    /// Fewer owners answered than were asked for; there may be a later version.
    pub stale: bool,
    /// Until when the lease holder may serve this copy; counted from before the call.
    pub lease_until: Option<std::time::Instant>,
}

/// A session as created.
#[derive(Debug, Clone)]
pub struct Created {
    /// Its id.
    pub id: SessionId,
    /// Its first version.
    pub version: wire::Version,
}

/// A stream's events, as replayed.
#[derive(Debug, Clone, Default)]
pub struct Replayed {
    /// In order, without gaps among them.
    pub events: Vec<wire::Event>,
    /// The oldest sequence still held: events between what was asked for and this are lost.
    pub first_sequence: u64,
    /// The last sequence held.
    pub last_sequence: u64,
    /// Whether any owner knows the stream.
    pub known: bool,
    /// The fencing epoch in force.
    pub epoch: u64,
}

/// Calls session-svc: the local instance first, then others that are up. Cheap to clone.
#[derive(Clone)]
pub struct SessionClient {
    inner: Arc<Inner>,
}

struct Inner {
    channels: Channels,
    directory: Directory,
    local: Option<String>,
    deadline: Duration,
    tokens: Tokens,
    ring: ArcSwapOption<(Arc<Vec<Instance>>, Arc<Ring>)>,
}

impl SessionClient {
    /// A client that prefers the instance named `local`. Calls end after 3 s.
    pub fn new(channels: Channels, directory: Directory, local: Option<String>) -> Self {
        Self::with_deadline(channels, directory, local, Duration::from_secs(3))
    }

    /// The same, with a deadline of one's own for a whole call, retries included.
    pub fn with_deadline(
        channels: Channels,
        directory: Directory,
        local: Option<String>,
        deadline: Duration,
    ) -> Self {
        let tokens = Tokens::default();
        let ring = ArcSwapOption::empty();
        Self { inner: Arc::new(Inner { channels, directory, local, deadline, tokens, ring }) }
    }

    /// The ring as the directory shows it now.
    pub fn ring(&self) -> Arc<Ring> {
        let all = self.inner.directory.all();
        if let Some(cached) = &*self.inner.ring.load()
            && Arc::ptr_eq(&cached.0, &all)
        {
            return cached.1.clone();
        }
        let ring = Arc::new(Ring::build(members(&all), REPLICATION_FACTOR));
        self.inner.ring.store(Some(Arc::new((all, ring.clone()))));
        ring
    }

    /// A fresh id that the local instance owns.
    pub fn mint(&self) -> SessionId {
        SessionId::mint(&self.ring(), self.inner.local.as_deref())
    }

    /// Creates a session under an id from [`SessionClient::mint`], which must not be used for a
    /// second create.
    pub async fn create(
        &self,
        id: &SessionId,
        binding: &Binding,
        value: Bytes,
        ttl: Duration,
    ) -> Result<Created, SessionError> {
        let request = wire::CreateRequest {
            request_id: proto::ids::request_id(),
            tenant: binding.tenant.clone(),
            principal: binding.principal.clone(),
            value,
            ttl_ms: millis(ttl),
            id: id.to_string(),
        };
        let called = self.call(request, |mut rpc, request| async move { rpc.create(request).await }).await;
        let version = called.outcome?.version.unwrap_or_default();
        self.inner.tokens.observe(id.as_str(), &version);
        Ok(Created { id: id.clone(), version })
    }

    /// Reads a session, never older than what this client saw of it before (but for `One`).
    pub async fn get(&self, id: &str, binding: &Binding, read: &Read) -> Result<Fetched, SessionError> {
        let (lease_holder, lease) = read.lease.clone().unwrap_or_default();
        let request = wire::GetRequest {
            id: id.to_owned(),
            consistency: read.consistency.into(),
            token: self.inner.tokens.get(id),
            tenant: binding.tenant.clone(),
            principal: binding.principal.clone(),
            lease_holder,
            lease_ms: millis(lease),
        };
        let called = self.call(request, |mut rpc, request| async move { rpc.get(request).await }).await;
        let response = called.outcome?;
        let session = response.session.ok_or(SessionError::NotFound)?;
        if let Some(version) = &session.version {
            self.inner.tokens.observe(id, version);
        }
        let lease = Duration::from_millis(response.lease_ms);
        let lease_until = (response.lease_ms > 0).then(|| (called.sent + lease).into_std());
        Ok(Fetched { session, stale: response.stale, lease_until })
    }

    /// Replaces the value if the version is still `expected`.
    pub async fn put(
        &self,
        id: &str,
        binding: &Binding,
        expected: &wire::Version,
        value: Bytes,
    ) -> Result<wire::Version, SessionError> {
        let request = wire::PutRequest {
            request_id: proto::ids::request_id(),
            id: id.to_owned(),
            expected: Some(expected.clone()),
            value,
            tenant: binding.tenant.clone(),
            principal: binding.principal.clone(),
        };
        let called = self.call(request, |mut rpc, request| async move { rpc.put(request).await }).await;
        let version = called.certain()?.version.unwrap_or_default();
        self.inner.tokens.observe(id, &version);
        Ok(version)
    }

    /// Extends the lives of sessions (1000 at most a call); answers those that are unknown. Batch
    /// by time: one call in 10 s for all sessions that were used (K26).
    pub async fn touch(&self, ids: Vec<String>) -> Result<Vec<String>, SessionError> {
        let request = wire::TouchRequest { ids };
        let called = self.call(request, |mut rpc, request| async move { rpc.touch(request).await }).await;
        Ok(called.outcome?.unknown)
    }

    /// Ends a session; returns once no lease holder but `lease_holder` (which has dropped its own
    /// copy) serves it any more. Ending it twice is no error.
    pub async fn delete(&self, id: &str, binding: &Binding, lease_holder: &str) -> Result<(), SessionError> {
        let request = wire::DeleteRequest {
            request_id: proto::ids::request_id(),
            id: id.to_owned(),
            tenant: binding.tenant.clone(),
            principal: binding.principal.clone(),
            lease_holder: lease_holder.to_owned(),
        };
        let called = self.call(request, |mut rpc, request| async move { rpc.delete(request).await }).await;
        called.outcome?;
        self.inner.tokens.forget(id);
        Ok(())
    }

    /// A page of sessions without their values, in order of id; `cluster` asks every instance,
    /// else only the one called.
    pub async fn list(
        &self,
        page_size: u32,
        page_token: String,
        cluster: bool,
    ) -> Result<wire::ListResponse, SessionError> {
        let request = wire::ListRequest { page_size, page_token, cluster };
        self.call(request, |mut rpc, request| async move { rpc.list(request).await }).await.outcome
    }

    /// Appends events under the anchor's epoch; OK once W owners hold them.
    pub async fn append(
        &self,
        session_id: &str,
        stream: &str,
        epoch: u64,
        events: Vec<wire::Event>,
    ) -> Result<(), SessionError> {
        let (session_id, stream) = (session_id.to_owned(), stream.to_owned());
        let request = wire::AppendRequest { session_id, stream, epoch, events };
        let called = self.call(request, |mut rpc, request| async move { rpc.append(request).await }).await;
        called.outcome.map(|_| ())
    }

    /// The events after a sequence. With `fence_epoch`, appends of older epochs end from now on.
    pub async fn replay(
        &self,
        session_id: &str,
        stream: &str,
        after_sequence: u64,
        fence_epoch: Option<u64>,
    ) -> Result<Replayed, SessionError> {
        let request = wire::ReplayRequest {
            session_id: session_id.to_owned(),
            stream: stream.to_owned(),
            after_sequence,
            fence_epoch: fence_epoch.unwrap_or_default(),
        };
        let called = self.call(request, |mut rpc, request| async move { rpc.replay(request).await }).await;
        let response = called.outcome?;
        Ok(Replayed {
            events: response.events,
            first_sequence: response.first_sequence,
            last_sequence: response.last_sequence,
            known: response.known,
            epoch: response.epoch,
        })
    }

    /// Tries instance after instance until one answers or the deadline passes. Every request is
    /// idempotent (by request id, sequence or nature), so an unknown outcome is tried again too.
    async fn call<Q, A, F, Fut>(&self, request: Q, rpc: F) -> Called<A>
    where
        Q: Clone,
        F: Fn(SessionServiceClient<Channel>, tonic::Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        let started = Instant::now();
        let end = started + self.inner.deadline;
        let mut called = Called::new(started, self.inner.deadline);
        for (attempt, target) in self.targets().iter().cycle().take(ATTEMPTS).enumerate() {
            called.sent = Instant::now();
            let left = end.saturating_duration_since(called.sent);
            if left.is_zero() || !self.affordable(attempt) {
                break;
            }
            let within = (left / 2).max(ATTEMPT_MIN).min(left);
            let client = SessionServiceClient::new(self.inner.channels.get(&target.addr))
                .max_decoding_message_size(kit::rpc::MAX_MESSAGE);
            let call = rpc(client, with_deadline(request.clone(), within));
            let error = match timely(within, call).await {
                Ok(response) => {
                    called.outcome = Ok(response.into_inner());
                    return called;
                }
                Err(error) => error,
            };
            if !error.retryable() {
                called.outcome = Err(error);
                return called;
            }
            called.failed(error);
            pause(attempt, end).await;
        }
        called
    }

    fn affordable(&self, attempt: usize) -> bool {
        let budget = self.inner.channels.budget();
        if attempt == 0 {
            budget.deposit();
        }
        attempt < FREE_ATTEMPTS || budget.withdraw()
    }

    /// The local instance, then those that are up (in a random order), then the rest.
    fn targets(&self) -> Vec<Instance> {
        let local = self.inner.local.as_deref();
        let mut targets = self.inner.directory.of(SERVICE);
        targets.sort_by_cached_key(|instance| {
            let rank = match instance.state {
                State::Up => 0,
                State::Suspect => 1,
                State::Down => 2,
            };
            (rank, local != Some(instance.name.as_str()), rand::random::<u32>())
        });
        targets
    }
}

/// The members of the ring: every session instance that has not left, dead ones included.
pub fn members(instances: &[Instance]) -> impl Iterator<Item = Member> + '_ {
    instances
        .iter()
        .filter(|instance| instance.service == SERVICE)
        .map(|instance| Member { name: instance.name.clone(), zone: instance.zone.clone() })
}

struct Called<A> {
    outcome: Result<A, SessionError>,
    /// An earlier attempt may have been applied.
    ambiguous: bool,
    sent: Instant,
}

impl<A> Called<A> {
    fn new(sent: Instant, deadline: Duration) -> Self {
        Self { outcome: Err(out_of_time(deadline, false)), ambiguous: false, sent }
    }

    fn failed(&mut self, error: SessionError) {
        self.ambiguous |= matches!(error, SessionError::Unknown(_));
        self.outcome = Err(match (self.ambiguous, error) {
            (true, SessionError::Unavailable(message)) => SessionError::Unknown(message),
            (_, error) => error,
        });
    }

    /// For compare-and-set: a mismatch after an attempt of unknown outcome proves nothing.
    fn certain(self) -> Result<A, SessionError> {
        match self.outcome {
            Err(SessionError::VersionMismatch { .. }) if self.ambiguous => {
                Err(SessionError::Unknown("an earlier attempt may have been applied".into()))
            }
            outcome => outcome,
        }
    }
}

async fn timely<A>(
    within: Duration,
    call: impl Future<Output = Result<Response<A>, Status>>,
) -> Result<Response<A>, SessionError> {
    match tokio::time::timeout(within, call).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(status)) => Err(SessionError::of(settle(status))),
        Err(_) => Err(out_of_time(within, true)),
    }
}

/// Full jitter between attempts, so that clients of a returning instance do not come all at once.
async fn pause(attempt: usize, end: Instant) {
    let most = 20_u64 << attempt.min(4);
    let pause = Duration::from_millis(rand::random_range(0..=most));
    tokio::time::sleep(pause.min(end.saturating_duration_since(Instant::now()))).await;
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
