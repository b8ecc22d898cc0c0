//! Calls that wait for a task of a queue: one is woken for each task that becomes ready.

use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::Notify;

/// Calls that may wait at once.
const WAITERS: usize = 10_000;

/// The waiting calls; clones share them.
#[derive(Clone, Default)]
pub(crate) struct Waiters {
    queues: Arc<Mutex<BTreeMap<String, Queue>>>,
}

#[derive(Default)]
struct Queue {
    waiting: usize,
    notify: Arc<Notify>,
}

impl Waiters {
    /// A place in a queue's line, or none when too many wait already.
    pub(crate) fn join(&self, queue: &str) -> Option<Place> {
        let mut queues = self.queues.lock();
        if queues.values().map(|queue| queue.waiting).sum::<usize>() >= WAITERS {
            return None;
        }
        let entry = queues.entry(queue.to_owned()).or_default();
        entry.waiting += 1;
        Some(Place { queue: queue.to_owned(), notify: Arc::clone(&entry.notify), waiters: self.clone() })
    }

    /// Wakes one call of a queue, or the next one to come.
    pub(crate) fn wake_one(&self, queue: &str) {
        if let Some(entry) = self.queues.lock().get(queue) {
            entry.notify.notify_one();
        }
    }

    /// Wakes every call: the leadership changed.
    pub(crate) fn wake_all(&self) {
        self.queues.lock().values().for_each(|entry| entry.notify.notify_waiters());
    }
}

/// A place in a line.
pub(crate) struct Place {
    queue: String,
    /// Told when a task may be there.
    pub(crate) notify: Arc<Notify>,
    waiters: Waiters,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut queues = self.waiters.queues.lock();
        if let Some(entry) = queues.get_mut(&self.queue) {
            entry.waiting -= 1;
            if entry.waiting == 0 {
                queues.remove(&self.queue);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn one_task_wakes_one_call() {
        let waiters = Waiters::default();
        let (first, second) = (waiters.join("q").unwrap(), waiters.join("q").unwrap());
        waiters.wake_one("other");
        waiters.wake_one("q");
        first.notify.notified().await;
        let late = tokio::time::timeout(Duration::from_millis(20), second.notify.notified()).await;
        assert!(late.is_err());
        drop((first, second));
        assert!(waiters.queues.lock().is_empty());
    }
}
