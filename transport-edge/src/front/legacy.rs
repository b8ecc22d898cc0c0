//! The legacy era: `initialize`, then requests of a session at its anchor.

use super::{
    answer::{self, Reply},
    conn::Inbound,
    converse::{Call, converse},
    edge::Edge,
    lists, problems, route,
};
use crate::{
    backend::{Core, Upstream},
    core::{
        catalog::List,
        codes::{self, Problem, own, result},
        era::{self, Legacy},
        headers::{Accepts, LAST_EVENT_ID, PROTOCOL_VERSION, SESSION_ID},
        jsonrpc::{Envelope, Field, Kind, scan, scan_batch},
        stream::EventId,
    },
    metrics::Error as Outcome,
    session::{Live, Scope, Start, StoreError, Stream, StreamError, tell},
};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Method, StatusCode};
use prost::Message as _;
use proto::edge::{SessionRecord, Subscription};
use std::sync::Arc;

/// Longest `clientInfo` and `capabilities` that are kept.
const CLIENT_MAX: usize = 32 << 10;

/// Most subscriptions of a session.
const SUBSCRIPTIONS_MAX: usize = 500;

/// Opens a session: state is allocated only for a well-formed `initialize` (F36).
pub(crate) async fn initialize(
    edge: &Arc<Edge>,
    core: usize,
    inbound: &Inbound,
    envelope: &Envelope,
) -> Reply {
    let started = edge.clock.now();
    let id = envelope.id(&inbound.body).unwrap_or_default();
    let (reply, outcome, version) = match open(edge, core, inbound, envelope).await {
        Ok((live, body)) => {
            let mut reply = answer::ok(result(id, &body));
            reply
                .headers_mut()
                .extend(HeaderValue::from_str(&live.id).ok().map(|value| (SESSION_ID.clone(), value)));
            (reply, Outcome::None, live.version.as_str())
        }
        Err((status, problem)) => {
            (answer::problem(status, Some(id), &problem), Outcome::Code(problem.code), "")
        }
    };
    let took = edge.clock.now().saturating_duration_since(started);
    edge.metrics.core(core).operation("initialize", "", outcome, version, took);
    reply
}

async fn open(
    edge: &Arc<Edge>,
    core: usize,
    inbound: &Inbound,
    envelope: &Envelope,
) -> Result<(Arc<Live>, Bytes), (StatusCode, Problem)> {
    let body = &inbound.body;
    let record = record(edge, inbound, envelope).map_err(|problem| (StatusCode::BAD_REQUEST, problem))?;
    let id = edge.store.mint();
    if !edge.sessions.has_room(&id) {
        let problem = Problem::new(own::OVERLOADED, "too many sessions are open here");
        return Err((StatusCode::TOO_MANY_REQUESTS, problem));
    }
    let value = Bytes::from(record.encode_to_vec());
    let principal = &*inbound.principal.0;
    let stored = edge.store.create(&id, principal, value, edge.config.session_ttl).await;
    let version = stored.map_err(|error| {
        let problem = Problem::new(own::BACKEND_UNAVAILABLE, format!("the session cannot be kept: {error}"));
        (StatusCode::SERVICE_UNAVAILABLE, problem)
    })?;
    let start = Start {
        id,
        principal: principal.to_owned(),
        record,
        version,
        control: 0,
        store: edge.store.clone(),
        now: edge.clock.now(),
    };
    let live = Arc::new(Live::new(start));
    live.mark_used(edge.now_ms());
    let result = match &live.scope {
        Scope::All => lists::initialized(&*lists::settled(edge).await, live.version, None),
        Scope::One(name) => match transparent(edge, core, &live, name).await {
            Ok(result) => result,
            Err(problem) => {
                let _ = edge.store.delete(&live.id, principal).await;
                let id = envelope.id(body);
                tracing::info!(backend = name, ?id, "initialize failed at the backend");
                return Err((StatusCode::OK, problem));
            }
        },
    };
    edge.sessions.insert(live.clone());
    tracing::info!(session = live.hash, client = live.client, version = %live.version, "session opened");
    Ok((live, result))
}

async fn transparent(edge: &Arc<Edge>, core: usize, live: &Arc<Live>, name: &str) -> Result<Bytes, Problem> {
    let backend = edge.backends.get(name);
    if backend.is_none() {
        lists::settled(edge).await;
    }
    let backend = edge.backends.get(name).ok_or_else(|| lists::no_server(&live.scope))?;
    let opened = live.upstreams.get(live, &backend, Core(core), edge.clock.now()).await;
    let upstream = opened.map_err(|error| problems::backend(name, &error, true))?;
    let own = upstream.initialize_result().and_then(|raw| lists::initialized_as(&raw, live.version));
    match own {
        Some(result) => Ok(result),
        None => Ok(lists::initialized(&edge.backends.catalog(), live.version, Some(name))),
    }
}

fn record(edge: &Edge, inbound: &Inbound, envelope: &Envelope) -> Result<SessionRecord, Problem> {
    let body = &inbound.body;
    let missing = |what| Problem::new(codes::INVALID_PARAMS, format!("initialize without {what}"));
    let requested = envelope.text(body, Field::ProtocolVersion).ok_or_else(|| missing("protocolVersion"))?;
    let object = |field, what| {
        let raw = envelope
            .raw(body, field)
            .filter(|_| envelope.is_object(body, field))
            .ok_or_else(|| missing(what))?;
        match raw.len() > CLIENT_MAX {
            true => {
                Err(Problem::new(codes::INVALID_PARAMS, format!("{what} is larger than {CLIENT_MAX} bytes")))
            }
            false => Ok(Bytes::copy_from_slice(raw)),
        }
    };
    Ok(SessionRecord {
        protocol_version: Legacy::negotiate(&requested).as_str().to_owned(),
        client_info: object(Field::ClientInfo, "clientInfo")?,
        client_capabilities: object(Field::Capabilities, "capabilities")?,
        anchor: edge.name.clone(),
        epoch: 1,
        scope: inbound.scope.as_str().to_owned(),
        ..SessionRecord::default()
    })
}

/// Serves a request of a session that is live here.
pub(crate) async fn handle(edge: &Arc<Edge>, core: usize, live: &Arc<Live>, inbound: &mut Inbound) -> Reply {
    live.mark_used(edge.now_ms());
    if live.scope != inbound.scope {
        return problems::session_gone(None);
    }
    if !era::header_is_served(inbound.headers.get(&PROTOCOL_VERSION).map(HeaderValue::as_bytes)) {
        let supported = era::SUPPORTED.join(", ");
        let problem = Problem::new(
            codes::INVALID_REQUEST,
            format!("unsupported MCP-Protocol-Version (supported: {supported})"),
        );
        return answer::problem(StatusCode::BAD_REQUEST, None, &problem);
    }
    match inbound.method {
        Method::POST => post(edge, core, live, inbound).await,
        Method::GET => Box::pin(get(edge, live, inbound)).await,
        Method::DELETE => Box::pin(delete(edge, live)).await,
        _ => answer::not_allowed("GET, POST, DELETE"),
    }
}

async fn post(edge: &Arc<Edge>, core: usize, live: &Arc<Live>, inbound: &mut Inbound) -> Reply {
    let accepts = Accepts::of(&inbound.headers);
    // They refer to the connection's read buffer, which is wanted while the call waits.
    drop(std::mem::take(&mut inbound.headers));
    let body = &inbound.body;
    if !accepts.json {
        return answer::empty(StatusCode::NOT_ACCEPTABLE);
    }
    if live.version.batches() && crate::core::jsonrpc::is_batch(body) {
        return Box::pin(batch(edge, core, live, body)).await;
    }
    match inbound.envelope.map_or_else(|| scan(body), Ok) {
        Ok(envelope) => message(edge, core, live, body, &envelope, accepts).await,
        Err(error) => {
            answer::problem(StatusCode::BAD_REQUEST, None, &Problem::new(error.code, error.to_string()))
        }
    }
}

async fn message(
    edge: &Arc<Edge>,
    core: usize,
    live: &Arc<Live>,
    body: &Bytes,
    envelope: &Envelope,
    accepts: Accepts,
) -> Reply {
    match envelope.kind {
        Kind::Request => {
            let started = edge.clock.now();
            request(&Call { edge, core, live, body, envelope, accepts, started }).await
        }
        Kind::Notification => {
            notification(live, body, envelope).await;
            answer::accepted()
        }
        Kind::Response | Kind::Error => {
            client_answer(live, body, envelope).await;
            answer::accepted()
        }
    }
}

/// An array of 2025-03-26: every message by itself, the answers in one array.
async fn batch(edge: &Arc<Edge>, core: usize, live: &Arc<Live>, body: &Bytes) -> Reply {
    let refused =
        |code, why: String| answer::problem(StatusCode::BAD_REQUEST, None, &Problem::new(code, why));
    let spans = match scan_batch(body) {
        Ok(spans) => spans,
        Err(error) => return refused(error.code, error.to_string()),
    };
    let accepts = Accepts { json: true, events: false };
    let answers = spans.iter().map(|span| async move {
        let body = body.slice_ref(span.of(body));
        match scan(&body) {
            Ok(envelope) => message(edge, core, live, &body, &envelope, accepts).await.into_body().whole(),
            Err(error) => Some(Problem::new(error.code, error.to_string()).body(None)),
        }
    });
    let answers = futures::future::join_all(answers).await;
    let answers: Vec<Bytes> = answers.into_iter().flatten().filter(|answer| !answer.is_empty()).collect();
    if answers.is_empty() {
        return answer::accepted();
    }
    let mut out = BytesMut::from(&b"["[..]);
    for (n, answer) in answers.iter().enumerate() {
        if n > 0 {
            out.put_u8(b',');
        }
        out.put_slice(answer);
    }
    out.put_u8(b']');
    answer::ok(out.freeze())
}

async fn request(call: &Call<'_>) -> Reply {
    let method = call.envelope.method(call.body);
    match (&*method, &call.live.scope) {
        ("tools/call", _) => forward(call, &method).await,
        ("ping", _) => own(call, &method, Ok(Bytes::from_static(b"{}"))),
        ("initialize", _) => own(
            call,
            &method,
            Err(Problem::new(codes::INVALID_REQUEST, "the session is initialized already")),
        ),
        ("server/discover" | "subscriptions/listen", _) => {
            own(call, &method, Err(Problem::new(codes::METHOD_NOT_FOUND, "method not found")))
        }
        ("logging/setLevel", _) => {
            let set = Box::pin(set_level(call)).await;
            own(call, &method, set)
        }
        (_, Scope::All) if List::of(&method).is_some() => {
            let list = List::of(&method).unwrap_or(List::Tools);
            let page =
                Box::pin(lists::page(call.edge, list, &call.live.scope, call.body, call.envelope, false))
                    .await;
            own(call, &method, page)
        }
        ("resources/subscribe" | "resources/unsubscribe", _) => Box::pin(subscribe(call, &method)).await,
        _ => forward(call, &method).await,
    }
}

async fn forward(call: &Call<'_>, method: &str) -> Reply {
    let name = match method {
        "tools/call" | "prompts/get" => call.envelope.text(call.body, Field::Name).unwrap_or_default(),
        _ => Default::default(),
    };
    let (scope, memo) = (&call.live.scope, Some(&call.live.called));
    match route::find(call.edge, call.core, scope, call.body, call.envelope, method, memo).await {
        Ok(route) => converse(call, route, method, &name).await,
        Err(problem) => own(call, method, Err(problem)),
    }
}

/// An answer of the edge itself.
fn own(call: &Call<'_>, method: &str, outcome: Result<Bytes, Problem>) -> Reply {
    let id = call.envelope.id(call.body).unwrap_or_default();
    let (body, error) = match outcome {
        Ok(body) => (result(id, &body), Outcome::None),
        Err(problem) => (problem.body(Some(id)), Outcome::Code(problem.code)),
    };
    let took = call.edge.clock.now().saturating_duration_since(call.started);
    call.edge.metrics.core(call.core).operation(method, "", error, call.live.version.as_str(), took);
    answer::ok(body)
}

/// The level is the session's: every upstream gets it, those opened later too.
async fn set_level(call: &Call<'_>) -> Result<Bytes, Problem> {
    const LEVELS: [&str; 8] =
        ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
    let level = call.envelope.text(call.body, Field::LogLevel).unwrap_or_default();
    if !LEVELS.contains(&&*level) {
        return Err(Problem::new(
            codes::INVALID_PARAMS,
            format!("level must be one of {}", LEVELS.join(", ")),
        ));
    }
    let kept = call.live.update(|record| record.log_level = level.to_string()).await;
    kept.map_err(|error| Problem::new(own::BACKEND_UNAVAILABLE, format!("the level is not kept: {error}")))?;
    let params = serde_json::json!({ "level": level });
    let told = call.live.upstreams.open().into_iter().map(|(_, upstream)| {
        let params = params.clone();
        async move { tell(&upstream, Core(call.core), "logging/setLevel", &params, call.started).await }
    });
    futures::future::join_all(told).await;
    Ok(Bytes::from_static(b"{}"))
}

async fn subscribe(call: &Call<'_>, method: &str) -> Reply {
    let scope = &call.live.scope;
    let found = route::find(call.edge, call.core, scope, call.body, call.envelope, method, None).await;
    let route = match found {
        Ok(route) => route,
        Err(problem) => return own(call, method, Err(problem)),
    };
    if call.live.record().subscriptions.len() >= SUBSCRIPTIONS_MAX && method == "resources/subscribe" {
        let why = format!("a session has at most {SUBSCRIPTIONS_MAX} subscriptions");
        return own(call, method, Err(Problem::new(own::OVERLOADED, why)));
    }
    let backend = route.backend.name().to_owned();
    let uri = call.envelope.text(call.body, Field::Uri).unwrap_or_default().into_owned();
    let whole = Call { accepts: Accepts { json: true, events: false }, ..*call };
    let reply = converse(&whole, route, method, "").await;
    let taken = reply
        .body()
        .whole()
        .and_then(|body| scan(&body).ok())
        .is_some_and(|envelope| envelope.kind == Kind::Response);
    if taken {
        let kept = call.live.update(|record| {
            record.subscriptions.retain(|known| known.backend != backend || known.uri != uri);
            if method == "resources/subscribe" {
                record.subscriptions.push(Subscription { backend, uri });
            }
        });
        if let Err(error) = kept.await {
            tracing::warn!(session = call.live.hash, %error, "a subscription is not kept: it ends with this node");
        }
    }
    reply
}

async fn notification(live: &Arc<Live>, body: &Bytes, envelope: &Envelope) {
    match &*envelope.method(body) {
        "notifications/initialized" => live.note(|record| record.initialized = true),
        "notifications/cancelled" => {
            if let Some(id) = envelope.raw(body, Field::RequestId) {
                live.cancel(id, envelope.text(body, Field::Reason).map(std::borrow::Cow::into_owned));
            }
        }
        "notifications/progress" => {
            let target =
                envelope.raw(body, Field::ProgressToken).and_then(|token| live.progress_target(token));
            if let Some(upstream) = target {
                notify(&upstream, body).await;
            }
        }
        _ => {
            for (_, upstream) in live.upstreams.open() {
                notify(&upstream, body).await;
            }
        }
    }
}

async fn notify(upstream: &Upstream, body: &Bytes) {
    if let Err(error) = upstream.notify(body.clone()).await {
        tracing::debug!(%error, "a notification did not reach its backend");
    }
}

/// Brings the client's answer to the backend that asked. After an adoption the backend that
/// asked is gone, so an unknown id is no error.
async fn client_answer(live: &Arc<Live>, body: &Bytes, envelope: &Envelope) {
    let Some(pending) = envelope.id(body).and_then(|id| live.take_pending(id)) else {
        tracing::info!(session = live.hash, "an answer to a request that nobody waits for");
        return;
    };
    if let Err(error) = pending.upstream.answer(&pending.id, body.clone(), envelope).await {
        tracing::info!(session = live.hash, %error, "an answer did not reach its backend");
    }
}

async fn get(edge: &Arc<Edge>, live: &Arc<Live>, inbound: &Inbound) -> Reply {
    if !Accepts::of(&inbound.headers).events {
        return answer::empty(StatusCode::NOT_ACCEPTABLE);
    }
    edge.metrics.streams.inc();
    let last = inbound.headers.get(&LAST_EVENT_ID).map(|value| value.to_str().ok().and_then(EventId::parse));
    let opened = match last {
        None => Stream::open_standing(live).await,
        Some(Some(id)) => Stream::resume(live, &id.stream, id.sequence).await,
        Some(None) => Err(StreamError::Unknown),
    };
    match opened {
        Ok(body) => answer::stream(body),
        Err(StreamError::Store(StoreError::NotFound)) => problems::session_gone(None),
        Err(StreamError::Store(error)) => problems::unavailable(None, &error.to_string()),
        Err(error) => answer::problem(
            StatusCode::BAD_REQUEST,
            None,
            &Problem::new(codes::INVALID_REQUEST, error.to_string()),
        ),
    }
}

/// Ends a session everywhere: this copy first, then the store, which waits for other leases.
async fn delete(edge: &Arc<Edge>, live: &Arc<Live>) -> Reply {
    live.terminate();
    edge.sessions.remove(live);
    match end(edge, live).await {
        Ok(()) => {
            tracing::info!(session = live.hash, "session ended by its client");
            answer::empty(StatusCode::NO_CONTENT)
        }
        Err(error) => problems::unavailable(None, &error.to_string()),
    }
}

/// What may have been done is said once more: it does no harm, and the client has gone on.
async fn end(edge: &Edge, live: &Live) -> Result<(), StoreError> {
    match edge.store.delete(&live.id, &live.principal).await {
        Err(StoreError::Unknown(_) | StoreError::Unavailable(_)) => {
            match edge.store.delete(&live.id, &live.principal).await {
                Err(StoreError::NotFound) => Ok(()),
                ended => ended,
            }
        }
        ended => ended,
    }
}
