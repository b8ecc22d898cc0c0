//! Streamable HTTP towards backends: pools, sessions, answers as JSON or events.

mod exchange;
mod pool;
mod session;
mod stream;

pub(crate) use exchange::HttpExchange;
pub(crate) use session::{Session, Settings, initialize_body};

use super::{BackendError, metrics::Meter};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use kit::net::Net;
use pool::Pool;
use std::{collections::BTreeMap, sync::Arc};
use tokio::{runtime::Handle, sync::Semaphore};

pub(crate) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
pub(crate) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// One HTTP backend: where it is, what every request to it carries, its connections.
pub(crate) struct Origin {
    pub(crate) pool: Pool,
    pub(crate) path: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) max_message: usize,
    pub(crate) in_flight: Arc<Semaphore>,
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
        let path = path.parse().map_err(|_| format!("`{url}` has a bad path"))?;
        let mut headers = base_headers(extra)?;
        let host =
            HeaderValue::from_str(authority.as_str()).map_err(|_| format!("`{url}` has a bad host"))?;
        headers.insert(header::HOST, host);
        Ok(Origin {
            pool: Pool::new(connect_to, net, limits.max_idle),
            path,
            headers,
            max_message: limits.max_message,
            in_flight: Arc::new(Semaphore::new(limits.max_in_flight)),
            meter,
            runtime: Handle::current(),
        })
    }
}

fn base_headers(extra: &BTreeMap<String, String>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in extra {
        let bad = || format!("header `{name}` cannot be sent");
        let name: HeaderName = name.parse().map_err(|_| bad())?;
        if [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION].contains(&name) {
            return Err(bad());
        }
        let mut value = HeaderValue::from_str(value).map_err(|_| bad())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers
        .insert(header::USER_AGENT, HeaderValue::from_static(concat!("swarm/", env!("CARGO_PKG_VERSION"))));
    Ok(headers)
}

/// A failure to send, as the caller's error.
fn failed(failure: pool::Failure) -> BackendError {
    match failure {
        pool::Failure::Unsent(reason) => BackendError::not_ready(reason, std::time::Duration::from_secs(1)),
        pool::Failure::Unknown(reason) => BackendError::gone(reason),
    }
}
