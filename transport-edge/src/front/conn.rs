//! One HTTP request: limits, who may call, the body, the path.

use super::{
    answer::{self, Reply},
    body::Answer,
    edge::{Edge, Principal, principal},
    entry,
    io::Phase,
};
use crate::{
    core::{
        codes::{self, Problem},
        headers::head_size,
        jsonrpc::Envelope,
    },
    session::{Live, Scope},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, header, request::Parts};
use http_body_util::BodyExt as _;
use hyper::{
    Request,
    body::{Body as _, Incoming},
};
use parking_lot::Mutex;
use std::sync::{Arc, atomic::Ordering::Relaxed};

/// Largest head.
const HEAD_MAX: usize = 16 << 10;
/// Largest body that is copied out of the read buffer.
const COPY_MAX: usize = 4 << 10;

/// A client's connection: remembers the session it used last.
pub(crate) struct Connection {
    /// The edge.
    pub(crate) edge: Arc<Edge>,
    /// The event loop it lives on.
    pub(crate) core: usize,
    phase: Phase,
    memo: Mutex<Option<Arc<Live>>>,
}

impl Connection {
    /// A connection on an event loop.
    pub(crate) fn new(edge: Arc<Edge>, core: usize, phase: Phase) -> Self {
        Connection { edge, core, phase, memo: Mutex::new(None) }
    }

    /// A session that is live here, found without the map if it was used last.
    pub(crate) fn session(&self, id: &str) -> Option<Arc<Live>> {
        let mut memo = self.memo.lock();
        if let Some(live) = &*memo
            && live.id == id
            && !live.is_ended()
        {
            return Some(live.clone());
        }
        let live = self.edge.sessions.get(id);
        memo.clone_from(&live);
        live
    }
}

/// A request whose outside is checked.
#[derive(Clone)]
pub(crate) struct Inbound {
    /// HTTP method.
    pub(crate) method: Method,
    /// Which endpoint.
    pub(crate) scope: Scope,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its body.
    pub(crate) body: Bytes,
    /// The body's scan, once it was done.
    pub(crate) envelope: Option<Envelope>,
    /// Who calls.
    pub(crate) principal: Principal,
}

/// Answers one request. Never fails: every refusal is an answer.
pub(crate) async fn respond(connection: &Connection, request: Request<Incoming>) -> Reply {
    let cells = connection.edge.metrics.core(connection.core);
    cells.in_flight.fetch_add(1, Relaxed);
    connection.phase.busy();
    let mut working = Working(connection, true);
    let (parts, body) = request.into_parts();
    let mut reply = match admit(&connection.edge, parts, body).await {
        Ok(mut inbound) => entry::handle(connection, &mut inbound).await,
        Err(refused) => {
            cells.refused.fetch_add(1, Relaxed);
            *refused
        }
    };
    if let Answer::Events(events) = reply.body_mut() {
        events.works(connection.phase.clone());
        working.1 = false;
    }
    reply
}

/// A request that is being answered; true when the connection is idle after it.
struct Working<'a>(&'a Connection, bool);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        if self.1 {
            self.0.phase.idle();
        }
        self.0.edge.metrics.core(self.0.core).in_flight.fetch_sub(1, Relaxed);
    }
}

async fn admit(edge: &Edge, parts: Parts, body: Incoming) -> Result<Inbound, Box<Reply>> {
    if head_size(&parts.headers) + parts.uri.path().len() > HEAD_MAX {
        return Err(refuse(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers are larger than 16 KiB"));
    }
    if let Err(why) = edge.names.allow(&parts.headers, parts.uri.host()) {
        return Err(refuse(StatusCode::FORBIDDEN, why));
    }
    let Some(scope) = scope(parts.uri.path()) else {
        return Err(Box::new(answer::empty(StatusCode::NOT_FOUND)));
    };
    edge.kill.request(&scope)?;
    let body = match parts.method {
        Method::POST => read(edge, &parts.headers, body).await?,
        _ => Bytes::new(),
    };
    let principal = principal(&parts.headers);
    Ok(Inbound { method: parts.method, scope, headers: parts.headers, body, envelope: None, principal })
}

/// `/mcp` or `/mcp/<server>`.
pub(crate) fn scope(path: &str) -> Option<Scope> {
    match path.strip_prefix("/mcp")? {
        "" | "/" => Some(Scope::All),
        rest => {
            let name = rest.strip_prefix('/')?;
            proto::ids::check_name(name).ok()?;
            Some(Scope::One(name.to_owned()))
        }
    }
}

async fn read(edge: &Edge, headers: &HeaderMap, body: Incoming) -> Result<Bytes, Box<Reply>> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "compressed bodies are not taken"));
    }
    if !crate::core::headers::is_json(headers) {
        return Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type must be application/json"));
    }
    let limit = edge.config.max_body;
    let too_large = || refuse(StatusCode::PAYLOAD_TOO_LARGE, &format!("body is larger than {limit} bytes"));
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(edge.config.body_timeout, collect(body, limit)).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => Err(too_large()),
        Ok(Err(_)) => Err(refuse(StatusCode::BAD_REQUEST, "the body broke off")),
        Err(_) => Err(refuse(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    }
}

/// The body; `None` when it is over the limit. A small one is copied: whatever refers to hyper's
/// read buffer while a call waits makes hyper take another of 8 KiB, to look for the client's end.
async fn collect(mut body: Incoming, limit: usize) -> Result<Option<Bytes>, hyper::Error> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while !body.is_end_stream() {
        let Some(frame) = body.frame().await else { break };
        let Ok(data) = frame?.into_data() else { continue };
        if first.len() + rest.len() + data.len() > limit {
            return Ok(None);
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(Some(match rest.is_empty() {
        true if first.len() <= COPY_MAX => Bytes::copy_from_slice(&first),
        true => first,
        false => rest.freeze(),
    }))
}

/// A refusal before the body was read; the connection may hold the rest of it, so it ends.
fn refuse(status: StatusCode, why: &str) -> Box<Reply> {
    let mut reply: http::Response<Answer> =
        answer::problem(status, None, &Problem::new(codes::INVALID_REQUEST, why));
    reply.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("close"));
    Box::new(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, F: Future>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    /// hyper moves the future of each request and keeps room for one with each connection.
    // The types of the references come from the closures.
    #[allow(clippy::redundant_closure)]
    #[test]
    fn the_future_of_a_request_is_small() {
        let whole =
            size::<&Connection, Request<Incoming>, _>(|connection, request| respond(connection, request));
        let call =
            size::<&Connection, &mut Inbound, _>(|connection, inbound| entry::handle(connection, inbound));
        assert!(whole <= 8192, "{whole} bytes, of which {call} are the call");
    }

    #[test]
    fn only_the_two_endpoints_exist() {
        assert_eq!(scope("/mcp"), Some(Scope::All));
        assert_eq!(scope("/mcp/time"), Some(Scope::One("time".into())));
        for path in ["/", "/mc", "/mcpx", "/mcp/a/b", "/mcp/%2e%2e", "/mcp//"] {
            assert_eq!(scope(path), None, "{path}");
        }
    }
}
