//! When the leader ends leases: by its own monotonic clock, never early.
//!
//! A new leader does not know when a lease was given, so every lease starts anew with it.

use super::command::{Task, TaskId};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Added to each lease, because its holder counts from when the answer reached it.
pub const GRACE: Duration = Duration::from_millis(250);

/// The leases that this leader watches.
#[derive(Debug, Default)]
pub struct Expiry {
    due: BTreeMap<(Instant, TaskId), u64>,
    leases: BTreeMap<TaskId, (u64, Instant)>,
}

impl Expiry {
    /// Watches a lease from `now` on. The same lease is not prolonged by being told again.
    pub fn watch(&mut self, task: TaskId, token: u64, ttl_ms: u64, now: Instant) {
        match self.leases.get(&task) {
            Some((known, _)) if *known >= token => return,
            Some(_) => self.forget(task),
            None => {}
        }
        let due = now + Duration::from_millis(ttl_ms) + GRACE;
        self.leases.insert(task, (token, due));
        self.due.insert((due, task), token);
    }

    /// Forgets a task whose lease ended.
    pub fn forget(&mut self, task: TaskId) {
        if let Some((_, due)) = self.leases.remove(&task) {
            self.due.remove(&(due, task));
        }
    }

    /// Watches exactly the leases in force; those already watched keep their time.
    pub fn sync<'a>(&mut self, leases: impl Iterator<Item = &'a Task>, now: Instant) {
        let current: BTreeMap<TaskId, (u64, u64)> =
            leases.map(|task| (task.id, (task.token, task.ttl_ms))).collect();
        let gone: Vec<TaskId> = self.leases.keys().filter(|id| !current.contains_key(id)).copied().collect();
        gone.into_iter().for_each(|id| self.forget(id));
        for (id, (token, ttl_ms)) in current {
            self.watch(id, token, ttl_ms, now);
        }
    }

    /// Forgets everything: this node does not lead.
    pub fn clear(&mut self) {
        self.due.clear();
        self.leases.clear();
    }

    /// When the next lease is due.
    pub fn next(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((due, _), _)| *due)
    }

    /// Takes up to `max` leases that are due. One that stays in force must be watched again.
    pub fn take_due(&mut self, now: Instant, max: usize) -> Vec<(TaskId, u64)> {
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some((&(due, task), &token)) = self.due.first_key_value()
            && due <= now
        {
            self.forget(task);
            taken.push((task, token));
        }
        taken
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_due_after_its_time_and_not_before() {
        let start = Instant::now();
        let mut expiry = Expiry::default();
        expiry.watch(TaskId(1), 7, 1000, start);
        expiry.watch(TaskId(1), 7, 1000, start + Duration::from_millis(900));
        let due = start + Duration::from_millis(1000) + GRACE;
        assert_eq!(expiry.next(), Some(due));
        assert!(expiry.take_due(due - Duration::from_millis(1), 10).is_empty());
        assert_eq!(expiry.take_due(due, 10), [(TaskId(1), 7)]);
        assert_eq!(expiry.next(), None);
    }

    #[test]
    fn a_new_leader_starts_every_lease_anew() {
        let start = Instant::now();
        let mut expiry = Expiry::default();
        expiry.watch(TaskId(1), 7, 1000, start);
        expiry.clear();
        let later = start + Duration::from_secs(60);
        expiry.watch(TaskId(1), 7, 1000, later);
        assert_eq!(expiry.next(), Some(later + Duration::from_secs(1) + GRACE));
    }

    #[test]
    fn a_new_lease_of_the_same_task_replaces_the_old_one() {
        let start = Instant::now();
        let mut expiry = Expiry::default();
        expiry.watch(TaskId(1), 7, 1000, start);
        expiry.watch(TaskId(1), 8, 5000, start);
        expiry.watch(TaskId(1), 7, 1000, start);
        assert_eq!(expiry.take_due(start + Duration::from_secs(2), 10), []);
        assert_eq!(expiry.take_due(start + Duration::from_secs(6), 10), [(TaskId(1), 8)]);
    }
}
