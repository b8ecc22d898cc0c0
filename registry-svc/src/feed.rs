//! Makes changes visible, and lets watchers read them at their own pace.
//!
//! A watcher holds a position, not a queue: a stalled one costs nothing and is cut when the
//! bounded history has passed it.

use crate::{
    core::{
        batch::Decided,
        history::{Change, Compacted, Event, History},
        name::Name,
        table::Entry,
    },
    names::Names,
};
use parking_lot::Mutex;
use proto::registry::Registration;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;

pub(crate) struct Feed {
    names: Arc<Names>,
    history: Mutex<History>,
    head: watch::Sender<u64>,
    followers: Mutex<Followers>,
}

#[derive(Default)]
struct Followers {
    // Revision up to which each follower's stream has been handed over.
    delivered: BTreeMap<String, Attached>,
    next_id: u64,
}

struct Attached {
    id: u64,
    revision: u64,
}

impl Feed {
    pub(crate) fn new(names: Arc<Names>, history: History) -> Arc<Self> {
        let (head, _) = watch::channel(history.head());
        Arc::new(Self { names, history: Mutex::new(history), head, followers: Mutex::default() })
    }

    /// Shows what the disk held at the start: part of the state, not of the history.
    pub(crate) fn restore(&self, registrations: Vec<Registration>) {
        let revision = self.head();
        let mut visible = self.names.write();
        for registration in registrations {
            let entry = Arc::new(Entry { registration, revision });
            visible.put(Name::new(&entry.registration.name), entry.clone());
        }
    }

    /// Publishes changes in order: each becomes visible to lookups, then to watchers. Whoever
    /// has read the head sees everything up to it in the table. Returns the newest revision.
    pub(crate) fn publish(&self, changes: Vec<Decided>) -> u64 {
        let mut history = self.history.lock();
        let mut visible = self.names.write();
        for change in changes {
            let revision = history.head() + 1;
            let change = match change {
                Decided::Put(registration) => {
                    let registration = Arc::unwrap_or_clone(registration);
                    let entry = Arc::new(Entry { registration, revision });
                    visible.put(Name::new(&entry.registration.name), entry.clone());
                    Change::Put(entry)
                }
                Decided::Removed { removed, kind } => {
                    visible.remove(&removed.name);
                    Change::Removed { removed, kind }
                }
            };
            history.push(change);
        }
        drop(visible);
        let head = history.head();
        drop(history);
        self.head.send_if_modified(|seen| {
            let newer = head > *seen;
            *seen = head.max(*seen);
            newer
        });
        head
    }

    /// The newest revision.
    pub(crate) fn head(&self) -> u64 {
        self.history.lock().head()
    }

    /// Marked changed when there is more to read.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// Up to `max` events after a revision.
    pub(crate) fn after(&self, revision: u64, max: usize) -> Result<Vec<Event>, Compacted> {
        self.history.lock().after(revision, max)
    }

    /// Counts a peer's stream as attached for as long as the handle lives.
    pub(crate) fn attach(self: &Arc<Self>, follower: &str) -> Follower {
        let mut followers = self.followers.lock();
        followers.next_id += 1;
        let id = followers.next_id;
        followers.delivered.insert(follower.to_owned(), Attached { id, revision: 0 });
        Follower { feed: self.clone(), name: follower.to_owned(), id }
    }

    /// Whether each of these peers is attached and has been handed everything up to a revision.
    pub(crate) fn all_have(&self, peers: &[String], revision: u64) -> bool {
        let followers = self.followers.lock();
        peers.iter().all(|peer| followers.delivered.get(peer).is_some_and(|at| at.revision >= revision))
    }
}

/// A peer's stream.
pub(crate) struct Follower {
    feed: Arc<Feed>,
    name: String,
    id: u64,
}

impl Follower {
    pub(crate) fn delivered(&self, revision: u64) {
        let mut followers = self.feed.followers.lock();
        if let Some(attached) =
            followers.delivered.get_mut(&self.name).filter(|attached| attached.id == self.id)
        {
            attached.revision = revision;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut followers = self.feed.followers.lock();
        if followers.delivered.get(&self.name).is_some_and(|attached| attached.id == self.id) {
            followers.delivered.remove(&self.name);
        }
    }
}
