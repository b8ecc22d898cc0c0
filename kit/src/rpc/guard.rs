//! What stands in front of every handler: deadline, panic, metrics, span.

use super::status;
use crate::metrics::{CALL_BUCKETS, HistogramFamily, Metrics};
use futures::{FutureExt as _, future::BoxFuture};
use http::uri::PathAndQuery;
use parking_lot::RwLock;
use prometheus_client::{encoding::EncodeLabelSet, metrics::histogram::Histogram};
use std::{
    collections::HashMap,
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::Instant;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use tracing::Instrument as _;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    rpc_method: String,
    rpc_response_status_code: &'static str,
}

/// The histograms by method and code. Those seen before are found without an allocation.
#[derive(Clone, Debug)]
struct Durations {
    family: HistogramFamily<Labels>,
    seen: Arc<RwLock<HashMap<(PathAndQuery, Code), Histogram>>>,
}

impl Durations {
    fn new(metrics: &Metrics) -> Self {
        let help = "Time from a call's arrival to the head of its answer";
        let make = || Histogram::new(CALL_BUCKETS);
        let family = metrics.histogram_family("rpc_server_call_duration_seconds", help, make);
        Self { family, seen: Arc::default() }
    }

    fn observe(&self, path: &PathAndQuery, code: Code, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        let key = match code {
            // Made-up paths must not make labels.
            Code::Unimplemented => (PathAndQuery::from_static("/_other"), code),
            _ => (path.clone(), code),
        };
        if let Some(histogram) = self.seen.read().get(&key) {
            return histogram.observe(seconds);
        }
        let labels = Labels {
            rpc_method: key.0.path().trim_start_matches('/').into(),
            rpc_response_status_code: code_name(code),
        };
        let histogram = self.family.get_or_create_owned(&labels);
        histogram.observe(seconds);
        self.seen.write().insert(key, histogram);
    }
}

/// Wraps the routes of a server.
#[derive(Clone, Debug)]
pub(super) struct GuardLayer {
    durations: Durations,
}

impl GuardLayer {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self { durations: Durations::new(metrics) }
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { inner, durations: self.durations.clone() }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Guard<S> {
    inner: S,
    durations: Durations,
}

type Request = http::Request<Body>;
type Response = http::Response<Body>;

impl<S> Service<Request> for Guard<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // gRPC knows no query; one is as made-up as an unknown path.
        let path = request.uri().path_and_query().filter(|path| path.query().is_none()).cloned();
        let path = path.unwrap_or_else(|| PathAndQuery::from_static("/_other"));
        if !has_deadline(&request) && !is_exempt(path.path()) {
            let refused = status::deadline_required().into_http();
            // The path is not known to exist.
            let other = PathAndQuery::from_static("/_other");
            self.durations.observe(&other, Code::InvalidArgument, Duration::ZERO);
            return Box::pin(std::future::ready(Ok(refused)));
        }
        let span = tracing::debug_span!("rpc", path = path.path());
        // The ready clone is the one that was polled.
        let clone = self.clone();
        let Guard { mut inner, durations } = std::mem::replace(self, clone);
        let mut open = OpenCall { durations, path, start: Instant::now(), code: Code::Cancelled };
        let answer = async move {
            let answer = AssertUnwindSafe(inner.call(request)).catch_unwind().await;
            let response = answer.unwrap_or_else(|_panic| {
                tracing::error!(path = open.path.path(), "a handler panicked");
                Ok(status::with_reason(Code::Internal, "INTERNAL", "the handler panicked").into_http())
            })?;
            open.answered(&response);
            Ok(response)
        };
        Box::pin(answer.instrument(span))
    }
}

/// A call whose answer has no head yet. Dropped without one (the client went away, the
/// deadline passed) it counts as cancelled.
struct OpenCall {
    durations: Durations,
    path: PathAndQuery,
    start: Instant,
    code: Code,
}

impl OpenCall {
    /// Without the header the status is in the trailers, which a success (or a stream) has.
    fn answered(&mut self, response: &Response) {
        let status = Status::from_header_map(response.headers());
        self.code = status.map_or(Code::Ok, |status| status.code());
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.durations.observe(&self.path, self.code, self.start.elapsed());
    }
}

fn has_deadline(request: &Request) -> bool {
    request.headers().contains_key("grpc-timeout")
}

fn is_exempt(path: &str) -> bool {
    path.starts_with("/grpc.health.") || path.starts_with("/grpc.reflection.")
}

/// The names of OpenTelemetry's RPC conventions.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
