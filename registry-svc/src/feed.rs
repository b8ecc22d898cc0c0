//! Makes changes visible, and lets watchers read them at their own pace.
//!
//! A watcher holds a position, not a queue: a stalled one costs nothing and is cut when the
//! bounded history has passed it.

use crate::{
    core::{
        batch::Batch,
        history::{Change, Compacted, Event, History},
        merge::Stamp,
        name::Name,
        shard::continues,
        table::Entry,
        waiters::{End, Full, Told, Verdict, Waiters, judge},
    },
    names::Names,
};
use parking_lot::Mutex;
use proto::{ids::ShardId, registry::Registration};
use std::{collections::BTreeMap, hint::black_box, sync::Arc};
use tokio::sync::{oneshot, watch};

pub(crate) struct Feed {
    names: Arc<Names>,
    log: Mutex<Log>,
    head: watch::Sender<u64>,
    followers: Mutex<Followers>,
}

/// What happened, and who is to be told of what happens next: under one lock, so that whoever
/// looks and then waits misses nothing in between.
struct Log {
    history: History,
    waiters: Waiters<oneshot::Sender<Told>>,
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
    pub(crate) fn new(names: Arc<Names>, history: History, max_waiters: usize) -> Arc<Self> {
        let (head, _) = watch::channel(history.head());
        let log = Mutex::new(Log { history, waiters: Waiters::new(max_waiters) });
        Arc::new(Self { names, log, head, followers: Mutex::default() })
    }

    /// Shows what the disk held at the start: part of the state, not of the history.
    pub(crate) fn restore(&self, registrations: Vec<Registration>) {
        let (revision, table) = (self.head(), self.names.table());
        table.list(registrations.iter().map(|registration| Name::new(&registration.name)).collect());
        let mut visible = self.names.write();
        let mut added = 0;
        for registration in registrations {
            added += isize::from(visible.put(&Arc::new(Entry { registration, revision })));
        }
        table.grew(added);
    }

    /// Publishes the changes of one shard in order: each becomes visible to lookups, then to watchers.
    /// Whoever has read the head sees everything up to it in the table. Returns the newest revision.
    ///
    /// The shards' writers meet here, so that what needs no order is done before and after.
    pub(crate) fn publish(&self, shard: ShardId, batch: Batch) -> u64 {
        let (table, (changes, added)) = (self.names.table(), batch.into_changes());
        if changes.is_empty() {
            return self.head();
        }
        table.expect(shard, &changes, &added);
        table.list(added);
        let changes: Vec<(Change, usize)> = changes.into_iter().map(weighed).collect();
        let mut removed = Vec::new();
        let mut grown = 0;

        let mut log = self.log.lock();
        let mut visible = self.names.write();
        for (mut change, bytes) in changes {
            let told = match &mut change {
                Change::Put(entry) => {
                    // Copied only where the store has not let go of it yet.
                    Arc::make_mut(entry).revision = log.history.head() + 1;
                    grown += isize::from(visible.put(entry));
                    log.waiters.put(entry)
                }
                Change::Removed(gone) => {
                    grown -= isize::from(visible.remove(&gone.removed.name));
                    removed.push(gone.removed.clone());
                    log.waiters.removed(&gone.removed)
                }
            };
            log.history.push(change, bytes);
            for (waiter, told) in told {
                // Whoever waited may have gone.
                let _ = waiter.send(told);
            }
        }
        drop(visible);
        let (head, over) = (log.history.head(), log.history.trim());
        drop(log);

        self.head.send_if_modified(|seen| {
            let newer = head > *seen;
            *seen = head.max(*seen);
            newer
        });
        table.grew(grown);
        table.unlist(&removed);
        let_go(over);
        head
    }

    /// The newest revision. Asked by every batch of lookups, so it waits for no batch of writes
    /// that is being published.
    pub(crate) fn head(&self) -> u64 {
        *self.head.borrow()
    }

    /// A name's registration, or a wait for it.
    pub(crate) fn await_name(self: &Arc<Self>, name: &str) -> Result<Result<Arc<Entry>, Waiting>, Full> {
        let mut log = self.log.lock();
        if let Some(entry) = self.names.table().get(name) {
            return Ok(Ok(entry));
        }
        let (reply, told) = oneshot::channel();
        let id = log.waiters.until_it_appears(name, reply)?;
        Ok(Err(Waiting { feed: self.clone(), name: name.to_owned(), id, told }))
    }

    /// How a registration that was looked up has ended, or a wait for its end. `since` is this
    /// instance's revision of the look-up.
    pub(crate) fn monitor(
        self: &Arc<Self>,
        asked: &Registration,
        since: Option<u64>,
    ) -> Result<Monitored, Full> {
        let mut log = self.log.lock();
        let live = self.names.table().get(&asked.name);
        let verdict = match judge(&Stamp::of(asked), live.clone()) {
            stands @ Verdict::Stands(_) => stands,
            unsure => since.and_then(|since| replay(&log.history, asked, since, live)).unwrap_or(unsure),
        };
        let standing = match verdict {
            Verdict::Stands(standing) => standing,
            Verdict::Ended(end) => return Ok(Monitored::Ended(end)),
            Verdict::Unheard => return Ok(Monitored::Unheard),
        };
        let (reply, told) = oneshot::channel();
        let id = log.waiters.until_it_ends(standing, reply)?;
        Ok(Monitored::Waiting(Waiting { feed: self.clone(), name: asked.name.clone(), id, told }))
    }

    /// Marked changed when there is more to read.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// Up to `max` events after a revision.
    pub(crate) fn after(&self, revision: u64, max: usize) -> Result<Vec<Event>, Compacted> {
        self.log.lock().history.after(revision, max)
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

fn weighed(change: Change) -> (Change, usize) {
    let bytes = change.bytes();
    (change, bytes)
}

/// Asks the memory for the counts of all before the first one changes: each change waits for
/// those before it, a look does not.
fn let_go(changes: Vec<Change>) {
    let count = |change: &Change| match change {
        Change::Put(entry) => Arc::strong_count(entry),
        Change::Removed(gone) => Arc::strong_count(gone),
    };
    black_box(changes.iter().fold(0, |seen, change| seen ^ count(change)));
    drop(changes);
}

/// What is known of a registration that is monitored.
pub(crate) enum Monitored {
    Waiting(Waiting),
    Ended(End),
    /// This instance has no version of it, or an older one only.
    Unheard,
}

/// Follows a registration through the changes since it was looked up. `None` where the history
/// does not reach back.
fn replay(history: &History, asked: &Registration, since: u64, live: Option<Arc<Entry>>) -> Option<Verdict> {
    let mut standing = asked.clone();
    for event in history.after(since, usize::MAX).ok()? {
        match event.change {
            Change::Put(entry) if entry.registration.name == asked.name => {
                if !continues(&standing, &entry.registration) {
                    return Some(Verdict::Ended(End::replaced(entry.registration.version)));
                }
                standing = entry.registration.clone();
            }
            Change::Removed(gone) if gone.removed.name == asked.name => {
                return Some(Verdict::Ended(End::removed(&gone.removed)));
            }
            Change::Put(_) | Change::Removed(_) => {}
        }
    }
    live.map(Verdict::Stands)
}

/// A place among the waiters, given up when it is dropped.
pub(crate) struct Waiting {
    feed: Arc<Feed>,
    name: String,
    id: u64,
    told: oneshot::Receiver<Told>,
}

impl Waiting {
    /// What is waited for. Told once; the feed outlives its waiters.
    pub(crate) async fn told(&mut self) -> Option<Told> {
        (&mut self.told).await.ok()
    }

    /// Stops waiting for an end: what stands, or the end that came at the last moment.
    pub(crate) fn stop(mut self) -> Result<Arc<Entry>, Told> {
        let standing = self.feed.log.lock().waiters.forget(&self.name, self.id);
        standing.ok_or_else(|| self.told.try_recv().unwrap_or(Told::Ended(End::gone())))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.feed.log.lock().waiters.forget(&self.name, self.id);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::table::Table;
    use std::time::Duration;

    /// Whichever comes first, the look or the change, the waiter is told.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_name_that_appears_while_somebody_looks_is_not_missed() {
        const NAMES: u64 = 2000;
        let feed =
            Feed::new(Names::new(Arc::new(Table::new(4))), History::new(1, 10, 1 << 20), NAMES as usize);
        let registration = |n: u64| Registration { name: format!("n{n}"), version: n, ..Default::default() };
        let publisher = tokio::spawn({
            let feed = feed.clone();
            async move {
                for n in 0..NAMES {
                    let mut batch = Batch::default();
                    batch.put(Name::new(&format!("n{n}")), Entry::new(registration(n)), None);
                    feed.publish(ShardId(0), batch);
                    tokio::task::yield_now().await;
                }
            }
        });
        for n in 0..NAMES {
            let mut waiting = match feed.await_name(&format!("n{n}")).unwrap() {
                Ok(entry) => {
                    assert_eq!(entry.registration.version, n);
                    continue;
                }
                Err(waiting) => waiting,
            };
            let told = tokio::time::timeout(Duration::from_secs(10), waiting.told()).await.unwrap();
            assert!(matches!(told, Some(Told::Appeared(entry)) if entry.registration.version == n));
        }
        publisher.await.unwrap();
    }

    /// Each name is put once, so of those up to the head there is one for each revision.
    #[test]
    fn whoever_reads_the_head_finds_everything_up_to_it_in_pages() {
        const NAMES: u64 = 2000;
        let table = Arc::new(Table::new(2));
        let feed = Feed::new(Names::new(table.clone()), History::new(1, 10, 1 << 20), 10);
        let start = feed.head();
        let write = |shard: ShardId| {
            for n in 0..NAMES {
                // Not in their order.
                let name = format!("n{}", n * 7919 % NAMES);
                if table.shard_of(&name) == shard {
                    let mut batch = Batch::default();
                    let registration = Registration { name: name.clone(), version: n, ..Default::default() };
                    batch.put(Name::new(&name), Entry::new(registration), None);
                    feed.publish(shard, batch);
                }
            }
        };
        let found_up_to = |head: u64| {
            let (mut found, mut after) = (0, None);
            loop {
                let page = table.page(after.as_deref(), "", 100, 1000, |_| true);
                found += page.entries.iter().filter(|entry| entry.revision <= head).count() as u64;
                match page.next {
                    Some(next) => after = Some(next),
                    None => return found,
                }
            }
        };
        std::thread::scope(|scope| {
            let write = &write;
            let writers = [0, 1].map(|shard| scope.spawn(move || write(ShardId(shard))));
            loop {
                let is_last = writers.iter().all(|writer| writer.is_finished());
                let head = feed.head();
                assert_eq!(found_up_to(head), head - start);
                if is_last {
                    break;
                }
            }
        });
        assert_eq!((feed.head() - start, table.len()), (NAMES, NAMES as usize));
    }
}
