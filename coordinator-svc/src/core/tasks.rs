//! Queues by priority, leases with fencing tokens, attempts, and what is kept of ended tasks.
//!
//! Time is not known here: a lease ends by `complete`, or by `expire`, which the leader proposes
//! when its own monotonic clock says so. Both name the lease's token, so a late one does nothing.

use super::command::{Outcome, Rejection, Task, TaskId, TaskState};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

/// Most queues with a task in them.
pub const QUEUES_MAX: usize = 1_000;
/// Most tasks queued or leased.
pub const ACTIVE_MAX: usize = 100_000;
/// Most payload bytes of tasks queued or leased.
pub const ACTIVE_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Ended tasks kept for a queue.
pub const ENDED_MAX: usize = 10_000;
/// Bytes of results and errors kept for a queue's ended tasks.
pub const ENDED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of results and errors kept for all ended tasks.
pub const ENDED_BYTES_TOTAL: usize = 128 * 1024 * 1024;

/// All tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tasks {
    tasks: BTreeMap<TaskId, Task>,
    queues: BTreeMap<String, Queue>,
    leased: BTreeSet<TaskId>,
    newest: u64,
    newest_token: u64,
    queued: usize,
    active_bytes: usize,
    ended_bytes: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Queue {
    /// Highest priority first, then the oldest.
    ready: BTreeSet<(Reverse<u8>, TaskId)>,
    leased: usize,
    ended: VecDeque<TaskId>,
    ended_bytes: usize,
}

impl Tasks {
    /// A task by its number.
    pub fn get(&self, id: TaskId) -> Option<&Task> {
        self.tasks.get(&id)
    }

    /// The task, if the lease with this token is in force.
    pub fn leased(&self, id: TaskId, token: u64) -> Option<&Task> {
        self.get(id).filter(|task| task.state == TaskState::Leased && task.token == token)
    }

    /// Tasks waiting in a queue.
    pub fn depth(&self, queue: &str) -> usize {
        self.queues.get(queue).map_or(0, |queue| queue.ready.len())
    }

    /// Every queue and how many tasks wait in it.
    pub fn depths(&self) -> impl Iterator<Item = (&str, usize)> {
        self.queues.iter().map(|(name, queue)| (name.as_str(), queue.ready.len()))
    }

    /// Every lease in force.
    pub fn leases(&self) -> impl Iterator<Item = &Task> {
        self.leased.iter().filter_map(|id| self.tasks.get(id))
    }

    /// Adds a task to a queue.
    pub fn submit(&mut self, queue: &str, priority: u8, payload: Bytes, max_attempts: u32) -> Outcome {
        if let Some(limit) = self.full(queue, payload.len()) {
            return Outcome::Rejected(Rejection::Full { limit: limit.into() });
        }
        self.newest += 1;
        let id = TaskId(self.newest);
        self.active_bytes += payload.len();
        let task = Task {
            id,
            queue: queue.to_owned(),
            priority,
            payload,
            max_attempts,
            state: TaskState::Queued,
            attempt: 0,
            token: 0,
            worker: String::new(),
            ttl_ms: 0,
            released: false,
            result: Bytes::new(),
            error: String::new(),
        };
        self.tasks.insert(id, task);
        self.make_ready(queue, priority, id);
        Outcome::Submitted { task: id }
    }

    /// Hands out the first task of a queue.
    pub fn lease(&mut self, queue: &str, worker: &str, ttl_ms: u64) -> Outcome {
        let Some((id, entry)) = self.queues.get_mut(queue).and_then(|q| Some((q.ready.pop_first()?.1, q)))
        else {
            return Outcome::Leased { task: None };
        };
        let Some(task) = self.tasks.get_mut(&id) else {
            return Outcome::Leased { task: None };
        };
        entry.leased += 1;
        self.queued -= 1;
        self.newest_token += 1;
        self.leased.insert(id);
        task.state = TaskState::Leased;
        task.attempt += 1;
        task.token = self.newest_token;
        worker.clone_into(&mut task.worker);
        task.ttl_ms = ttl_ms;
        task.released = false;
        Outcome::Leased { task: Some(Box::new(task.clone())) }
    }

    /// Ends an attempt by its worker's word. A repeat under the same token answers the same.
    pub fn complete(&mut self, id: TaskId, token: u64, outcome: &Result<Bytes, String>) -> Outcome {
        let Some(task) = self.tasks.get(&id) else {
            return Outcome::Rejected(Rejection::NoTask);
        };
        if task.state == TaskState::Leased && task.token == token {
            return Outcome::Completed { state: self.end_attempt(id, outcome.clone(), true) };
        }
        let same_result = outcome.is_ok() == (task.state == TaskState::Completed);
        if task.token == token && task.released && same_result {
            return Outcome::Completed { state: task.state };
        }
        Outcome::Rejected(Rejection::Fenced { current: task.token })
    }

    /// Ends a lease whose time is over, unless it has ended already.
    pub fn expire(&mut self, id: TaskId, token: u64) -> Outcome {
        if self.leased(id, token).is_none() {
            return Outcome::Expired { state: None };
        }
        let state = self.end_attempt(id, Err("lease expired".into()), false);
        Outcome::Expired { state: Some(state) }
    }

    fn end_attempt(&mut self, id: TaskId, outcome: Result<Bytes, String>, released: bool) -> TaskState {
        let Some(task) = self.tasks.get_mut(&id) else { return TaskState::Failed };
        task.released = released;
        task.state = match outcome {
            Ok(result) => {
                task.result = result;
                task.error.clear();
                TaskState::Completed
            }
            Err(error) => {
                task.error = error;
                if task.attempt >= task.max_attempts { TaskState::Failed } else { TaskState::Queued }
            }
        };
        let (state, queue, priority) = (task.state, task.queue.clone(), task.priority);
        self.leased.remove(&id);
        if let Some(entry) = self.queues.get_mut(&queue) {
            entry.leased -= 1;
        }
        match state {
            TaskState::Queued => self.make_ready(&queue, priority, id),
            _ => self.retire(&queue, id),
        }
        state
    }

    fn make_ready(&mut self, queue: &str, priority: u8, id: TaskId) {
        let entry = self.queues.entry(queue.to_owned()).or_default();
        entry.ready.insert((Reverse(priority), id));
        self.queued += 1;
    }

    /// Keeps an ended task without its payload, and drops the oldest ended ones over the limits.
    fn retire(&mut self, queue: &str, id: TaskId) {
        let (Some(task), Some(entry)) = (self.tasks.get_mut(&id), self.queues.get_mut(queue)) else {
            return;
        };
        self.active_bytes -= task.payload.len();
        task.payload = Bytes::new();
        let bytes = ended_bytes(task);
        entry.ended.push_back(id);
        entry.ended_bytes += bytes;
        self.ended_bytes += bytes;
        while entry.ended.len() > ENDED_MAX
            || entry.ended_bytes > ENDED_BYTES_MAX
            || (self.ended_bytes > ENDED_BYTES_TOTAL && entry.ended.len() > 1)
        {
            let Some(oldest) = entry.ended.pop_front() else { break };
            let freed = self.tasks.remove(&oldest).map_or(0, |task| ended_bytes(&task));
            entry.ended_bytes -= freed;
            self.ended_bytes -= freed;
        }
    }

    /// The limit that one more task would break.
    fn full(&mut self, queue: &str, payload: usize) -> Option<&'static str> {
        if self.queued + self.leased.len() >= ACTIVE_MAX {
            return Some("active_tasks");
        }
        if self.active_bytes + payload > ACTIVE_BYTES_MAX {
            return Some("active_task_bytes");
        }
        if self.queues.len() < QUEUES_MAX || self.queues.contains_key(queue) {
            return None;
        }
        if self.drop_idle_queue() { None } else { Some("queues") }
    }

    /// Forgets the first queue that has only ended tasks, and these.
    fn drop_idle_queue(&mut self) -> bool {
        let idle = self.queues.iter().find(|(_, queue)| queue.ready.is_empty() && queue.leased == 0);
        let Some(name) = idle.map(|(name, _)| name.clone()) else { return false };
        let Some(queue) = self.queues.remove(&name) else { return false };
        for id in queue.ended {
            self.tasks.remove(&id);
        }
        self.ended_bytes -= queue.ended_bytes;
        true
    }

    /// Every count agrees with what is counted.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        let count = |state| self.tasks.values().filter(|task| task.state == state).count();
        assert_eq!(count(TaskState::Queued), self.queued);
        assert_eq!(count(TaskState::Leased), self.leased.len());
        assert_eq!(self.queues.values().map(|q| q.ready.len()).sum::<usize>(), self.queued);
        assert_eq!(self.queues.values().map(|q| q.leased).sum::<usize>(), self.leased.len());
        assert_eq!(self.tasks.values().map(|task| task.payload.len()).sum::<usize>(), self.active_bytes);
        let ended = self.tasks.values().filter(|task| task.state.terminal());
        assert_eq!(ended.map(ended_bytes).sum::<usize>(), self.ended_bytes);
    }
}

fn ended_bytes(task: &Task) -> usize {
    task.result.len() + task.error.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submit(tasks: &mut Tasks, priority: u8, attempts: u32) -> TaskId {
        match tasks.submit("q", priority, "x".into(), attempts) {
            Outcome::Submitted { task } => task,
            other => panic!("{other:?}"),
        }
    }

    fn lease(tasks: &mut Tasks) -> Option<Box<Task>> {
        match tasks.lease("q", "w", 1000) {
            Outcome::Leased { task } => task,
            other => panic!("{other:?}"),
        }
    }

    fn fenced(current: u64) -> Outcome {
        Outcome::Rejected(Rejection::Fenced { current })
    }

    #[test]
    fn the_highest_priority_goes_first_then_the_oldest() {
        let mut tasks = Tasks::default();
        let ids = [(1, 0), (9, 1), (1, 2), (9, 3)].map(|(priority, _)| submit(&mut tasks, priority, 1));
        let order = std::iter::from_fn(|| lease(&mut tasks).map(|task| task.id)).collect::<Vec<_>>();
        assert_eq!(order, [ids[1], ids[3], ids[0], ids[2]]);
    }

    #[test]
    fn a_worker_whose_lease_ran_out_is_fenced() {
        let mut tasks = Tasks::default();
        let id = submit(&mut tasks, 1, 3);
        let first = lease(&mut tasks).unwrap();
        assert_eq!(tasks.expire(id, first.token), Outcome::Expired { state: Some(TaskState::Queued) });
        assert_eq!(tasks.complete(id, first.token, &Ok("late".into())), fenced(first.token));
        let second = lease(&mut tasks).unwrap();
        assert!(second.token > first.token);
        assert_eq!((second.attempt, second.id), (2, id));
        assert_eq!(tasks.complete(id, first.token, &Ok("late".into())), fenced(second.token));
        assert_eq!(tasks.expire(id, first.token), Outcome::Expired { state: None });
        let done = Outcome::Completed { state: TaskState::Completed };
        assert_eq!(tasks.complete(id, second.token, &Ok("now".into())), done);
        assert_eq!(tasks.get(id).unwrap().result, "now");
        tasks.check();
    }

    #[test]
    fn repeating_a_completion_answers_the_same() {
        let mut tasks = Tasks::default();
        let id = submit(&mut tasks, 1, 2);
        let token = lease(&mut tasks).unwrap().token;
        let again = Outcome::Completed { state: TaskState::Queued };
        assert_eq!(tasks.complete(id, token, &Err("no".into())), again);
        assert_eq!(tasks.complete(id, token, &Err("no".into())), again);
        assert_eq!(tasks.complete(id, token, &Ok("yes".into())), fenced(token));
        let token = lease(&mut tasks).unwrap().token;
        let done = Outcome::Completed { state: TaskState::Completed };
        assert_eq!(tasks.complete(id, token, &Ok("yes".into())), done);
        assert_eq!(tasks.complete(id, token, &Ok("yes".into())), done);
        assert_eq!(tasks.complete(id, token, &Err("no".into())), fenced(token));
    }

    #[test]
    fn the_last_attempt_fails_the_task() {
        let mut tasks = Tasks::default();
        let id = submit(&mut tasks, 1, 2);
        for expected in [TaskState::Queued, TaskState::Failed] {
            let token = lease(&mut tasks).unwrap().token;
            assert_eq!(tasks.expire(id, token), Outcome::Expired { state: Some(expected) });
        }
        assert_eq!(lease(&mut tasks), None);
        let task = tasks.get(id).unwrap();
        assert_eq!((task.error.as_str(), task.payload.len()), ("lease expired", 0));
    }

    #[test]
    fn ended_tasks_are_kept_up_to_a_limit() {
        let mut tasks = Tasks::default();
        for _ in 0..=ENDED_MAX {
            let id = submit(&mut tasks, 1, 1);
            let token = lease(&mut tasks).unwrap().token;
            tasks.complete(id, token, &Ok("r".into()));
        }
        assert_eq!(tasks.get(TaskId(1)), None);
        assert!(tasks.get(TaskId(2)).is_some());
        tasks.check();
    }

    #[test]
    fn a_queue_with_only_ended_tasks_makes_room_for_a_new_one() {
        let mut tasks = Tasks::default();
        for n in 0..QUEUES_MAX {
            tasks.submit(&format!("q{n}"), 1, Bytes::new(), 1);
        }
        let full = Outcome::Rejected(Rejection::Full { limit: "queues".into() });
        assert_eq!(tasks.submit("new", 1, Bytes::new(), 1), full);
        let Outcome::Leased { task: Some(task) } = tasks.lease("q5", "w", 1000) else { panic!("no task") };
        tasks.complete(task.id, task.token, &Ok(Bytes::new()));
        assert!(matches!(tasks.submit("new", 1, Bytes::new(), 1), Outcome::Submitted { .. }));
        tasks.check();
    }
}
