//! A conversation with a backend on behalf of one peer, and one request of it.

use super::{
    BackendError, CallMeta, Core, Era, FromBackend, RawId,
    http::{HttpExchange, Session},
    link::Greeting,
    metrics::{Meter, label},
    seat::{LinkExchange, Seat},
};
use crate::core::{
    codes,
    jsonrpc::{self, Envelope, Field},
    splice::{Edit, Edits, splice},
};
use bytes::Bytes;
use kit::clock::Clock;
use proto::edge::UpstreamRecord;
use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::timeout_at;

/// How long an answer or a notification may take to be handed over.
const HAND_OVER: Duration = Duration::from_secs(10);

/// A conversation. The drop of the last clone ends it: a session's own process ends, an HTTP
/// backend gets a DELETE unless [`Upstream::keep`] was called.
#[derive(Clone)]
pub struct Upstream {
    inner: Arc<Inner>,
}

struct Inner {
    way: Way,
    backend: Arc<str>,
    greeting: Greeting,
    meter: Arc<Meter>,
    clock: Arc<dyn Clock>,
}

pub(crate) enum Way {
    Link(Arc<Seat>),
    Http(Session),
}

/// One request under way. Dropped before its answer, it is cancelled at the backend.
pub struct Exchange {
    way: ExchangeWay,
    core: Core,
    deadline: Instant,
    method: &'static str,
    started: Instant,
    upstream: Arc<Inner>,
    noted: bool,
}

/// Nothing came so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late;

enum ExchangeWay {
    Link(LinkExchange),
    Http(Box<HttpExchange>),
    Ready(Option<FromBackend>),
}

/// What a request of our own gave.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CallError {
    #[error("{message} ({code})")]
    Refused { code: i64, message: String, data: Bytes },
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl Upstream {
    pub(crate) fn new(
        way: Way,
        backend: Arc<str>,
        greeting: Greeting,
        meter: Arc<Meter>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Upstream { inner: Arc::new(Inner { way, backend, greeting, meter, clock }) }
    }

    /// Which protocol is spoken here. A backend of both eras is spoken to in its client's.
    pub fn era(&self) -> Era {
        self.inner.greeting.era
    }

    /// What another edge needs to go on; an empty `session_id` when there is nothing.
    pub fn record(&self) -> UpstreamRecord {
        match &self.inner.way {
            Way::Http(session) => session.record(),
            Way::Link(_) => UpstreamRecord { backend: self.inner.backend.to_string(), ..Default::default() },
        }
    }

    /// Leaves the backend's own session alive when this is dropped: another edge goes on with it.
    pub fn keep(&self) {
        if let Way::Http(session) = &self.inner.way {
            session.keep();
        }
    }

    /// The raw result of the backend's `initialize` (or `server/discover`), if one was asked for.
    pub fn initialize_result(&self) -> Option<Bytes> {
        let result = &self.inner.greeting.result;
        (!result.is_empty()).then(|| result.clone())
    }

    /// Sends a request. `raw` is the client's body, `edits` what is to change in it; the id and
    /// the progress token are changed here and changed back in what comes.
    pub async fn request(
        &self,
        core: Core,
        raw: Bytes,
        envelope: &Envelope,
        edits: Edits,
        meta: CallMeta,
    ) -> Result<Exchange, BackendError> {
        self.send(core, &raw, envelope, edits, &meta, false).await
    }

    async fn send(
        &self,
        core: Core,
        raw: &Bytes,
        envelope: &Envelope,
        edits: Edits,
        meta: &CallMeta,
        quiet: bool,
    ) -> Result<Exchange, BackendError> {
        let method = envelope.method(raw);
        let started = self.inner.clock.now();
        let way = match self.local(raw, envelope) {
            Some(answer) => Ok(ExchangeWay::Ready(Some(answer))),
            None => match &self.inner.way {
                // Boxed, so that the future of a call stays small.
                Way::Link(seat) => Box::pin(seat.request(raw, envelope, edits, meta.deadline, quiet))
                    .await
                    .map(ExchangeWay::Link),
                Way::Http(session) => {
                    let shared = session.shared.clone();
                    HttpExchange::start(shared, core, raw, envelope, edits, meta)
                        .map(|exchange| ExchangeWay::Http(Box::new(exchange)))
                }
            },
        };
        let method = label(&method);
        if way.is_err() {
            self.inner.meter.called(core, method, Duration::ZERO, "not_ready");
        }
        let (deadline, upstream) = (meta.deadline, self.inner.clone());
        Ok(Exchange { way: way?, core, deadline, method, started, upstream, noted: false })
    }

    /// What has no counterpart in a modern backend is answered here.
    fn local(&self, raw: &Bytes, envelope: &Envelope) -> Option<FromBackend> {
        if self.era() == Era::Legacy || envelope.method(raw) != "logging/setLevel" {
            return None;
        }
        let level = raw.slice_ref(envelope.raw(raw, Field::LogLevel)?);
        match &self.inner.way {
            Way::Link(seat) => seat.set_log_level(level),
            Way::Http(session) => session.shared.remember(raw, envelope),
        }
        let raw = codes::result(envelope.id(raw)?, b"{}");
        Some(FromBackend::Response { raw, is_error: false, tool_error: false })
    }

    /// Passes a client's notification on. Modern backends take none.
    pub async fn notify(&self, raw: Bytes) -> Result<(), BackendError> {
        match &self.inner.way {
            _ if self.era() == Era::Modern => Ok(()),
            Way::Link(seat) => seat.send(&raw).await,
            Way::Http(session) => {
                let deadline = self.inner.clock.now() + HAND_OVER;
                session.shared.post(Core::ASIDE, raw, deadline).await
            }
        }
    }

    /// The client's response to a request of the backend; `id` is the backend's.
    pub async fn answer(&self, id: &RawId, raw: Bytes, envelope: &Envelope) -> Result<(), BackendError> {
        match &self.inner.way {
            Way::Link(seat) => seat.answer(id, &raw, envelope).await,
            Way::Http(session) => {
                let body = splice(&raw, &[Edit::replace(envelope.span(Field::Id), id.0.clone())]);
                let deadline = self.inner.clock.now() + HAND_OVER;
                session.shared.post(Core::ASIDE, body, deadline).await
            }
        }
    }

    /// A request of our own: the raw result, or why there is none.
    pub(crate) async fn call(
        &self,
        method: &str,
        params: &str,
        within: Duration,
    ) -> Result<Bytes, CallError> {
        let body =
            Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":0,"method":"{method}","params":{params}}}"#));
        let envelope = jsonrpc::scan(&body).map_err(|error| BackendError::protocol(error.to_string()))?;
        let meta = CallMeta { deadline: self.inner.clock.now() + within, headers: Vec::new() };
        let mut exchange = self.send(Core::ASIDE, &body, &envelope, Edits::new(), &meta, true).await?;
        while let Some(item) = exchange.next().await {
            if let FromBackend::Response { raw, .. } = item? {
                return result_of(&raw);
            }
        }
        Err(BackendError::gone("no answer").into())
    }
}

/// The raw result in a response, or its error.
pub(crate) fn result_of(raw: &Bytes) -> Result<Bytes, CallError> {
    let envelope = jsonrpc::scan_backend(raw).map_err(|error| BackendError::protocol(error.to_string()))?;
    if let Some(result) = envelope.raw(raw, Field::Result) {
        return Ok(raw.slice_ref(result));
    }
    let code = envelope.raw(raw, Field::ErrorCode).and_then(|code| serde_json::from_slice(code).ok());
    Err(CallError::Refused {
        code: code.unwrap_or(0),
        message: envelope.text(raw, Field::ErrorMessage).unwrap_or_default().chars().take(400).collect(),
        data: envelope.raw(raw, Field::ErrorData).map(|data| raw.slice_ref(data)).unwrap_or_default(),
    })
}

impl Exchange {
    /// The next message; `None` after the answer or an error. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<FromBackend, BackendError>> {
        let item = match timeout_at(self.deadline.into(), self.way.next()).await {
            Ok(item) => item,
            Err(_) => {
                self.way.finish("deadline");
                Some(Err(BackendError::Timeout))
            }
        };
        self.heard(item)
    }

    /// The same, waiting until `patience` at most; nothing is lost by giving up. One timer does
    /// for both limits.
    pub async fn next_by(
        &mut self,
        patience: Instant,
    ) -> Result<Option<Result<FromBackend, BackendError>>, Late> {
        if patience >= self.deadline {
            return Ok(self.next().await);
        }
        let item = timeout_at(patience.into(), self.way.next()).await.map_err(|_| Late)?;
        Ok(self.heard(item))
    }

    fn heard(
        &mut self,
        item: Option<Result<FromBackend, BackendError>>,
    ) -> Option<Result<FromBackend, BackendError>> {
        match &item {
            Some(Ok(FromBackend::Response { is_error: true, .. })) => self.note("error"),
            Some(Ok(FromBackend::Response { tool_error: true, .. })) => self.note("tool_error"),
            Some(Ok(FromBackend::Response { .. })) => self.note("ok"),
            Some(Err(BackendError::Timeout)) => self.note("timeout"),
            Some(Err(_)) => self.note("failed"),
            _ => {}
        }
        item
    }

    /// Ends the request; the backend is told why.
    pub fn cancel(mut self, reason: Option<&str>) {
        self.way.finish(reason.unwrap_or("the client cancelled"));
    }

    fn note(&mut self, outcome: &'static str) {
        if !std::mem::replace(&mut self.noted, true) {
            let took = self.upstream.clock.now().saturating_duration_since(self.started);
            self.upstream.meter.called(self.core, self.method, took, outcome);
        }
    }
}

impl ExchangeWay {
    async fn next(&mut self) -> Option<Result<FromBackend, BackendError>> {
        match self {
            ExchangeWay::Ready(answer) => answer.take().map(Ok),
            ExchangeWay::Link(exchange) => exchange.next().await,
            ExchangeWay::Http(exchange) => exchange.next().await,
        }
    }

    fn finish(&mut self, reason: &str) {
        match self {
            ExchangeWay::Ready(_) => {}
            ExchangeWay::Link(exchange) => exchange.finish(Some(reason)),
            ExchangeWay::Http(exchange) => exchange.cancel(reason),
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.note("cancelled");
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("backend", &self.inner.backend).finish_non_exhaustive()
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("method", &self.method).finish_non_exhaustive()
    }
}
