//! What stands in front of every handler: deadline, panic, metrics, span.

use super::status;
use crate::metrics::{CALL_BUCKETS, HistogramFamily, Metrics};
use futures::{FutureExt as _, future::BoxFuture};
use prometheus_client::{encoding::EncodeLabelSet, metrics::histogram::Histogram};
use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    task::{Context, Poll},
};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use tracing::Instrument as _;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    rpc_method: String,
    rpc_response_status_code: String,
}

/// Wraps the routes of a server.
#[derive(Clone, Debug)]
pub(super) struct GuardLayer {
    duration: HistogramFamily<Labels>,
}

impl GuardLayer {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let help = "Time from a call's arrival to the head of its answer";
        let make = || Histogram::new(CALL_BUCKETS);
        Self { duration: metrics.histogram_family("rpc_server_call_duration_seconds", help, make) }
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { inner, duration: self.duration.clone() }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Guard<S> {
    inner: S,
    duration: HistogramFamily<Labels>,
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
        let path = request.uri().path().to_owned();
        if !has_deadline(&request) && !is_exempt(&path) {
            let refused = status::deadline_required().into_http();
            self.observe(&path, &refused, 0.0);
            return Box::pin(std::future::ready(Ok(refused)));
        }
        let start = tokio::time::Instant::now();
        let span = tracing::debug_span!("rpc", path);
        // The ready clone is the one that was polled.
        let clone = self.clone();
        let mut ready = std::mem::replace(self, clone);
        Box::pin(
            async move {
                let answer = AssertUnwindSafe(ready.inner.call(request)).catch_unwind().await;
                let response = answer.unwrap_or_else(|_panic| {
                    tracing::error!(path, "a handler panicked");
                    Ok(status::with_reason(Code::Internal, "INTERNAL", "the handler panicked").into_http())
                })?;
                ready.observe(&path, &response, start.elapsed().as_secs_f64());
                Ok(response)
            }
            .instrument(span),
        )
    }
}

impl<S> Guard<S> {
    fn observe(&self, path: &str, response: &Response, seconds: f64) {
        // Without the header the status is in the trailers, which a success (or a stream) has.
        let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
        // Made-up paths must not make labels.
        let method = if code == Code::Unimplemented { "_other" } else { path.trim_start_matches('/') };
        let labels = Labels { rpc_method: method.into(), rpc_response_status_code: format!("{code:?}") };
        self.duration.get_or_create(&labels).observe(seconds);
    }
}

fn has_deadline(request: &Request) -> bool {
    request.headers().contains_key("grpc-timeout")
}

fn is_exempt(path: &str) -> bool {
    path.starts_with("/grpc.health.") || path.starts_with("/grpc.reflection.")
}
