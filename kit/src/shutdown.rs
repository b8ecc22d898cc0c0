//! Stopping in three stages: `shutdown` (the signal), `drain` (finish), `abort` (the deadline).

use parking_lot::Mutex;
use std::{fmt, sync::Arc};
use tokio_util::sync::CancellationToken;

/// Why a process gives itself up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why} (exit code {code})")]
pub struct Failure {
    /// Exit code for the process.
    pub code: u8,
    /// What happened.
    pub why: String,
}

/// A clonable handle on the stop of one node. Several nodes may live in one process.
#[derive(Clone, Default)]
pub struct Shutdown {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    stop: CancellationToken,
    abort: CancellationToken,
    failure: Mutex<Option<Failure>>,
}

impl Shutdown {
    /// A node that runs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stage one: take nothing new, finish what is there. Repeating it changes nothing.
    pub fn trigger(&self) {
        self.inner.stop.cancel();
    }

    /// Resolves at stage one.
    pub async fn wait(&self) {
        self.inner.stop.cancelled().await;
    }

    /// Whether stage one began.
    pub fn is_triggered(&self) -> bool {
        self.inner.stop.is_cancelled()
    }

    /// Stage three: drop everything now. Implies stage one.
    pub fn abort(&self) {
        self.inner.stop.cancel();
        self.inner.abort.cancel();
    }

    /// Resolves at stage three.
    pub async fn aborted(&self) {
        self.inner.abort.cancelled().await;
    }

    /// Whether stage three began.
    pub fn is_aborted(&self) -> bool {
        self.inner.abort.is_cancelled()
    }

    /// Aborts and records why; the first failure stays.
    pub fn fail(&self, code: u8, why: impl Into<String>) {
        let failure = Failure { code, why: why.into() };
        self.inner.failure.lock().get_or_insert(failure);
        self.abort();
    }

    /// The recorded failure, if the node gave itself up.
    pub fn failure(&self) -> Option<Failure> {
        self.inner.failure.lock().clone()
    }

    /// A token that is cancelled at stage one; its children may be cancelled earlier.
    pub fn token(&self) -> CancellationToken {
        self.inner.stop.child_token()
    }

    /// A token that is cancelled at stage three.
    pub fn abort_token(&self) -> CancellationToken {
        self.inner.abort.child_token()
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown")
            .field("triggered", &self.is_triggered())
            .field("aborted", &self.is_aborted())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stages_come_in_order_and_a_child_cannot_stop_the_node() {
        let shutdown = Shutdown::new();
        shutdown.token().cancel();
        assert!(!shutdown.is_triggered());
        shutdown.trigger();
        shutdown.wait().await;
        assert!(!shutdown.is_aborted());
        shutdown.abort();
        shutdown.aborted().await;
    }

    #[test]
    fn the_first_failure_stays() {
        let shutdown = Shutdown::new();
        shutdown.fail(1, "disk gone");
        shutdown.fail(2, "later");
        assert_eq!(shutdown.failure(), Some(Failure { code: 1, why: "disk gone".into() }));
        assert!(shutdown.is_triggered() && shutdown.is_aborted());
    }
}
