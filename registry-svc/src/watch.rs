//! One watcher: the state as of a revision, `synced`, then every change after it.

use crate::{
    core::{
        history::{Change, Event},
        key,
    },
    error::Failure,
    feed::Follower,
    handle::Handle,
};
use futures::{Stream, stream};
use kit::shutdown::Shutdown;
use proto::registry::{
    Durability, Kind, Progress, Registration, Removed, Synced, WatchRequest, WatchResponse, watch_response,
};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};
use tonic::Status;

/// Events or registrations taken at once: what a watcher that does not read holds, beside the
/// windows of its stream.
const CHUNK: usize = 64;
/// `progress` is not sent more often.
const PROGRESS_MIN: Duration = Duration::from_millis(50);

pub(crate) struct Watcher {
    handle: Handle,
    node: Arc<str>,
    kind: Kind,
    local_origin_only: bool,
    // Set when a peer watches.
    follower: Option<Follower>,
    phase: Phase,
    // When set, `progress` is sent after this much silence.
    progress: Option<Duration>,
    quiet_since: Instant,
    // Everything up to it has been handed over, or is in `ready`.
    revision: u64,
    reported: u64,
    head: watch::Receiver<u64>,
    reports: watch::Receiver<u64>,
    ready: VecDeque<WatchResponse>,
    shutdown: Shutdown,
}

enum Phase {
    /// The next page of the state starts after this name.
    State {
        after: Option<String>,
        count: u64,
    },
    Changes,
    Ended,
}

impl Watcher {
    /// Refuses a revision that cannot be resumed from.
    pub(crate) fn new(
        handle: Handle,
        node: Arc<str>,
        request: &WatchRequest,
        shutdown: Shutdown,
    ) -> Result<Self, Failure> {
        handle.admit_watcher()?;
        let (head, reports) = (handle.feed().subscribe(), handle.subscribe_reports());
        let asked = request.from_revision;
        let (phase, revision) = if asked == 0 {
            (Phase::State { after: None, count: 0 }, handle.feed().head())
        } else {
            handle.feed().after(asked, 1).map_err(|history| Failure::Compacted { asked, history })?;
            (Phase::Changes, asked)
        };
        let follower = (!request.follower.is_empty()).then(|| handle.feed().attach(&request.follower));
        handle.metrics().watchers.inc();
        Ok(Self {
            node,
            kind: request.kind(),
            local_origin_only: request.local_origin_only,
            follower,
            progress: progress(request),
            quiet_since: Instant::now(),
            phase,
            revision,
            reported: 0,
            head,
            reports,
            ready: VecDeque::new(),
            shutdown,
            handle,
        })
    }

    pub(crate) fn into_stream(self) -> impl Stream<Item = Result<WatchResponse, Status>> + Send + 'static {
        stream::unfold(self, |mut watcher| async move {
            let next = watcher.next().await?;
            Some((next, watcher))
        })
    }

    async fn next(&mut self) -> Option<Result<WatchResponse, Status>> {
        loop {
            if let Some(response) = self.ready.pop_front() {
                self.quiet_since = Instant::now();
                return Some(Ok(response));
            }
            let more = match self.phase {
                Phase::State { .. } => self.read_state().await,
                Phase::Changes => self.read_changes().await,
                Phase::Ended => return None,
            };
            if let Err(failure) = more {
                self.phase = Phase::Ended;
                return Some(Err(failure.into()));
            }
        }
    }

    /// The next page of names. What changed after `revision` is left out: it comes as a change.
    async fn read_state(&mut self) -> Result<(), Failure> {
        let Phase::State { after, mut count } = std::mem::replace(&mut self.phase, Phase::Changes) else {
            return Ok(());
        };
        let page = self.handle.page(after.as_deref(), "", CHUNK, |_| true);
        let old = page.entries.iter().filter(|entry| entry.revision <= self.revision);
        let puts: Vec<_> = old
            .filter(|entry| self.wants_state(&entry.registration))
            .map(|entry| self.response(watch_response::Event::Put(entry.registration.clone())))
            .collect();
        count += puts.len() as u64;
        self.ready.extend(puts);
        match page.next {
            next @ Some(_) => self.phase = Phase::State { after: next, count },
            None => self.finish_state(count).await?,
        }
        Ok(())
    }

    async fn finish_state(&mut self, count: u64) -> Result<(), Failure> {
        if self.follower.is_some() {
            let tombstones = self.handle.tombstones().await?;
            let removals = tombstones.into_iter().map(watch_response::Event::Removed);
            let removals: Vec<_> = removals.map(|event| self.response(event)).collect();
            self.ready.extend(removals);
        }
        let synced = self.response(watch_response::Event::Synced(Synced { count }));
        self.ready.push_back(synced);
        Ok(())
    }

    async fn read_changes(&mut self) -> Result<(), Failure> {
        self.head.mark_unchanged();
        self.reports.mark_unchanged();
        let events = self.handle.feed().after(self.revision, CHUNK).map_err(|_| {
            self.handle.metrics().watchers_cut.inc();
            Failure::WatcherTooSlow
        })?;
        // What was taken before has been handed over by now.
        if let Some(follower) = &self.follower {
            follower.delivered(self.revision);
        }
        let idle = events.is_empty();
        for event in events {
            self.revision = event.revision;
            let response = self.wants_change(&event.change).then(|| self.change(event));
            self.ready.extend(response);
        }
        self.read_reports();
        self.tell_progress();
        let progress_due = self.progress_due();
        if idle && self.ready.is_empty() {
            tokio::select! {
                _ = self.head.changed() => {}
                _ = self.reports.changed(), if self.follower.is_some() => {}
                () = sleep_until(progress_due) => {}
                () = self.shutdown.wait() => return Err(Failure::ShuttingDown),
            }
        }
        Ok(())
    }

    fn progress_due(&self) -> Option<Instant> {
        self.progress.map(|length| self.quiet_since + length)
    }

    /// Changes that are not wanted are silence, too, and move the revision on.
    fn tell_progress(&mut self) {
        if self.ready.is_empty() && self.progress_due().is_some_and(|due| due <= Instant::now()) {
            let progress = self.response(watch_response::Event::Progress(Progress {}));
            self.ready.push_back(progress);
        }
    }

    fn read_reports(&mut self) {
        if self.follower.is_none() {
            return;
        }
        let (reports, counter) = self.handle.reports_since(self.reported);
        self.reported = counter;
        let responses: Vec<_> =
            reports.into_iter().map(|report| self.response(watch_response::Event::Status(report))).collect();
        self.ready.extend(responses);
    }

    fn wants_state(&self, registration: &Registration) -> bool {
        let of_kind = self.is_asked_for(registration.kind);
        let is_durable = registration.durability() == Durability::Durable;
        let in_scope = self.is_local(&registration.origin) || (self.follower.is_some() && is_durable);
        of_kind && in_scope
    }

    fn wants_change(&self, change: &Change) -> bool {
        self.is_asked_for(change.kind()) && self.is_local(change.origin())
    }

    /// Properties and counters only where they are asked for, and to peers.
    fn is_asked_for(&self, kind: i32) -> bool {
        match self.kind {
            Kind::Unspecified => self.follower.is_some() || !key::is_shared_kind(kind),
            wanted => kind == i32::from(wanted),
        }
    }

    fn is_local(&self, origin: &str) -> bool {
        !self.local_origin_only || origin == &*self.node
    }

    fn change(&self, event: Event) -> WatchResponse {
        let revision = event.revision;
        WatchResponse { revision, event: Some(self.shown(event.change.into())) }
    }

    /// Peers are told keys, everybody else names.
    fn shown(&self, event: watch_response::Event) -> watch_response::Event {
        match event {
            told if self.follower.is_some() => told,
            watch_response::Event::Put(put) => watch_response::Event::Put(key::shown(put)),
            watch_response::Event::Removed(removed) => {
                watch_response::Event::Removed(key::shown_removal(removed))
            }
            other => other,
        }
    }

    fn response(&self, event: watch_response::Event) -> WatchResponse {
        WatchResponse { revision: self.revision, event: Some(self.shown(event)) }
    }
}

fn progress(request: &WatchRequest) -> Option<Duration> {
    let asked = Duration::from_millis(request.progress_ms);
    (!asked.is_zero()).then(|| asked.max(PROGRESS_MIN))
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.handle.metrics().watchers.dec();
    }
}

impl From<Change> for watch_response::Event {
    fn from(change: Change) -> Self {
        match change {
            Change::Put(entry) => watch_response::Event::Put(entry.registration.clone()),
            Change::Removed(gone) => watch_response::Event::Removed(Removed::clone(&gone.removed)),
        }
    }
}
