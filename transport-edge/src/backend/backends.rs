//! All backends of this edge, kept in step with the registry.

use super::{
    Backend, BackendsConfig, Core, Definitions, FixedBackend, control,
    metrics::BackMetrics,
    names::Names,
    server::{Deps, Phase},
    shelf::Sink,
    spawner::Spawner,
};
use crate::core::catalog::Catalog;
use kit::{flags::Switches, host::Context};
use parking_lot::RwLock;
use proto::{
    edge,
    registry::{
        BackendReport, BackendSpec, BackendStatus, HttpTransport, StdioTransport, backend_spec::Transport,
        registration::Spec,
    },
};
use registry_client::{Mirror, RegistryClient, Tiers};
use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

type Specs = BTreeMap<String, BackendSpec>;

/// How long changes of state are gathered before they are reported.
const GATHER: Duration = Duration::from_millis(100);
/// Tool names that the registry takes of one backend, and their bytes.
const TOOLS_MAX: usize = 1000;
const TOOL_BYTES_MAX: usize = 16 << 10;
/// What the switches of backends are called, before the name.
const KILL: &str = "kill.backend.";
/// How long the end of all processes may take: closed input, TERM, KILL.
const END: Duration = Duration::from_secs(5);

/// Every backend that the registry names, alive on this edge. Clones share them; the last one
/// to go ends them.
#[derive(Clone)]
pub struct Backends {
    shared: Arc<Shared>,
    stop: CancellationToken,
    _guard: Arc<DropGuard>,
}

struct Shared {
    live: RwLock<BTreeMap<String, Arc<Backend>>>,
    sink: Sink,
    deps: Deps,
    edge: String,
    /// `None` when all backends are the configuration's.
    names: Option<Names>,
    /// Which backends an operator has switched off.
    off: Switches,
    /// The definitions have been read in full once.
    defined: watch::Sender<bool>,
}

impl Backends {
    /// Starts what the configuration names and what the registry names; where both name one,
    /// the configuration's holds. Call it within the runtime that outlives the cores'.
    pub fn start(
        config: BackendsConfig,
        registry: Option<(RegistryClient, Tiers)>,
        ctx: &Context,
    ) -> io::Result<Backends> {
        let fixed: Specs = config.fixed.iter().map(|(name, entry)| (name.clone(), entry.spec())).collect();
        let (sender, definitions) = watch::channel(Arc::new(fixed.clone()));
        let names =
            registry.as_ref().map(|(_, tiers)| Names::new(tiers.clone(), fixed.keys().cloned().collect()));
        let backends = Self::idle(config, names, ctx)?;
        match registry {
            None => backends.defined(),
            Some((client, tiers)) => {
                let mirror = tiers.mirror();
                backends.spawn(follow_registry(mirror, fixed, sender, backends.shared.clone()));
                backends.spawn(report(backends.shared.clone(), client, ctx.flags.subscribe()));
            }
        }
        backends.spawn(reconcile(backends.shared.clone(), definitions, backends.stop.clone()));
        Ok(backends)
    }

    /// Starts with definitions that come from elsewhere.
    pub fn follow(config: BackendsConfig, definitions: Definitions, ctx: &Context) -> io::Result<Backends> {
        let backends = Self::idle(config, None, ctx)?;
        backends.defined();
        backends.spawn(reconcile(backends.shared.clone(), definitions, backends.stop.clone()));
        Ok(backends)
    }

    fn idle(config: BackendsConfig, names: Option<Names>, ctx: &Context) -> io::Result<Backends> {
        let exec = match config.exec.as_os_str().is_empty() {
            true => std::env::current_exe()?,
            false => config.exec.clone(),
        };
        let deps = Deps {
            config: Arc::new(config),
            exec,
            clock: ctx.clock.clone(),
            net: ctx.net.clone(),
            metrics: BackMetrics::new(&ctx.metrics),
            spawner: Spawner::start()?,
            runtime: Handle::current(),
        };
        let shared = Shared {
            live: RwLock::default(),
            sink: Sink::new(),
            deps,
            edge: ctx.node.clone(),
            names,
            off: ctx.flags.switches(KILL),
            defined: watch::Sender::new(false),
        };
        // Backends outlive the drain: calls in flight end with them.
        let stop = ctx.shutdown.abort_token();
        let guard = Arc::new(stop.clone().drop_guard());
        Ok(Backends { shared: Arc::new(shared), stop, _guard: guard })
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.shared.deps.runtime.spawn(stop.run_until_cancelled_owned(work));
    }

    fn defined(&self) {
        self.shared.defined.send_replace(true);
    }

    /// The aggregate of what all backends offer. Cheap.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.shared.sink.catalog()
    }

    /// The same for a moment, without a write to memory that cores share.
    pub(crate) fn peek(&self) -> arc_swap::Guard<Arc<Catalog>> {
        self.shared.sink.peek()
    }

    /// The catalogue's revision; it changes when a client would see other lists.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.shared.sink.subscribe()
    }

    /// One backend.
    pub fn get(&self, name: &str) -> Option<Arc<Backend>> {
        self.shared.live.read().get(name).cloned()
    }

    /// Whether a backend that is alive here still stands, by the registry's word.
    pub(crate) async fn stands(&self, core: Core, name: &str) -> bool {
        match &self.shared.names {
            Some(names) => names.has(core, name, self.shared.deps.clock.now()).await,
            None => true,
        }
    }

    /// What this edge knows of each.
    pub fn views(&self) -> Vec<edge::Backend> {
        let catalog = self.catalog();
        let live = self.shared.live.read();
        live.values().map(|backend| self.shared.view(backend, &catalog)).collect()
    }

    /// Resolves when the definitions are known and each backend has been tried, or at the
    /// deadline; true when all were.
    pub async fn settled(&self, deadline: Duration) -> bool {
        timeout(deadline, self.shared.all_tried()).await.is_ok()
    }

    /// Ends all backends and waits for their processes.
    pub async fn stop(&self) {
        self.stop.cancel();
        let live: Vec<_> = std::mem::take(&mut *self.shared.live.write()).into_values().collect();
        let deadline = Instant::now() + END;
        while live.iter().any(|backend| backend.process_count() > 0) && Instant::now() < deadline {
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Shared {
    async fn all_tried(&self) {
        let mut defined = self.defined.subscribe();
        let _ = defined.wait_for(|defined| *defined).await;
        loop {
            let starting = {
                let live = self.live.read();
                let starting = |backend: &&Arc<Backend>| matches!(*backend.phase.borrow(), Phase::Starting);
                live.values().find(starting).cloned()
            };
            let Some(backend) = starting else { return };
            let mut phase = backend.phase.subscribe();
            let _ = phase.wait_for(|phase| !matches!(phase, Phase::Starting)).await;
        }
    }

    /// Makes the live backends those of `wanted`. One whose definition changed is another one.
    fn apply(self: &Arc<Self>, wanted: &Specs, stop: &CancellationToken) {
        let mut live = self.live.write();
        live.retain(|name, backend| {
            let stays = wanted.get(name) == Some(&backend.spec);
            if !stays {
                backend.stop.cancel();
                self.sink.removed(name);
                self.deps.metrics.forget(name);
            }
            stays
        });
        for (name, spec) in wanted {
            if live.contains_key(name) {
                continue;
            }
            let backend = Backend::new(name, spec.clone(), self.deps.clone(), stop.child_token());
            self.sink.starting(name);
            self.deps.runtime.spawn(control::run(backend.clone(), self.sink.clone()));
            live.insert(name.clone(), backend);
        }
    }
}

async fn reconcile(shared: Arc<Shared>, mut definitions: Definitions, stop: CancellationToken) {
    loop {
        let wanted = definitions.borrow_and_update().clone();
        shared.apply(&wanted, &stop);
        if definitions.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Merges the registry's backends with the fixed ones. While no registry answers, the last
/// view stays.
async fn follow_registry(
    mut mirror: Mirror,
    fixed: Specs,
    definitions: watch::Sender<Arc<Specs>>,
    shared: Arc<Shared>,
) {
    mirror.synced().await;
    loop {
        let mut wanted = Specs::new();
        for (name, registration) in mirror.snapshot().iter() {
            if let Some(Spec::Backend(spec)) = &registration.spec {
                wanted.insert(name.clone(), BackendSpec::clone(spec));
            }
        }
        wanted.extend(fixed.clone());
        // In one step with the backends, so that nobody finds the definitions read and the
        // backends missing.
        definitions.send_replace(Arc::new(wanted));
        tokio::task::yield_now().await;
        shared.defined.send_replace(true);
        mirror.changed().await;
    }
}

/// Tells the registry what is seen here: at each change, of a switch too, and before it would be
/// forgotten.
async fn report(shared: Arc<Shared>, client: RegistryClient, mut flags: watch::Receiver<u64>) {
    loop {
        let changed = shared.sink.changed();
        let ttl = match client.report_status(&shared.edge, shared.reports()).await {
            Ok(ttl) => ttl.max(Duration::from_secs(1)),
            Err(error) => {
                tracing::debug!(%error, "the registry was not told about the backends");
                Duration::from_secs(3)
            }
        };
        tokio::select! {
            _ = timeout(ttl / 3, changed) => {}
            // Who holds a switch holds the sender: this does not fail.
            _ = flags.changed() => {}
        }
        sleep(GATHER).await;
    }
}

impl Shared {
    /// What is seen of a backend; that an operator has switched it off stands before all else, for
    /// nobody is served. What it offers stays in the lists.
    fn view(&self, backend: &Backend, catalog: &Catalog) -> edge::Backend {
        let mut view = view(backend, catalog);
        if self.off.thrown(backend.name()) {
            view.state = "stopped".into();
            view.reason = format!("switched off by an operator ({KILL}{})", backend.name());
        }
        view
    }

    fn reports(&self) -> Vec<BackendReport> {
        let catalog = self.sink.catalog();
        let observed_at_ms = self.deps.clock.timestamp().0;
        let live = self.live.read();
        let report = |backend: &Arc<Backend>| {
            let view = self.view(backend, &catalog);
            let status = BackendStatus {
                state: view.state,
                reason: view.reason,
                edge: self.edge.clone(),
                observed_at_ms,
                tools: view.tools,
                prompts: view.prompts,
                resources: view.resources,
                tool_names: tool_names(backend, &catalog),
            };
            BackendReport { name: view.name, status: Some(status) }
        };
        live.values().map(report).collect()
    }
}

/// As many as the registry takes in one report; a backend is not found by the others.
fn tool_names(backend: &Backend, catalog: &Catalog) -> Vec<String> {
    let tools = catalog.server(backend.name()).map(|entry| entry.tools.as_slice()).unwrap_or_default();
    let names = tools.iter().take(TOOLS_MAX).map(|tool| tool.key.to_string());
    let mut bytes = 0;
    let fits = |name: &String| {
        bytes += name.len();
        bytes <= TOOL_BYTES_MAX
    };
    names.take_while(fits).collect()
}

fn view(backend: &Backend, catalog: &Catalog) -> edge::Backend {
    let entry = catalog.server(backend.name());
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let (calls, errors) = backend.meter.counts();
    let mut view = edge::Backend {
        name: backend.name().to_owned(),
        transport: if backend.is_stdio() { "stdio" } else { "http" }.into(),
        state: "starting".into(),
        processes: count(backend.process_count()),
        calls,
        errors,
        restarts: backend.restarts.load(Ordering::Relaxed),
        ..Default::default()
    };
    if let Some(entry) = entry {
        view.state = entry.state.as_str().into();
        view.reason = entry.reason.clone();
        view.era = entry.era.map(super::Era::as_str).unwrap_or_default().into();
        view.protocol_version = entry.protocol_version.clone();
        view.tools = count(entry.tools.len());
        view.prompts = count(entry.prompts.len());
        view.resources = count(entry.resources.len());
    }
    view
}

impl FixedBackend {
    fn spec(&self) -> BackendSpec {
        let transport = match self.url.is_empty() {
            true => Transport::Stdio(StdioTransport {
                command: self.command.clone(),
                args: self.args.clone(),
                env: self.env.clone(),
                cwd: self.cwd.clone(),
            }),
            false => Transport::Http(HttpTransport { url: self.url.clone(), headers: self.headers.clone() }),
        };
        BackendSpec {
            transport: Some(transport),
            strategy: self.strategy.clone(),
            call_timeout_ms: self.call_timeout_ms,
            ..Default::default()
        }
    }
}

impl fmt::Debug for Backends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backends").field("edge", &self.shared.edge).finish_non_exhaustive()
    }
}
