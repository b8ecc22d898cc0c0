//! The admin port: `/metrics`, `/livez`, `/readyz`, and what the composition root merges.

use crate::{
    metrics::Metrics,
    net::{Accepted, Listener, incoming},
    readiness::Readiness,
    shutdown::Shutdown,
};
use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::StreamExt as _;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use parking_lot::Mutex;
use serde_json::json;
use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Admin connections open at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 512;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Routers that are served beside the built-in routes.
#[derive(Clone, Default)]
pub struct Routes {
    router: Arc<Mutex<Router>>,
}

impl Routes {
    /// Nothing merged yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Merges a router with its state applied. Panics as axum does when a path is taken.
    pub fn merge(&self, router: Router) {
        let mut merged = self.router.lock();
        *merged = std::mem::take(&mut *merged).merge(router);
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("admin::Routes")
    }
}

#[derive(Clone)]
struct Admin {
    metrics: Metrics,
    readiness: Readiness,
    hosts: Arc<Hosts>,
}

/// Which `Host` headers are answered: a page of another origin must not reach a loopback port
/// through a name of its own (DNS rebinding).
#[derive(Debug)]
pub(crate) struct Hosts {
    names: Vec<String>,
    /// Bound to all interfaces: any IP literal is fine, for only names can be rebound.
    any_ip: bool,
}

impl Hosts {
    pub(crate) fn new(configured: SocketAddr, extra: impl IntoIterator<Item = String>) -> Self {
        let loopback = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let names = loopback.into_iter().chain([configured.ip().to_string()]).chain(extra);
        let names = names.map(|name| name.to_ascii_lowercase()).collect();
        Self { names, any_ip: configured.ip().is_unspecified() }
    }

    fn allows(&self, authority: &str) -> bool {
        let host = host_of(authority).to_ascii_lowercase();
        self.names.contains(&host) || (self.any_ip && host.parse::<std::net::IpAddr>().is_ok())
    }
}

/// `[::1]:7600` -> `::1`, `localhost:7600` -> `localhost`.
fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    authority.rsplit_once(':').map_or(authority, |(host, _port)| host)
}

pub(crate) fn router(routes: &Routes, metrics: Metrics, readiness: Readiness, hosts: Hosts) -> Router {
    let admin = Admin { metrics, readiness, hosts: Arc::new(hosts) };
    let built_in = Router::new()
        .route("/metrics", get(serve_metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(serve_ready))
        .with_state(admin.clone());
    let merged = routes.router.lock().clone();
    built_in
        .merge(merged)
        .fallback(|uri: Uri| async move {
            error(StatusCode::NOT_FOUND, "NOT_FOUND", &format!("no {}", uri.path()))
        })
        .layer(middleware::from_fn_with_state(admin, check_host))
}

async fn check_host(
    State(admin): State<Admin>,
    headers: HeaderMap,
    request: Request,
    next: Next,
) -> Response {
    let header = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = header.or_else(|| request.uri().authority().map(|authority| authority.as_str()));
    match authority {
        Some(authority) if admin.hosts.allows(authority) => next.run(request).await,
        _ => error(
            StatusCode::FORBIDDEN,
            "DENIED",
            "this Host is not served; list it in node.admin_hosts if it is meant to be",
        ),
    }
}

async fn serve_metrics(State(admin): State<Admin>, headers: HeaderMap) -> impl IntoResponse {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let (content_type, text) = if accept.contains("application/openmetrics-text") {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", admin.metrics.encode())
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", admin.metrics.encode_text())
    };
    ([(header::CONTENT_TYPE, content_type)], text)
}

async fn serve_ready(State(admin): State<Admin>) -> impl IntoResponse {
    let unmet: Vec<_> = admin.readiness.unmet();
    let status = if unmet.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let unmet: Vec<_> =
        unmet.iter().map(|(condition, why)| json!({"condition": condition, "why": why})).collect();
    (status, Json(json!({"ready": unmet.is_empty(), "unmet": unmet})))
}

/// The one shape of an error on the admin port.
pub fn error(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({"error": {"code": code, "message": message}}))).into_response()
}

/// Serves until `stop`, then finishes the open requests. Connections break at the abort.
pub(crate) async fn serve(
    router: Router,
    listener: Arc<dyn Listener>,
    shutdown: &Shutdown,
    stop: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let mut connections = std::pin::pin!(incoming(listener, shutdown.abort_token()));
    loop {
        let next = async {
            let permit = permits.clone().acquire_owned().await.ok();
            (connections.next().await, permit)
        };
        let (Some(connection), permit) = (tokio::select! {
            next = next => next,
            () = stop.cancelled() => break,
        }) else {
            break;
        };
        let served = graceful.watch(http(connection, router.clone()).into_owned());
        let aborted = shutdown.abort_token();
        tokio::spawn(async move {
            let _permit = permit;
            // A client that breaks off is no event of ours.
            let _ = aborted.run_until_cancelled(served).await;
        });
    }
    tokio::select! {
        () = graceful.shutdown() => {}
        () = shutdown.aborted() => {}
    }
}

fn http(
    connection: Accepted,
    router: Router,
) -> auto::Connection<'static, TokioIo<Accepted>, TowerToHyperService<Router>, TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder.http2().timer(TokioTimer::new());
    builder.serve_connection(TokioIo::new(connection), TowerToHyperService::new(router)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_and_the_configured_address_are_answered() {
        let hosts = Hosts::new("10.0.0.7:7600".parse().unwrap(), ["N1".to_owned()]);
        for good in ["localhost:7600", "127.0.0.1", "[::1]:7600", "10.0.0.7:9", "n1:7600", "LOCALHOST"] {
            assert!(hosts.allows(good), "{good}");
        }
        for bad in ["evil.example", "evil.example:7600", "10.0.0.8", "", "localhost.evil.example"] {
            assert!(!hosts.allows(bad), "{bad}");
        }
        let everywhere = Hosts::new("0.0.0.0:7600".parse().unwrap(), []);
        assert!(everywhere.allows("192.168.1.5:7600"));
        assert!(!everywhere.allows("evil.example:7600"));
    }
}
