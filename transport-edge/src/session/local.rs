//! Sessions kept in this process.

use super::store::{Event, Replayed, SessionStore, StoreError, Stored, Version};
use async_trait::async_trait;
use bytes::Bytes;
use kit::clock::Clock;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

/// Most events and bytes kept of one stream.
const EVENTS_MAX: usize = 1024;
const BYTES_MAX: usize = 1 << 20;
/// Most streams of one session; the oldest names go first.
const STREAMS_MAX: usize = 256;
/// Most sessions; when it is reached the expired are dropped, then creates are refused.
const SESSIONS_MAX: usize = 200_000;

/// Keeps versions and epochs as session-svc does, without its durability. Cheap to clone; edges of
/// one test share one.
#[derive(Clone)]
pub struct LocalStore {
    clock: Arc<dyn Clock>,
    sessions: Arc<Mutex<HashMap<String, Kept>>>,
    /// While set, every call fails as unavailable: a cut link, for tests.
    cut: Arc<std::sync::atomic::AtomicBool>,
}

struct Kept {
    principal: String,
    version: Version,
    value: Bytes,
    ttl: Duration,
    expires: Instant,
    epoch: u64,
    logs: BTreeMap<String, Log>,
}

#[derive(Default)]
struct Log {
    events: VecDeque<Event>,
    bytes: usize,
    last: u64,
}

impl LocalStore {
    /// An empty store.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        LocalStore { clock, sessions: Arc::default(), cut: Arc::default() }
    }

    /// Cuts or heals the link to the store.
    pub fn cut(&self, cut: bool) {
        self.cut.store(cut, std::sync::atomic::Ordering::SeqCst);
    }

    /// Sessions held.
    pub fn len(&self) -> usize {
        self.sessions.lock().len()
    }

    /// True when none is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn reach(&self) -> Result<(), StoreError> {
        match self.cut.load(std::sync::atomic::Ordering::SeqCst) {
            true => Err(StoreError::Unavailable("the link is cut".into())),
            false => Ok(()),
        }
    }

    fn with<T>(
        &self,
        id: &str,
        act: impl FnOnce(&mut Kept) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.reach()?;
        let now = self.clock.now();
        let mut sessions = self.sessions.lock();
        match sessions.get_mut(id) {
            Some(kept) if kept.expires > now => act(kept),
            Some(_) => {
                sessions.remove(id);
                Err(StoreError::NotFound)
            }
            None => Err(StoreError::NotFound),
        }
    }

    fn bound<T>(
        &self,
        id: &str,
        principal: &str,
        act: impl FnOnce(&mut Kept) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.with(id, |kept| match kept.principal == principal {
            true => act(kept),
            false => Err(StoreError::NotFound),
        })
    }
}

#[async_trait]
impl SessionStore for LocalStore {
    fn mint(&self) -> String {
        format!("{:036x}", rand::random::<u128>())
    }

    fn valid(&self, id: &str) -> bool {
        id.len() == 36 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    }

    async fn create(
        &self,
        id: &str,
        principal: &str,
        value: Bytes,
        ttl: Duration,
    ) -> Result<Version, StoreError> {
        self.reach()?;
        let now = self.clock.now();
        let mut sessions = self.sessions.lock();
        if sessions.len() >= SESSIONS_MAX {
            sessions.retain(|_, kept| kept.expires > now);
        }
        if sessions.len() >= SESSIONS_MAX {
            return Err(StoreError::Other(format!("more than {SESSIONS_MAX} sessions")));
        }
        let version = Version { counter: 1, writer: "local".into() };
        let kept = Kept {
            principal: principal.to_owned(),
            version: version.clone(),
            value,
            ttl,
            expires: now + ttl,
            epoch: 0,
            logs: BTreeMap::new(),
        };
        sessions.insert(id.to_owned(), kept);
        Ok(version)
    }

    async fn get(&self, id: &str, principal: &str, lease: Option<Duration>) -> Result<Stored, StoreError> {
        let lease_until = lease.map(|lease| self.clock.now() + lease);
        self.bound(id, principal, |kept| {
            Ok(Stored { version: kept.version.clone(), value: kept.value.clone(), lease_until })
        })
    }

    async fn put(
        &self,
        id: &str,
        principal: &str,
        expected: &Version,
        value: Bytes,
    ) -> Result<Version, StoreError> {
        let now = self.clock.now();
        self.bound(id, principal, |kept| {
            if kept.version != *expected {
                return Err(StoreError::Mismatch);
            }
            kept.version.counter += 1;
            kept.value = value;
            kept.expires = now + kept.ttl;
            Ok(kept.version.clone())
        })
    }

    async fn touch(&self, ids: Vec<String>) -> Result<Vec<String>, StoreError> {
        self.reach()?;
        let now = self.clock.now();
        let touch = |id: &String| {
            self.with(id, |kept| {
                kept.expires = now + kept.ttl;
                Ok(())
            })
        };
        Ok(ids.into_iter().filter(|id| touch(id).is_err()).collect())
    }

    async fn delete(&self, id: &str, principal: &str) -> Result<(), StoreError> {
        match self.bound(id, principal, |_| Ok(())) {
            Ok(()) => {
                self.sessions.lock().remove(id);
                Ok(())
            }
            Err(StoreError::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn append(&self, id: &str, stream: &str, epoch: u64, events: Vec<Event>) -> Result<(), StoreError> {
        self.with(id, |kept| {
            if epoch < kept.epoch {
                return Err(StoreError::Fenced(kept.epoch));
            }
            kept.epoch = epoch;
            if kept.logs.len() >= STREAMS_MAX && !kept.logs.contains_key(stream) {
                forget_oldest(&mut kept.logs);
            }
            kept.logs.entry(stream.to_owned()).or_default().extend(events);
            Ok(())
        })
    }

    async fn replay(
        &self,
        id: &str,
        stream: &str,
        after: u64,
        fence: Option<u64>,
    ) -> Result<Replayed, StoreError> {
        self.with(id, |kept| {
            if let Some(fence) = fence {
                if fence < kept.epoch {
                    return Err(StoreError::Fenced(kept.epoch));
                }
                kept.epoch = fence;
            }
            Ok(kept.logs.get(stream).map(|log| log.after(after)).unwrap_or_default())
        })
    }
}

/// Drops the log of the POST stream with the lowest name; `g` and `c` stay.
fn forget_oldest(logs: &mut BTreeMap<String, Log>) {
    let order = |name: &String| {
        let (epoch, n) = name.split_once('-')?;
        Some((epoch.parse::<u64>().ok()?, n.parse::<u64>().ok()?))
    };
    let oldest = logs.keys().filter_map(|name| Some((order(name)?, name.clone()))).min();
    if let Some((_, name)) = oldest {
        logs.remove(&name);
    }
}

impl Log {
    fn extend(&mut self, events: Vec<Event>) {
        for event in events {
            // A repeated append, after an outcome that was unknown.
            if event.sequence <= self.last {
                continue;
            }
            self.last = event.sequence;
            self.bytes += event.data.len();
            self.events.push_back(event);
        }
        while self.events.len() > EVENTS_MAX || self.bytes > BYTES_MAX {
            let Some(gone) = self.events.pop_front() else { break };
            self.bytes -= gone.data.len();
        }
    }

    fn after(&self, sequence: u64) -> Replayed {
        Replayed {
            events: self.events.iter().filter(|event| event.sequence > sequence).cloned().collect(),
            first_sequence: self.events.front().map_or(self.last + 1, |event| event.sequence),
            last_sequence: self.last,
            known: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::store::{EventKind, event};
    use kit::clock::SystemClock;

    const TTL: Duration = Duration::from_secs(60);

    async fn store_with(id: &str) -> (LocalStore, Version) {
        let store = LocalStore::new(Arc::new(SystemClock));
        let version = store.create(id, "p", Bytes::from_static(b"1"), TTL).await.unwrap();
        (store, version)
    }

    #[tokio::test]
    async fn only_one_of_two_concurrent_puts_wins() {
        let (store, version) = store_with("a").await;
        store.put("a", "p", &version, Bytes::from_static(b"2")).await.unwrap();
        let lost = store.put("a", "p", &version, Bytes::from_static(b"3")).await;
        assert!(matches!(lost, Err(StoreError::Mismatch)));
        assert_eq!(store.get("a", "p", None).await.unwrap().value, "2");
    }

    #[tokio::test]
    async fn another_principal_sees_no_session() {
        let (store, _) = store_with("a").await;
        assert!(matches!(store.get("a", "q", None).await, Err(StoreError::NotFound)));
        store.delete("a", "q").await.unwrap();
        assert!(store.get("a", "p", None).await.is_ok());
    }

    #[tokio::test]
    async fn an_older_epoch_is_fenced_off() {
        let (store, _) = store_with("a").await;
        let message = |n| vec![event(n, EventKind::Message, Bytes::from_static(b"m"))];
        store.append("a", "g", 1, message(1)).await.unwrap();
        store.replay("a", "g", 0, Some(2)).await.unwrap();
        assert!(matches!(store.append("a", "g", 1, message(2)).await, Err(StoreError::Fenced(2))));
        store.append("a", "g", 2, message(2)).await.unwrap();
        assert_eq!(store.replay("a", "g", 1, None).await.unwrap().events.len(), 1);
    }

    #[tokio::test]
    async fn an_expired_session_is_gone() {
        tokio::time::pause();
        let (store, _) = store_with("a").await;
        tokio::time::advance(TTL).await;
        assert!(matches!(store.get("a", "p", None).await, Err(StoreError::NotFound)));
    }

    #[tokio::test]
    async fn a_long_log_tells_what_it_dropped() {
        let (store, _) = store_with("a").await;
        let events = (1..=2000).map(|n| event(n, EventKind::Message, Bytes::from_static(b"m"))).collect();
        store.append("a", "g", 1, events).await.unwrap();
        let replayed = store.replay("a", "g", 0, None).await.unwrap();
        assert_eq!((replayed.first_sequence, replayed.last_sequence), (977, 2000));
    }
}
