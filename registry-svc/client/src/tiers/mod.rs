//! Three tiers of lookup (DESIGN K16).
//!
//! | tier | what | whose | a hit |
//! |---|---|---|---|
//! | L1 | [`Local`]: handles, checked by epoch | one thread's or connection's | no lock, no clone |
//! | L2 | the [`Mirror`]'s copy, fed by Watch and the bus | the node's | one lookup in a map, no lock, no clone |
//! | L3 | the shard in registry-svc, directly or over gRPC | the registry's | always up to date |
//!
//! # Invariants
//! * L1 and L2 answer only while the copy is complete and at most [`STALENESS_BOUND`] old, by
//!   the caller's `now`. After that L3 is asked, and where it does not answer the copy's answer
//!   carries its age ([`Answer::stale`]).
//! * What this node registers through [`Tiers::register`] it finds at once, whichever tier
//!   answered "absent" a moment before.
//! * Memory is bounded: handles by their number, the copy by the number of names; a copy that
//!   not all names fit never says that a name is absent.

mod adapt;
pub(crate) mod book;
mod epochs;
pub(crate) mod facts;
pub(crate) mod fresh;
mod handles;
mod local;
mod metrics;
pub(crate) mod names;

pub use fresh::STALENESS_BOUND;
pub use local::{Known, Local};
pub use metrics::Lookups;

use crate::{
    Error, Mirror, RegistryClient,
    mirror::View,
    tiers::{book::Heard, facts::Facts, metrics::TierMetrics},
};
use kit::{
    Context,
    clock::Clock,
    flags::{EvalContext, FlagHandle},
};
use proto::registry::{DeregisterResponse, Kind, RegisterResponse, Registration};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The flag that lets L1 and L2 answer.
pub const FLAG: &str = "registry.cache";

/// What a lookup waits for the shard; then the copy answers.
const SHARD_WAIT: Duration = Duration::from_millis(500);
/// After the shard did not answer it is left alone for so long, so that an outage costs each
/// request no wait of its own.
const SHARD_REST: Duration = Duration::from_millis(500);

/// Which tier answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// A thread's own handle.
    L1,
    /// The node's copy.
    L2,
    /// The shard.
    L3,
}

impl Tier {
    /// As it is named in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Tier::L1 => "l1",
            Tier::L2 => "l2",
            Tier::L3 => "l3",
        }
    }
}

/// What is known of a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// `None` when it is not registered. Statuses come from L3 only.
    pub registration: Option<Arc<Registration>>,
    /// Who answered.
    pub tier: Tier,
    /// Set when the answer may be older than [`STALENESS_BOUND`]: for how long changes may be
    /// missing from it.
    pub stale: Option<Duration>,
}

/// The names of one kind as a node looks them up. Clones share the node's copy.
#[derive(Clone)]
pub struct Tiers {
    inner: Arc<Inner>,
}

struct Inner {
    mirror: Mirror,
    view: Arc<View>,
    client: RegistryClient,
    kind: Kind,
    switch: Switch,
    metrics: TierMetrics,
    clock: Arc<dyn Clock>,
    origin: Instant,
    // In ns after the origin.
    rests_until: AtomicU64,
}

impl Tiers {
    /// The node's lookups of backends, started by whoever asks first, in whose runtime they
    /// stay.
    pub fn of(ctx: &Context) -> Self {
        let (client, lookups) = (RegistryClient::of(ctx), Lookups::of(ctx));
        ctx.shared.get(|| Self::start(ctx, client, Kind::Backend, lookups))
    }

    /// Lookups of a kind (`Kind::Unspecified`: all) through a client of one's own. Must be
    /// called within a tokio runtime; ends with the last clone, or with the node.
    pub fn start(ctx: &Context, client: RegistryClient, kind: Kind, lookups: Lookups) -> Self {
        let facts = Facts { bus: ctx.bus.clone(), cluster: ctx.cluster.clone() };
        let mirror = Mirror::start(client.clone(), kind, Some(facts), &ctx.shutdown.abort_token());
        let view = mirror.view().clone();
        let (clock, origin) = (ctx.clock.clone(), ctx.clock.now());
        let metrics = TierMetrics::register(&ctx.metrics, lookups, view.clone(), clock.clone());
        let rests_until = AtomicU64::new(0);
        let switch = Switch::of_node(ctx);
        Self {
            inner: Arc::new(Inner {
                mirror,
                view,
                client,
                kind,
                switch,
                metrics,
                clock,
                origin,
                rests_until,
            }),
        }
    }

    /// Handles for one thread or connection that works for one tenant.
    pub fn local(&self, tenant: &str) -> Local {
        Local::new(self, tenant)
    }

    /// The shard's answer; where it does not answer, the copy's, with its age if that is over
    /// [`STALENESS_BOUND`].
    ///
    /// # Errors
    /// When the name is malformed, or the shard does not answer and there is no copy yet.
    pub async fn ask(&self, name: &str) -> Result<Answer, Error> {
        self.inner.ask(name).await
    }

    /// The node's copy, to read all of it or to wait for changes.
    pub fn mirror(&self) -> Mirror {
        self.inner.mirror.clone()
    }

    /// [`RegistryClient::register`]; this node finds the registration as soon as it is answered.
    ///
    /// # Errors
    /// The same.
    pub async fn register(
        &self,
        registration: Registration,
        replace: bool,
    ) -> Result<RegisterResponse, Error> {
        let answer = self.inner.client.register(registration.clone(), replace).await?;
        let (version, lease_id) = (answer.version, answer.lease_id);
        let name = registration.name.clone();
        let value = Registration { version, lease_id, ..registration };
        if self.inner.is_of_kind(&value) {
            self.inner.view.hear(Heard { name, version, value: Some(value.into()) }, self.inner.clock.now());
        }
        Ok(answer)
    }

    /// [`RegistryClient::deregister`]; this node finds the name no more as soon as it is answered.
    ///
    /// # Errors
    /// The same.
    pub async fn deregister(
        &self,
        name: &str,
        owner: &str,
        force: bool,
    ) -> Result<DeregisterResponse, Error> {
        let answer = self.inner.client.deregister(name, owner, force).await?;
        // The removal is later than all that this node has seen of the name.
        let version = self.inner.view.names.get(name).map_or(0, |held| held.version + 1);
        let heard = Heard { name: name.to_owned(), version, value: None };
        self.inner.view.hear(heard, self.inner.clock.now());
        Ok(answer)
    }
}

impl Inner {
    async fn ask(&self, name: &str) -> Result<Answer, Error> {
        let began = self.clock.now();
        if self.nanos(began) < self.rests_until.load(Ordering::Relaxed) {
            return self
                .copy(name)
                .ok_or_else(|| Error::Unavailable("it did not answer a moment ago".into()));
        }
        let asked = tokio::time::timeout(SHARD_WAIT, self.client.lookup(name)).await;
        let late = |_| Err(Error::Unavailable(format!("no answer within {SHARD_WAIT:?}")));
        let asked = asked.unwrap_or_else(late);
        self.metrics.took(Tier::L3, self.clock.now().saturating_duration_since(began));
        match asked {
            Ok(found) => Ok(self.answer(name, Some(found))),
            Err(Error::NotFound(_)) => Ok(self.answer(name, None)),
            Err(error) if error.is_transient() => {
                self.rests_until.store(self.nanos(self.clock.now() + SHARD_REST), Ordering::Relaxed);
                self.copy(name).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// The shard's answer, unless this node has just heard of a later version: the shard's
    /// instance may not be the one that took the write.
    fn answer(&self, name: &str, found: Option<Registration>) -> Answer {
        let found = found.filter(|found| self.is_of_kind(found));
        let version = found.as_ref().map_or(0, |found| found.version);
        let registration = match self.view.newer(name, version) {
            Some(newer) => newer,
            None => found.map(Arc::new),
        };
        Answer { registration, tier: Tier::L3, stale: None }
    }

    /// The copy's answer, however old it is; `None` before it was complete.
    fn copy(&self, name: &str) -> Option<Answer> {
        if !self.view.is_synced() {
            return None;
        }
        let age = self.view.fresh.age(self.clock.now());
        let stale = (age >= STALENESS_BOUND).then_some(age);
        if stale.is_some() {
            self.metrics.stale_reads.inc();
        }
        Some(Answer { registration: self.view.names.get(name), tier: Tier::L2, stale })
    }

    fn is_of_kind(&self, registration: &Registration) -> bool {
        self.kind == Kind::Unspecified || registration.kind() == self.kind
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The flag, as cheap to ask as a counter.
struct Switch(FlagHandle);

impl Switch {
    fn of_node(ctx: &Context) -> Self {
        // The composition root has defined the flags; a service alone in a test has not.
        if ctx.flags.definition(FLAG).is_none()
            && let Err(error) = ctx.flags.define(phases::plain())
        {
            tracing::warn!(%error, "flags are not defined; lookups go to the shard");
        }
        Self(ctx.flags.handle(FLAG))
    }

    #[inline]
    fn generation(&self) -> u64 {
        self.0.generation()
    }

    /// Whether L1 and L2 may answer a tenant, and of which generation that is.
    fn of(&self, tenant: &str) -> (u64, bool) {
        let generation = self.0.generation();
        let attributes = [("tenant", tenant.into())];
        let context = EvalContext { targeting_key: Some(tenant), attributes: &attributes };
        (generation, self.0.is("on", &context))
    }
}

impl fmt::Debug for Tiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tiers").field("mirror", &self.inner.mirror).finish_non_exhaustive()
    }
}
