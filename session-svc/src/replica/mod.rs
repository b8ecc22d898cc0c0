//! One owner's copies: states by ballot, leases, event logs. Everything is in memory; a state is
//! shown and acked only once it is on disk.

mod logs;

pub(crate) use logs::LogHolder;

use crate::{
    config::{Config, millis},
    core::{
        acceptor::{Promises, Verdict},
        lease::Leases,
        record::{Ballot, Record},
    },
    error::Fault,
    store::{Op, Store, StoreError},
};
use futures::{StreamExt as _, stream};
use kit::Clock;
use parking_lot::{Mutex, RwLock};
use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard};
use xxhash_rust::xxh3::xxh3_64;

/// Sessions whose changes wait for each other by chance: one lock for all with the same hash.
const STRIPES: usize = 1024;
/// Rounds reserved on disk at a time. Rounds follow milliseconds, so this is a write a minute.
const RESERVE_AHEAD: u64 = 60_000;
/// A proposer whose clock is further ahead than this is refused: its ballots would lock others out.
const ROUND_AHEAD_MAX: u64 = 24 * 60 * 60 * 1000;
/// Touches that are written at a time.
const TOUCH_PARALLEL: usize = 64;
/// A touch that adds less than this to a life is not written.
const TOUCH_STEP: u64 = 1_000;

/// The answer to a prepare.
pub(crate) struct Prepared {
    pub(crate) promised: Result<(), Ballot>,
    pub(crate) stored: Option<Arc<Record>>,
}

/// How a state comes to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The first state of a fresh id.
    Create,
    /// Decided by ballot: a proposal, or a copy of what another owner stored.
    Ballot,
}

/// The answer to a write.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) refused: Option<Ballot>,
    pub(crate) current: Option<Arc<Record>>,
    pub(crate) lease_remaining: Duration,
}

/// All copies of one instance.
pub(crate) struct Replica {
    config: Config,
    clock: Arc<dyn Clock>,
    store: Arc<dyn Store>,
    records: RwLock<BTreeMap<String, Arc<Record>>>,
    bytes: AtomicUsize,
    promises: Mutex<Promises>,
    leases: Mutex<Leases>,
    stripes: Vec<AsyncMutex<()>>,
    pub(crate) logs: LogHolder,
}

impl Replica {
    /// Takes everything back from disk.
    pub(crate) fn recover(
        config: Config,
        clock: Arc<dyn Clock>,
        store: Arc<dyn Store>,
    ) -> Result<Replica, StoreError> {
        let loaded = store.load()?;
        let now = clock.now();
        let recovered = !loaded.records.is_empty();
        let records: BTreeMap<_, _> =
            loaded.records.into_iter().map(|record| (record.id.clone(), Arc::new(record))).collect();
        // A flush that met a tombstone may have left events behind it.
        let ended = |id: &str| records.get(id).is_some_and(|record| record.deleted);
        let events = loaded.events.into_iter().filter(|(id, ..)| !ended(id)).collect();
        let logs = LogHolder::recover(&config, now, loaded.fences, events);
        let bytes = records.values().map(|record| record.weight()).sum();
        Ok(Replica {
            config,
            clock,
            store,
            records: RwLock::new(records),
            bytes: AtomicUsize::new(bytes),
            promises: Mutex::new(Promises::recover(loaded.reserved)),
            leases: Mutex::new(Leases::new(now, recovered)),
            stripes: (0..STRIPES).map(|_| AsyncMutex::new(())).collect(),
            logs,
        })
    }

    /// What is stored, ended or not.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Record>> {
        self.records.read().get(id).cloned()
    }

    /// Reads for a holder that wants a lease; answers its length too. A session that has ended
    /// gives none.
    pub(crate) fn read(&self, id: &str, holder: &str, lease: Duration) -> (Option<Arc<Record>>, Duration) {
        let record = self.get(id);
        let live = record.as_ref().is_some_and(|record| record.live(self.now_ms()));
        if !live || holder.is_empty() || lease.is_zero() {
            return (record, Duration::ZERO);
        }
        let granted = self.leases.lock().grant(id, holder, lease, self.clock.now());
        // A tombstone that came before the grant did not count this lease: it must be seen instead.
        (self.get(id), granted)
    }

    /// Promises to take no older ballot.
    pub(crate) async fn prepare(&self, id: &str, ballot: &Ballot) -> Result<Prepared, Fault> {
        if ballot.round > self.now_ms().saturating_add(ROUND_AHEAD_MAX) {
            return Err(Fault::Invalid("ballot round is a day ahead of this clock".into()));
        }
        // A write in progress must be seen whole or be refused.
        let _lock = self.lock(id).await;
        if !self.promises.lock().covers(ballot.round) {
            let round = ballot.round.saturating_add(RESERVE_AHEAD);
            self.store.commit(vec![Op::Reserve(round)]).await?;
            self.promises.lock().reserve(round);
        }
        let stored = self.get(id);
        let promised = self.promises.lock().prepare(stored.as_deref(), id, ballot);
        Ok(Prepared { promised, stored })
    }

    /// Stores a state if its ballot allows; on disk when it returns.
    pub(crate) async fn write(
        &self,
        record: Record,
        mode: Mode,
        lease_holder: &str,
    ) -> Result<Written, Fault> {
        let _lock = self.lock(&record.id).await;
        let stored = self.get(&record.id);
        let verdict = self.verdict(stored.as_deref(), &record, mode);
        let refused = match verdict {
            Verdict::Refused(ballot) => Some(ballot),
            Verdict::Already => {
                self.extend(stored.as_ref(), record.expires_at_ms).await?;
                None
            }
            Verdict::Apply => {
                self.store_state(stored.as_deref(), &record).await?;
                None
            }
        };
        let current = self.get(&record.id);
        let deleted = current.as_ref().is_some_and(|current| current.deleted);
        let lease_remaining = match deleted {
            true => self.leases.lock().remaining(&record.id, lease_holder, self.clock.now()),
            false => Duration::ZERO,
        };
        Ok(Written { refused, current, lease_remaining })
    }

    /// Extends the lives of sessions by their TTL from now; answers those that are not alive.
    pub(crate) async fn touch(&self, ids: Vec<String>) -> Result<Vec<String>, Fault> {
        let touched = stream::iter(ids)
            .map(|id| async move { (self.touch_one(&id).await, id) })
            .buffer_unordered(TOUCH_PARALLEL)
            .collect::<Vec<_>>()
            .await;
        let mut unknown = Vec::new();
        for (known, id) in touched {
            if !known? {
                unknown.push(id);
            }
        }
        Ok(unknown)
    }

    /// A page in order of id.
    pub(crate) fn list(&self, after: &str, limit: usize) -> Vec<Arc<Record>> {
        let from = if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(after) };
        let records = self.records.read();
        records.range::<str, _>((from, Bound::Unbounded)).take(limit).map(|(_, r)| r.clone()).collect()
    }

    /// A page of those alive, in order of id.
    pub(crate) fn list_live(&self, after: &str, limit: usize) -> Vec<Arc<Record>> {
        let (now, records) = (self.now_ms(), self.records.read());
        let from = if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(after) };
        let page = records.range::<str, _>((from, Bound::Unbounded)).map(|(_, record)| record);
        page.filter(|record| record.live(now)).take(limit).cloned().collect()
    }

    /// Sessions whose end and grace have passed, at most `limit`, from an id on.
    pub(crate) fn reapable(&self, after: &str, scan: usize) -> (Vec<Arc<Record>>, Option<String>) {
        let (now, grace) = (self.now_ms(), millis(self.config.grace));
        let page = self.list(after, scan);
        let next = (page.len() == scan).then(|| page.last().map(|r| r.id.clone())).flatten();
        (page.into_iter().filter(|record| record.reapable(now, grace)).collect(), next)
    }

    /// Drops a state that no owner needs any more, unless it changed meanwhile.
    pub(crate) async fn drop_state(&self, seen: &Record) -> Result<(), Fault> {
        let _lock = self.lock(&seen.id).await;
        let stored = self.get(&seen.id);
        let Some(stored) = stored.filter(|stored| **stored == *seen) else { return Ok(()) };
        self.store.commit(vec![Op::RemoveSession(seen.id.clone())]).await?;
        self.records.write().remove(&seen.id);
        self.bytes.fetch_sub(stored.weight(), Ordering::Relaxed);
        self.logs.forget(&seen.id);
        Ok(())
    }

    /// Ends leases by time, and logs of sessions that never came.
    pub(crate) async fn sweep(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.leases.lock().sweep(now);
        let orphans = self.logs.orphans(now, |id| self.records.read().contains_key(id));
        if !orphans.is_empty() {
            let ops = orphans.iter().map(|id| Op::RemoveSession(id.clone())).collect();
            self.store.commit(ops).await?;
        }
        Ok(())
    }

    /// Writes the event logs' changes to disk.
    pub(crate) async fn flush(&self) -> Result<(), StoreError> {
        self.logs.flush(&*self.store).await
    }

    /// Appends events of a stream; in memory when it returns, a new fence on disk.
    pub(crate) async fn append(
        &self,
        id: &str,
        stream: &str,
        epoch: u64,
        entries: Vec<crate::core::log::Entry>,
    ) -> Result<(), Fault> {
        self.fence(id, epoch).await?;
        if self.logs.append(id, stream, epoch, entries, self.clock.now())? {
            self.flush().await?;
        }
        Ok(())
    }

    /// What is known of a stream; a fence is on disk before this returns.
    pub(crate) async fn replay(
        &self,
        id: &str,
        stream: &str,
        after: u64,
        fence_epoch: u64,
    ) -> Result<crate::core::log::View, Fault> {
        if fence_epoch > 0 {
            self.fence(id, fence_epoch).await?;
        }
        Ok(self.logs.view(id, stream, after))
    }

    /// Sessions and bytes of logs held.
    pub(crate) fn held(&self) -> (usize, usize) {
        (self.records.read().len(), self.logs.bytes())
    }

    /// Why the disk takes no more writes, if so.
    pub(crate) fn fenced(&self) -> Option<String> {
        self.store.fenced()
    }

    async fn fence(&self, id: &str, epoch: u64) -> Result<(), Fault> {
        if self.get(id).is_some_and(|record| record.deleted) {
            return Err(Fault::Fenced(u64::MAX));
        }
        if self.logs.fence(id, epoch, self.clock.now())? {
            self.store.commit(vec![Op::PutFence(id.to_owned(), epoch)]).await?;
        }
        Ok(())
    }

    fn verdict(&self, stored: Option<&Record>, record: &Record, mode: Mode) -> Verdict {
        let promises = self.promises.lock();
        match mode {
            Mode::Create => promises.create(stored, &record.id, &record.ballot),
            Mode::Ballot => promises.accept(stored, &record.id, &record.ballot),
        }
    }

    async fn store_state(&self, stored: Option<&Record>, record: &Record) -> Result<(), Fault> {
        let mut record = record.clone();
        if let Some(stored) = stored.filter(|_| !record.deleted) {
            record.expires_at_ms = record.expires_at_ms.max(stored.expires_at_ms);
        }
        let grown = record.weight();
        let freed = stored.map_or(0, Record::weight);
        self.check_room(stored.is_none(), grown.saturating_sub(freed))?;
        let record = Arc::new(record);
        let mut ops = vec![Op::PutRecord(record.clone())];
        if record.deleted {
            ops.push(Op::RemoveLogs(record.id.clone()));
        }
        self.store.commit(ops).await?;
        self.promises.lock().settle(&record.id, &record.ballot);
        if record.deleted {
            self.logs.forget(&record.id);
        }
        self.bytes.fetch_add(grown, Ordering::Relaxed);
        self.bytes.fetch_sub(freed, Ordering::Relaxed);
        self.records.write().insert(record.id.clone(), record);
        Ok(())
    }

    fn check_room(&self, new: bool, more: usize) -> Result<(), Fault> {
        if new && self.records.read().len() >= self.config.max_sessions {
            return Err(Fault::Limit("sessions of an instance"));
        }
        if self.bytes.load(Ordering::Relaxed) + more > self.config.max_session_bytes {
            return Err(Fault::Limit("bytes of sessions of an instance"));
        }
        Ok(())
    }

    async fn touch_one(&self, id: &str) -> Result<bool, Fault> {
        let _lock = self.lock(id).await;
        let now = self.now_ms();
        let stored = self.get(id).filter(|record| record.live(now));
        let Some(stored) = stored else { return Ok(false) };
        let expires = now.saturating_add(stored.ttl_ms);
        self.extend(Some(&stored), expires).await?;
        Ok(true)
    }

    /// Caller holds the lock.
    async fn extend(&self, stored: Option<&Arc<Record>>, expires_at_ms: u64) -> Result<(), Fault> {
        let Some(stored) = stored else { return Ok(()) };
        if stored.deleted || expires_at_ms < stored.expires_at_ms.saturating_add(TOUCH_STEP) {
            return Ok(());
        }
        let record = Arc::new(Record { expires_at_ms, ..(**stored).clone() });
        self.store.commit(vec![Op::PutRecord(record.clone())]).await?;
        self.records.write().insert(record.id.clone(), record);
        Ok(())
    }

    async fn lock(&self, id: &str) -> MutexGuard<'_, ()> {
        let stripe = xxh3_64(id.as_bytes()) as usize % STRIPES;
        self.stripes[stripe].lock().await
    }

    fn now_ms(&self) -> u64 {
        self.clock.timestamp().0
    }
}
