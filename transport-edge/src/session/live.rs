//! The live part of a session, at its anchor.

use super::{
    store::{SessionStore, StoreError, Version},
    stream::Stream,
    upstreams::Upstreams,
};
use crate::{
    backend::{RawId, Upstream},
    core::{era::Legacy, stream::STANDING},
};
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use proto::edge::SessionRecord;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Most requests of one session in flight.
const IN_FLIGHT_MAX: usize = 256;
/// Most server-to-client requests that wait for an answer; the oldest goes first.
const PENDING_MAX: usize = 256;

/// What a session's endpoint shows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// `/mcp`: every backend.
    All,
    /// `/mcp/<server>`: one, unchanged.
    One(String),
}

impl Scope {
    /// As in [`SessionRecord::scope`].
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Scope::All => "",
            Scope::One(name) => name,
        }
    }

    /// Reads a record's scope.
    pub(crate) fn of(text: &str) -> Scope {
        match text {
            "" => Scope::All,
            name => Scope::One(name.to_owned()),
        }
    }
}

/// A request of a backend that the client has to answer.
pub(crate) struct Pending {
    /// Where the answer goes.
    pub(crate) upstream: Upstream,
    /// The request's id there.
    pub(crate) id: RawId,
    /// Its progress token as written, for the client's progress.
    pub(crate) progress_token: Option<Bytes>,
    order: u64,
}

struct Call {
    id: Bytes,
    cancelled: bool,
    reason: Option<String>,
}

/// The client gave the request up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cancelled {
    /// Why, in the client's words.
    pub(crate) reason: Option<String>,
}

struct Kept {
    record: SessionRecord,
    version: Version,
}

/// A session at its anchor. Shared by every connection and stream of it.
pub(crate) struct Live {
    /// The session id; never logged.
    pub(crate) id: String,
    /// Its hash, for logs and backends.
    pub(crate) hash: String,
    /// Who opened it.
    pub(crate) principal: String,
    /// The negotiated revision.
    pub(crate) version: Legacy,
    /// The endpoint it belongs to.
    pub(crate) scope: Scope,
    /// The anchor's fencing epoch.
    pub(crate) epoch: u64,
    /// When this edge took it.
    pub(crate) since: Instant,
    /// The store it is kept in.
    pub(crate) store: Arc<dyn SessionStore>,
    /// Conversations with backends.
    pub(crate) upstreams: Upstreams,
    /// Name of the client, for views.
    pub(crate) client: String,
    /// The tool called last.
    pub(crate) called: crate::front::Memo,
    kept: tokio::sync::Mutex<Kept>,
    snapshot: Mutex<SessionRecord>,
    dirty: AtomicBool,
    lease: Mutex<Option<Instant>>,
    used: AtomicU64,
    touched: AtomicU64,
    calls: Mutex<Vec<Call>>,
    cancels: Notify,
    pending: Mutex<HashMap<Bytes, Pending>>,
    streams: Mutex<HashMap<String, Arc<Stream>>>,
    control: tokio::sync::Mutex<u64>,
    next_stream: AtomicU64,
    next_request: AtomicU64,
    ended: CancellationToken,
}

/// What a session starts from, fresh or adopted.
pub(crate) struct Start {
    /// The session id.
    pub(crate) id: String,
    /// Who opened it.
    pub(crate) principal: String,
    /// Its record, with this edge as anchor.
    pub(crate) record: SessionRecord,
    /// The record's version in the store.
    pub(crate) version: Version,
    /// Last sequence of the control log.
    pub(crate) control: u64,
    /// The store it is kept in.
    pub(crate) store: Arc<dyn SessionStore>,
    /// Now.
    pub(crate) now: Instant,
}

impl Live {
    /// A live session. Its lease is taken on first use.
    pub(crate) fn new(start: Start) -> Self {
        let Start { id, principal, record, version, control, store, now } = start;
        let hash = super::hash(&id);
        Live {
            hash,
            principal,
            version: Legacy::negotiate(&record.protocol_version),
            scope: Scope::of(&record.scope),
            epoch: record.epoch,
            since: now,
            store,
            upstreams: Upstreams::new(&record.upstreams),
            client: client_name(&record.client_info),
            called: Default::default(),
            snapshot: Mutex::new(record.clone()),
            kept: tokio::sync::Mutex::new(Kept { record, version }),
            dirty: AtomicBool::new(false),
            lease: Mutex::new(None),
            used: AtomicU64::new(0),
            touched: AtomicU64::new(0),
            calls: Mutex::default(),
            cancels: Notify::new(),
            pending: Mutex::default(),
            streams: Mutex::default(),
            control: tokio::sync::Mutex::new(control),
            next_stream: AtomicU64::new(1),
            next_request: AtomicU64::new(1),
            ended: CancellationToken::new(),
            id,
        }
    }

    // ---- its record

    /// The record as last written or noted.
    pub(crate) fn record(&self) -> SessionRecord {
        self.snapshot.lock().clone()
    }

    /// Changes the record and waits until it is kept.
    pub(crate) async fn update(
        &self,
        change: impl FnOnce(&mut SessionRecord) + Send,
    ) -> Result<(), StoreError> {
        let mut kept = self.kept.lock().await;
        self.dirty.store(false, Ordering::Release);
        let mut record = self.record();
        change(&mut record);
        *self.snapshot.lock() = record.clone();
        if record == kept.record {
            return Ok(());
        }
        let value = Bytes::from(record.encode_to_vec());
        let version = self.write(&kept.version, value).await?;
        *kept = Kept { record, version };
        Ok(())
    }

    /// Notes a change that the keeper writes later; losing it costs little.
    pub(crate) fn note(&self, change: impl FnOnce(&mut SessionRecord)) {
        change(&mut self.snapshot.lock());
        self.dirty.store(true, Ordering::Release);
    }

    /// Whether something was noted and not yet written.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Acquire)
    }

    /// Writes under this epoch. Another version in the store is either our own write whose
    /// outcome was unknown, or another edge's: then this edge is no longer the anchor.
    async fn write(&self, expected: &Version, value: Bytes) -> Result<Version, StoreError> {
        let mut expected = expected.clone();
        for _ in 0..4 {
            match self.store.put(&self.id, &self.principal, &expected, value.clone()).await {
                Ok(version) => return Ok(version),
                Err(StoreError::Mismatch | StoreError::Unknown(_)) => {
                    let stored = self.store.get(&self.id, &self.principal, None).await?;
                    let record = SessionRecord::decode(stored.value.clone()).unwrap_or_default();
                    if record.epoch != self.epoch {
                        self.end();
                        return Err(StoreError::Fenced(record.epoch));
                    }
                    if stored.value == value {
                        return Ok(stored.version);
                    }
                    expected = stored.version;
                }
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Unknown("the record changes too often".into()))
    }

    // ---- its life

    /// Whether the copy may be served now (K27).
    pub(crate) fn leased(&self, now: Instant) -> bool {
        self.lease.lock().is_some_and(|until| now < until)
    }

    /// Reads the session again under a lease; ends it when it is gone or another edge's.
    pub(crate) async fn renew(&self, lease: Duration) -> Result<(), StoreError> {
        let stored = match self.store.get(&self.id, &self.principal, Some(lease)).await {
            Err(StoreError::NotFound) => {
                self.terminate();
                return Err(StoreError::NotFound);
            }
            other => other?,
        };
        let epoch = SessionRecord::decode(stored.value).unwrap_or_default().epoch;
        if epoch > self.epoch {
            self.end();
            return Err(StoreError::Fenced(epoch));
        }
        *self.lease.lock() = stored.lease_until;
        Ok(())
    }

    /// Notes a use; `now` in ms since the edge started.
    pub(crate) fn mark_used(&self, now_ms: u64) {
        self.used.store(now_ms, Ordering::Relaxed);
    }

    /// When it was last used, in ms since the edge started.
    pub(crate) fn last_used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// True once per `every_ms` of use: the keeper then extends its life in the store.
    pub(crate) fn due_touch(&self, now_ms: u64, every_ms: u64) -> bool {
        let touched = self.touched.load(Ordering::Relaxed);
        let due = self.last_used() >= touched && now_ms >= touched + every_ms;
        if due {
            self.touched.store(now_ms, Ordering::Relaxed);
        }
        due
    }

    /// Ends the live part: streams end, calls are given up. Sessions that backends hold stay,
    /// for the next anchor goes on with them.
    pub(crate) fn end(&self) {
        self.upstreams.keep();
        self.terminate();
    }

    /// Ends the session, also at its backends.
    pub(crate) fn terminate(&self) {
        self.ended.cancel();
        self.upstreams.clear();
        self.pending.lock().clear();
        self.streams.lock().clear();
        *self.lease.lock() = None;
    }

    /// Whether it ended here.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Waits for the end.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    // ---- calls in flight

    /// Registers a request; `None` when its id is in flight already or there are too many.
    pub(crate) fn begin(self: &Arc<Self>, id: Bytes) -> Option<InFlight> {
        let mut calls = self.calls.lock();
        if calls.len() >= IN_FLIGHT_MAX || calls.iter().any(|call| call.id == id) {
            return None;
        }
        calls.push(Call { id: id.clone(), cancelled: false, reason: None });
        drop(calls);
        Some(InFlight { live: self.clone(), id })
    }

    /// The client cancels a request. Unknown ids are ignored: it may be answered by now.
    pub(crate) fn cancel(&self, id: &[u8], reason: Option<String>) {
        let mut calls = self.calls.lock();
        if let Some(call) = calls.iter_mut().find(|call| call.id == id) {
            call.cancelled = true;
            call.reason = reason;
            drop(calls);
            self.cancels.notify_waiters();
        }
    }

    /// Requests in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.calls.lock().len()
    }

    // ---- requests to the client

    /// Registers a backend's request and answers the id under which the client sees it.
    pub(crate) fn expect_answer(
        &self,
        upstream: Upstream,
        id: RawId,
        progress_token: Option<Bytes>,
    ) -> Bytes {
        let order = self.next_request.fetch_add(1, Ordering::Relaxed);
        let ours = Bytes::from(format!("\"s{}-{order}\"", self.epoch));
        let mut pending = self.pending.lock();
        if pending.len() >= PENDING_MAX
            && let Some(oldest) =
                pending.iter().min_by_key(|(_, entry)| entry.order).map(|(id, _)| id.clone())
        {
            pending.remove(&oldest);
        }
        pending.insert(ours.clone(), Pending { upstream, id, progress_token, order });
        ours
    }

    /// Takes the request that an answer of the client belongs to.
    pub(crate) fn take_pending(&self, id: &[u8]) -> Option<Pending> {
        self.pending.lock().remove(id)
    }

    /// The upstream whose request carries this progress token.
    pub(crate) fn progress_target(&self, token: &[u8]) -> Option<Upstream> {
        let pending = self.pending.lock();
        let entry = pending.values().find(|entry| entry.progress_token.as_deref() == Some(token));
        entry.map(|entry| entry.upstream.clone())
    }

    // ---- streams

    /// A fresh name for a POST's stream.
    pub(crate) fn stream_name(&self) -> String {
        crate::core::stream::post_name(self.epoch, self.next_stream.fetch_add(1, Ordering::Relaxed))
    }

    /// A stream that is live here.
    pub(crate) fn stream(&self, name: &str) -> Option<Arc<Stream>> {
        self.streams.lock().get(name).cloned()
    }

    /// The standing stream, if a client ever opened it.
    pub(crate) fn standing(&self) -> Option<Arc<Stream>> {
        self.stream(STANDING)
    }

    /// Adds a live stream; of two with one name the first stays.
    pub(crate) fn add_stream(&self, stream: Stream) -> Arc<Stream> {
        let mut streams = self.streams.lock();
        streams.entry(stream.name().to_owned()).or_insert_with(|| Arc::new(stream)).clone()
    }

    /// Forgets a stream that ended.
    pub(crate) fn remove_stream(&self, name: &str) {
        self.streams.lock().remove(name);
    }

    /// Streams that are live here.
    pub(crate) fn stream_count(&self) -> usize {
        self.streams.lock().len()
    }

    /// The POST streams whose request is not answered yet.
    pub(crate) fn open_streams(&self) -> Vec<Arc<Stream>> {
        self.streams.lock().values().filter(|stream| stream.name() != STANDING).cloned().collect()
    }

    /// Serialises writes of the control log; holds its last sequence.
    pub(super) fn control(&self) -> &tokio::sync::Mutex<u64> {
        &self.control
    }
}

fn client_name(info: &[u8]) -> String {
    let info: serde_json::Value = serde_json::from_slice(info).unwrap_or_default();
    let text = |key: &str| info.get(key).and_then(|value| value.as_str()).unwrap_or_default();
    format!("{} {}", text("name"), text("version")).trim().chars().take(80).collect()
}

/// A registered request; dropping it frees its id.
pub(crate) struct InFlight {
    live: Arc<Live>,
    id: Bytes,
}

impl InFlight {
    /// Waits until the client cancels this request.
    pub(crate) async fn cancelled(&self) -> Cancelled {
        loop {
            let notified = self.live.cancels.notified();
            if let Some(cancelled) = self.check() {
                return cancelled;
            }
            notified.await;
        }
    }

    fn check(&self) -> Option<Cancelled> {
        let calls = self.live.calls.lock();
        let call = calls.iter().find(|call| call.id == self.id && call.cancelled)?;
        Some(Cancelled { reason: call.reason.clone() })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut calls = self.live.calls.lock();
        if let Some(at) = calls.iter().position(|call| call.id == self.id) {
            calls.swap_remove(at);
        }
    }
}
