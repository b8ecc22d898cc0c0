//! Our types as messages.

use crate::{
    core::command::{Task, TaskState},
    raft::node::Status,
};
use proto::coordinator as wire;

/// A task as a message.
pub(crate) fn task(task: &Task) -> wire::Task {
    wire::Task {
        id: task.id.to_string(),
        queue: task.queue.clone(),
        priority: u32::from(task.priority),
        payload: task.payload.clone(),
        state: task_state(task.state).into(),
        attempt: task.attempt,
        fencing_token: task.token,
        worker: task.worker.clone(),
        result: task.result.clone(),
        error: task.error.clone(),
    }
}

/// A task's state as a message.
pub(crate) fn task_state(state: TaskState) -> wire::TaskState {
    match state {
        TaskState::Queued => wire::TaskState::Queued,
        TaskState::Leased => wire::TaskState::Leased,
        TaskState::Completed => wire::TaskState::Completed,
        TaskState::Failed => wire::TaskState::Failed,
    }
}

/// The group as a message.
pub(crate) fn status(status: Status, instance: &str) -> wire::StatusResponse {
    let (leader_raft_id, leader_instance, leader_addr) = status.leader.unwrap_or_default();
    let voter = |voter: crate::raft::node::Voter| wire::Voter {
        raft_id: voter.raft_id,
        instance: voter.name,
        addr: voter.addr,
        matched_index: voter.matched,
    };
    wire::StatusResponse {
        raft_id: status.raft_id,
        instance: instance.to_owned(),
        role: status.role.word().into(),
        term: status.term,
        leader_raft_id,
        leader_instance,
        leader_addr,
        last_log_index: status.last_log_index,
        committed_index: status.committed,
        applied_index: status.applied,
        voters: status.voters.into_iter().map(voter).collect(),
        failure_tolerance: status.failure_tolerance,
    }
}
