//! Feeds the node's copy from the watch of one instance, and proves how fresh it is.
//!
//! Silence on the watch may mean that nothing changed or that nothing gets through. So the
//! follower asks the same instance, again and again, for its newest revision: a copy that has
//! reached it holds all that was acknowledged before the question was sent. No clock but this
//! node's own takes part, and a message that was late for any reason proves nothing too much.

use crate::{Error, RegistryClient, mirror::View, tiers::book::Heard};
use futures::{FutureExt as _, Stream, stream};
use kit::{
    backoff::Backoff,
    clock::{Clock as _, SystemClock},
    directory::{Directory, Instance},
};
use proto::registry::{Kind, Removed, RouteResponse, WatchRequest, WatchResponse, watch_response::Event};
use std::{
    collections::VecDeque,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_stream::StreamExt as _;
use tonic::Streaming;

/// Events that are applied before readers are told.
const BATCH: usize = 1024;
/// Between two questions for the newest revision.
const PROBE: Duration = Duration::from_millis(400);
/// Silence of the watch after which it says how far it is.
const PROGRESS_MS: u64 = 200;
/// Questions that wait for the watch; the newest ones count.
const WAITING_MAX: usize = 16;
/// A watch that proves nothing for this long is given up for another one.
const SILENT_MAX: Duration = Duration::from_secs(4);

/// Up to where one start of one instance has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Position {
    instance: String,
    generation: u64,
    revision: u64,
}

pub(crate) struct Follower {
    client: RegistryClient,
    directory: Directory,
    kind: Kind,
    view: Arc<View>,
    position: Option<Position>,
    backoff: Backoff,
    // Watches that failed since the last one that was good.
    failed: usize,
}

impl Follower {
    pub(crate) fn new(client: RegistryClient, kind: Kind, view: Arc<View>) -> Self {
        Self {
            directory: client.directory(),
            client,
            kind,
            view,
            position: None,
            backoff: Backoff::random(Duration::from_millis(20), Duration::from_secs(1)),
            failed: 0,
        }
    }

    pub(crate) async fn run(mut self) {
        loop {
            let instances = self.client.candidates();
            if let Some(instance) = instances.get(self.failed % instances.len().max(1)) {
                let end = self.follow(instance).await;
                tracing::debug!(instance = instance.name, end = ?end, "the registry watch ended");
                match end {
                    Ok(()) => {}
                    Err(Error::Compacted(_)) => {
                        self.position = None;
                        continue;
                    }
                    Err(_) => self.failed += 1,
                }
            }
            let pause = self.backoff.next();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.directory.changed() => {}
            }
        }
    }

    /// Reads one instance until its stream ends, a better instance is there, or it is silent.
    async fn follow(&mut self, instance: &Instance) -> Result<(), Error> {
        let resumed = self.position.take().filter(|position| is_at(position, instance));
        let asked = SystemClock.now();
        let from_revision = resumed.as_ref().map_or(0, |position| position.revision);
        let kind = self.kind.into();
        let request = WatchRequest { from_revision, kind, progress_ms: PROGRESS_MS, ..Default::default() };
        let mut stream = self.client.watch(instance, request).await?;
        let mut reading = Reading::new(asked, resumed.is_some(), from_revision);
        if resumed.is_none() {
            self.view.begin_state();
        }
        self.position = resumed;
        let client = self.client.clone();
        let mut probes = pin!(probes(&client, instance));
        loop {
            tokio::select! {
                events = read(&mut stream) => {
                    let events = events?;
                    if events.is_empty() {
                        return Ok(());
                    }
                    self.apply(instance, &mut reading, events);
                }
                Some((asked, answer)) = probes.next() => self.probed(&mut reading, asked, answer)?,
                () = self.directory.changed() => if self.is_outranked(instance) { return Ok(()) },
            }
        }
    }

    fn apply(&mut self, instance: &Instance, reading: &mut Reading, events: Vec<WatchResponse>) {
        let mut heard = Vec::with_capacity(events.len());
        let now = SystemClock.now();
        for event in events {
            reading.revision = event.revision;
            match event.event {
                Some(Event::Synced(_)) => {
                    self.view.watched(std::mem::take(&mut heard), now);
                    self.view.end_state(reading.opened);
                    reading.complete = true;
                }
                Some(event) => heard.extend(heard_of(event)),
                None => {}
            }
        }
        self.view.watched(heard, now);
        if !reading.complete {
            return;
        }
        self.backoff.reset();
        self.failed = 0;
        self.confirm(reading);
        let (generation, instance) = (instance.generation, instance.name.clone());
        self.position = Some(Position { instance, generation, revision: reading.revision });
    }

    fn probed(
        &mut self,
        reading: &mut Reading,
        asked: Instant,
        answer: Result<RouteResponse, Error>,
    ) -> Result<(), Error> {
        if let Ok(answer) = answer {
            reading.wait_for(asked, answer.revision);
            self.confirm(reading);
        }
        let now = SystemClock.now();
        let silent = self.view.fresh.age(now).min(now.saturating_duration_since(reading.opened));
        match silent > SILENT_MAX {
            true => Err(Error::Unavailable("its watch is silent".into())),
            false => Ok(()),
        }
    }

    fn confirm(&self, reading: &mut Reading) {
        if let Some(asked) = reading.reached() {
            self.view.fresh.confirm(asked);
        }
    }

    fn is_outranked(&self, current: &Instance) -> bool {
        self.client.candidates().first().is_some_and(|best| {
            best.name != current.name || best.generation != current.generation || best.addr != current.addr
        })
    }
}

/// How far one watch is.
struct Reading {
    opened: Instant,
    // The state has been read, or the watch went on from an earlier one.
    complete: bool,
    revision: u64,
    // When a revision was asked for, and the answer.
    waiting: VecDeque<(Instant, u64)>,
}

impl Reading {
    fn new(opened: Instant, complete: bool, revision: u64) -> Self {
        Self { opened, complete, revision, waiting: VecDeque::new() }
    }

    fn wait_for(&mut self, asked: Instant, revision: u64) {
        if self.waiting.len() == WAITING_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back((asked, revision));
    }

    /// The last question whose revision has been read.
    fn reached(&mut self) -> Option<Instant> {
        let mut last = None;
        while let Some((asked, _)) =
            self.waiting.pop_front_if(|(_, revision)| self.complete && *revision <= self.revision)
        {
            last = Some(asked);
        }
        last
    }
}

fn is_at(position: &Position, instance: &Instance) -> bool {
    position.instance == instance.name && position.generation == instance.generation
}

/// What an event says of a name.
pub(crate) fn heard_of(event: Event) -> Option<Heard> {
    match event {
        Event::Put(registration) => Some(Heard {
            name: registration.name.clone(),
            version: registration.version,
            value: Some(registration.into()),
        }),
        Event::Removed(Removed { name, version, .. }) => Some(Heard { name, version, value: None }),
        _ => None,
    }
}

/// Asks for the newest revision for ever: when it was asked, and the answer.
fn probes(
    client: &RegistryClient,
    instance: &Instance,
) -> impl Stream<Item = (Instant, Result<RouteResponse, Error>)> {
    stream::unfold(Duration::ZERO, move |pause| async move {
        tokio::time::sleep(pause).await;
        let asked = SystemClock.now();
        let answer = client.route_at(instance).await;
        Some(((asked, answer), PROBE))
    })
}

/// The next event and those that are ready with it; empty at the end of the stream.
async fn read(stream: &mut Streaming<WatchResponse>) -> Result<Vec<WatchResponse>, Error> {
    let Some(first) = stream.next().await else {
        return Ok(Vec::new());
    };
    let mut events = vec![first?];
    while events.len() < BATCH {
        match stream.next().now_or_never() {
            Some(Some(Ok(event))) => events.push(event),
            // An error or the end shows again at the next read.
            _ => break,
        }
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_proves_freshness_once_the_watch_has_reached_its_answer() {
        let at = |ms| SystemClock.now() + Duration::from_millis(ms);
        let (first, second, third) = (at(0), at(1), at(2));
        let mut reading = Reading::new(first, false, 0);
        reading.wait_for(first, 7);
        reading.wait_for(second, 7);
        reading.wait_for(third, 9);
        reading.revision = 7;
        assert_eq!(reading.reached(), None, "the state is not complete");
        reading.complete = true;
        assert_eq!(reading.reached(), Some(second));
        reading.revision = 8;
        assert_eq!(reading.reached(), None);
        reading.revision = 12;
        assert_eq!(reading.reached(), Some(third));
    }

    #[test]
    fn questions_without_an_answer_of_the_watch_take_no_more_than_their_limit() {
        let mut reading = Reading::new(SystemClock.now(), true, 0);
        (1..1000).for_each(|revision| reading.wait_for(SystemClock.now(), revision));
        assert_eq!(reading.waiting.len(), WAITING_MAX);
    }
}
