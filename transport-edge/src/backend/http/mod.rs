//! Streamable HTTP towards backends: pools, sessions, answers as JSON or events.

mod asked;
mod connection;
mod exchange;
mod incoming;
mod pool;
mod request;
mod session;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use exchange::HttpExchange;
pub(crate) use session::{Session, Settings, initialize_body};

use super::{BackendError, metrics::Meter};
use asked::Failure;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use kit::net::Net;
use pool::Pool;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::runtime::Handle;

pub(crate) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
pub(crate) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// One HTTP backend: where it is, what every request to it carries, its connections.
pub(crate) struct Origin {
    pool: Arc<Pool>,
    /// Path and query.
    target: String,
    /// The header lines of every request.
    lines: Bytes,
    pub(crate) max_message: usize,
    max_in_flight: usize,
    in_flight: AtomicUsize,
    pub(crate) meter: Arc<Meter>,
    pub(crate) runtime: Handle,
}

/// Limits of an origin.
pub(crate) struct OriginLimits {
    pub(crate) max_message: usize,
    pub(crate) max_in_flight: usize,
    pub(crate) max_idle: usize,
}

impl Origin {
    /// Reads the URL and headers of a definition; fails in words for the operator.
    pub(crate) fn new(
        url: &str,
        extra: &BTreeMap<String, String>,
        limits: &OriginLimits,
        net: Arc<dyn Net>,
        meter: Arc<Meter>,
    ) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|_| format!("`{url}` is not a URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(
                    "https backends are not served yet; use http, or a TLS proxy beside the edge".into()
                );
            }
            _ => return Err(format!("`{url}` does not start with http://")),
        }
        let authority = uri.authority().ok_or_else(|| format!("`{url}` names no host"))?;
        let connect_to = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut headers = base_headers(extra)?;
        let host =
            HeaderValue::from_str(authority.as_str()).map_err(|_| format!("`{url}` has a bad host"))?;
        headers.insert(header::HOST, host);
        Ok(Origin {
            pool: Pool::new(connect_to, net, limits.max_idle),
            target: path.to_owned(),
            lines: request::lines(&headers),
            max_message: limits.max_message,
            max_in_flight: limits.max_in_flight,
            in_flight: AtomicUsize::new(0),
            meter,
            runtime: Handle::current(),
        })
    }

    /// Takes a place for one more request; false when there are too many. Give it back with
    /// [`Origin::leave`].
    fn enter(&self) -> bool {
        let room = self.in_flight.fetch_add(1, Ordering::Relaxed) < self.max_in_flight;
        if !room {
            self.leave();
        }
        room
    }

    fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Headers that we write ourselves, request by request; an operator's are left out.
const OURS: [HeaderName; 9] = [
    header::HOST,
    header::ACCEPT,
    header::CONTENT_TYPE,
    header::USER_AGENT,
    SESSION_ID,
    PROTOCOL_VERSION,
    LAST_EVENT_ID,
    HeaderName::from_static("mcp-method"),
    HeaderName::from_static("mcp-name"),
];

fn base_headers(extra: &BTreeMap<String, String>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in extra {
        let bad = || format!("header `{name}` cannot be sent");
        let name: HeaderName = name.parse().map_err(|_| bad())?;
        if [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION].contains(&name) {
            return Err(bad());
        }
        let value = HeaderValue::from_str(value).map_err(|_| bad())?;
        if !OURS.contains(&name) {
            headers.insert(name, value);
        }
    }
    let agent = HeaderValue::from_static(concat!("swarm/", env!("CARGO_PKG_VERSION")));
    headers.insert(header::USER_AGENT, agent);
    Ok(headers)
}

/// A failure to send, as the caller's error.
fn failed(failure: Failure) -> BackendError {
    match failure {
        Failure::Unsent(reason) => BackendError::not_ready(reason, Duration::from_secs(1)),
        Failure::Unknown(reason) => BackendError::gone(reason),
        Failure::Malformed(reason) => BackendError::protocol(reason),
    }
}
