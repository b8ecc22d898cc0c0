//! Failures as JSON-RPC errors, with what a client may do about them.

use super::answer::{self, Reply};
use crate::{
    backend::BackendError,
    core::{
        catalog::Catalog,
        codes::{self, Problem, own},
    },
};
use http::StatusCode;
use serde_json::json;

/// A failed call of a backend. `repeatable` calls may be sent again whatever the outcome was.
pub(crate) fn backend(name: &str, error: &BackendError, repeatable: bool) -> Problem {
    let code = match error {
        BackendError::NotReady { .. } => own::BACKEND_UNAVAILABLE,
        BackendError::Timeout => own::BACKEND_TIMEOUT,
        BackendError::TooLarge => own::TOO_LARGE,
        _ => own::BACKEND_PROTOCOL,
    };
    let retryable = error.unsent() || repeatable;
    let mut data = json!({ "backend": name, "reason": error.to_string(), "retryable": retryable });
    if let (BackendError::NotReady { retry_after, .. }, Some(data)) = (error, data.as_object_mut()) {
        data.insert("retryAfterMs".into(), json!(retry_after.as_millis() as u64));
    }
    Problem::new(code, format!("backend {name}: {error}")).with(data)
}

/// A name that no backend offers, with the backends that might when they are well again.
pub(crate) fn unknown(what: &str, name: &str, catalog: &Catalog, scope: Option<&str>) -> Problem {
    let name: String = name.chars().take(128).collect();
    let problem = Problem::new(codes::INVALID_PARAMS, format!("unknown {what}: {name}"));
    match troubles(catalog, scope) {
        Some((text, data)) => Problem {
            message: format!("{}; not available now: {text}", problem.message),
            data: Some(data),
            ..problem
        },
        None => problem,
    }
}

/// Every backend is out: an error that names each, never an empty list.
pub(crate) fn all_out(catalog: &Catalog, scope: Option<&str>) -> Option<Problem> {
    let in_scope = catalog.servers().filter(|(name, _)| scope.is_none_or(|scope| scope == &***name)).count();
    if in_scope == 0 || catalog.troubles(scope).len() < in_scope {
        return None;
    }
    let (text, data) = troubles(catalog, scope)?;
    Some(Problem::new(own::BACKEND_UNAVAILABLE, format!("no backend is available: {text}")).with(data))
}

fn troubles(catalog: &Catalog, scope: Option<&str>) -> Option<(String, serde_json::Value)> {
    let troubles = catalog.troubles(scope);
    if troubles.is_empty() {
        return None;
    }
    let text: Vec<String> = troubles.iter().map(|(name, reason)| format!("{name} ({reason})")).collect();
    let list: Vec<_> =
        troubles.iter().map(|(name, reason)| json!({ "backend": &**name, "reason": reason })).collect();
    Some((text.join(", "), json!({ "backends": list, "retryable": true })))
}

/// The node that worked on a call is lost (K30).
pub(crate) fn node_lost(what: &str) -> Problem {
    let data = json!({ "reason": "NODE_LOST", "retryable": true });
    Problem::new(
        own::NODE_LOST,
        format!("the node that worked on {what} is lost; it may or may not have run"),
    )
    .with(data)
}

/// 404: the client has to initialize again.
pub(crate) fn session_gone(id: Option<&[u8]>) -> Reply {
    answer::problem(StatusCode::NOT_FOUND, id, &Problem::new(codes::SESSION_NOT_FOUND, "session not found"))
}

/// 503: sessions cannot be read or written now.
pub(crate) fn unavailable(id: Option<&[u8]>, why: &str) -> Reply {
    let problem = Problem::new(own::BACKEND_UNAVAILABLE, format!("sessions are unavailable: {why}"));
    answer::problem(StatusCode::SERVICE_UNAVAILABLE, id, &problem.with(json!({ "retryable": true })))
}
