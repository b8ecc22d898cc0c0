//! A node-wide copy of the registrations, fed by Watch, that heals itself.

use crate::{Error, RegistryClient};
use arc_swap::ArcSwap;
use kit::{
    backoff::Backoff,
    directory::{Directory, Instance},
};
use parking_lot::Mutex;
use proto::registry::{Kind, Registration, WatchRequest, WatchResponse, watch_response::Event};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};
use tokio_stream::StreamExt as _;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Streaming;

/// Registrations by name.
pub type Names = BTreeMap<String, Arc<Registration>>;

/// Events that are applied before readers see them together.
const BATCH: usize = 1024;

/// All registrations as of a moment ago. While no registry answers, the last view stays and
/// [`Mirror::age`] grows. Clones share one view and one task.
#[derive(Clone, Debug)]
pub struct Mirror {
    shared: Arc<Shared>,
    version: watch::Receiver<u64>,
    _stop: Arc<DropGuard>,
}

#[derive(Debug)]
struct Shared {
    names: ArcSwap<Names>,
    // 0 = no complete state yet; grows with every change.
    version: watch::Sender<u64>,
    // `None` while connected.
    cut_off_since: Mutex<Option<Instant>>,
}

impl Mirror {
    pub(crate) fn start(client: RegistryClient, kind: Kind) -> Self {
        let (sender, version) = watch::channel(0);
        let shared = Arc::new(Shared {
            names: ArcSwap::default(),
            version: sender,
            cut_off_since: Mutex::new(Some(Instant::now())),
        });
        let stop = CancellationToken::new();
        let follower = Follower {
            directory: client.directory(),
            client,
            kind,
            shared: shared.clone(),
            position: None,
            backoff: Backoff::random(Duration::from_millis(20), Duration::from_secs(1)),
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(follower.run()));
        Self { shared, version, _stop: Arc::new(stop.drop_guard()) }
    }

    /// The registrations now; statuses are not part of it.
    pub fn snapshot(&self) -> Arc<Names> {
        self.shared.names.load_full()
    }

    /// One registration.
    pub fn get(&self, name: &str) -> Option<Arc<Registration>> {
        self.shared.names.load().get(name).cloned()
    }

    /// Resolves at the next change not yet seen by this clone.
    pub async fn changed(&mut self) {
        if self.version.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Resolves once a complete state has been read.
    pub async fn synced(&mut self) {
        if self.version.wait_for(|version| *version > 0).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether a complete state has been read.
    pub fn is_synced(&self) -> bool {
        *self.shared.version.borrow() > 0
    }

    /// For how long no registry has answered; zero while one does.
    pub fn age(&self) -> Duration {
        self.shared.cut_off_since.lock().map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Shared {
    fn publish(&self, names: Names) {
        self.names.store(Arc::new(names));
        self.version.send_modify(|version| *version += 1);
    }

    fn connected(&self, connected: bool) {
        let mut since = self.cut_off_since.lock();
        *since = if connected { None } else { Some(since.unwrap_or_else(Instant::now)) };
    }
}

/// Up to where one start of one instance has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Position {
    instance: String,
    generation: u64,
    revision: u64,
}

struct Follower {
    client: RegistryClient,
    directory: Directory,
    kind: Kind,
    shared: Arc<Shared>,
    position: Option<Position>,
    backoff: Backoff,
}

impl Follower {
    async fn run(mut self) {
        loop {
            if let Some(instance) = self.client.candidates().into_iter().next() {
                let end = self.follow(&instance).await;
                self.shared.connected(false);
                tracing::debug!(instance = instance.name, end = ?end, "the registry watch ended");
                if let Err(Error::Compacted(_)) = end {
                    self.position = None;
                    continue;
                }
            }
            let pause = self.backoff.next();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.directory.changed() => {}
            }
        }
    }

    /// Reads one instance until its stream ends or a better instance is there.
    async fn follow(&mut self, instance: &Instance) -> Result<(), Error> {
        let resumed = self.position.take().filter(|position| is_at(position, instance));
        let from_revision = resumed.as_ref().map_or(0, |position| position.revision);
        let kind = self.kind.into();
        let request = WatchRequest { from_revision, kind, ..Default::default() };
        let mut stream = self.client.watch(instance, request).await?;
        let mut view = View::new(resumed.is_some().then(|| self.shared.names.load_full()));
        if resumed.is_some() {
            self.shared.connected(true);
        }
        self.position = resumed;
        loop {
            let events = tokio::select! {
                events = read(&mut stream) => events?,
                () = self.directory.changed() => {
                    if self.is_outranked(instance) { return Ok(()) }
                    continue;
                }
            };
            if events.is_empty() {
                return Ok(());
            }
            self.apply(instance, &mut view, events);
        }
    }

    fn apply(&mut self, instance: &Instance, view: &mut View, events: Vec<WatchResponse>) {
        let mut revision = 0;
        for event in events {
            revision = event.revision;
            view.apply(event);
        }
        if !view.complete {
            return;
        }
        self.backoff.reset();
        self.shared.connected(true);
        self.shared.publish(view.names.clone());
        let (generation, instance) = (instance.generation, instance.name.clone());
        self.position = Some(Position { instance, generation, revision });
    }

    fn is_outranked(&self, current: &Instance) -> bool {
        self.client.candidates().first().is_some_and(|best| {
            best.name != current.name || best.generation != current.generation || best.addr != current.addr
        })
    }
}

fn is_at(position: &Position, instance: &Instance) -> bool {
    position.instance == instance.name && position.generation == instance.generation
}

/// The next event and those that are ready with it; empty at the end of the stream.
async fn read(stream: &mut Streaming<WatchResponse>) -> Result<Vec<WatchResponse>, Error> {
    let Some(first) = stream.next().await else {
        return Ok(Vec::new());
    };
    let mut events = vec![first?];
    while events.len() < BATCH {
        match futures::FutureExt::now_or_never(stream.next()) {
            Some(Some(Ok(event))) => events.push(event),
            // An error or the end shows again at the next read.
            _ => break,
        }
    }
    Ok(events)
}

/// The state as it is read; shown to nobody before it is complete.
struct View {
    names: Names,
    complete: bool,
}

impl View {
    fn new(resumed: Option<Arc<Names>>) -> Self {
        let complete = resumed.is_some();
        Self { names: resumed.map(|names| (*names).clone()).unwrap_or_default(), complete }
    }

    fn apply(&mut self, event: WatchResponse) {
        match event.event {
            Some(Event::Put(registration)) => {
                self.names.insert(registration.name.clone(), Arc::new(registration));
            }
            Some(Event::Removed(removed)) => {
                self.names.remove(&removed.name);
            }
            Some(Event::Synced(_)) => self.complete = true,
            Some(Event::Status(_) | Event::Progress(_)) | None => {}
        }
    }
}
