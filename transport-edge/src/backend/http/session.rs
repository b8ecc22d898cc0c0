//! One conversation with an HTTP backend: its session id, its version, what must be told again
//! when the backend has forgotten it.

use super::{
    Origin, PROTOCOL_VERSION, SESSION_ID, exchange, failed,
    request::{compose, lines},
    stream,
};
use crate::{
    backend::{
        BackendError, Core, Era, Unsolicited,
        rewrite::{Introduction, LEGACY, MODERN},
    },
    core::{
        headers::name_field,
        jsonrpc::{self, Envelope, Field, Kind},
        splice::Edits,
    },
};
use arc_swap::ArcSwap;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use parking_lot::Mutex;
use proto::edge::UpstreamRecord;
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::{Notify, mpsc},
    time::timeout_at,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// For requests of our own that nobody waits for.
const ASIDE: Duration = Duration::from_secs(2);

/// How a session is opened.
pub(crate) struct Settings {
    pub(crate) backend: String,
    pub(crate) era: Era,
    pub(crate) who: Introduction,
    pub(crate) version: String,
    pub(crate) resume: Option<UpstreamRecord>,
    pub(crate) events: mpsc::Sender<Unsolicited>,
    pub(crate) open_timeout: Duration,
    /// Read what the backend says unasked.
    pub(crate) listen: bool,
    pub(crate) server_info: Bytes,
}

/// What is agreed with the backend now; another one after it forgot us.
#[derive(Debug)]
pub(crate) struct Spoken {
    pub(crate) session_id: Option<String>,
    pub(crate) version: String,
    pub(crate) result: Bytes,
    /// The header lines of every request in it.
    lines: Bytes,
    epoch: u64,
}

/// What requests, the listening task and the owner share.
pub(crate) struct Shared {
    pub(super) origin: Arc<Origin>,
    pub(super) settings: Settings,
    spoken: ArcSwap<Spoken>,
    pub(super) last_event_id: Mutex<Option<String>>,
    /// Rings when `spoken` changed.
    pub(super) reopened: Notify,
    reopening: tokio::sync::Mutex<()>,
    memory: Mutex<Memory>,
}

/// State that the backend keeps for us and may lose with its session.
#[derive(Default)]
struct Memory {
    log_level: Option<Bytes>,
    subscriptions: BTreeSet<String>,
}

/// The owner's handle. Its drop ends the backend's session, unless it was to be kept.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    keep: AtomicBool,
    _stop: DropGuard,
}

impl Session {
    /// Initializes with the backend, or goes on with a session that it has already.
    pub(crate) async fn open(origin: Arc<Origin>, settings: Settings) -> Result<Self, BackendError> {
        let resumed = settings.resume.clone().filter(|record| !record.session_id.is_empty());
        let spoken = match (&resumed, settings.era) {
            (_, Era::Modern) => Spoken::modern(),
            (Some(record), Era::Legacy) => Spoken::legacy(
                Some(record.session_id.clone()),
                record.protocol_version.clone(),
                Bytes::new(),
                0,
            ),
            (None, Era::Legacy) => initialize(&origin, &settings, 0).await?,
        };
        let last = resumed.map(|record| record.last_event_id).filter(|id| !id.is_empty());
        let shared = Arc::new(Shared {
            origin,
            spoken: ArcSwap::from_pointee(spoken),
            last_event_id: Mutex::new(last),
            reopened: Notify::new(),
            reopening: tokio::sync::Mutex::default(),
            memory: Mutex::default(),
            settings,
        });
        let stop = CancellationToken::new();
        if shared.settings.listen && shared.settings.era == Era::Legacy {
            let work = stream::listen(shared.clone());
            shared.origin.runtime.spawn(stop.clone().run_until_cancelled_owned(work));
        }
        Ok(Session { shared, keep: AtomicBool::new(false), _stop: stop.drop_guard() })
    }

    /// Leaves the backend's session alive when this is dropped: another edge goes on with it.
    pub(crate) fn keep(&self) {
        self.keep.store(true, Ordering::Relaxed);
    }

    pub(crate) fn record(&self) -> UpstreamRecord {
        let spoken = self.shared.spoken();
        UpstreamRecord {
            backend: self.shared.settings.backend.clone(),
            session_id: spoken.session_id.clone().unwrap_or_default(),
            protocol_version: spoken.version.clone(),
            last_event_id: self.shared.last_event_id.lock().clone().unwrap_or_default(),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let spoken = self.shared.spoken();
        if self.keep.load(Ordering::Relaxed) || spoken.session_id.is_none() {
            return;
        }
        let shared = self.shared.clone();
        self.shared.origin.runtime.spawn(async move {
            let request = shared.request(&spoken, &Method::DELETE, b"", &[]);
            let sent = async {
                if let Ok((_, rest)) = shared.origin.pool.send(Core::ASIDE, &request).await {
                    rest.drain().await;
                }
            };
            let _ = tokio::time::timeout(ASIDE, sent).await;
        });
    }
}

impl Shared {
    pub(crate) fn spoken(&self) -> Arc<Spoken> {
        self.spoken.load_full()
    }

    pub(crate) fn introduction(&self) -> Introduction {
        let log_level = self.memory.lock().log_level.clone();
        Introduction { log_level, ..self.settings.who.clone() }
    }

    /// Notes what would have to be told again.
    pub(crate) fn remember(&self, raw: &Bytes, envelope: &Envelope) {
        let mut memory = self.memory.lock();
        let uri = || envelope.text(raw, Field::Uri).unwrap_or_default().into_owned();
        match envelope.method(raw).as_ref() {
            "logging/setLevel" => {
                memory.log_level = envelope.raw(raw, Field::LogLevel).map(Bytes::copy_from_slice);
            }
            "resources/subscribe" => {
                memory.subscriptions.insert(uri());
            }
            "resources/unsubscribe" => {
                memory.subscriptions.remove(&uri());
            }
            _ => {}
        }
    }

    pub(super) fn request(
        &self,
        spoken: &Spoken,
        method: &Method,
        body: &[u8],
        extra: &[(HeaderName, HeaderValue)],
    ) -> Bytes {
        compose(method, &self.origin, &spoken.lines, extra, body)
    }

    /// The headers that a modern request mirrors from its body (MCP.md 1.2, 7 and 12).
    pub(crate) fn mirrored(
        &self,
        raw: &Bytes,
        envelope: &Envelope,
        edits: &Edits,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        if self.settings.era == Era::Legacy {
            return headers;
        }
        let method = envelope.method(raw);
        headers.push((HeaderName::from_static("mcp-method"), header_value(&method)));
        if let Some(field) = name_field(&method)
            && envelope.has(field)
        {
            let span = envelope.span(field);
            let edited = edits.iter().find(|edit| edit.span == span).map(|edit| &edit.with[..]);
            let written = edited.unwrap_or_else(|| span.of(raw));
            let name = jsonrpc::text(written).unwrap_or_default();
            headers.push((HeaderName::from_static("mcp-name"), header_value(&name)));
        }
        headers
    }

    /// Sends a message that has no answer; the backend says 202.
    pub(crate) async fn post(&self, core: Core, body: Bytes, deadline: Instant) -> Result<(), BackendError> {
        let spoken = self.spoken();
        let envelope = jsonrpc::scan_backend(&body).ok();
        let extra =
            envelope.map(|envelope| self.mirrored(&body, &envelope, &Edits::new())).unwrap_or_default();
        let request = self.request(&spoken, &Method::POST, &body, &extra);
        let sent = timeout_at(deadline.into(), self.origin.pool.send(core, &request)).await;
        let (head, rest) = sent.map_err(|_| BackendError::Timeout)?.map_err(failed)?;
        let _ = timeout_at(deadline.into(), rest.drain()).await;
        match head.status {
            status if status.is_success() => Ok(()),
            StatusCode::NOT_FOUND => Err(BackendError::SessionExpired),
            status => Err(BackendError::Refused {
                status: status.as_u16(),
                reason: "refused a notification".into(),
            }),
        }
    }

    /// Sends a message that nobody waits for.
    pub(crate) fn post_aside(self: &Arc<Self>, body: Bytes) {
        let shared = self.clone();
        self.origin.runtime.spawn(async move {
            let deadline = tokio::time::Instant::now() + ASIDE;
            if let Err(error) = shared.post(Core::ASIDE, body, deadline.into_std()).await {
                tracing::debug!(%error, "a message aside was not taken");
            }
        });
    }

    /// Opens the session again after the backend has forgotten it; one at a time, and only if
    /// nobody else did since `seen`. What was told to the old session is told to the new one.
    pub(crate) async fn reopen(&self, seen: &Spoken) -> Result<(), BackendError> {
        let _turn = self.reopening.lock().await;
        let now = self.spoken();
        if now.epoch != seen.epoch {
            return Ok(());
        }
        let spoken = initialize(&self.origin, &self.settings, now.epoch + 1).await;
        let spoken = spoken.map_err(|error| {
            tracing::debug!(%error, "a session could not be opened again");
            BackendError::SessionExpired
        })?;
        self.spoken.store(Arc::new(spoken));
        *self.last_event_id.lock() = None;
        self.origin.meter.restarts.inc();
        self.replay().await;
        self.reopened.notify_waiters();
        let _ = self.settings.events.try_send(Unsolicited::Reopened);
        Ok(())
    }

    async fn replay(&self) {
        let (level, uris) = {
            let memory = self.memory.lock();
            (memory.log_level.clone(), memory.subscriptions.clone())
        };
        let level = level
            .map(|level| ("logging/setLevel", format!("{{\"level\":{}}}", String::from_utf8_lossy(&level))));
        let subscribe = |uri: String| ("resources/subscribe", serde_json::json!({"uri": uri}).to_string());
        for (method, params) in level.into_iter().chain(uris.into_iter().map(subscribe)) {
            let id = self.origin.pool.next_id(Core::ASIDE);
            let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#);
            let request = self.request(&self.spoken(), &Method::POST, body.as_bytes(), &[]);
            let answered = exchange::answer(&self.origin, &request, Core::ASIDE);
            if !matches!(tokio::time::timeout(ASIDE, answered).await, Ok(Ok(_))) {
                tracing::debug!(method, "could not be told again");
            }
        }
    }
}

impl Spoken {
    fn modern() -> Self {
        let lines = lines([(&PROTOCOL_VERSION, &HeaderValue::from_static(MODERN))]);
        Spoken { session_id: None, version: MODERN.into(), result: Bytes::new(), lines, epoch: 0 }
    }

    fn legacy(session_id: Option<String>, version: String, result: Bytes, epoch: u64) -> Self {
        let id = session_id.as_deref().and_then(|id| HeaderValue::from_str(id).ok());
        // The header came with 2025-06-18; a version is always sent, older servers ignore it.
        let version_value = HeaderValue::from_str(&version).ok();
        let headers = [(&SESSION_ID, id), (&PROTOCOL_VERSION, version_value)];
        let there = headers.iter().filter_map(|(name, value)| Some((*name, value.as_ref()?)));
        Spoken { session_id, lines: lines(there), version, result, epoch }
    }
}

async fn initialize(origin: &Origin, settings: &Settings, epoch: u64) -> Result<Spoken, BackendError> {
    let deadline = tokio::time::Instant::now() + settings.open_timeout;
    let work = handshake(origin, settings, epoch);
    tokio::time::timeout_at(deadline, work)
        .await
        .map_err(|_| BackendError::not_ready("no answer to initialize", ASIDE))?
}

async fn handshake(origin: &Origin, settings: &Settings, epoch: u64) -> Result<Spoken, BackendError> {
    let body = initialize_body(&settings.version, &settings.who);
    let request = compose(&Method::POST, origin, b"", &[], &body);
    let answer = exchange::answer(origin, &request, Core::ASIDE).await?;
    let envelope =
        jsonrpc::scan_backend(&answer.body).map_err(|error| BackendError::protocol(error.to_string()))?;
    if envelope.kind != Kind::Response {
        let message = envelope.text(&answer.body, Field::ErrorMessage).unwrap_or_default();
        return Err(BackendError::not_ready(format!("refused to initialize: {message}"), ASIDE));
    }
    let version = envelope.text(&answer.body, Field::ResultProtocolVersion).unwrap_or_default().into_owned();
    // A copy: a part would hold on to the buffer that it was read into.
    let result = Bytes::copy_from_slice(envelope.raw(&answer.body, Field::Result).unwrap_or_default());
    let spoken = Spoken::legacy(answer.session_id, version, result, epoch);
    let confirm = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let request = compose(&Method::POST, origin, &spoken.lines, &[], confirm);
    let (_, rest) = origin.pool.send(Core::ASIDE, &request).await.map_err(failed)?;
    rest.drain().await;
    Ok(spoken)
}

/// The `initialize` of one peer.
pub(crate) fn initialize_body(version: &str, who: &Introduction) -> Bytes {
    let version =
        serde_json::Value::from(if version.is_empty() || version == MODERN { LEGACY } else { version });
    let raw = |bytes: &Bytes, default: &str| match bytes.is_empty() {
        true => default.to_owned(),
        false => String::from_utf8_lossy(bytes).into_owned(),
    };
    let capabilities = raw(&who.capabilities, "{}");
    let client =
        raw(&who.client_info, concat!(r#"{"name":"swarm","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#));
    Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":{version},"capabilities":{capabilities},"clientInfo":{client}}}}}"#
    ))
}

/// A header value, in base64 behind a sentinel when it is not plain visible ASCII.
pub(crate) fn header_value(text: &str) -> HeaderValue {
    let plain = text.bytes().all(|byte| (0x21..0x7f).contains(&byte) || byte == b' ');
    let trimmed = text.trim_matches(' ') == text;
    let value = match plain && trimmed && !text.starts_with("=?base64?") {
        true => HeaderValue::from_str(text),
        false => HeaderValue::from_str(&format!("=?base64?{}?=", STANDARD.encode(text))),
    };
    value.unwrap_or_else(|_| HeaderValue::from_static(""))
}
