//! What goes into the log, and what applying it answers.
//!
//! Constructors check every limit, so that an entry in the log is always legal; applying checks
//! only what depends on the state.

use bytes::Bytes;
use proto::ids::{NameError, check_name};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest key in bytes.
pub const KEY_MAX: usize = 256;
/// Longest value, payload or result in bytes.
pub const VALUE_MAX: usize = 64 * 1024;
/// Longest error text of a failed attempt in bytes; longer ones are cut.
pub const ERROR_MAX: usize = 4 * 1024;
/// Longest request id in bytes.
pub const REQUEST_ID_MAX: usize = 128;
/// Highest priority.
pub const PRIORITY_MAX: u32 = 9;
/// Most attempts of a task.
pub const ATTEMPTS_MAX: u32 = 100;
/// Shortest and longest lease in milliseconds.
pub const TTL_MS: std::ops::RangeInclusive<u64> = 1_000..=600_000;
/// Attempts when the caller names none.
pub const ATTEMPTS_DEFAULT: u32 = 3;

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Makes a repeat harmless; empty means that the caller does not repeat.
    pub request_id: String,
    /// The change.
    pub op: Op,
}

/// A change of the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Sets or deletes (`value` is none) a key.
    Put {
        /// The key.
        key: String,
        /// The value, or none to delete.
        value: Option<Bytes>,
        /// Apply only at this revision; 0 is "absent", none is "always".
        expected_revision: Option<u64>,
    },
    /// Adds a task.
    Submit {
        /// The queue's name.
        queue: String,
        /// 0 (lowest) to 9.
        priority: u8,
        /// For the worker.
        payload: Bytes,
        /// Leases that may end without success before the task is failed.
        max_attempts: u32,
    },
    /// Hands out the next task of a queue.
    Lease {
        /// The queue's name.
        queue: String,
        /// Who asks.
        worker: String,
        /// How long the worker may take, in milliseconds.
        ttl_ms: u64,
    },
    /// Ends an attempt.
    Complete {
        /// The task.
        task: TaskId,
        /// The token of the lease under which the attempt ran.
        token: u64,
        /// The result, or why it failed.
        outcome: Result<Bytes, String>,
    },
    /// Ends a lease whose time is over; only the leader proposes it.
    Expire {
        /// The task.
        task: TaskId,
        /// The token of the lease that ran out: a later lease is left alone.
        token: u64,
    },
}

/// Number of a task, written as `t<number>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId(pub u64);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}

impl TaskId {
    /// Reads `t<number>`.
    pub fn parse(text: &str) -> Result<TaskId, Invalid> {
        let number = text.strip_prefix('t').and_then(|digits| digits.parse().ok());
        number
            .map(TaskId)
            .ok_or_else(|| Invalid(format!("task id {:?} is not of the form t<number>", cut(text, 64))))
    }
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskState {
    /// Waits for a worker.
    Queued,
    /// A worker has it.
    Leased,
    /// Done.
    Completed,
    /// Given up after its last attempt.
    Failed,
}

impl TaskState {
    /// Whether nothing changes it any more.
    pub fn terminal(self) -> bool {
        matches!(self, TaskState::Completed | TaskState::Failed)
    }

    /// The word in metrics.
    pub fn word(self) -> &'static str {
        match self {
            TaskState::Queued => "queued",
            TaskState::Leased => "leased",
            TaskState::Completed => "completed",
            TaskState::Failed => "failed",
        }
    }
}

/// A task as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its number.
    pub id: TaskId,
    /// Its queue.
    pub queue: String,
    /// 0 (lowest) to 9.
    pub priority: u8,
    /// For the worker; dropped when the task ends.
    pub payload: Bytes,
    /// Leases that may end without success.
    pub max_attempts: u32,
    /// Where it stands.
    pub state: TaskState,
    /// Leases given so far.
    pub attempt: u32,
    /// Token of the newest lease, 0 before the first.
    pub token: u64,
    /// Who has or had the newest lease.
    pub worker: String,
    /// Length of the newest lease in milliseconds.
    pub ttl_ms: u64,
    /// Whether the newest lease ended by the worker's own word (and not by time).
    pub released: bool,
    /// The result of a completed task.
    pub result: Bytes,
    /// Why the newest attempt failed.
    pub error: String,
}

/// What applying a command answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Entries that carry no command.
    Nothing,
    /// The key's new revision.
    Put {
        /// The index of the entry that changed the key.
        revision: u64,
    },
    /// The new task.
    Submitted {
        /// Its number.
        task: TaskId,
    },
    /// The leased task, or none when the queue is empty.
    Leased {
        /// A copy of the task.
        task: Option<Box<Task>>,
    },
    /// The attempt is ended; the task's state now.
    Completed {
        /// `Queued` when it will be tried again.
        state: TaskState,
    },
    /// Whether the lease was still there.
    Expired {
        /// The task's state now, or none when the lease was gone.
        state: Option<TaskState>,
    },
    /// Nothing was changed.
    Rejected(Rejection),
}

/// Why nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rejection {
    /// The key is at another revision.
    Revision {
        /// The key's revision, 0 when absent.
        current: u64,
    },
    /// No such task.
    NoTask,
    /// The lease is not in force any more.
    Fenced {
        /// The newest token.
        current: u64,
    },
    /// A limit of the state is reached.
    Full {
        /// Its name.
        limit: String,
    },
    /// The request id was used for another kind of call.
    Reused,
}

/// A request that is malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

impl From<NameError> for Invalid {
    fn from(error: NameError) -> Self {
        Invalid(error.to_string())
    }
}

impl Command {
    /// Sets or deletes a key.
    pub fn put(
        request_id: String,
        key: String,
        value: Option<Bytes>,
        expected_revision: Option<u64>,
    ) -> Result<Command, Invalid> {
        check_key(&key)?;
        check_bytes("value", value.as_ref().map_or(0, Bytes::len))?;
        Command::new(request_id, Op::Put { key, value, expected_revision })
    }

    /// Adds a task.
    pub fn submit(
        request_id: String,
        queue: String,
        priority: u32,
        payload: Bytes,
        max_attempts: u32,
    ) -> Result<Command, Invalid> {
        check_name(&queue)?;
        check_bytes("payload", payload.len())?;
        if priority > PRIORITY_MAX {
            return Err(Invalid(format!("priority is {priority}; at most {PRIORITY_MAX} is allowed")));
        }
        if max_attempts > ATTEMPTS_MAX {
            return Err(Invalid(format!(
                "max_attempts is {max_attempts}; at most {ATTEMPTS_MAX} is allowed"
            )));
        }
        let max_attempts = if max_attempts == 0 { ATTEMPTS_DEFAULT } else { max_attempts };
        Command::new(request_id, Op::Submit { queue, priority: priority as u8, payload, max_attempts })
    }

    /// Leases the next task of a queue.
    pub fn lease(request_id: String, queue: String, worker: String, ttl_ms: u64) -> Result<Command, Invalid> {
        check_name(&queue)?;
        check_name(&worker)?;
        if !TTL_MS.contains(&ttl_ms) {
            return Err(Invalid(format!(
                "ttl_ms is {ttl_ms}; {} to {} is allowed",
                TTL_MS.start(),
                TTL_MS.end()
            )));
        }
        Command::new(request_id, Op::Lease { queue, worker, ttl_ms })
    }

    /// Ends an attempt.
    pub fn complete(task: &str, token: u64, outcome: Result<Bytes, String>) -> Result<Command, Invalid> {
        let task = TaskId::parse(task)?;
        check_bytes("result", outcome.as_ref().map_or(0, Bytes::len))?;
        let outcome = outcome.map_err(|error| cut(&error, ERROR_MAX).to_owned());
        Command::new(String::new(), Op::Complete { task, token, outcome })
    }

    /// Ends a lease whose time is over.
    pub fn expire(task: TaskId, token: u64) -> Command {
        Command { request_id: String::new(), op: Op::Expire { task, token } }
    }

    fn new(request_id: String, op: Op) -> Result<Command, Invalid> {
        if request_id.len() > REQUEST_ID_MAX {
            return Err(Invalid(format!(
                "request_id has {} bytes; at most {REQUEST_ID_MAX} are allowed",
                request_id.len()
            )));
        }
        Ok(Command { request_id, op })
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.op {
            Op::Put { key, .. } => write!(f, "put {key}"),
            Op::Submit { queue, .. } => write!(f, "submit {queue}"),
            Op::Lease { queue, worker, .. } => write!(f, "lease {queue} to {worker}"),
            Op::Complete { task, token, .. } => write!(f, "complete {task} token {token}"),
            Op::Expire { task, token } => write!(f, "expire {task} token {token}"),
        }
    }
}

/// Checks a key: 1 to 256 bytes.
pub fn check_key(key: &str) -> Result<(), Invalid> {
    if key.is_empty() || key.len() > KEY_MAX {
        return Err(Invalid(format!("key has {} bytes; 1 to {KEY_MAX} are allowed", key.len())));
    }
    Ok(())
}

fn check_bytes(what: &str, len: usize) -> Result<(), Invalid> {
    if len > VALUE_MAX {
        return Err(Invalid(format!("{what} has {len} bytes; at most {VALUE_MAX} are allowed")));
    }
    Ok(())
}

/// At most `max` bytes of a text, cut between characters.
fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_told_with_what_was_given() {
        let error = Command::put(String::new(), String::new(), None, None).unwrap_err();
        assert_eq!(error.to_string(), "key has 0 bytes; 1 to 256 are allowed");
        let big = Bytes::from(vec![0; VALUE_MAX + 1]);
        assert!(Command::put(String::new(), "k".into(), Some(big.clone()), None).is_err());
        assert!(Command::submit(String::new(), "q".into(), 10, Bytes::new(), 1).is_err());
        assert!(Command::submit(String::new(), "q q".into(), 1, Bytes::new(), 1).is_err());
        assert!(Command::lease(String::new(), "q".into(), "w".into(), 999).is_err());
        assert!(Command::complete("t1", 1, Ok(big)).is_err());
        assert!(Command::complete("x1", 1, Ok(Bytes::new())).is_err());
    }

    #[test]
    fn a_long_error_is_cut_between_characters() {
        let text = "ä".repeat(ERROR_MAX);
        let command = Command::complete("t1", 1, Err(text)).unwrap();
        let Op::Complete { outcome: Err(error), .. } = command.op else { panic!("not a failure") };
        assert_eq!(error.len(), ERROR_MAX);
    }

    #[test]
    fn task_ids_read_back() {
        assert_eq!(TaskId::parse(&TaskId(17).to_string()), Ok(TaskId(17)));
        assert!(TaskId::parse("17").is_err());
    }
}
