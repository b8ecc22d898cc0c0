//! Follows every other instance in the directory: one task each, which reads what that one
//! took itself, from where it left off or, when that is gone, from its whole state.

use crate::{
    core::command::Heard,
    handle::Handle,
    metrics::{Metrics, Peer},
};
use futures::{FutureExt as _, StreamExt as _};
use kit::{
    backoff::Backoff,
    directory::{Instance, State},
    host::Context,
    readiness::Condition,
    rpc::{MAX_MESSAGE, with_deadline},
};
use parking_lot::Mutex;
use proto::{
    error::Code,
    registry::{
        Registration, WatchRequest, WatchResponse, registry_service_client::RegistryServiceClient,
        watch_response::Event,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, Streaming};

const SERVICE: &str = "registry";
const WATCH_DEADLINE: Duration = Duration::from_secs(2);
/// Events taken in together.
const CHUNK: usize = 512;
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Starts and stops the followers as the directory changes.
pub(crate) struct Peers {
    context: Context,
    handle: Handle,
    followed: BTreeMap<String, Followed>,
    progress: Arc<Notify>,
}

struct Followed {
    addr: String,
    state: State,
    link: Arc<Mutex<Link>>,
    // What the shards were told last.
    told_down: bool,
    _stop: DropGuard,
}

#[derive(Debug, Default, Clone, Copy)]
struct Link {
    connected: bool,
    synced: bool,
}

impl Peers {
    pub(crate) fn new(context: Context, handle: Handle) -> Self {
        Self { context, handle, followed: BTreeMap::new(), progress: Arc::new(Notify::new()) }
    }

    /// Ends at the shutdown. `synced` is met once the names of all peers are here, or after
    /// `sync_wait`: a node must come up when its peers do not.
    pub(crate) async fn run(mut self, synced: Condition, sync_wait: Duration) {
        let mut directory = self.context.directory.clone();
        let shutdown = self.context.shutdown.clone();
        let mut waiting = true;
        let mut give_up = std::pin::pin!(tokio::time::sleep(sync_wait));
        loop {
            self.update().await;
            if waiting && self.all_synced() {
                synced.met();
                waiting = false;
            }
            tokio::select! {
                () = directory.changed() => {}
                () = self.progress.notified() => {}
                () = &mut give_up, if waiting => {
                    synced.met();
                    waiting = false;
                }
                () = shutdown.wait() => return,
            }
        }
    }

    fn all_synced(&self) -> bool {
        let expected = usize::try_from(self.context.expect.saturating_sub(1)).unwrap_or(usize::MAX);
        let here = |followed: &Followed| followed.state == State::Down || followed.link.lock().synced;
        self.followed.len() >= expected && self.followed.values().all(here)
    }

    async fn update(&mut self) {
        let node = &self.context.node;
        let peers = self.context.directory.of(SERVICE).into_iter().filter(|peer| peer.name != *node);
        let peers: BTreeMap<String, Instance> = peers.map(|peer| (peer.name.clone(), peer)).collect();
        let gone: Vec<String> =
            self.followed.keys().filter(|name| !peers.contains_key(*name)).cloned().collect();
        for name in gone {
            self.followed.remove(&name);
            self.handle.metrics().following.remove(&Peer { peer: name.clone() });
            self.tell(Heard::OriginDown(name.into())).await;
        }
        for (name, peer) in peers {
            self.follow(&name, &peer);
            self.judge(&name, peer.state).await;
        }
    }

    fn follow(&mut self, name: &str, peer: &Instance) {
        let known = self.followed.get(name);
        if known.is_some_and(|followed| followed.addr == peer.addr) {
            return;
        }
        let told_down = known.is_some_and(|followed| followed.told_down);
        let link = Arc::new(Mutex::new(Link::default()));
        let stop = CancellationToken::new();
        let follower = Follower {
            context: self.context.clone(),
            handle: self.handle.clone(),
            peer: name.into(),
            addr: peer.addr.clone(),
            link: link.clone(),
            progress: self.progress.clone(),
            position: 0,
        };
        let shutdown = self.context.shutdown.clone();
        let stopped = stop.clone();
        self.context.tasks.detach("registry-follower", async move {
            tokio::select! {
                () = follower.run() => {}
                () = stopped.cancelled() => {}
                () = shutdown.wait() => {}
            }
        });
        let addr = peer.addr.clone();
        self.followed.insert(
            name.to_owned(),
            Followed { addr, state: peer.state, link, told_down, _stop: stop.drop_guard() },
        );
    }

    /// A peer is given up when the directory says so and its changes do not come either: then
    /// nobody renews what it granted.
    async fn judge(&mut self, name: &str, state: State) {
        let Some(followed) = self.followed.get_mut(name) else {
            return;
        };
        followed.state = state;
        let down = state == State::Down && !followed.link.lock().connected;
        if down == followed.told_down {
            return;
        }
        followed.told_down = down;
        let origin = name.into();
        self.tell(if down { Heard::OriginDown(origin) } else { Heard::OriginUp(origin) }).await;
    }

    async fn tell(&self, heard: Heard) {
        if let Err(failure) = self.handle.hear(vec![heard]).await {
            tracing::debug!(%failure, "the shards take no more");
        }
    }
}

/// Follows one peer at one address.
struct Follower {
    context: Context,
    handle: Handle,
    peer: Arc<str>,
    addr: String,
    link: Arc<Mutex<Link>>,
    progress: Arc<Notify>,
    // Revision of the peer up to which it has been taken in; 0 = read the state.
    position: u64,
}

impl Follower {
    async fn run(mut self) {
        let mut backoff = Backoff::random(BACKOFF_FIRST, BACKOFF_MAX);
        loop {
            let end = self.follow(&mut backoff).await;
            self.connected(false);
            if let Err(status) = end {
                tracing::debug!(peer = &*self.peer, %status, "following ended");
                if matches!(Code::of(&status), Code::Compacted) {
                    self.position = 0;
                    continue;
                }
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    async fn follow(&mut self, backoff: &mut Backoff) -> Result<(), Status> {
        let request = WatchRequest {
            from_revision: self.position,
            kind: 0,
            local_origin_only: true,
            follower: self.context.node.clone(),
            progress_ms: 0,
        };
        let channel = self.context.channels.get(&self.addr);
        let mut client = RegistryServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let mut stream = client.watch(with_deadline(request, WATCH_DEADLINE)).await?.into_inner();
        backoff.reset();
        self.connected(true);
        let mut state = (self.position == 0).then(Listed::default);
        loop {
            let events = read(&mut stream).await?;
            if events.is_empty() {
                return Ok(());
            }
            self.take_in(events, &mut state).await?;
        }
    }

    async fn take_in(
        &mut self,
        events: Vec<WatchResponse>,
        state: &mut Option<Listed>,
    ) -> Result<(), Status> {
        let mut heard = Vec::with_capacity(events.len());
        let mut reports = Vec::new();
        let mut complete = state.is_none();
        let mut revision = self.position;
        for event in events {
            revision = event.revision;
            match event.event {
                Some(Event::Put(registration)) => {
                    state.iter_mut().for_each(|listed| listed.add(&registration, &self.peer));
                    heard.push(Heard::Put(registration.into()));
                }
                Some(Event::Removed(removed)) => heard.push(Heard::Removed(removed)),
                Some(Event::Status(report)) => reports.push(report),
                Some(Event::Synced(_)) => {
                    complete = true;
                    let listed = Arc::new(state.take().unwrap_or_default().0);
                    heard.push(Heard::Complete { origin: self.peer.clone(), listed });
                }
                Some(Event::Progress(_)) | None => {}
            }
        }
        self.handle.hear(heard).await?;
        if let Err(full) = self.handle.report(reports, false) {
            tracing::debug!(peer = &*self.peer, %full, "status reports are dropped");
        }
        if complete {
            self.synced(revision);
        }
        Ok(())
    }

    fn synced(&mut self, revision: u64) {
        if self.position == 0 {
            self.metrics().resyncs.get_or_create_owned(&Peer { peer: self.peer.to_string() }).inc();
        }
        self.position = revision;
        let mut link = self.link.lock();
        if !link.synced {
            link.synced = true;
            self.progress.notify_one();
        }
    }

    fn connected(&self, connected: bool) {
        let peer = Peer { peer: self.peer.to_string() };
        self.metrics().following.get_or_create_owned(&peer).set(i64::from(connected));
        let mut link = self.link.lock();
        if link.connected != connected {
            link.connected = connected;
            self.progress.notify_one();
        }
    }

    fn metrics(&self) -> &Metrics {
        self.handle.metrics()
    }
}

/// Names of the peer's own that its state listed.
#[derive(Default)]
struct Listed(BTreeSet<String>);

impl Listed {
    fn add(&mut self, registration: &Registration, peer: &str) {
        if registration.origin == peer {
            self.0.insert(registration.name.clone());
        }
    }
}

/// The next event and those that are ready with it; empty at the end of the stream.
async fn read(stream: &mut Streaming<WatchResponse>) -> Result<Vec<WatchResponse>, Status> {
    let Some(first) = stream.next().await else {
        return Ok(Vec::new());
    };
    let mut events = vec![first?];
    while events.len() < CHUNK {
        match stream.next().now_or_never() {
            Some(Some(Ok(event))) => events.push(event),
            // An error or the end shows again at the next read.
            _ => break,
        }
    }
    Ok(events)
}
