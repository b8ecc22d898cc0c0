//! `swarm status`

use super::Api;
use crate::{
    api::{Raft, Status, Tolerance},
    cli::OperatorArgs,
    error::{CliError, Failure},
    output::{Show, Table, age, count, print},
};

/// Prints the cluster at a glance; exit 10 when it is unhealthy.
pub async fn status(args: &OperatorArgs) -> Result<(), CliError> {
    let status: Status = Api::new(args).get("status").await?;
    print(args.output, &status);
    match status.health.as_str() {
        "unhealthy" => Err(CliError::told(Failure::Unhealthy)),
        _ => Ok(()),
    }
}

impl Show for Status {
    fn table(&self, wide: bool) -> String {
        let mut parts = vec![self.health_line()];
        parts.extend(self.reasons.iter().map(|reason| format!("  {reason}")));
        parts.push(tolerance(&self.failure_tolerance));
        parts.extend(self.raft.as_ref().map(raft));
        parts.push(format!("sessions   {} open", self.sessions));
        parts.push(String::new());
        parts.push(nodes(self, wide));
        if !self.backends.is_empty() {
            parts.push(String::new());
            parts.push(backends(self));
        }
        parts.join("\n")
    }
}

impl Status {
    fn health_line(&self) -> String {
        let (node, uptime) = (&self.node, age(self.uptime_ms));
        format!("health     {} (asked {node}, up {uptime}, swarm {})", self.health, self.version)
    }
}

fn tolerance(tolerance: &Tolerance) -> String {
    let Tolerance { calls, session_reads, session_writes, coordinator } = tolerance;
    format!(
        "survives   the loss of {} more: calls {calls}, session reads {session_reads}, \
         session writes {session_writes}, coordinator {coordinator}",
        count_nodes(*calls.min(session_writes).min(coordinator))
    )
}

fn count_nodes(n: u32) -> String {
    count(n as usize, "node")
}

fn raft(raft: &Raft) -> String {
    let leader = raft.leader.as_deref().unwrap_or("none");
    let Raft { term, committed_index, applied_index, voters, .. } = raft;
    format!(
        "leader     {leader}, term {term}, committed {committed_index}, applied {applied_index}, \
         voters {}",
        voters.join(" ")
    )
}

fn nodes(status: &Status, wide: bool) -> String {
    super::lists::member_table(&status.nodes, wide)
}

fn backends(status: &Status) -> String {
    let mut table = Table::new(["BACKEND", "STATE", "TOOLS", "CALLS", "ERRORS", "REASON"]);
    for backend in &status.backends {
        table.row([
            backend.name.clone(),
            backend.state.clone(),
            backend.tools.to_string(),
            backend.calls.to_string(),
            backend.errors.to_string(),
            backend.reason.clone(),
        ]);
    }
    table.render()
}
