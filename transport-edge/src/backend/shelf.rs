//! Where backends put what they offer, and readers find the aggregate.

use crate::core::catalog::{Catalog, Item, ServerEntry, ServerState};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

/// Writes the catalogue. Clones share it.
#[derive(Clone)]
pub(crate) struct Sink {
    shared: Arc<Board>,
}

struct Board {
    entries: Mutex<BTreeMap<Arc<str>, Posted>>,
    catalog: ArcSwap<Catalog>,
    /// Changes when the lists do; a mere change of state rings `changed` only.
    revision: watch::Sender<u64>,
    changed: Notify,
}

struct Posted {
    entry: Arc<ServerEntry>,
    failing_since: Option<Instant>,
}

impl Sink {
    pub(crate) fn new() -> Self {
        let board = Board {
            entries: Mutex::default(),
            catalog: ArcSwap::default(),
            revision: watch::Sender::new(0),
            changed: Notify::new(),
        };
        Sink { shared: Arc::new(board) }
    }

    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.shared.catalog.load_full()
    }

    pub(crate) fn peek(&self) -> arc_swap::Guard<Arc<Catalog>> {
        self.shared.catalog.load()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.revision.subscribe()
    }

    /// Resolves at the next change of any kind after the call was polled first.
    pub(crate) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// A backend appears.
    pub(crate) fn starting(&self, name: &str) {
        self.post(name, |_| Posted { entry: Arc::new(ServerEntry::starting()), failing_since: None });
    }

    /// A backend answers.
    pub(crate) fn ready(&self, name: &str, entry: ServerEntry) {
        self.post(name, |_| Posted { entry: Arc::new(entry), failing_since: None });
    }

    /// A backend does not answer; what it offered stays for a grace period.
    pub(crate) fn failing(&self, name: &str, reason: &str) {
        self.post(name, |old| {
            let base = old.map_or_else(ServerEntry::starting, |old| (*old.entry).clone());
            let since = old.and_then(|old| old.failing_since).unwrap_or_else(Instant::now);
            let entry = ServerEntry { state: ServerState::Failing, reason: reason.to_owned(), ..base };
            Posted { entry: Arc::new(entry), failing_since: Some(since) }
        });
    }

    /// Drops the lists of a backend that has been failing for longer than `grace`.
    pub(crate) fn expire(&self, name: &str, grace: Duration) {
        let expired = {
            let entries = self.shared.entries.lock();
            let posted = entries.get(name);
            let long =
                posted.and_then(|posted| posted.failing_since).is_some_and(|since| since.elapsed() > grace);
            long && posted.is_some_and(|posted| {
                !posted.entry.tools.is_empty()
                    || !posted.entry.prompts.is_empty()
                    || !posted.entry.resources.is_empty()
            })
        };
        if expired {
            self.post(name, |old| {
                let old_entry = old.map_or_else(ServerEntry::starting, |old| (*old.entry).clone());
                let none = ServerEntry::starting();
                let entry = ServerEntry {
                    tools: none.tools,
                    prompts: none.prompts,
                    resources: none.resources,
                    templates: none.templates,
                    ..old_entry
                };
                Posted { entry: Arc::new(entry), failing_since: old.and_then(|old| old.failing_since) }
            });
        }
    }

    /// A backend is gone.
    pub(crate) fn removed(&self, name: &str) {
        let mut entries = self.shared.entries.lock();
        let listed = entries.remove(name).is_some();
        self.publish(&entries, listed);
    }

    fn post(&self, name: &str, make: impl FnOnce(Option<&Posted>) -> Posted) {
        let mut entries = self.shared.entries.lock();
        let old = entries.get(name);
        let new = make(old);
        let listed = old.is_none_or(|old| differs(&old.entry, &new.entry));
        entries.insert(name.into(), new);
        self.publish(&entries, listed);
    }

    fn publish(&self, entries: &BTreeMap<Arc<str>, Posted>, listed: bool) {
        let revision = *self.shared.revision.borrow() + u64::from(listed);
        let servers = entries.iter().map(|(name, posted)| (name.clone(), posted.entry.clone())).collect();
        self.shared.catalog.store(Arc::new(Catalog::new(revision, servers)));
        self.shared.revision.send_if_modified(|now| std::mem::replace(now, revision) != revision);
        self.shared.changed.notify_waiters();
    }
}

/// Whether a client would see another list or other capabilities.
fn differs(old: &ServerEntry, new: &ServerEntry) -> bool {
    let same = |left: &[Item], right: &[Item]| {
        left.len() == right.len() && left.iter().zip(right).all(|(left, right)| left.raw == right.raw)
    };
    !(same(&old.tools, &new.tools)
        && same(&old.prompts, &new.prompts)
        && same(&old.resources, &new.resources)
        && same(&old.templates, &new.templates)
        && old.capabilities == new.capabilities)
}
