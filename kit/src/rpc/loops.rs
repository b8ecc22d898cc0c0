//! Event loops of a gRPC port: current-thread runtimes, each of which drives connections of its
//! own. A call then wakes no other thread, as it does on a runtime whose threads share their work;
//! for a unary call that counts (ADR 13).
//!
//! Connections go round, so that a few that stay long are spread evenly; `SO_REUSEPORT` would
//! leave it to a hash, and would let two nodes take one port without a word.

use crate::net::{Accepted, Listener};
use futures::{Stream, StreamExt as _, stream};
use std::{io, sync::Arc, thread, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;

/// Accepted connections that wait for their loop.
const WAITING: usize = 64;
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

type Handed = std::net::TcpStream;

/// The ends of a server.
#[derive(Clone)]
pub(super) struct Ends {
    /// No new connections; open calls finish.
    pub(super) stop: CancellationToken,
    /// Connections break, and the loops end.
    pub(super) abort: CancellationToken,
}

/// Serves on as many loops until the stop; then all open calls have ended. What handlers have
/// started goes on until the abort.
pub(super) async fn serve(
    server: impl Serve,
    listener: Arc<dyn Listener>,
    loops: usize,
    ends: Ends,
) -> io::Result<()> {
    let mut queues = Vec::new();
    let mut served = Vec::new();
    for number in 0..loops {
        let (queue, handed) = mpsc::channel(WAITING);
        let (done, end) = oneshot::channel();
        start(number, server.clone(), handed, ends.clone(), done)?;
        queues.push(queue);
        served.push(end);
    }
    if let Some(listener) = listener.tcp() {
        hand_out(listener, &queues, &ends.stop).await;
    }
    // Whoever comes now is refused, not kept waiting.
    drop((listener, queues));
    for end in served {
        // A loop that has gone was aborted.
        let _ = end.await;
    }
    Ok(())
}

/// What is done with connections, be it a loop or the node that drives them.
pub(super) trait Serve: Clone + Send + 'static {
    /// Serves them until the stop.
    fn serve_all(
        self,
        incoming: impl Stream<Item = io::Result<Accepted>> + Send + Unpin + 'static,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send;
}

fn start(
    number: usize,
    server: impl Serve,
    handed: mpsc::Receiver<Handed>,
    ends: Ends,
    done: oneshot::Sender<()>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let life = move || {
        runtime.block_on(async {
            let incoming = Box::pin(connections(handed, ends.abort.clone()));
            server.serve_all(incoming, ends.stop).await;
            // Nobody waits when the drain's deadline has passed.
            let _ = done.send(());
            ends.abort.cancelled().await;
        });
    };
    thread::Builder::new().name(format!("grpc-{number}")).spawn(life).map(drop)
}

/// Gives each connection to the next loop. No error ends it (RELIABILITY F40).
async fn hand_out(listener: &TcpListener, queues: &[mpsc::Sender<Handed>], stop: &CancellationToken) {
    let accept = async {
        for queue in queues.iter().cycle() {
            let accepted = accept(listener).await;
            // A loop that has gone was aborted, and with it all.
            let _ = queue.send(accepted).await;
        }
    };
    stop.run_until_cancelled(accept).await;
}

/// The next connection, let go of by this runtime.
async fn accept(listener: &TcpListener) -> Handed {
    loop {
        let accepted = async {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            stream.into_std()
        };
        match accepted.await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Those of one loop, driven by it.
fn connections(
    handed: mpsc::Receiver<Handed>,
    abort: CancellationToken,
) -> impl Stream<Item = io::Result<Accepted>> {
    let next = |mut handed: mpsc::Receiver<Handed>| async move { Some((handed.recv().await?, handed)) };
    stream::unfold(handed, next).map(move |stream| {
        let stream = TcpStream::from_std(stream)?;
        Ok(Accepted::new(Box::new(stream), &abort))
    })
}
