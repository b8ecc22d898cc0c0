//! Tasks under a restart table (DESIGN K14, the seed's section 6.1).
//!
//! | seed | here | rule |
//! |---|---|---|
//! | coordinator, registry shard: permanent, 5 in 60 s | [`Policy::DRIVER`] | restarted; over the limit the process exits and its supervisor restarts it |
//! | gossip server: permanent, 3 in 60 s | [`Policy::HEALED_BY_PEERS`] | the same, sooner |
//! | worker pool: `simple_one_for_one`, no limit | [`Policy::POOL`] | restarted, with a limit that only a broken program reaches |
//! | connection handler: temporary | [`Policy::Temporary`] | never restarted; a panic costs one connection |
//!
//! Restarts wait 10 ms, doubling to 1 s with jitter, from the start again after a good minute.

use crate::{backoff::Backoff, clock::Clock, shutdown::Shutdown};
use futures::FutureExt as _;
use std::{
    any::Any,
    collections::VecDeque,
    fmt::{self, Display},
    future::Future,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio_util::task::TaskTracker;

/// What happens when a task ends before the node stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Started again; more than `max_restarts` within `window` give the process up.
    Permanent {
        /// Restarts that are allowed within the window.
        max_restarts: u32,
        /// The window.
        window: Duration,
    },
    /// Not started again.
    Temporary,
}

impl Policy {
    /// A service's driver.
    pub const DRIVER: Policy = Policy::Permanent { max_restarts: 5, window: Duration::from_secs(60) };
    /// A task whose state comes back from peers.
    pub const HEALED_BY_PEERS: Policy =
        Policy::Permanent { max_restarts: 3, window: Duration::from_secs(60) };
    /// A worker that fails for reasons outside (a follower of a peer).
    pub const POOL: Policy = Policy::Permanent { max_restarts: 1000, window: Duration::from_secs(60) };
}

/// What a task may return: `()`, or a `Result` whose error is logged.
pub trait Outcome: Send + 'static {
    /// `Err` with words when it failed.
    fn outcome(self) -> Result<(), String>;
}

impl Outcome for () {
    fn outcome(self) -> Result<(), String> {
        Ok(())
    }
}

impl<E: Display + Send + 'static> Outcome for Result<(), E> {
    fn outcome(self) -> Result<(), String> {
        self.map_err(|error| error.to_string())
    }
}

/// The tasks of one node. They are dropped at `abort` and awaited at the end of the drain.
#[derive(Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: Shutdown,
    clock: Arc<dyn Clock>,
    restarts: Arc<AtomicU64>,
    panics: Arc<AtomicU64>,
}

impl Tasks {
    /// No tasks yet.
    pub fn new(shutdown: Shutdown, clock: Arc<dyn Clock>) -> Self {
        let (restarts, panics) = Default::default();
        Self { tracker: TaskTracker::new(), shutdown, clock, restarts, panics }
    }

    /// Runs a task that the node cannot do without: when it panics, fails or ends before the
    /// shutdown, the process gives itself up with exit code 1.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output: Outcome> + Send + 'static,
    {
        let tasks = self.clone();
        self.track(async move {
            let end = tasks.run(future).await;
            tasks.essential_ended(name, end);
        });
    }

    /// Runs a task with nothing to finish (a watcher, a follower): dropped at the shutdown,
    /// and like [`Tasks::spawn`] one whose earlier end stops the node.
    pub fn background<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output: Outcome> + Send + 'static,
    {
        let stop = self.shutdown.token();
        self.spawn(name, async move {
            stop.run_until_cancelled_owned(future).await.map_or(Ok(()), Outcome::outcome)
        });
    }

    /// Runs a task that may end or fail alone, such as one connection (`Policy::Temporary`).
    pub fn detach<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output: Outcome> + Send + 'static,
    {
        let tasks = self.clone();
        self.track(async move {
            if let Err(why) = tasks.run(future).await {
                tracing::warn!(task = name, why, "task failed");
            }
        });
    }

    /// Runs what `make` makes, again and again as the policy says, until the shutdown.
    pub fn supervise<M, F>(&self, name: &'static str, policy: Policy, mut make: M)
    where
        M: FnMut() -> F + Send + 'static,
        F: Future<Output: Outcome> + Send + 'static,
    {
        let Policy::Permanent { max_restarts, window } = policy else {
            return self.detach(name, make());
        };
        let tasks = self.clone();
        self.track(async move {
            let mut intensity = Intensity::new(max_restarts, window);
            let mut backoff = Backoff::random(Duration::from_millis(10), Duration::from_secs(1));
            loop {
                let start = tasks.clock.now();
                let end = tasks.run(make()).await;
                if tasks.shutdown.is_triggered() {
                    return;
                }
                if !intensity.allows(tasks.clock.now()) {
                    return tasks.essential_ended(name, end);
                }
                if tasks.clock.now().saturating_duration_since(start) >= window {
                    backoff.reset();
                }
                tasks.restarts.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(task = name, end = ?end, "task ended; starting it again");
                tokio::select! {
                    () = tokio::time::sleep(backoff.next()) => {}
                    () = tasks.shutdown.wait() => return,
                }
            }
        });
    }

    /// Restarts so far.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Panics so far.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Tasks that run now.
    pub fn running(&self) -> usize {
        self.tracker.len()
    }

    /// Waits until all ended; at the deadline the rest is aborted. True when none had to be.
    pub async fn join(self, deadline: Duration) -> bool {
        self.tracker.close();
        if tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok() {
            return !self.shutdown.is_aborted();
        }
        tracing::warn!(left = self.tracker.len(), "drain deadline passed; aborting what is left");
        self.shutdown.abort();
        self.tracker.wait().await;
        false
    }

    fn track(&self, future: impl Future<Output = ()> + Send + 'static) {
        let aborted = self.shutdown.abort_token();
        self.tracker.spawn(async move {
            tokio::select! {
                biased;
                () = aborted.cancelled() => {}
                () = future => {}
            }
        });
    }

    async fn run<F: Future<Output: Outcome>>(&self, future: F) -> Result<(), String> {
        match AssertUnwindSafe(future).catch_unwind().await {
            Ok(output) => output.outcome(),
            Err(panic) => {
                self.panics.fetch_add(1, Ordering::Relaxed);
                Err(format!("panic: {}", panic_message(&*panic)))
            }
        }
    }

    fn essential_ended(&self, name: &'static str, end: Result<(), String>) {
        if self.shutdown.is_triggered() {
            if let Err(why) = end {
                tracing::warn!(task = name, why, "task failed while draining");
            }
            return;
        }
        let why = end.err().unwrap_or_else(|| "it ended".into());
        tracing::error!(task = name, why, "a task the node cannot do without is gone; giving up");
        self.shutdown.fail(1, format!("task {name}: {why}"));
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("running", &self.running()).finish_non_exhaustive()
    }
}

/// Counts restarts within a sliding window.
#[derive(Debug)]
struct Intensity {
    max: u32,
    window: Duration,
    restarts: VecDeque<Instant>,
}

impl Intensity {
    fn new(max: u32, window: Duration) -> Self {
        Self { max, window, restarts: VecDeque::new() }
    }

    fn allows(&mut self, now: Instant) -> bool {
        while self.restarts.front().is_some_and(|first| now.duration_since(*first) >= self.window) {
            self.restarts.pop_front();
        }
        if self.restarts.len() >= self.max as usize {
            return false;
        }
        self.restarts.push_back(now);
        true
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use std::sync::atomic::AtomicUsize;

    fn tasks() -> (Tasks, Shutdown) {
        let shutdown = Shutdown::new();
        (Tasks::new(shutdown.clone(), Arc::new(SystemClock)), shutdown)
    }

    #[tokio::test(start_paused = true)]
    async fn a_permanent_task_restarts_until_the_limit_then_the_node_gives_up() {
        let (tasks, shutdown) = tasks();
        let runs = Arc::new(AtomicUsize::new(0));
        let counter = runs.clone();
        let policy = Policy::Permanent { max_restarts: 3, window: Duration::from_secs(60) };
        tasks.supervise("flaky", policy, move || {
            counter.fetch_add(1, Ordering::Relaxed);
            async { Err::<(), _>("no luck") }
        });
        shutdown.aborted().await;
        assert_eq!(runs.load(Ordering::Relaxed), 4);
        let failure = shutdown.failure().unwrap();
        assert_eq!((failure.code, failure.why.as_str()), (1, "task flaky: no luck"));
    }

    #[tokio::test]
    async fn a_panic_of_a_temporary_task_costs_only_itself() {
        let (tasks, shutdown) = tasks();
        let bad = true;
        tasks.detach("connection", async move { assert!(!bad, "bad client") });
        shutdown.trigger();
        assert!(tasks.clone().join(Duration::from_secs(5)).await);
        assert_eq!(tasks.panics(), 1);
        assert_eq!(shutdown.failure(), None);
    }

    #[tokio::test]
    async fn an_essential_task_that_ends_early_stops_the_node() {
        let (tasks, shutdown) = tasks();
        tasks.spawn("driver", async {});
        shutdown.aborted().await;
        assert_eq!(shutdown.failure().unwrap().why, "task driver: it ended");
    }

    #[tokio::test]
    async fn a_background_task_does_not_hold_up_the_drain() {
        let (tasks, shutdown) = tasks();
        tasks.background("follower", std::future::pending::<()>());
        shutdown.trigger();
        assert!(tasks.join(Duration::from_secs(5)).await);
        assert_eq!(shutdown.failure(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn join_aborts_what_does_not_drain() {
        let (tasks, shutdown) = tasks();
        tasks.spawn("stuck", std::future::pending::<()>());
        shutdown.trigger();
        assert!(!tasks.join(Duration::from_secs(1)).await);
        assert!(shutdown.is_aborted());
    }

    #[test]
    fn old_restarts_leave_the_window() {
        let start = SystemClock.now();
        let mut intensity = Intensity::new(1, Duration::from_secs(10));
        assert!(intensity.allows(start));
        assert!(!intensity.allows(start + Duration::from_secs(9)));
        assert!(intensity.allows(start + Duration::from_secs(10)));
    }
}
