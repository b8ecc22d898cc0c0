//! The event logs of all sessions, in memory, and what of them is not on disk yet.

use crate::{
    config::Config,
    core::log::{Edit, Entry, LogError, Logs, View},
    error::Fault,
    store::{EventKey, Op, Store, StoreError},
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// Sessions with logs; beyond it new streams are refused.
const SESSIONS_MAX: usize = 1 << 20;
/// Changes that wait for the disk before an append waits for them too.
const PENDING_MAX: usize = 16_384;
/// A log whose session never came is dropped after this.
const ORPHAN_AGE: Duration = Duration::from_secs(600);

pub(crate) struct LogHolder {
    inner: Mutex<Inner>,
    /// Keeps the order of edits when two flushes meet.
    flushing: tokio::sync::Mutex<()>,
    bytes_max: usize,
}

#[derive(Default)]
struct Inner {
    by_id: HashMap<String, Held>,
    bytes: usize,
    pending: Vec<Op>,
}

struct Held {
    logs: Logs,
    used: Instant,
}

impl LogHolder {
    pub(crate) fn recover(
        config: &Config,
        now: Instant,
        fences: Vec<(String, u64)>,
        events: Vec<(String, String, Entry)>,
    ) -> Self {
        let mut inner = Inner::default();
        for (id, epoch) in fences {
            inner.held(&id, now).logs.fence(epoch);
        }
        for (id, stream, entry) in events {
            inner.bytes += entry.data.len();
            inner.held(&id, now).logs.recover(&stream, entry);
        }
        let flushing = tokio::sync::Mutex::default();
        LogHolder { inner: Mutex::new(inner), flushing, bytes_max: config.max_log_bytes }
    }

    /// Raises the fence; answers whether it has to be written.
    pub(crate) fn fence(&self, id: &str, epoch: u64, now: Instant) -> Result<bool, Fault> {
        let mut inner = self.inner.lock();
        inner.check_room(id)?;
        Ok(inner.held(id, now).logs.fence(epoch))
    }

    /// Appends; answers whether so much waits for the disk that the caller should flush.
    pub(crate) fn append(
        &self,
        id: &str,
        stream: &str,
        epoch: u64,
        entries: Vec<Entry>,
        now: Instant,
    ) -> Result<bool, Fault> {
        let mut inner = self.inner.lock();
        inner.check_room(id)?;
        let more: usize = entries.iter().map(|entry| entry.data.len()).sum();
        if inner.bytes + more > self.bytes_max {
            return Err(Fault::Limit("bytes of event logs of an instance"));
        }
        let held = inner.held(id, now);
        let before = held.logs.bytes();
        let edits = held.logs.append(epoch, stream, entries).map_err(|error: LogError| Fault::from(error))?;
        let after = held.logs.bytes();
        inner.bytes = inner.bytes + after - before;
        let key: EventKey = (Arc::from(id), Arc::from(stream));
        inner.pending.extend(edits.into_iter().map(|edit| match edit {
            Edit::Put(entry) => Op::PutEvent(key.clone(), entry),
            Edit::Remove(sequence) => Op::RemoveEvent(key.clone(), sequence),
        }));
        Ok(inner.pending.len() > PENDING_MAX)
    }

    pub(crate) fn view(&self, id: &str, stream: &str, after: u64) -> View {
        let inner = self.inner.lock();
        match inner.by_id.get(id) {
            Some(held) => held.logs.view(stream, after),
            None => View { first_sequence: 1, ..View::default() },
        }
    }

    /// Streams of a session, for handing them over.
    pub(crate) fn streams(&self, id: &str) -> Vec<(String, View)> {
        let inner = self.inner.lock();
        let Some(held) = inner.by_id.get(id) else { return Vec::new() };
        let names = held.logs.streams();
        names.map(|name| (name.to_owned(), held.logs.view(name, 0))).collect()
    }

    /// The session has ended: its logs go, on disk with its state.
    pub(crate) fn forget(&self, id: &str) {
        let mut inner = self.inner.lock();
        if let Some(held) = inner.by_id.remove(id) {
            inner.bytes -= held.logs.bytes();
        }
        // An edit written after the removal would leave events that nobody removes.
        inner.pending.retain(|op| match op {
            Op::PutEvent((session, _), _) | Op::RemoveEvent((session, _), _) => **session != *id,
            _ => true,
        });
    }

    /// Forgets logs that are old and whose session is not known; answers their ids.
    pub(crate) fn orphans(&self, now: Instant, known: impl Fn(&str) -> bool) -> Vec<String> {
        let inner = self.inner.lock();
        let old =
            inner.by_id.iter().filter(|(_, held)| now.saturating_duration_since(held.used) > ORPHAN_AGE);
        let ids: Vec<String> = old.map(|(id, _)| id.clone()).filter(|id| !known(id)).collect();
        drop(inner);
        for id in &ids {
            self.forget(id);
        }
        ids
    }

    pub(crate) async fn flush(&self, store: &dyn Store) -> Result<(), StoreError> {
        let _one = self.flushing.lock().await;
        let pending = std::mem::take(&mut self.inner.lock().pending);
        if pending.is_empty() {
            return Ok(());
        }
        store.commit(pending).await
    }

    pub(crate) fn bytes(&self) -> usize {
        self.inner.lock().bytes
    }
}

impl Inner {
    fn held(&mut self, id: &str, now: Instant) -> &mut Held {
        let held =
            self.by_id.entry(id.to_owned()).or_insert_with(|| Held { logs: Logs::default(), used: now });
        held.used = now;
        held
    }

    fn check_room(&self, id: &str) -> Result<(), Fault> {
        match self.by_id.len() >= SESSIONS_MAX && !self.by_id.contains_key(id) {
            true => Err(Fault::Limit("sessions with event logs")),
            false => Ok(()),
        }
    }
}
