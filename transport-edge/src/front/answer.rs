//! Answers: status, the few headers that matter, and the body.

use super::body::Answer;
use crate::core::codes::{self, Problem};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

static JSON: HeaderValue = HeaderValue::from_static("application/json");
static EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
static NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache, no-transform");
static NO: HeaderValue = HeaderValue::from_static("no");

/// An answer about to be written.
pub(crate) type Reply = Response<Answer>;

/// A body of JSON.
pub(crate) fn json(status: StatusCode, body: Bytes) -> Reply {
    let mut reply = Response::new(Answer::from(body));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, JSON.clone());
    reply
}

/// 200 with JSON.
pub(crate) fn ok(body: Bytes) -> Reply {
    json(StatusCode::OK, body)
}

/// A status without a body.
pub(crate) fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(Answer::EMPTY);
    *reply.status_mut() = status;
    reply
}

/// 202: a notification or an answer was taken.
pub(crate) fn accepted() -> Reply {
    empty(StatusCode::ACCEPTED)
}

/// A JSON-RPC error under an HTTP status.
pub(crate) fn problem(status: StatusCode, id: Option<&[u8]>, problem: &Problem) -> Reply {
    let mut reply = json(status, problem.body(id));
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    reply
}

/// 405 with what is allowed.
pub(crate) fn not_allowed(allow: &'static str) -> Reply {
    let mut reply = empty(StatusCode::METHOD_NOT_ALLOWED);
    reply.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    reply
}

/// 200 with events.
pub(crate) fn stream(body: Answer) -> Reply {
    let mut reply = Response::new(body);
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, EVENTS.clone());
    headers.insert(header::CACHE_CONTROL, NO_CACHE.clone());
    headers.insert("x-accel-buffering", NO.clone());
    reply
}

/// The HTTP status of a JSON-RPC error in the modern era (MCP.md 1.2).
pub(crate) fn modern_status(code: i32) -> StatusCode {
    match code {
        codes::PARSE_ERROR | codes::INVALID_REQUEST | codes::INVALID_PARAMS => StatusCode::BAD_REQUEST,
        codes::HEADER_MISMATCH | -32021 | codes::UNSUPPORTED_VERSION => StatusCode::BAD_REQUEST,
        codes::METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
        codes::own::BACKEND_UNAVAILABLE => StatusCode::SERVICE_UNAVAILABLE,
        codes::own::OVERLOADED => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::OK,
    }
}
