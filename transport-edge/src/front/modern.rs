//! The modern era: every request stands alone, on upstreams that all clients share.

use super::{
    answer::{self, Reply, modern_status},
    body::{Outlet, events},
    conn::Inbound,
    converse::outcome,
    edge::Edge,
    listen, lists, problems,
    route::{self, Route},
};
use crate::{
    backend::{BackendError, CallMeta, Core, Exchange, FromBackend, RawId, Upstream},
    core::{
        catalog::{Hints, List},
        codes::{self, Problem, own, result},
        era::MODERN,
        event::message,
        headers::{Accepts, PARAM_PREFIX, check_modern, decode, mismatch},
        jsonrpc::{Envelope, Field, Kind, scan_backend},
    },
    metrics::Error as Outcome,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// A request without an answer becomes a stream after this time, so that proxies keep it open.
const STREAM_AFTER: Duration = Duration::from_secs(10);

/// Answers one self-contained message.
pub(crate) async fn handle(edge: &Arc<Edge>, core: usize, inbound: &Inbound, envelope: &Envelope) -> Reply {
    let id = envelope.id(&inbound.body);
    match envelope.kind {
        Kind::Request => {}
        // The core protocol has none over HTTP; they are taken and dropped, as the SDKs do.
        Kind::Notification => return answer::accepted(),
        Kind::Response | Kind::Error => {
            let problem = Problem::new(codes::INVALID_REQUEST, "answers are not posted in this revision");
            return answer::problem(StatusCode::BAD_REQUEST, id, &problem);
        }
    }
    let accepts = Accepts::of(&inbound.headers);
    if !accepts.json && !accepts.events {
        return answer::empty(StatusCode::NOT_ACCEPTABLE);
    }
    let started = edge.clock.now();
    let call = Call { edge, core, inbound, envelope, accepts, started };
    if let Err(problem) = check_modern(&inbound.headers, &inbound.body, envelope) {
        return call.own(&envelope.method(&inbound.body), Err(problem));
    }
    call.serve().await
}

struct Call<'a> {
    edge: &'a Arc<Edge>,
    core: usize,
    inbound: &'a Inbound,
    envelope: &'a Envelope,
    accepts: Accepts,
    started: Instant,
}

impl Call<'_> {
    async fn serve(&self) -> Reply {
        let Call { edge, inbound, envelope, .. } = self;
        let method = envelope.method(&inbound.body);
        match &*method {
            "tools/call" | "prompts/get" | "resources/read" | "completion/complete" => {
                self.forward(&method).await
            }
            "server/discover" => {
                let catalog = lists::settled(edge).await;
                self.own(&method, Ok(lists::discovered(&catalog, &inbound.scope)))
            }
            "subscriptions/listen" if self.accepts.events => {
                edge.metrics.streams.inc();
                listen::listen(edge, &inbound.scope, &inbound.body, envelope).await
            }
            "subscriptions/listen" => answer::empty(StatusCode::NOT_ACCEPTABLE),
            _ => match List::of(&method) {
                Some(list) => {
                    let page =
                        Box::pin(lists::page(edge, list, &inbound.scope, &inbound.body, envelope, true))
                            .await;
                    self.own(&method, page)
                }
                None => self.own(&method, Err(Problem::new(codes::METHOD_NOT_FOUND, "method not found"))),
            },
        }
    }

    fn id(&self) -> &[u8] {
        self.envelope.id(&self.inbound.body).unwrap_or_default()
    }

    /// An answer of the edge itself.
    fn own(&self, method: &str, outcome: Result<Bytes, Problem>) -> Reply {
        match outcome {
            Ok(body) => self.done(method, "", StatusCode::OK, result(self.id(), &body), Outcome::None),
            Err(problem) => self.fail(method, "", problem),
        }
    }

    fn fail(&self, method: &str, name: &str, mut problem: Problem) -> Reply {
        if problem.code == codes::RESOURCE_NOT_FOUND {
            problem.code = codes::INVALID_PARAMS;
        }
        let status = modern_status(problem.code);
        self.count(method, name, Outcome::Code(problem.code));
        answer::problem(status, Some(self.id()), &problem)
    }

    fn done(&self, method: &str, name: &str, status: StatusCode, body: Bytes, outcome: Outcome) -> Reply {
        self.count(method, name, outcome);
        answer::json(status, body)
    }

    fn count(&self, method: &str, name: &str, outcome: Outcome) {
        let took = self.edge.clock.now().saturating_duration_since(self.started);
        self.edge.metrics.core(self.core).operation(method, name, outcome, MODERN, took);
    }

    async fn forward(&self, method: &str) -> Reply {
        let Call { edge, inbound, envelope, .. } = self;
        let name = match method {
            "tools/call" | "prompts/get" => envelope.text(&inbound.body, Field::Name).unwrap_or_default(),
            _ => Default::default(),
        };
        let (scope, body) = (&inbound.scope, &inbound.body);
        let route = match route::find(edge, self.core, scope, body, envelope, method, None).await {
            Ok(route) => route,
            Err(problem) => return self.fail(method, &name, problem),
        };
        if let Err(problem) = check_params(&inbound.headers, &inbound.body, envelope, &route.hints) {
            return self.fail(method, &name, problem);
        }
        let backend = route.backend.name().to_owned();
        let repeatable = route.repeatable;
        match self.begin(route).await {
            Ok((exchange, upstream)) => {
                self.converse(exchange, upstream, method, &name, &backend, repeatable).await
            }
            Err(error) => self.fail(method, &name, problems::backend(&backend, &error, repeatable)),
        }
    }

    async fn begin(&self, route: Route) -> Result<(Exchange, Upstream), BackendError> {
        let Call { edge, inbound, envelope, .. } = self;
        let upstream = edge.shared.get(edge, &route.backend).await?;
        let timeout = route.backend.call_timeout().unwrap_or(edge.config.call_timeout);
        let meta = CallMeta { deadline: self.started + timeout, headers: params(&inbound.headers) };
        let exchange =
            upstream.request(Core(self.core), inbound.body.clone(), envelope, route.edits, meta).await?;
        Ok((exchange, upstream))
    }

    /// Waits for the answer; a notification before it, or silence, makes it a stream. Dropping
    /// this future (the client closed) drops the exchange, which cancels the call.
    async fn converse(
        &self,
        mut exchange: Exchange,
        upstream: Upstream,
        method: &str,
        name: &str,
        backend: &str,
        repeatable: bool,
    ) -> Reply {
        let patience = (tokio::time::Instant::now() + STREAM_AFTER).into_std();
        let first = loop {
            let next = match self.accepts.events {
                true => exchange.next_by(patience).await,
                false => Ok(exchange.next().await),
            };
            let Ok(next) = next else { break None };
            match next {
                Some(Ok(FromBackend::Response { raw, is_error, tool_error })) => {
                    let outcome = outcome(&raw, is_error, tool_error);
                    let status = match outcome {
                        Outcome::Code(code) => modern_status(code),
                        _ => StatusCode::OK,
                    };
                    return self.done(method, name, status, raw, outcome);
                }
                Some(Ok(FromBackend::Notification { raw })) if self.accepts.events => break Some(raw),
                Some(Ok(FromBackend::Notification { .. })) => {}
                Some(Ok(FromBackend::Request { raw, id })) => refuse_request(&upstream, &raw, id).await,
                Some(Err(error)) => {
                    return self.fail(method, name, problems::backend(backend, &error, repeatable));
                }
                None => {
                    let error = BackendError::Gone { reason: "no answer came".into() };
                    return self.fail(method, name, problems::backend(backend, &error, repeatable));
                }
            }
        };
        self.edge.metrics.streams.inc();
        let (outlet, body) = events(first.map(|raw| message(None, &raw)).unwrap_or_default());
        let flow = Flow {
            edge: self.edge.clone(),
            core: self.core,
            started: self.started,
            method: method.to_owned(),
            name: name.to_owned(),
            backend: backend.to_owned(),
            repeatable,
            id: Bytes::copy_from_slice(self.id()),
        };
        tokio::spawn(flow.pump(exchange, upstream, outlet));
        answer::stream(body)
    }
}

struct Flow {
    edge: Arc<Edge>,
    core: usize,
    started: Instant,
    method: String,
    name: String,
    backend: String,
    repeatable: bool,
    id: Bytes,
}

impl Flow {
    /// Moves messages to the client until the answer. A client that closes, or that is too slow,
    /// cancels the call.
    async fn pump(self, mut exchange: Exchange, upstream: Upstream, outlet: Outlet) {
        let outcome = loop {
            let next = tokio::select! {
                biased;
                () = outlet.closed() => break Outcome::Code(own::CANCELLED),
                next = exchange.next() => next,
            };
            let open = match next {
                Some(Ok(FromBackend::Response { raw, is_error, tool_error })) => {
                    outlet.send(message(None, &raw));
                    break outcome(&raw, is_error, tool_error);
                }
                Some(Ok(FromBackend::Notification { raw })) => outlet.send(message(None, &raw)),
                Some(Ok(FromBackend::Request { raw, id })) => {
                    refuse_request(&upstream, &raw, id).await;
                    true
                }
                Some(Err(error)) => break self.failed(&outlet, &error),
                None => break self.failed(&outlet, &BackendError::Gone { reason: "no answer came".into() }),
            };
            if !open {
                break Outcome::Code(own::CANCELLED);
            }
        };
        let took = self.edge.clock.now().saturating_duration_since(self.started);
        self.edge.metrics.core(self.core).operation(&self.method, &self.name, outcome, MODERN, took);
    }

    fn failed(&self, outlet: &Outlet, error: &BackendError) -> Outcome {
        let problem = problems::backend(&self.backend, error, self.repeatable);
        outlet.send(message(None, &problem.body(Some(&self.id))));
        Outcome::Code(problem.code)
    }
}

/// A legacy backend asks its client something: this revision has no such requests.
pub(super) async fn refuse_request(upstream: &Upstream, raw: &Bytes, id: RawId) {
    let problem =
        Problem::new(codes::METHOD_NOT_FOUND, "the client cannot be asked in its protocol revision");
    let answer = problem.body(Some(&id.0));
    let Ok(envelope) = scan_backend(&answer) else { return };
    if let Err(error) = upstream.answer(&id, answer, &envelope).await {
        tracing::debug!(%error, request = raw.len(), "a refusal did not reach its backend");
    }
}

/// `Mcp-Param-*` as they came: what is not recognised is forwarded untouched.
fn params(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let params = headers.iter().filter(|(name, _)| name.as_str().starts_with(PARAM_PREFIX));
    params.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Recognised `Mcp-Param-*` must say what the arguments say (MCP.md 1.2, 10).
fn check_params(headers: &HeaderMap, body: &[u8], envelope: &Envelope, hints: &Hints) -> Result<(), Problem> {
    if hints.headers.is_empty() {
        return Ok(());
    }
    let arguments: serde_json::Value = envelope
        .raw(body, Field::Arguments)
        .and_then(|raw| serde_json::from_slice(raw).ok())
        .unwrap_or_default();
    for param in hints.headers.iter() {
        let name = format!("{PARAM_PREFIX}{}", param.token.to_ascii_lowercase());
        let mut values = headers.get_all(&name).iter();
        let (header, again) = (values.next(), values.next());
        let argument = param
            .path
            .iter()
            .try_fold(&arguments, |value, key| value.get(key))
            .filter(|value| !value.is_null());
        let agree = match (argument, header, again) {
            (None, None, _) => true,
            (Some(argument), Some(header), None) => says(header, argument),
            _ => false,
        };
        if !agree {
            return Err(mismatch(format!("header {name} does not match the argument")));
        }
    }
    Ok(())
}

fn says(header: &HeaderValue, argument: &serde_json::Value) -> bool {
    let Some(text) = header.to_str().ok().and_then(decode) else { return false };
    match argument {
        serde_json::Value::String(value) => text == value.as_str(),
        serde_json::Value::Bool(value) => text == if *value { "true" } else { "false" },
        serde_json::Value::Number(value) => {
            text.parse::<f64>().is_ok_and(|number| Some(number) == value.as_f64())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{catalog::HeaderParam, jsonrpc::scan};

    fn agree(arguments: &str, header: Option<&str>) -> bool {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"arguments":{arguments}}}}}"#
        );
        let envelope = scan(body.as_bytes()).unwrap();
        let param = HeaderParam { path: vec!["region".into()], token: "Region".into() };
        let hints = Hints { headers: [param].into(), ..Hints::default() };
        let mut headers = HeaderMap::new();
        headers.extend(header.map(|value| {
            (HeaderName::from_static("mcp-param-region"), HeaderValue::from_str(value).unwrap())
        }));
        check_params(&headers, body.as_bytes(), &envelope, &hints).is_ok()
    }

    #[test]
    fn a_mirrored_argument_must_be_mirrored_truly() {
        assert!(agree(r#"{"region":"eu"}"#, Some("eu")));
        assert!(agree(r#"{"region":"eu"}"#, Some("=?base64?ZXU=?=")));
        assert!(agree(r#"{"region":42}"#, Some("42.0")));
        assert!(agree(r#"{"region":true}"#, Some("true")));
        assert!(agree(r#"{"region":null}"#, None));
        assert!(agree("{}", None));
        assert!(!agree(r#"{"region":"eu"}"#, Some("us")));
        assert!(!agree(r#"{"region":"eu"}"#, None));
        assert!(!agree("{}", Some("eu")));
        assert!(!agree(r#"{"region":{}}"#, Some("eu")));
    }
}
