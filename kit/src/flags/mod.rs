//! Feature flags: a file in flagd's format, evaluated in process, changed live.
//!
//! ```text
//! kill switch  >  SWARM_FEATURE_GATES  >  flags.json  >  default of the definition
//! ```
//! * What flags there are is passed in ([`Flags::define`]); an unknown one is `off`, with
//!   [`Reason::Error`].
//! * `flags.json` is looked at every 250 ms ([`Flags::watch`]) and at once after own writes. Content
//!   that is blank, cut, doubled, too large, of a wrong type or that breaks a requirement is not
//!   taken: the last good content stays in force, is told by [`Flags::problem`], and is kept on the
//!   disk for the next start. Flags that only another version knows are skipped with a warning.
//! * A change ([`Flags::change`]) is compared with the revision, checked against requirements,
//!   recorded in the audit, then written; all under a lock that other processes see too.
//! * A thrown kill switch needs nothing: it takes the flag, and all that builds on it, to safe.
//! * At one revision the same key gets the same answer everywhere; a share that is raised from
//!   `x %` only takes keys in (flagd's `fractional`; [the supported rules](Targeting) are a subset).
//!
//! Asking is cheap: a [`FlagHandle`] resolves its flag once a revision, and [`Switches`] those of a
//! `*` definition. What runs beside the path that answers is counted by [`Shadow`].

mod audit;
mod change;
mod context;
mod definition;
mod document;
mod gates;
mod metrics;
mod murmur;
mod resolve;
mod rule;
mod shadow;
mod state;
mod store;
mod strict;
mod switches;

pub use audit::Record;
pub use change::{Change, ChangeError, Setting, Touched};
pub use context::{Attribute, EvalContext};
pub use definition::{Definition, Plain, Targeting};
pub use document::{BYTES_MAX, DocumentError, FLAGS_MAX};
pub use gates::{GATES, Gates};
pub use resolve::{EvalError, Evaluation, Reason, Source};
pub(crate) use shadow::Families;
pub use shadow::{Parity, Shadow};
pub use state::Changed;
pub use switches::Switches;

use crate::{clock::Clock, config::ConfigError, metrics::Metrics};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use resolve::{Resolved, Snapshot};
use state::State;
use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use store::FileStore;
use tokio::sync::watch;

/// How often the file is looked at.
pub const POLL: Duration = Duration::from_millis(250);
/// The file's name in the data directory.
pub const FILE: &str = "flags.json";

/// The flags of one node. Clones are the same flags.
#[derive(Clone)]
pub struct Flags {
    inner: Arc<Inner>,
}

struct Inner {
    published: ArcSwap<Published>,
    /// Grows with everything published, for handles.
    generation: AtomicU64,
    changed: watch::Sender<u64>,
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Published {
    snapshot: Snapshot,
    problem: Option<String>,
    warnings: Vec<String>,
}

/// A flag as an operator sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// Its key.
    pub key: String,
    /// What it is, in words: `on 5%, else off`.
    pub setting: String,
    /// What it is for nobody in particular.
    pub variant: Arc<str>,
    /// From where.
    pub source: Source,
    /// Whether a kill switch decides.
    pub killed: bool,
    /// Its definition, if it is known.
    pub definition: Option<Arc<Definition>>,
}

impl View {
    fn of(flag: &Resolved) -> Self {
        Self {
            key: flag.key.to_string(),
            setting: change::describe(flag),
            variant: flag.variant.clone(),
            source: flag.source,
            killed: flag.killed,
            definition: flag.definition.clone(),
        }
    }
}

impl Flags {
    /// Flags that nobody keeps: for nodes and tests in memory.
    pub fn in_memory(gates: Gates, clock: Arc<dyn Clock>) -> Self {
        Self::of(State::in_memory(gates), clock)
    }

    /// Flags in a file, which need not exist yet. The last good copy lies in `data`, else beside the
    /// file. A bad file is a [`Flags::problem`], never an error.
    pub fn open(path: PathBuf, data: Option<&Path>, gates: Gates, clock: Arc<dyn Clock>) -> Self {
        let state = State::open(FileStore::new(path, data), gates, clock.timestamp());
        Self::of(state, clock)
    }

    /// Flags of a test: in memory, live, each with the variants off, shadow and on, set to what is
    /// given.
    pub fn for_test(settings: &[(&str, &str)]) -> Self {
        let flags = Self::in_memory(Gates::default(), Arc::new(crate::clock::SystemClock));
        let variants = ["off", "shadow", "on"];
        let definition = |(key, variant): &(&str, &str)| Definition {
            targeting: Targeting::Percent,
            ..Definition::new(key, &variants, variant)
        };
        // Without requirements nothing can be unmet.
        let _ = flags.define(settings.iter().map(definition));
        flags
    }

    fn of(state: State, clock: Arc<dyn Clock>) -> Self {
        let inner = Inner {
            published: ArcSwap::default(),
            generation: AtomicU64::new(0),
            changed: watch::Sender::new(0),
            state: Mutex::new(state),
            clock,
        };
        inner.publish(&inner.state.lock());
        Self { inner: Arc::new(inner) }
    }

    /// Learns flags; a key that is known already is known anew. Each service may define what it
    /// asks for.
    ///
    /// # Errors
    /// When `SWARM_FEATURE_GATES` names an unknown flag or variant, or settings break a requirement:
    /// exit code 78.
    pub fn define<D: Into<Definition>>(
        &self,
        definitions: impl IntoIterator<Item = D>,
    ) -> Result<(), ConfigError> {
        let mut state = self.inner.state.lock();
        let defined = state.define(definitions.into_iter().map(Into::into).collect());
        self.inner.publish(&state);
        defined
    }

    /// A handle that is cheap to ask on a request path.
    pub fn handle(&self, key: &str) -> FlagHandle {
        let inner = self.inner.clone();
        let cached = ArcSwap::from_pointee(Cached::of(&inner, key));
        FlagHandle { inner, key: key.into(), cached: Arc::new(cached) }
    }

    /// The answer for a context.
    pub fn variant(&self, key: &str, context: &EvalContext<'_>) -> Evaluation {
        let published = self.inner.published.load();
        let revision = published.snapshot.revision;
        match published.snapshot.flags.get(key) {
            Some(resolved) => resolved.evaluate(context, revision),
            None => self.inner.resolve(key).evaluate(context, revision),
        }
    }

    /// The value of a variant: what the file gives it, else its name.
    pub fn value(&self, key: &str, variant: &str) -> serde_json::Value {
        let published = self.inner.published.load();
        let value = published.snapshot.flags.get(key).and_then(|flag| flag.values.get(variant).cloned());
        value.unwrap_or_else(|| variant.into())
    }

    /// The definition of a flag.
    pub fn definition(&self, key: &str) -> Option<Arc<Definition>> {
        self.inner.state.lock().known.find(key).cloned()
    }

    /// Every flag that is known or set, by key.
    pub fn list(&self) -> Vec<View> {
        self.inner.published.load().snapshot.flags.values().map(|flag| View::of(flag)).collect()
    }

    /// One flag; `None` when nobody knows it.
    pub fn view(&self, key: &str) -> Option<View> {
        let known = self.inner.published.load().snapshot.flags.get(key).cloned();
        let resolved = known.or_else(|| self.definition(key).map(|_| self.inner.resolve(key)));
        resolved.map(|flag| View::of(&flag))
    }

    /// Grows with every change.
    pub fn revision(&self) -> u64 {
        self.inner.published.load().snapshot.revision
    }

    /// Why the file is not in force, if it is not.
    pub fn problem(&self) -> Option<String> {
        self.inner.published.load().problem.clone()
    }

    /// What in the file has no effect.
    pub fn warnings(&self) -> Vec<String> {
        self.inner.published.load().warnings.clone()
    }

    /// Told after every change of what is in force; the value is the revision.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    /// Makes a change, on a thread that may block.
    ///
    /// # Errors
    /// As [`ChangeError`] says; nothing is changed then, but for [`ChangeError::Unknown`].
    pub async fn change(&self, change: Change) -> Result<Changed, ChangeError> {
        let flags = self.clone();
        let done = tokio::task::spawn_blocking(move || flags.change_blocking(&change)).await;
        done.unwrap_or_else(|error| Err(ChangeError::Unknown(error.to_string())))
    }

    /// [`Flags::change`] on this thread.
    ///
    /// # Errors
    /// The same.
    pub fn change_blocking(&self, change: &Change) -> Result<Changed, ChangeError> {
        let mut state = self.inner.state.lock();
        let changed = state.change(change, self.inner.clock.timestamp());
        self.inner.publish(&state);
        if let Ok(Changed { revision, touched }) = &changed {
            for Touched { key, old, new } in touched {
                tracing::info!(
                    flag = key,
                    old,
                    new,
                    revision,
                    reason = change.reason,
                    actor = change.actor,
                    "flag changed"
                );
            }
        }
        changed
    }

    /// Recorded changes, the newest first, of one flag or all.
    ///
    /// # Errors
    /// When the audit cannot be read.
    pub async fn history(&self, key: Option<&str>, limit: usize) -> io::Result<Vec<Record>> {
        let (flags, key) = (self.clone(), key.map(str::to_owned));
        let read = move || flags.inner.state.lock().audit.read(key.as_deref(), limit);
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }

    /// Looks at the file now.
    pub fn poll(&self) {
        let mut state = self.inner.state.lock();
        if state.poll(self.inner.clock.timestamp()) {
            self.inner.publish(&state);
        }
    }

    /// Whether there is a file to [`watch`](Flags::watch).
    pub fn in_file(&self) -> bool {
        self.inner.state.lock().in_file()
    }

    /// Looks at the file for ever.
    pub async fn watch(self) {
        let mut ticks = tokio::time::interval(POLL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let flags = self.clone();
            // A panic of one look is told by the runtime; the next one comes.
            let _ = tokio::task::spawn_blocking(move || flags.poll()).await;
        }
    }

    /// Registers `swarm_feature_enabled` and `swarm_flags_*`.
    pub fn register(&self, metrics: &Metrics) {
        metrics.collect(Box::new(metrics::FlagsCollector::new(self.clone())));
    }
}

impl Inner {
    /// Under the state's lock, so that what is published last is the newest.
    fn publish(&self, state: &State) {
        let published = Published {
            snapshot: state.snapshot(),
            problem: state.problem.clone(),
            warnings: state.warnings.clone(),
        };
        let revision = published.snapshot.revision;
        self.published.store(Arc::new(published));
        self.generation.fetch_add(1, Ordering::Release);
        self.changed.send_replace(revision);
    }

    /// A flag that stands in no snapshot: one of a `*` definition, or an unknown one.
    fn resolve(&self, key: &str) -> Arc<Resolved> {
        Arc::new(self.state.lock().inputs().resolve(key, true))
    }
}

/// One flag, for a request path: a comparison of a counter while nothing changes.
#[derive(Clone)]
pub struct FlagHandle {
    inner: Arc<Inner>,
    key: Arc<str>,
    cached: Arc<ArcSwap<Cached>>,
}

struct Cached {
    generation: u64,
    revision: u64,
    resolved: Arc<Resolved>,
    /// Places of variants in the definition; 0 is safe.
    places: Vec<Arc<str>>,
    /// The place of what holds without a rule.
    place: usize,
}

impl Cached {
    fn of(inner: &Inner, key: &str) -> Self {
        // Read before the snapshot: at worst the next question resolves again.
        let generation = inner.generation.load(Ordering::Acquire);
        let published = inner.published.load();
        let found = published.snapshot.flags.get(key).cloned();
        let resolved = found.unwrap_or_else(|| inner.resolve(key));
        let definition = resolved.definition.as_ref();
        let places: Vec<Arc<str>> = definition
            .map(|d| d.variants.iter().map(|name| name.as_str().into()).collect())
            .unwrap_or_default();
        let place = places.iter().position(|name| *name == resolved.variant).unwrap_or(0);
        Self { generation, revision: published.snapshot.revision, resolved, places, place }
    }
}

impl FlagHandle {
    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The answer for a context.
    pub fn evaluate(&self, context: &EvalContext<'_>) -> Evaluation {
        let cached = self.current();
        cached.resolved.evaluate(context, cached.revision)
    }

    /// The variant's place among the definition's: 0 is safe; of off, shadow and on, 2 is on. Allocates nothing.
    pub fn place(&self, context: &EvalContext<'_>) -> usize {
        let cached = self.current();
        if cached.resolved.rule.is_none() {
            return cached.place;
        }
        let variant = cached.resolved.variant(context);
        cached.places.iter().position(|name| name == variant).unwrap_or(0)
    }

    /// [`FlagHandle::place`] where it is the same for everybody: no rule tells anybody apart.
    pub fn place_for_all(&self) -> Option<usize> {
        let cached = self.current();
        cached.resolved.rule.is_none().then_some(cached.place)
    }

    /// Whether anybody gets this variant. Not for a request path.
    pub fn reaches(&self, variant: &str) -> bool {
        self.current().resolved.reachable().iter().any(|reached| **reached == *variant)
    }

    /// Whether the variant is this one. Allocates nothing.
    pub fn is(&self, variant: &str, context: &EvalContext<'_>) -> bool {
        **self.current().resolved.variant(context) == *variant
    }

    /// Grows with everything that may change the answer: whoever keeps one keeps this with it.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.inner.generation.load(Ordering::Acquire)
    }

    fn current(&self) -> arc_swap::Guard<Arc<Cached>> {
        let cached = self.cached.load();
        if cached.generation == self.inner.generation.load(Ordering::Acquire) {
            return cached;
        }
        self.cached.store(Arc::new(Cached::of(&self.inner, &self.key)));
        self.cached.load()
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags(revision {})", self.revision())
    }
}

impl fmt::Debug for FlagHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FlagHandle({})", self.key)
    }
}
