//! What the newest request ids were answered, so that a repeat changes nothing.

use super::command::{Outcome, TaskId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// Request ids kept.
pub const IDS_MAX: usize = 10_000;

/// An answer without the bytes that the state still has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// A key was changed.
    Put {
        /// Its revision then.
        revision: u64,
    },
    /// A task was added.
    Submitted {
        /// The task.
        task: TaskId,
    },
    /// A task was leased.
    Leased {
        /// The task.
        task: TaskId,
        /// The lease's token.
        token: u64,
    },
}

/// The answers, oldest first out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dedupe {
    answers: BTreeMap<String, Answer>,
    order: VecDeque<String>,
}

impl Dedupe {
    /// What a request id was answered.
    pub fn get(&self, request_id: &str) -> Option<Answer> {
        self.answers.get(request_id).copied()
    }

    /// Keeps an answer. Only what changed the state is kept: a refusal or an empty lease may be
    /// asked again and may then succeed.
    pub fn keep(&mut self, request_id: &str, outcome: &Outcome) {
        let Some(answer) = answer(outcome) else { return };
        if request_id.is_empty() {
            return;
        }
        self.answers.insert(request_id.to_owned(), answer);
        self.order.push_back(request_id.to_owned());
        while self.order.len() > IDS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.answers.remove(&oldest);
            }
        }
    }
}

fn answer(outcome: &Outcome) -> Option<Answer> {
    match outcome {
        Outcome::Put { revision } => Some(Answer::Put { revision: *revision }),
        Outcome::Submitted { task } => Some(Answer::Submitted { task: *task }),
        Outcome::Leased { task: Some(task) } => Some(Answer::Leased { task: task.id, token: task.token }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_id_goes_first() {
        let mut dedupe = Dedupe::default();
        for n in 0..=IDS_MAX as u64 {
            dedupe.keep(&format!("r{n}"), &Outcome::Put { revision: n });
        }
        assert_eq!(dedupe.get("r0"), None);
        assert_eq!(dedupe.get("r1"), Some(Answer::Put { revision: 1 }));
        assert_eq!(dedupe.answers.len(), IDS_MAX);
    }

    #[test]
    fn what_changed_nothing_is_not_kept() {
        let mut dedupe = Dedupe::default();
        dedupe.keep("r", &Outcome::Leased { task: None });
        dedupe.keep("", &Outcome::Put { revision: 1 });
        assert!(dedupe.answers.is_empty());
    }
}
