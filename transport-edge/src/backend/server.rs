//! One backend: its shared conversation, and conversations of single sessions.

use super::{
    BackendError, BackendsConfig, Era, Peer, Unsolicited,
    connect::{self, ourselves},
    http::{Origin, OriginLimits, Session, Settings},
    link::{Greeting, Link, LinkLimits},
    metrics::{BackMetrics, Meter},
    process::{Place, Process},
    rewrite::Introduction,
    spawner::{Recipe, Spawner},
    upstream::{CallError, Upstream, Way},
};
use kit::{clock::Clock, net::Net};
use parking_lot::Mutex;
use proto::registry::{BackendSpec, backend_spec::Transport};
use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// What all backends of an edge share.
#[derive(Clone)]
pub(crate) struct Deps {
    pub(crate) config: Arc<BackendsConfig>,
    pub(crate) exec: PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) net: Arc<dyn Net>,
    pub(crate) metrics: BackMetrics,
    pub(crate) spawner: Spawner,
    pub(crate) runtime: Handle,
}

/// Where the shared conversation stands.
#[derive(Clone)]
pub(crate) enum Phase {
    Starting,
    Ready(Shared),
    Failing { reason: String, retry_after: Duration },
    Stopped,
}

/// The conversation of everybody who has no own one.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) way: SharedWay,
    pub(crate) greeting: Greeting,
}

#[derive(Clone)]
pub(crate) enum SharedWay {
    Link(Arc<Link>),
    Http(Arc<Origin>),
}

/// A backend that the registry names.
pub struct Backend {
    name: Arc<str>,
    pub(crate) spec: BackendSpec,
    pub(crate) deps: Deps,
    pub(crate) meter: Arc<Meter>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) stop: CancellationToken,
    pub(crate) restarts: AtomicU32,
    /// A modern backend refused `initialize`; nobody tries again.
    modern_only: AtomicBool,
    processes: Arc<Semaphore>,
    own: Mutex<Vec<Weak<Link>>>,
}

impl Backend {
    pub(crate) fn new(name: &str, spec: BackendSpec, deps: Deps, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Backend {
            name: name.into(),
            spec,
            meter: deps.metrics.of(name),
            phase: watch::Sender::new(Phase::Starting),
            stop,
            restarts: AtomicU32::new(0),
            modern_only: AtomicBool::new(false),
            processes: Arc::new(Semaphore::new(deps.config.max_processes.max(1))),
            own: Mutex::default(),
            deps,
        })
    }

    /// Its name in the registry.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it speaks with clients that have no session; legacy until it is known.
    pub fn era(&self) -> Era {
        match &*self.phase.borrow() {
            Phase::Ready(shared) => shared.greeting.era,
            _ => Era::Legacy,
        }
    }

    /// The deadline of one call, when the definition has one of its own.
    pub fn call_timeout(&self) -> Option<Duration> {
        let own = self.spec.call_timeout_ms;
        (own > 0).then(|| Duration::from_millis(u64::from(own)))
    }

    /// One conversation on behalf of `peer`. A peer without a session shares one with all such
    /// peers; one with a session gets its own, unless the backend is pooled. Waits for a
    /// backend that is just starting, and not for one that is failing.
    pub async fn open(self: &Arc<Self>, peer: Peer) -> Result<Upstream, BackendError> {
        let shared = self.shared().await?;
        let pooled = self.spec.strategy == "pooled";
        let refused = self.modern_only.load(Ordering::Relaxed);
        if peer.session.is_none() || pooled || refused {
            return self.join(shared, peer).await;
        }
        let opened = match &shared.way {
            SharedWay::Link(_) => self.own_process(&peer).await,
            SharedWay::Http(origin) => {
                self.own_session(origin.clone(), &peer, Era::Legacy, shared.greeting.clone()).await
            }
        };
        match opened {
            // It says to be modern and takes no initialize: its modern side serves all.
            Err(error) if shared.greeting.era == Era::Modern && !self.is_at_a_limit(&error) => {
                tracing::debug!(backend = %self.name, %error, "a modern backend takes no initialize");
                self.modern_only.store(true, Ordering::Relaxed);
                self.join(shared, peer).await
            }
            opened => opened,
        }
    }

    fn is_at_a_limit(&self, error: &BackendError) -> bool {
        self.processes.available_permits() == 0
            || matches!(error, BackendError::NotReady { reason, .. } if reason.contains("cannot connect"))
    }

    /// The shared conversation, once it stands.
    async fn shared(&self) -> Result<Shared, BackendError> {
        let mut phase = self.phase.subscribe();
        let settled = phase.wait_for(|phase| !matches!(phase, Phase::Starting));
        let patience = self.deps.config.probe_timeout();
        let now = match timeout(patience, settled).await {
            Ok(Ok(phase)) => phase.clone(),
            _ => Phase::Starting,
        };
        match now {
            Phase::Ready(shared) => Ok(shared),
            Phase::Starting => Err(self.not_ready("it is still starting", Duration::from_secs(1))),
            Phase::Failing { reason, retry_after } => Err(self.not_ready(&reason, retry_after)),
            Phase::Stopped => Err(self.not_ready("it was removed", Duration::from_secs(60))),
        }
    }

    fn not_ready(&self, reason: &str, retry_after: Duration) -> BackendError {
        BackendError::not_ready(format!("{}: {reason}", self.name), retry_after)
    }

    async fn join(self: &Arc<Self>, shared: Shared, peer: Peer) -> Result<Upstream, BackendError> {
        match &shared.way {
            SharedWay::Link(link) => {
                let seat = link.seat(who(&peer), peer.events);
                Ok(self.upstream(Way::Link(seat), shared.greeting))
            }
            SharedWay::Http(origin) => {
                let era = shared.greeting.era;
                self.own_session(origin.clone(), &peer, era, shared.greeting).await
            }
        }
    }

    /// A process for one session.
    async fn own_process(self: &Arc<Self>, peer: &Peer) -> Result<Upstream, BackendError> {
        let link = self.start_process(true).await?;
        let seat = link.seat(who(peer), peer.events.clone());
        let within = self.deps.config.start_timeout();
        let greeting = connect::initialize(&seat, &peer.protocol_version, &who(peer), within).await;
        let greeting = greeting.map_err(connect::refused).map_err(|error| match error {
            BackendError::Gone { reason } => self.not_ready(&reason, Duration::from_secs(1)),
            other => other,
        })?;
        link.greet(greeting.clone());
        Ok(self.upstream(Way::Link(seat), greeting))
    }

    async fn own_session(
        self: &Arc<Self>,
        origin: Arc<Origin>,
        peer: &Peer,
        era: Era,
        known: Greeting,
    ) -> Result<Upstream, BackendError> {
        // A modern one has no such stream; the legacy shared one carries what its clients watch.
        let listen = peer.session.is_some() || era == Era::Legacy;
        let settings = self.settings(
            era,
            who(peer),
            &peer.protocol_version,
            peer.events.clone(),
            known.server_info.clone(),
        );
        let settings = Settings { resume: peer.resume.clone(), listen, ..settings };
        let session = Session::open(origin, settings).await?;
        let result = session.shared.spoken().result.clone();
        let greeting = Greeting { era, server_info: known.server_info, result };
        Ok(self.upstream(Way::Http(session), greeting))
    }

    pub(crate) fn settings(
        &self,
        era: Era,
        who: Introduction,
        version: &str,
        events: mpsc::Sender<Unsolicited>,
        server_info: bytes::Bytes,
    ) -> Settings {
        Settings {
            backend: self.name.to_string(),
            era,
            who,
            version: version.to_owned(),
            resume: None,
            events,
            open_timeout: self.deps.config.start_timeout(),
            listen: true,
            server_info,
        }
    }

    pub(crate) fn upstream(&self, way: Way, greeting: Greeting) -> Upstream {
        Upstream::new(way, self.name.clone(), greeting, self.meter.clone(), self.deps.clock.clone())
    }

    /// Starts a process within the cap.
    pub(crate) async fn start_process(&self, exclusive: bool) -> Result<Arc<Link>, BackendError> {
        let place = self.place()?;
        let recipe = self.recipe().map_err(|reason| self.not_ready(&reason, Duration::from_secs(60)))?;
        let max_message = self.deps.config.max_message;
        let started =
            Process::start(&self.deps.spawner, recipe, max_message, place, &self.deps.runtime).await;
        let started = started
            .map_err(|error| self.not_ready(&format!("cannot start: {error}"), Duration::from_secs(1)))?;
        let limits = LinkLimits { max_in_flight: self.deps.config.max_in_flight, max_message };
        let link = Link::start(started, exclusive, limits, self.meter.clone(), &self.deps.runtime);
        if exclusive {
            let mut own = self.own.lock();
            own.retain(|link| link.strong_count() > 0);
            own.push(Arc::downgrade(&link));
        }
        Ok(link)
    }

    /// A place among the processes.
    fn place(&self) -> Result<Place, BackendError> {
        let full = || {
            let cap = self.deps.config.max_processes;
            self.not_ready(
                &format!("all {cap} processes of it are taken (limit `max_processes`)"),
                Duration::from_secs(2),
            )
        };
        let permit = self.processes.clone().try_acquire_owned().map_err(|_| full())?;
        Ok(Place::new(permit, self.meter.processes.clone()))
    }

    fn recipe(&self) -> Result<Recipe, String> {
        let Some(Transport::Stdio(stdio)) = &self.spec.transport else {
            return Err("it is no stdio server".into());
        };
        let allowed = &self.deps.config.allowed_commands;
        if !allowed.is_empty() && !allowed.contains(&stdio.command) {
            return Err(format!("command `{}` is not in `allowed_commands`", stdio.command));
        }
        if stdio.command.is_empty() {
            return Err("its command is empty".into());
        }
        Ok(Recipe {
            exec: self.deps.exec.clone(),
            command: stdio.command.clone(),
            args: stdio.args.clone(),
            env: stdio.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            cwd: (!stdio.cwd.is_empty()).then(|| PathBuf::from(&stdio.cwd)),
        })
    }

    /// The HTTP side of the definition; fails for good with a reason.
    pub(crate) fn origin(&self) -> Result<Origin, String> {
        let Some(Transport::Http(http)) = &self.spec.transport else {
            return Err("it is no HTTP server".into());
        };
        let config = &self.deps.config;
        let limits = OriginLimits {
            max_message: config.max_message,
            max_in_flight: config.max_in_flight,
            max_idle: config.max_idle_connections,
        };
        Origin::new(&http.url, &http.headers, &limits, self.deps.net.clone(), self.meter.clone())
    }

    pub(crate) fn is_stdio(&self) -> bool {
        matches!(self.spec.transport, Some(Transport::Stdio(_)))
    }

    /// Ends processes of sessions that asked nothing for long; their next request opens another.
    pub(crate) fn reap_idle(&self) {
        for link in self.own_links() {
            if link.is_idle(self.deps.config.idle()) {
                link.close("it was idle");
            }
        }
    }

    pub(crate) fn close_all(&self, reason: &str) {
        for link in self.own_links() {
            link.close(reason);
        }
    }

    fn own_links(&self) -> Vec<Arc<Link>> {
        self.own.lock().iter().filter_map(Weak::upgrade).collect()
    }

    pub(crate) fn process_count(&self) -> usize {
        self.deps.config.max_processes.max(1) - self.processes.available_permits()
    }
}

fn who(peer: &Peer) -> Introduction {
    let ours = ourselves();
    let or = |given: &bytes::Bytes, default| if given.is_empty() { default } else { given.clone() };
    Introduction {
        client_info: or(&peer.client_info, ours.client_info),
        capabilities: or(&peer.capabilities, ours.capabilities),
        log_level: None,
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The message of a failed call of our own.
pub(crate) fn words(error: &CallError) -> String {
    match error {
        CallError::Backend(BackendError::NotReady { reason, .. } | BackendError::Gone { reason }) => {
            reason.clone()
        }
        other => other.to_string(),
    }
}
