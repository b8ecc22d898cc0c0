//! One call to a backend on behalf of a legacy session: a plain answer, or a resumable stream.

use super::{
    answer::{self, Reply},
    edge::Edge,
    problems,
    route::{self, Route},
};
use crate::{
    backend::{BackendError, CallMeta, Core, Exchange, FromBackend, RawId, Upstream},
    core::{
        codes::{Problem, own},
        headers::Accepts,
        jsonrpc::{Envelope, Field, scan, scan_backend},
        splice::{Edit, Edits, splice},
    },
    metrics::Error as Outcome,
    session::{InFlight, Live, OpenRequest, Scope, Stream, to_standing},
};
use bytes::Bytes;
use std::{sync::Arc, time::Instant};

/// A request on its way, with what its answer is measured by.
pub(crate) struct Call<'a> {
    /// The edge.
    pub(crate) edge: &'a Arc<Edge>,
    /// Event loop.
    pub(crate) core: usize,
    /// The session.
    pub(crate) live: &'a Arc<Live>,
    /// The body as it came.
    pub(crate) body: &'a Bytes,
    /// Its scan.
    pub(crate) envelope: &'a Envelope,
    /// What the client takes.
    pub(crate) accepts: Accepts,
    /// When it came.
    pub(crate) started: Instant,
}

/// What the first message of a backend was.
enum First {
    Answer(Bytes, Outcome),
    Stream(Option<FromBackend>),
    Cancelled,
}

/// An exchange that nobody has finished. When the client goes away before it became a stream,
/// the call still runs to its end: a disconnect is no cancel (MCP.md 1.1, 7).
struct Waiting {
    live: Arc<Live>,
    parts: Option<(Exchange, InFlight, Upstream)>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some((exchange, in_flight, upstream)) = self.parts.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(drain(self.live.clone(), exchange, in_flight, upstream));
        }
    }
}

async fn drain(live: Arc<Live>, mut exchange: Exchange, in_flight: InFlight, upstream: Upstream) {
    loop {
        let next = tokio::select! {
            next = exchange.next() => next,
            cancelled = in_flight.cancelled() => return exchange.cancel(cancelled.reason.as_deref()),
            () = live.ended() => return,
        };
        match next {
            Some(Ok(FromBackend::Request { raw, id })) => ask_standing(&live, &upstream, &raw, id).await,
            Some(Ok(FromBackend::Notification { .. })) => {}
            _ => return,
        }
    }
}

async fn ask_standing(live: &Live, upstream: &Upstream, raw: &Bytes, id: RawId) {
    if let Ok(envelope) = scan_backend(raw) {
        let asked = ask_client(live, upstream.clone(), raw, &envelope, id);
        to_standing(live, asked, None).await;
    }
}

/// Registers a backend's request and gives it the id (and the origin) that the client sees.
pub(crate) fn ask_client(
    live: &Live,
    upstream: Upstream,
    raw: &Bytes,
    envelope: &Envelope,
    id: RawId,
) -> Bytes {
    let token = envelope.raw(raw, Field::MetaProgressToken).map(|token| raw.slice_ref(token));
    let backend = upstream.record().backend;
    let ours = live.expect_answer(upstream, id, token);
    let mut edits: Edits = std::iter::once(Edit::replace(envelope.span(Field::Id), ours)).collect();
    if live.scope == Scope::All {
        // The client must be able to say which server asks (MCP.md 1.1, 18).
        let name = serde_json::Value::from(backend).to_string();
        edits.extend(Edit::set_meta_all(raw, envelope, &[("swarm/backend", name.as_bytes())]));
    }
    splice(raw, &edits)
}

/// Sends a call and answers it.
pub(crate) async fn converse(call: &Call<'_>, route: Route, method: &str, name: &str) -> Reply {
    let Call { edge, live, body, envelope, .. } = call;
    let id = body.slice_ref(envelope.id(body).unwrap_or_default());
    let Some(in_flight) = live.begin(id.clone()) else {
        return done(
            call,
            method,
            name,
            Problem::new(own::OVERLOADED, "this id is in flight, or too many requests are").body(Some(&id)),
            Outcome::Code(own::OVERLOADED),
        );
    };
    let backend = route.backend.name().to_owned();
    let repeatable = route.repeatable;
    let fail = |error: &BackendError| {
        let problem = problems::backend(&backend, error, repeatable);
        done(call, method, name, problem.body(Some(&id)), Outcome::Code(problem.code))
    };
    let core = Core(call.core);
    let upstream = match live.upstreams.get(live, &route.backend, core, call.started).await {
        Ok(upstream) => upstream,
        Err(error) => return fail(&error),
    };
    let timeout = route.backend.call_timeout().unwrap_or(edge.config.call_timeout);
    let meta = CallMeta { deadline: call.started + timeout, headers: Vec::new() };
    let exchange = match upstream.request(core, (*body).clone(), envelope, route.edits, meta).await {
        Ok(exchange) => exchange,
        Err(error) => return fail(&error),
    };
    let mut waiting = Waiting { live: (*live).clone(), parts: Some((exchange, in_flight, upstream)) };
    let first = first(call, &mut waiting, &backend, &id, repeatable).await;
    let Some((exchange, in_flight, upstream)) = waiting.parts.take() else {
        return fail(&BackendError::Gone { reason: "the exchange ended".into() });
    };
    match first {
        First::Answer(raw, outcome) => done(call, method, name, raw, outcome),
        First::Cancelled => {
            exchange.cancel(None);
            let problem = Problem::new(own::CANCELLED, "cancelled by the client");
            done(call, method, name, problem.body(Some(&id)), Outcome::Code(problem.code))
        }
        First::Stream(first) => {
            let open = OpenRequest {
                id: String::from_utf8_lossy(&id).into_owned(),
                backend,
                method: method.to_owned(),
                name: name.to_owned(),
                repeatable,
                body: repeatable.then(|| String::from_utf8_lossy(body).into_owned()),
            };
            let flow = Flow {
                edge: (*edge).clone(),
                live: (*live).clone(),
                core: call.core,
                started: call.started,
                open,
            };
            Box::pin(into_stream(flow, Talk { exchange, in_flight, upstream, first })).await
        }
    }
}

async fn first(call: &Call<'_>, waiting: &mut Waiting, backend: &str, id: &[u8], repeatable: bool) -> First {
    let Some((exchange, in_flight, upstream)) = &mut waiting.parts else { return First::Cancelled };
    let patience = (tokio::time::Instant::now() + call.edge.config.stream_after).into_std();
    loop {
        let next = async {
            match call.accepts.events {
                true => exchange.next_by(patience).await,
                false => Ok(exchange.next().await),
            }
        };
        let next = tokio::select! {
            biased;
            next = next => next,
            cancelled = in_flight.cancelled() => {
                tracing::debug!(reason = cancelled.reason, "cancelled before an answer");
                return First::Cancelled;
            }
        };
        let Ok(next) = next else { return First::Stream(None) };
        match next {
            Some(Ok(FromBackend::Response { raw, is_error, tool_error })) => {
                let outcome = outcome(&raw, is_error, tool_error);
                return First::Answer(raw, outcome);
            }
            Some(Ok(message)) if call.accepts.events => return First::Stream(Some(message)),
            Some(Ok(FromBackend::Request { raw, id })) => ask_standing(call.live, upstream, &raw, id).await,
            // The client takes no events: what belongs to the request alone has no other place.
            Some(Ok(FromBackend::Notification { .. })) => {}
            Some(Err(error)) => return failed(backend, &error, id, repeatable),
            None => {
                return failed(
                    backend,
                    &BackendError::Gone { reason: "no answer came".into() },
                    id,
                    repeatable,
                );
            }
        }
    }
}

fn failed(backend: &str, error: &BackendError, id: &[u8], repeatable: bool) -> First {
    let problem = problems::backend(backend, error, repeatable);
    First::Answer(problem.body(Some(id)), Outcome::Code(problem.code))
}

/// How an answer counts.
pub(crate) fn outcome(raw: &[u8], is_error: bool, tool_error: bool) -> Outcome {
    if !is_error {
        return if tool_error { Outcome::Tool } else { Outcome::None };
    }
    let code = scan_backend(raw).ok().and_then(|envelope| {
        let code = envelope.raw(raw, Field::ErrorCode)?;
        std::str::from_utf8(code).ok()?.parse().ok()
    });
    Outcome::Code(code.unwrap_or_default())
}

fn done(call: &Call<'_>, method: &str, name: &str, raw: Bytes, outcome: Outcome) -> Reply {
    let took = call.edge.clock.now().saturating_duration_since(call.started);
    let version = call.live.version.as_str();
    call.edge.metrics.core(call.core).operation(method, name, outcome, version, took);
    answer::ok(raw)
}

/// A call that became a stream; it outlives the client's connection.
struct Flow {
    edge: Arc<Edge>,
    live: Arc<Live>,
    core: usize,
    started: Instant,
    open: OpenRequest,
}

struct Talk {
    exchange: Exchange,
    in_flight: InFlight,
    upstream: Upstream,
    first: Option<FromBackend>,
}

async fn into_stream(flow: Flow, talk: Talk) -> Reply {
    match Stream::open(&flow.live, &flow.open).await {
        Ok((stream, body)) => {
            flow.edge.metrics.streams.inc();
            tokio::spawn(pump(flow, stream, talk));
            answer::stream(body)
        }
        Err(error) => {
            // Without a log there is nothing to resume: the call is given up, and says so.
            talk.exchange.cancel(Some("the session is unavailable"));
            problems::unavailable(Some(flow.open.id.as_bytes()), &error.to_string())
        }
    }
}

/// Moves what the backend says into the stream until the answer.
async fn pump(flow: Flow, stream: Arc<Stream>, talk: Talk) {
    let Talk { mut exchange, in_flight, upstream, mut first } = talk;
    let end = loop {
        let next = match first.take() {
            Some(message) => Some(Ok(message)),
            None => tokio::select! {
                biased;
                cancelled = in_flight.cancelled() => {
                    exchange.cancel(cancelled.reason.as_deref());
                    break (None, Outcome::Code(own::CANCELLED));
                }
                () = flow.live.ended() => return,
                next = exchange.next() => next,
            },
        };
        let sent = match next {
            Some(Ok(FromBackend::Response { raw, is_error, tool_error })) => {
                let outcome = outcome(&raw, is_error, tool_error);
                break (Some(raw), outcome);
            }
            Some(Ok(FromBackend::Notification { raw })) => stream.send(&flow.live, raw, None).await,
            Some(Ok(FromBackend::Request { raw, id })) => match scan_backend(&raw) {
                Ok(envelope) => {
                    stream
                        .send(&flow.live, ask_client(&flow.live, upstream.clone(), &raw, &envelope, id), None)
                        .await
                }
                Err(_) => Ok(()),
            },
            Some(Err(error)) => break flow.failed(&error),
            None => break flow.failed(&BackendError::Gone { reason: "no answer came".into() }),
        };
        if let Err(error) = sent {
            tracing::warn!(session = flow.live.hash, %error, "a stream cannot go on");
            break flow.failed(&BackendError::Gone { reason: error.to_string() });
        }
    };
    flow.finish(&stream, end).await;
}

impl Flow {
    fn failed(&self, error: &BackendError) -> (Option<Bytes>, Outcome) {
        let problem = problems::backend(&self.open.backend, error, self.open.repeatable);
        (Some(problem.body(Some(self.open.id.as_bytes()))), Outcome::Code(problem.code))
    }

    async fn finish(&self, stream: &Stream, (last, outcome): (Option<Bytes>, Outcome)) {
        if let Err(error) = stream.finish(&self.live, last).await {
            tracing::warn!(session = self.live.hash, %error, "the end of a stream is not kept");
        }
        let took = self.edge.clock.now().saturating_duration_since(self.started);
        let cells = self.edge.metrics.core(self.core);
        cells.operation(&self.open.method, &self.open.name, outcome, self.live.version.as_str(), took);
    }
}

/// Answers a stream whose node is lost: the call is sent again if that does no harm, else the
/// client is told (K30).
pub(crate) async fn resend(edge: Arc<Edge>, live: Arc<Live>, stream: Arc<Stream>, open: OpenRequest) {
    let flow = Flow { core: edge.relay_core(), started: edge.clock.now(), edge, live, open };
    match begin_again(&flow).await {
        Ok(talk) => {
            flow.edge.metrics.resent.inc();
            pump(flow, stream, talk).await;
        }
        Err(problem) => {
            flow.edge.metrics.lost.inc();
            let body = problem.body(Some(flow.open.id.as_bytes()));
            flow.finish(&stream, (Some(body), Outcome::Code(problem.code))).await;
        }
    }
}

async fn begin_again(flow: &Flow) -> Result<Talk, Problem> {
    let Flow { edge, live, open, .. } = flow;
    let what = [&open.name, &open.method].into_iter().find(|what| !what.is_empty());
    let lost = || problems::node_lost(what.map_or("the request", String::as_str));
    let body = open.body.as_ref().filter(|_| open.repeatable).ok_or_else(lost)?;
    let body = Bytes::from(body.clone());
    let envelope = scan(&body).map_err(|_| lost())?;
    let in_flight = live.begin(Bytes::from(open.id.clone())).ok_or_else(lost)?;
    let scope = &live.scope;
    let route = route::find(edge, flow.core, scope, &body, &envelope, &open.method, None).await?;
    let fail = |error: BackendError| problems::backend(&open.backend, &error, true);
    let core = Core(flow.core);
    let upstream = live.upstreams.get(live, &route.backend, core, flow.started).await.map_err(fail)?;
    let timeout = route.backend.call_timeout().unwrap_or(edge.config.call_timeout);
    let meta = CallMeta { deadline: flow.started + timeout, headers: Vec::new() };
    let exchange = upstream.request(core, body, &envelope, route.edits, meta).await.map_err(fail)?;
    Ok(Talk { exchange, in_flight, upstream, first: None })
}
