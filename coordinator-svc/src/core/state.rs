//! The replicated state: keys, tasks, and the request ids already answered.
//!
//! `apply` is a function of state, index and command alone: the same log gives the same state and
//! the same snapshot bytes on every node.

use super::{
    command::{Command, Op, Outcome, Rejection},
    dedupe::{Answer, Dedupe},
    kv::Kv,
    tasks::Tasks,
};
use serde::{Deserialize, Serialize};

/// Everything that the log builds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The keys.
    pub kv: Kv,
    /// The tasks.
    pub tasks: Tasks,
    dedupe: Dedupe,
}

impl State {
    /// Applies the command of the entry at `index`.
    pub fn apply(&mut self, index: u64, command: &Command) -> Outcome {
        if let Some(answer) = self.dedupe.get(&command.request_id) {
            return self.repeat(answer, &command.op);
        }
        let outcome = self.change(index, &command.op);
        self.dedupe.keep(&command.request_id, &outcome);
        outcome
    }

    /// Whether a request id was answered already.
    pub fn answered(&self, request_id: &str) -> bool {
        self.dedupe.get(request_id).is_some()
    }

    fn change(&mut self, index: u64, op: &Op) -> Outcome {
        match op {
            Op::Put { key, value, expected_revision } => {
                self.kv.put(index, key, value.clone(), *expected_revision)
            }
            Op::Submit { queue, priority, payload, max_attempts } => {
                self.tasks.submit(queue, *priority, payload.clone(), *max_attempts)
            }
            Op::Lease { queue, worker, ttl_ms } => self.tasks.lease(queue, worker, *ttl_ms),
            Op::Complete { task, token, outcome } => self.tasks.complete(*task, *token, outcome),
            Op::Expire { task, token } => self.tasks.expire(*task, *token),
        }
    }

    /// The answer to a repeated request, rebuilt from what is kept.
    fn repeat(&self, answer: Answer, op: &Op) -> Outcome {
        match (answer, op) {
            (Answer::Put { revision }, Op::Put { .. }) => Outcome::Put { revision },
            (Answer::Submitted { task }, Op::Submit { .. }) => Outcome::Submitted { task },
            (Answer::Leased { task, token }, Op::Lease { .. }) => match self.tasks.leased(task, token) {
                Some(task) => Outcome::Leased { task: Some(Box::new(task.clone())) },
                None => {
                    let current = self.tasks.get(task).map_or(token, |task| task.token);
                    Outcome::Rejected(Rejection::Fenced { current })
                }
            },
            _ => Outcome::Rejected(Rejection::Reused),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{command::TaskId, snapshot};
    use bytes::Bytes;
    use proptest::{collection::vec, prelude::*};
    use std::collections::BTreeMap;

    fn put(id: &str, key: &str, value: &str) -> Command {
        Command::put(id.into(), key.into(), Some(Bytes::copy_from_slice(value.as_bytes())), None).unwrap()
    }

    #[test]
    fn a_repeated_request_changes_nothing_and_answers_the_same() {
        let mut state = State::default();
        assert_eq!(state.apply(1, &put("r", "k", "a")), Outcome::Put { revision: 1 });
        state.apply(2, &put("s", "k", "b"));
        assert_eq!(state.apply(3, &put("r", "k", "a")), Outcome::Put { revision: 1 });
        assert_eq!(state.kv.get("k").unwrap().value, "b");

        let submit = Command::submit("t".into(), "q".into(), 1, Bytes::new(), 1).unwrap();
        let first = state.apply(4, &submit);
        assert_eq!(state.apply(5, &submit), first);
        assert_eq!(state.tasks.depth("q"), 1);
    }

    #[test]
    fn a_repeated_lease_gives_the_same_assignment_while_it_lasts() {
        let mut state = State::default();
        state.apply(1, &Command::submit("s".into(), "q".into(), 1, "x".into(), 2).unwrap());
        state.apply(2, &Command::submit("s2".into(), "q".into(), 1, "y".into(), 2).unwrap());
        let lease = Command::lease("l".into(), "q".into(), "w".into(), 1000).unwrap();
        let first = state.apply(3, &lease);
        assert_eq!(state.apply(4, &lease), first);
        let Outcome::Leased { task: Some(task) } = first else { panic!("no task") };
        state.apply(5, &Command::expire(task.id, task.token));
        let fenced = Outcome::Rejected(Rejection::Fenced { current: task.token });
        assert_eq!(state.apply(6, &lease), fenced);
    }

    #[test]
    fn a_request_id_of_another_call_is_refused() {
        let mut state = State::default();
        state.apply(1, &put("r", "k", "a"));
        let submit = Command::submit("r".into(), "q".into(), 1, Bytes::new(), 1).unwrap();
        assert_eq!(state.apply(2, &submit), Outcome::Rejected(Rejection::Reused));
    }

    fn commands() -> impl Strategy<Value = Vec<Command>> {
        let name = || (0..3u8).prop_map(|n| format!("n{n}"));
        let id = || prop_oneof![Just(String::new()), (0..20u8).prop_map(|n| format!("r{n}"))];
        let task = || (0..8u64).prop_map(TaskId);
        let token = || 0..12u64;
        let value = || vec(any::<u8>(), 0..4).prop_map(Bytes::from);
        let op = prop_oneof![
            (name(), proptest::option::of(value()), proptest::option::of(0..9u64))
                .prop_map(|(key, value, expected_revision)| Op::Put { key, value, expected_revision }),
            (name(), 0..3u8, value(), 1..3u32).prop_map(|(queue, priority, payload, max_attempts)| {
                Op::Submit { queue, priority, payload, max_attempts }
            }),
            (name(), name()).prop_map(|(queue, worker)| Op::Lease { queue, worker, ttl_ms: 1000 }),
            (task(), token(), value(), any::<bool>()).prop_map(|(task, token, result, good)| {
                let outcome = if good { Ok(result) } else { Err("no".into()) };
                Op::Complete { task, token, outcome }
            }),
            (task(), token()).prop_map(|(task, token)| Op::Expire { task, token }),
        ];
        vec((id(), op).prop_map(|(request_id, op)| Command { request_id, op }), 0..120)
    }

    proptest! {
        #[test]
        fn the_same_log_gives_the_same_state_and_the_same_snapshot_bytes(commands in commands(), cut in 0..120usize) {
            let mut whole = State::default();
            let mut resumed = State::default();
            for (index, command) in commands.iter().enumerate() {
                if index == cut {
                    resumed = snapshot::decode(&snapshot::encode(&resumed).unwrap()).unwrap();
                }
                let index = index as u64 + 1;
                prop_assert_eq!(whole.apply(index, command), resumed.apply(index, command));
            }
            prop_assert_eq!(snapshot::encode(&whole).unwrap(), snapshot::encode(&resumed).unwrap());
            prop_assert_eq!(whole, resumed);
        }

        #[test]
        fn a_task_has_one_lease_at_a_time_and_tokens_grow(commands in commands()) {
            let mut state = State::default();
            let mut newest = 0;
            let mut active: BTreeMap<TaskId, u64> = BTreeMap::new();
            let mut seen = std::collections::BTreeSet::new();
            let mut ended = BTreeMap::new();
            for (index, command) in commands.iter().enumerate() {
                match state.apply(index as u64 + 1, command) {
                    Outcome::Leased { task: Some(task) } => {
                        let repeated = seen.contains(&task.token);
                        if !repeated {
                            prop_assert!(task.token > newest, "token {} after {newest}", task.token);
                            prop_assert!(!active.contains_key(&task.id), "{} leased twice", task.id);
                            newest = task.token;
                            seen.insert(task.token);
                        }
                        active.insert(task.id, task.token);
                    }
                    Outcome::Completed { state: now } => {
                        let Op::Complete { task, token, .. } = command.op else { unreachable!() };
                        active.remove(&task);
                        if now.terminal() {
                            prop_assert_eq!(*ended.entry(task).or_insert((token, now)), (token, now));
                        }
                    }
                    Outcome::Expired { state: Some(now) } => {
                        let Op::Expire { task, token } = command.op else { unreachable!() };
                        prop_assert_eq!(active.remove(&task), Some(token));
                        if now.terminal() {
                            prop_assert!(ended.insert(task, (token, now)).is_none());
                        }
                    }
                    _ => {}
                }
                state.tasks.check();
            }
        }
    }
}
