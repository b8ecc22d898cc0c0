//! The signals that end a program.

use tokio::signal::unix::{SignalKind, signal};

/// Resolves at SIGTERM, Ctrl-C or the loss of the terminal.
pub(crate) async fn terminate() {
    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
    let mut waits = Vec::new();
    for kind in kinds {
        if let Ok(mut signal) = signal(kind) {
            waits.push(Box::pin(async move {
                signal.recv().await;
            }));
        }
    }
    if waits.is_empty() {
        return std::future::pending().await;
    }
    futures::future::select_all(waits).await;
}
