//! Event loops: one current-thread runtime per core, each with its own listener on the port.

use super::{
    answer::Reply,
    conn::{Connection, respond},
    edge::Edge,
    io::{Phase, Watched},
};
use crate::Error;
use hyper::{
    Request,
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kit::net::reuse_port;
use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

/// A peer that takes nothing for this long is gone (RELIABILITY.md O7, O8).
const UNSENT_MAX: Duration = Duration::from_secs(30);
/// Most headers of a request.
const HEADERS_MAX: usize = 100;
/// Room for a head; the limit on its size is checked on the parsed head.
const BUFFER: usize = 64 << 10;
/// Most streams of one h2 connection.
const H2_STREAMS: u32 = 128;
/// How often an idle event loop wakes; less than any timer of a call.
const TICK: Duration = Duration::from_millis(200);
/// After a failed accept (no descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds the port once per event loop. Port 0 is resolved by the first.
pub(crate) fn bind(
    addr: SocketAddr,
    loops: usize,
) -> Result<(Vec<std::net::TcpListener>, SocketAddr), Error> {
    let failed = |source| Error::Bind { addr, source };
    let first = reuse_port(addr).map_err(failed)?;
    let bound = first.local_addr().map_err(failed)?;
    let mut listeners = vec![first.into_std().map_err(failed)?];
    for _ in 1..loops.max(1) {
        listeners.push(reuse_port(bound).and_then(TcpListener::into_std).map_err(failed)?);
    }
    Ok((listeners, bound))
}

/// The stages of an event loop's end.
#[derive(Clone, Default)]
pub(crate) struct Stages {
    /// No new connections; those that are open finish what is in flight.
    pub(crate) stop: CancellationToken,
    /// Calls whose client is gone need not go on.
    pub(crate) done: CancellationToken,
}

/// Starts a thread per listener. Each tells when its connections have ended after `stop`, and ends
/// itself at `done`, or at once at `abort`.
pub(crate) fn start(
    edge: &Arc<Edge>,
    listeners: Vec<std::net::TcpListener>,
    stages: &Stages,
    abort: &CancellationToken,
) -> Result<Vec<tokio::sync::oneshot::Receiver<()>>, Error> {
    let mut ends = Vec::new();
    for (core, listener) in listeners.into_iter().enumerate() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)?;
        // A token of its own: every request looks at it, and a look takes a lock.
        let stop = stages.stop.child_token();
        let (edge, stages, abort) = (edge.clone(), stages.clone(), abort.clone());
        let (done, end) = tokio::sync::oneshot::channel();
        let serve = move || {
            runtime.block_on(async {
                let life = async {
                    tokio::spawn(tick(stop.clone()));
                    serve(edge, core, listener, stop).await;
                    // Nobody waits when the drain's deadline has passed.
                    let _ = done.send(());
                    stages.done.cancelled().await;
                };
                tokio::select! {
                    () = life => {}
                    () = abort.cancelled() => {}
                }
            });
        };
        std::thread::Builder::new().name(format!("edge-{core}")).spawn(serve).map_err(Error::Thread)?;
        ends.push(end);
    }
    Ok(ends)
}

/// Keeps the next wake of an idle event loop near. tokio writes to an eventfd for each timer that
/// is set to ring before the loop would wake by itself; a call's first timer is
/// [`crate::Config::stream_after`], so without this nearly every call would cost that write.
async fn tick(stop: CancellationToken) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {}
}

async fn serve(edge: Arc<Edge>, core: usize, listener: std::net::TcpListener, stop: CancellationToken) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return edge.shutdown.fail(1, format!("event loop {core}: {error}")),
    };
    let room = Arc::new(Semaphore::new(edge.config.max_connections));
    let open = tokio_util::task::TaskTracker::new();
    while let Some((stream, permit)) = accept(&listener, &room, &stop).await {
        let (edge, stop) = (edge.clone(), stop.clone());
        open.spawn(async move {
            let cells = edge.metrics.core(core);
            cells.accepted.fetch_add(1, Relaxed);
            cells.connections.fetch_add(1, Relaxed);
            if let Err(error) = connection(&edge, core, stream, &stop).await {
                tracing::debug!(%error, "connection ended");
            }
            edge.metrics.core(core).connections.fetch_sub(1, Relaxed);
            drop(permit);
        });
    }
    drop(listener);
    open.close();
    open.wait().await;
}

/// The next connection and its place; `None` at the stop. No error ends the loop (F40).
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    loop {
        let next = async { (room.clone().acquire_owned().await, listener.accept().await) };
        let (permit, accepted) = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            next = next => next,
        };
        match (permit, accepted) {
            (Ok(permit), Ok((stream, _))) => return Some((stream, permit)),
            (_, Err(error)) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            (Err(_), _) => return None,
        }
    }
}

async fn connection(
    edge: &Arc<Edge>,
    core: usize,
    stream: TcpStream,
    stop: &CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(UNSENT_MAX))?;
    let h2 = tokio::select! {
        first = tokio::time::timeout(edge.config.header_timeout, speaks_h2(&stream)) => first??,
        () = stop.cancelled() => return Ok(()),
    };
    let phase = Phase::default();
    let connection = Arc::new(Connection::new(edge.clone(), core, phase.clone()));
    let service = service_fn(move |request: Request<Incoming>| {
        let connection = connection.clone();
        async move { Ok::<Reply, Infallible>(respond(&connection, request).await) }
    });
    if h2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(H2_STREAMS)
            .max_header_list_size(32 << 10)
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20));
        let serving = builder.serve_connection(TokioIo::new(stream), service);
        return Ok(until_stopped(serving, stop, |serving| serving.graceful_shutdown()).await?);
    }
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER)
        .auto_date_header(false)
        .writev(false);
    let stream = Watched::new(stream, phase, edge.config.header_timeout);
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    Ok(until_stopped(serving, stop, |serving| serving.graceful_shutdown()).await?)
}

/// Serves to the end; at the stop, the request in flight is the last one.
async fn until_stopped<C: Future>(
    serving: C,
    stop: &CancellationToken,
    finish: impl FnOnce(std::pin::Pin<&mut C>),
) -> C::Output {
    let mut serving = pin!(serving);
    tokio::select! {
        end = serving.as_mut() => return end,
        () = stop.cancelled() => finish(serving.as_mut()),
    }
    serving.await
}

/// Whether the client begins with h2's preface ("prior knowledge"). Looks without taking.
async fn speaks_h2(stream: &TcpStream) -> io::Result<bool> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0";
    let mut head = [0; PREFACE.len()];
    let mut seen = 0;
    loop {
        let got = stream.peek(&mut head).await?;
        let begun = head.get(..got).unwrap_or_default();
        if got == 0 || !PREFACE.starts_with(begun) {
            return Ok(false);
        }
        if got == PREFACE.len() {
            return Ok(true);
        }
        if got == seen {
            // More of the preface has not come yet; readiness stays set, so look again later.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        seen = got;
    }
}
