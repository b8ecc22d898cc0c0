//! The gRPC server of a process: services are added, then all are served on one port.

use super::{
    connection,
    guard::{Durations, Guard},
    loops::{self, Ends, Serve},
    table::Table,
};
use crate::{
    metrics::Metrics,
    net::{Accepted, Listener, incoming},
    readiness::Readiness,
    shutdown::Shutdown,
};
use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use std::{convert::Infallible, fmt, io, sync::Arc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{body::Body, server::NamedService};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::Service;

/// Where services put their gRPC handlers before the node serves.
#[derive(Clone, Default)]
pub struct Routes {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    table: Table,
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
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        let mut inner = self.inner.lock();
        if inner.serving {
            tracing::error!(service = S::NAME, "added after the server started; it is not served");
            return;
        }
        inner.names.push(S::NAME);
        inner.table.add(service);
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
    let (mut table, names, descriptors) = routes.close();
    table.add(health);
    add_reflection(&mut table, &descriptors);
    let report = report_health(reporter, names, readiness, shutdown.clone());
    let router = Router { table: table.into(), durations: Durations::new(metrics) };
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
    server.serve_all(connections, ends.stop).await;
    Ok(())
}

/// What every connection is answered by.
#[derive(Clone)]
struct Router {
    table: Arc<Table>,
    durations: Durations,
}

impl Serve for Router {
    async fn serve_all(
        self,
        mut incoming: impl Stream<Item = io::Result<Accepted>> + Send + Unpin + 'static,
        stop: CancellationToken,
    ) {
        let connections = TaskTracker::new();
        while let Some(Some(accepted)) = stop.run_until_cancelled(incoming.next()).await {
            match accepted {
                Ok(stream) => {
                    let guard = Guard::new(self.table.clone(), self.durations.clone());
                    connections.spawn(connection::serve(stream, guard, stop.clone()));
                }
                Err(error) => tracing::warn!(%error, "a connection was lost before it began"),
            }
        }
        // Nobody comes any more; on a listener of this node that closes the port.
        drop(incoming);
        connections.close();
        connections.wait().await;
    }
}

impl Routes {
    fn close(&self) -> (Table, Vec<&'static str>, Vec<&'static [u8]>) {
        let mut inner = self.inner.lock();
        inner.serving = true;
        (std::mem::take(&mut inner.table), inner.names.clone(), inner.descriptors.clone())
    }
}

/// Reflection v1, and v1alpha for older tools. Descriptors that do not parse are a bug of the
/// build: logged, and the node serves without reflection.
fn add_reflection(table: &mut Table, descriptors: &[&'static [u8]]) {
    let configure = || {
        let empty = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        descriptors.iter().fold(empty, |set, bytes| set.register_encoded_file_descriptor_set(bytes))
    };
    match (configure().build_v1(), configure().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => {
            table.add(v1);
            table.add(v1alpha);
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
