//! What stands in front of every handler: deadline, panic, metrics, span.

use super::{
    connection::Answers,
    deadline, status,
    table::{Answer, Table},
};
use crate::metrics::{CALL_BUCKETS, HistogramFamily, Metrics};
use futures::FutureExt as _;
use http::uri::PathAndQuery;
use parking_lot::RwLock;
use prometheus_client::{encoding::EncodeLabelSet, metrics::histogram::Histogram};
use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status, body::Body};
use tracing::Instrument as _;

/// Methods of which a connection keeps the histogram at hand.
const KNOWN_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    rpc_method: String,
    rpc_response_status_code: &'static str,
}

/// The histograms by method and code. Those seen before are found without an allocation.
#[derive(Clone, Debug)]
pub(super) struct Durations {
    family: HistogramFamily<Labels>,
    seen: Arc<RwLock<HashMap<(PathAndQuery, Code), Histogram>>>,
}

impl Durations {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let help = "Time from a call's arrival to the head of its answer";
        let make = || Histogram::new(CALL_BUCKETS);
        let family = metrics.histogram_family("rpc_server_call_duration_seconds", help, make);
        Self { family, seen: Arc::default() }
    }

    /// Where successes of a method are counted, once there was one.
    fn of_successes(&self, path: &PathAndQuery) -> Option<Histogram> {
        self.seen.read().get(&(path.clone(), Code::Ok)).cloned()
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

/// Stands in front of the services for one connection.
pub(super) struct Guard {
    // The connection's own counts: calls of other event loops do not touch them.
    port: Arc<Port>,
    // The methods that the connection calls, and where their successes are counted.
    known: Vec<(PathAndQuery, Arc<Histogram>)>,
}

struct Port {
    table: Arc<Table>,
    durations: Durations,
}

impl Guard {
    pub(super) fn new(table: Arc<Table>, durations: Durations) -> Self {
        Self { port: Arc::new(Port { table, durations }), known: Vec::new() }
    }

    fn successes(&mut self, path: &PathAndQuery) -> Option<Arc<Histogram>> {
        if let Some((_, known)) = self.known.iter().find(|(known, _)| known == path) {
            return Some(known.clone());
        }
        let found = Arc::new(self.port.durations.of_successes(path)?);
        if self.known.len() < KNOWN_MAX {
            self.known.push((path.clone(), found.clone()));
        }
        Some(found)
    }
}

type Request = http::Request<Body>;
type Response = http::Response<Body>;

impl Answers for Guard {
    fn answer(&mut self, request: Request) -> Answer {
        // gRPC knows no query; one is as made-up as an unknown path.
        let path = request.uri().path_and_query().filter(|path| path.query().is_none()).cloned();
        let path = path.unwrap_or_else(|| PathAndQuery::from_static("/_other"));
        let deadline = deadline::of(request.headers());
        if deadline.is_none() && !is_exempt(path.path()) {
            let refused = status::deadline_required().into_http();
            // The path is not known to exist.
            let other = PathAndQuery::from_static("/_other");
            self.port.durations.observe(&other, Code::InvalidArgument, Duration::ZERO);
            return Box::pin(std::future::ready(Ok(refused)));
        }
        let span = tracing::debug_span!("rpc", path = path.path());
        let start = Instant::now();
        let successes = self.successes(&path);
        let port = self.port.clone();
        let mut open = OpenCall { port: port.clone(), successes, path, start, code: Code::Cancelled };
        let answer = async move {
            let called = AssertUnwindSafe(async move { port.table.call(request).await }).catch_unwind();
            let answer = match deadline.and_then(|deadline| start.checked_add(deadline)) {
                Some(end) => timeout_at(end, called).await,
                None => Ok(called.await),
            };
            let response = match answer {
                Ok(Ok(response)) => response?,
                Ok(Err(_panic)) => {
                    tracing::error!(path = open.path.path(), "a handler panicked");
                    status::with_reason(Code::Internal, "INTERNAL", "the handler panicked").into_http()
                }
                Err(_) => Status::cancelled("Timeout expired").into_http(),
            };
            open.answered(&response);
            Ok(response)
        };
        Box::pin(answer.instrument(span))
    }
}

/// A call whose answer has no head yet. Dropped without one (the client went away) it counts as
/// cancelled.
struct OpenCall {
    port: Arc<Port>,
    successes: Option<Arc<Histogram>>,
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
        let elapsed = self.start.elapsed();
        match &self.successes {
            Some(successes) if self.code == Code::Ok => successes.observe(elapsed.as_secs_f64()),
            _ => self.port.durations.observe(&self.path, self.code, elapsed),
        }
    }
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
