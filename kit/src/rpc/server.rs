//! The gRPC server of a process: services are added, then all are served on one port.

use super::{
    CONNECTION_WINDOW, STREAM_WINDOW,
    guard::GuardLayer,
    loops::{self, Ends, Serve},
};
use crate::{
    metrics::Metrics,
    net::{Accepted, Listener, incoming},
    readiness::Readiness,
    shutdown::Shutdown,
};
use axum::response::IntoResponse;
use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use std::{convert::Infallible, fmt, io, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    server::NamedService,
    service::RoutesBuilder,
    transport::{Server, server::Router},
};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::{
    Service,
    layer::util::{Identity, Stack},
};

/// Calls that one connection may have open.
const STREAMS_PER_CONNECTION: u32 = 4096;

/// Where services put their gRPC handlers before the node serves.
#[derive(Clone, Default)]
pub struct Routes {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    builder: RoutesBuilder,
    names: Vec<&'static str>,
    descriptors: Vec<&'static [u8]>,
    serving: bool,
}

impl Routes {
    /// No services.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a generated server, such as `RegistryServiceServer::new(handler)`. Must come before
    /// the node serves; later it is only logged.
    pub fn add<S>(&self, service: S)
    where
        S: Service<http::Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        let mut inner = self.inner.lock();
        if inner.serving {
            tracing::error!(service = S::NAME, "added after the server started; it is not served");
            return;
        }
        inner.names.push(S::NAME);
        inner.builder.add_service(service);
    }

    /// Adds an encoded descriptor set (`proto::DESCRIPTORS`) for reflection; repeats are skipped.
    pub fn reflect(&self, descriptors: &'static [u8]) {
        let mut inner = self.inner.lock();
        if !inner.descriptors.contains(&descriptors) {
            inner.descriptors.push(descriptors);
        }
    }

    /// Names of the services added so far.
    pub fn names(&self) -> Vec<&'static str> {
        self.inner.lock().names.clone()
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Routes").field(&self.names()).finish()
    }
}

/// A port, and by how many event loops it is served: by the runtime of the node when it is 0, or
/// when the network's connections cannot be moved.
pub(crate) struct Port {
    pub(crate) listener: Arc<dyn Listener>,
    pub(crate) loops: usize,
}

/// Serves until `stop`, then finishes the open calls. Connections break at the node's abort.
pub(crate) async fn serve(
    routes: &Routes,
    port: Port,
    metrics: &Metrics,
    readiness: Readiness,
    shutdown: &Shutdown,
    stop: CancellationToken,
) -> io::Result<()> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let (mut builder, names, descriptors) = routes.close();
    builder.add_service(health);
    add_reflection(&mut builder, &descriptors);
    let report = report_health(reporter, names, readiness, shutdown.clone());
    let router = Server::builder()
        .layer(GuardLayer::new(metrics))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .add_routes(builder.routes());
    let ends = Ends { stop, abort: shutdown.abort_token() };
    tokio::select! {
        served = serve_port(router, port, ends) => served,
        () = report => Ok(()),
        () = shutdown.aborted() => Ok(()),
    }
}

async fn serve_port(server: impl Serve, port: Port, ends: Ends) -> io::Result<()> {
    if port.loops > 0 && port.listener.tcp().is_some() {
        return loops::serve(server, port.listener, port.loops, ends).await;
    }
    let connections = Box::pin(incoming(port.listener, ends.abort).map(Ok));
    server.serve_all(connections, ends.stop).await.map_err(io::Error::other)
}

impl Serve for Router<Stack<GuardLayer, Identity>> {
    async fn serve_all(
        self,
        incoming: impl Stream<Item = io::Result<Accepted>> + Send + Unpin + 'static,
        stop: CancellationToken,
    ) -> Result<(), tonic::transport::Error> {
        self.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await
    }
}

impl Routes {
    fn close(&self) -> (RoutesBuilder, Vec<&'static str>, Vec<&'static [u8]>) {
        let mut inner = self.inner.lock();
        inner.serving = true;
        (std::mem::take(&mut inner.builder), inner.names.clone(), inner.descriptors.clone())
    }
}

/// Reflection v1, and v1alpha for older tools. Descriptors that do not parse are a bug of the
/// build: logged, and the node serves without reflection.
fn add_reflection(builder: &mut RoutesBuilder, descriptors: &[&'static [u8]]) {
    let configure = || {
        let empty = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        descriptors.iter().fold(empty, |set, bytes| set.register_encoded_file_descriptor_set(bytes))
    };
    match (configure().build_v1(), configure().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => {
            builder.add_service(v1);
            builder.add_service(v1alpha);
        }
        (Err(error), _) | (_, Err(error)) => tracing::error!(%error, "no reflection"),
    }
}

/// Keeps `""` and every service's health equal to the node's readiness; never ends.
async fn report_health(
    reporter: HealthReporter,
    names: Vec<&'static str>,
    readiness: Readiness,
    shutdown: Shutdown,
) {
    let mut changes = readiness.changes();
    loop {
        let serving = readiness.ready() && !shutdown.is_triggered();
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in names.iter().copied().chain([""]) {
            reporter.set_service_status(name, status).await;
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { break },
            () = shutdown.wait(), if serving => {}
        }
    }
    std::future::pending().await
}
