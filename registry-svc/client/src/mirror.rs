//! A node-wide copy of the registrations, fed by Watch and by the bus, that heals itself.

use crate::{
    RegistryClient,
    follow::Follower,
    tiers::{
        book::{Book, Heard},
        facts::{self, Facts},
        fresh::Freshness,
        names::Names,
    },
};
use kit::clock::{Clock as _, SystemClock};
use parking_lot::Mutex;
use proto::registry::{Kind, Registration};
use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Most names that a copy keeps.
const NAMES_MAX: usize = 1_000_000;

/// All registrations of a kind as of a moment ago. While no registry answers, the last view stays
/// and [`Mirror::age`] grows. Clones share one view and one task.
#[derive(Clone, Debug)]
pub struct Mirror {
    shared: Arc<View>,
    version: watch::Receiver<u64>,
    _stop: Arc<DropGuard>,
}

/// The copy, its one writer, and how old it is.
pub(crate) struct View {
    pub(crate) names: Names,
    pub(crate) fresh: Freshness,
    book: Mutex<Book>,
    // 0 = no complete state yet; grows with every change.
    version: watch::Sender<u64>,
}

impl Mirror {
    /// With `facts`, what the bus tells is shown before the watch brings it. Ends with its last
    /// clone, or with `stop`.
    pub(crate) fn start(
        client: RegistryClient,
        kind: Kind,
        facts: Option<Facts>,
        stop: &CancellationToken,
    ) -> Self {
        let (sender, version) = watch::channel(0);
        let shared = Arc::new(View {
            names: Names::new(),
            fresh: Freshness::new(SystemClock.now()),
            book: Mutex::new(Book::new(NAMES_MAX)),
            version: sender,
        });
        let stop = stop.child_token();
        let follower = Follower::new(client, kind, shared.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(follower.run()));
        tokio::spawn(stop.clone().run_until_cancelled_owned(facts::listen(shared.clone(), kind, facts)));
        Self { shared, version, _stop: Arc::new(stop.drop_guard()) }
    }

    /// The registrations in name order; statuses are not part of them. Takes a walk over all.
    pub fn snapshot(&self) -> BTreeMap<String, Arc<Registration>> {
        self.shared.names.all().map(|registration| (registration.name.clone(), registration)).collect()
    }

    /// One registration.
    pub fn get(&self, name: &str) -> Option<Arc<Registration>> {
        self.shared.names.get(name)
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
        self.shared.is_synced()
    }

    /// For how long changes may be missing from the view. It stays well below
    /// [`STALENESS_BOUND`](crate::tiers::STALENESS_BOUND) while a registry answers.
    pub fn age(&self) -> Duration {
        self.shared.fresh.age(SystemClock.now())
    }

    pub(crate) fn view(&self) -> &Arc<View> {
        &self.shared
    }
}

impl View {
    pub(crate) fn is_synced(&self) -> bool {
        *self.version.borrow() > 0
    }

    pub(crate) fn begin_state(&self) {
        self.book.lock().begin_state();
    }

    /// The state is complete, with all that was acknowledged before `asked`.
    pub(crate) fn end_state(&self, asked: Instant) {
        self.book.lock().end_state(&self.names);
        self.fresh.confirm(asked);
        self.tell();
    }

    pub(crate) fn watched(&self, heard: Vec<Heard>, now: Instant) {
        if heard.is_empty() {
            return;
        }
        let mut book = self.book.lock();
        heard.into_iter().for_each(|heard| book.watched(&self.names, heard, now));
        if book.is_complete() {
            self.tell();
        }
    }

    pub(crate) fn hear(&self, heard: Heard, now: Instant) {
        if self.book.lock().hear(&self.names, heard, now) {
            self.tell();
        }
    }

    pub(crate) fn expire(&self, now: Instant) {
        if self.book.lock().expire(&self.names, now) {
            self.tell();
        }
    }

    /// What is known of a name that an answer of this version has not seen.
    pub(crate) fn newer(&self, name: &str, version: u64) -> Option<Option<Arc<Registration>>> {
        let book = self.book.lock();
        book.newer(name, version).then(|| self.names.get(name))
    }

    fn tell(&self) {
        self.version.send_modify(|version| *version += 1);
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("names", &self.names.len()).finish_non_exhaustive()
    }
}
